"""Makes small checkpoints of open_clip with random weights, in the format of published ones."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SIGLIP_LIKE = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
CLIP_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}

CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": (
        {
            "embed_dim": 32,
            "vision_cfg": {
                "image_size": 32,
                "layers": 2,
                "width": 64,
                "patch_size": 8,
                "head_width": 32,
            },
            "text_cfg": CLIP_TEXT,
        },
        {},
    ),
    "resnet": (
        {
            "embed_dim": 64,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
            "text_cfg": CLIP_TEXT,
        },
        {"interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [1.0, 0.5, 0.25]},
    ),
    "convnext": (
        {
            "embed_dim": 32,
            "vision_cfg": {
                "image_size": 64,
                "timm_model_name": "test_convnext",
                "timm_pool": "",
                "timm_proj": "linear",
            },
            "text_cfg": CLIP_TEXT,
        },
        {"resize_mode": "longest", "fill_color": 200},
    ),
    "siglip": (
        {
            "embed_dim": 64,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 160,
                "timm_model_name": "test_vit",
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                "context_length": 16,
                "vocab_size": 2000,
                "hf_tokenizer_name": "made/here",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 32,
                "heads": 2,
                "layers": 2,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
            },
        },
        SIGLIP_LIKE,
    ),
    "mobileclip": (
        {
            "embed_dim": 32,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 64,
                "timm_model_name": "fastvit_t8",
                "timm_pool": "avg",
                "timm_proj": None,
            },
            "text_cfg": {**CLIP_TEXT, "no_causal_mask": True},
        },
        {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"},
    ),
    "custom": (  # as EVA02-CLIP and MobileCLIP-B have it: a tower of its own, and causal
        {
            "embed_dim": 32,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 32,
                "layers": 1,
                "width": 32,
                "patch_size": 16,
                "head_width": 32,
            },
            "text_cfg": CLIP_TEXT,
        },
        {},
    ),
    "multilingual": (
        {
            "embed_dim": 32,
            "vision_cfg": {
                "image_size": 32,
                "layers": 1,
                "width": 32,
                "patch_size": 16,
                "head_width": 32,
            },
            "text_cfg": {
                "hf_model_name": ".",
                "hf_tokenizer_name": "made/here",
                "hf_pooler_type": "mean_pooler",
            },
        },
        {},
    ),
}
"""By family: what open_clip calls ``model_cfg`` and ``preprocess_cfg``."""

WORDS = "a photo of two cats dogs on the red sofa beach asleep fish and chips läuft 雪山 狗".split()


def make(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Writes a checkpoint of a family into a folder of its name."""
    config, preprocess = CONFIGS[family]
    folder = folder / family
    folder.mkdir(parents=True)
    told = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(told), "utf-8")
    (folder / "README.md").write_text("---\nlicense: mit\ntags:\n- clip\n---\n# A model\n", "utf-8")
    if "hf_tokenizer_name" in config["text_cfg"]:
        write_tokenizer(folder, config["text_cfg"])
    if "hf_model_name" in config["text_cfg"]:
        roberta = {
            "model_type": "xlm-roberta",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "vocab_size": 2000,
            "max_position_embeddings": 100,
            "pad_token_id": 1,
            "type_vocab_size": 1,
        }
        (folder / "config.json").write_text(json.dumps(roberta), "utf-8")
    torch.manual_seed(seed)
    network = reference(folder, random=True)[0]
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):  # else every branch would be alike
            buffer.uniform_(0.5, 1.5)
    weights = {name: one.contiguous().clone() for name, one in network.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def write_tokenizer(folder: Path, text: dict[str, Any]) -> None:
    """Writes a tokenizer of pieces of bytes, with marks as SigLIP or RoBERTa have them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS * 3, trainer)
    roberta = "hf_model_name" in text
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if roberta else "$A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )
    made.save_pretrained(folder)


def reference(folder: Path, *, random: bool = False) -> tuple[Any, Callable[..., Any], Any]:
    """Gives open_clip's own network, transform of pictures and tokenizer for a folder."""
    import os

    import open_clip

    before = Path.cwd()
    os.chdir(folder)  # where a description in the folder itself is looked for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network, _, transform = open_clip.create_model_and_transforms(
                f"local-dir:{folder}", load_weights=not random, pretrained_text=False
            )
            return network.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")
    finally:
        os.chdir(before)
