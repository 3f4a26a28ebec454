"""Small models with random weights, saved by their own libraries as published ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = (
    "a dog barks on the beach",
    "rain on a roof and thunder",
    "an old man plays the accordion while children dance",
    "query: passage: snow",
)
DIM = 16


def _quiet() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def roberta_tokenizer(*, max_tokens: int = 48) -> Any:
    """A byte-level BPE as CLAP has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizer

    raw: Any = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(WORDS, trainer)
    model = json.loads(raw.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=max_tokens)


def bert_tokenizer(*, max_tokens: int = 32) -> Any:
    """Word pieces: some words, and every letter."""
    from transformers import BertTokenizer

    letters = sorted({letter for text in WORDS for letter in text if letter.isalpha()} | set(":-."))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "rain", "beach", "the", "雪"]
    pieces += letters + [f"##{letter}" for letter in letters]
    return BertTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, model_max_length=max_tokens
    )


def clap(folder: Path, *, fused: bool = False, seed: int = 0) -> Any:
    """Saves a CLAP checkpoint of 150,000 weights and gives the model."""
    import torch
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapTextConfig,
    )

    _quiet()
    torch.manual_seed(seed)
    tokenizer = roberta_tokenizer()
    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=50,
    )
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        hidden_size=64,
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 4],
        num_classes=5,
        enable_fusion=fused,
    )
    config = ClapConfig(
        text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=DIM
    )
    model: Any = ClapModel(config)
    model.eval()
    _spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    truncation = "fusion" if fused else "rand_trunc"
    ClapFeatureExtractor(truncation=truncation).save_pretrained(folder)
    return model


def sentences(
    folder: Path,
    *,
    pooling: str = "mean",
    include_prompt: bool = True,
    dense: int | None = None,
    prompts: dict[str, str] | None = None,
    default: str | None = None,
    truncate_dim: int | None = None,
    seed: int = 0,
) -> Any:
    """Saves a sentence-transformers model over a small BERT, and gives it as it is loaded."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
    from transformers import BertConfig, BertModel

    _quiet()
    torch.manual_seed(seed)
    tokenizer = bert_tokenizer()
    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=32,
        )
    )
    _spread(bert)
    raw = folder.with_name(f"{folder.name}-bert")
    bert.save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    modules: list[Any] = [
        Transformer(str(raw)),
        Pooling(32, pooling, include_prompt=include_prompt),
    ]
    if dense:
        modules.append(Dense(32, dense))
    model = SentenceTransformer(
        modules=[*modules, Normalize()],
        device="cpu",
        prompts=prompts,
        default_prompt_name=default,
        truncate_dim=truncate_dim,
    )
    model.save_pretrained(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def pictures(folder: Path, *, seed: int = 0) -> Any:
    """Saves a sentence-transformers model over a small CLIP: pictures and texts in one space."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTextConfig,
        CLIPVisionConfig,
    )

    _quiet()
    torch.manual_seed(seed)
    tokenizer = roberta_tokenizer(max_tokens=20)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=20,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=DIM
    )
    model: Any = CLIPModel(config)
    model.eval()
    _spread(model)
    raw = folder.with_name(f"{folder.name}-clip")
    model.save_pretrained(raw)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    kind: Any = CLIPProcessor
    kind(processor, tokenizer).save_pretrained(raw)
    whole = SentenceTransformer(modules=[Transformer(str(raw))], device="cpu")
    whole.save_pretrained(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _spread(model: Any) -> None:
    """Makes weights large enough that other inputs give other vectors."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3 if "embed" in name else 0.15)
