"""The networks of open_clip in torch: read strictly, made ready for inference, and exported.

The one module that imports open_clip. A checkpoint is loaded whole or not at all, and nothing of
its description is fetched or run: the towers' descriptions and tokenizers are files that were
found before, see ``open_clip_files``.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers import export
from retrieval.towers.checkpoint import tensors
from retrieval.towers.clip_pixels import Preprocess
from retrieval.towers.clip_tokens import TOKENIZER, Settings, Tokens, missing, trimmed
from retrieval.towers.open_clip_files import Checkpoint

TEXTS = (
    "a dog",
    "a photo of two cats asleep on a red sofa",
    "",
    "雪山",
    "Ein Hund läuft über den Strand — 🐕!",
    "the quick brown fox jumps over the lazy dog " * 20,
    "<b>Fish &amp; chips</b> it's 3.50",
)
"""What an exported text tower is compared with torch on: short, long, empty, other scripts."""

TOKENIZER_OPTIONS = frozenset(("clean", "strip_sep_token"))


def build(checkpoint: Checkpoint) -> Any:
    """Makes the network with its weights: float32, on the processor, for inference.

    Raises:
        ModelError: If a library is missing, or weights and description do not belong together.
    """
    try:
        from open_clip.coca_model import CoCa
        from open_clip.factory import load_checkpoint
        from open_clip.model import CLIP, CustomTextCLIP
    except ImportError:
        raise missing() from None
    config = copy.deepcopy(checkpoint.config)
    text = config["text_cfg"]
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        assert checkpoint.text is not None
        _check_text(checkpoint.text)
        text |= {"hf_model_pretrained": False, "hf_model_name": str(checkpoint.text)}
    custom = config.pop("custom_text", False) or bool(text.get("hf_model_name"))
    kind = CLIP if not custom else CoCa if "multimodal_cfg" in config else CustomTextCLIP
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = kind(**config)
            if checkpoint.weights.suffix == ".safetensors":
                _check_positions(network, checkpoint)
            load_checkpoint(network, str(checkpoint.weights), strict=True, weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # torch, timm and safetensors raise what they like
        first = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{checkpoint.weights} does not belong to the towers that {checkpoint.source} "
            f"describes: {first}"
        ) from error
    return _fused(network.float().eval().requires_grad_(False))


def _check_text(folder: Path) -> None:
    """Refuses text towers whose code would have to be fetched."""
    from open_clip.hf_configs import arch_dict
    from transformers import AutoConfig

    try:
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
    except Exception as error:  # whatever transformers raises on a damaged or foreign file
        raise ModelError(f"{folder / 'config.json'} describes no text tower ({error})") from error
    if kind not in arch_dict:
        raise ModelError(f"open_clip knows no text towers of the kind {kind!r}")


def _check_positions(network: Any, checkpoint: Checkpoint) -> None:
    """Refuses tables of positions for another size, which open_clip would stretch silently."""
    stored = tensors(checkpoint.weights)
    for name, own in network.state_dict().items():
        there = stored.get(name, tuple(own.shape))
        if "positional_embedding" in name and there != tuple(own.shape):
            raise ModelError(
                f"{checkpoint.weights} is of another architecture: "
                f"{name} is {there}, not {tuple(own.shape)}"
            )


def _fused(network: Any) -> Any:
    """Joins parallel branches of MobileCLIP and its kin into the one that they amount to."""
    visual = network.visual
    branched = ("reparameterize", "switch_to_deploy", "fuse")
    if any(hasattr(one, name) for one in visual.modules() for name in branched):
        from timm.models import reparameterize_model

        network.visual = reparameterize_model(visual)
    return network


# ---- pictures ------------------------------------------------------------------------------------


def pictures(network: Any, how: Preprocess) -> Any:
    """Gives a module from pixels to vectors.

    It takes ``(n, height, width, 3)`` uint8 and gives ``(n, dim)`` float32, unit rows, whatever the
    precision of the weights between.
    """
    import torch
    from torch import nn

    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = network.visual
            self.register_buffer("mean", torch.tensor(how.mean).view(3, 1, 1), persistent=False)
            self.register_buffer("std", torch.tensor(how.std).view(3, 1, 1), persistent=False)

        def forward(self, image: Any) -> Any:
            dtype = next(self.visual.parameters()).dtype
            x = image.permute(0, 3, 1, 2).float() / 255
            x = ((x - self.mean) / self.std).to(dtype)
            made = self.visual(x)
            made = made[0] if isinstance(made, tuple) else made
            return nn.functional.normalize(made.float(), dim=-1)

    return Pictures().eval()


def export_pictures(network: Any, how: Preprocess, folder: Path) -> None:
    """Writes ``image.onnx``: input ``image``, output ``embedding``."""
    import torch

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, how.height, how.width, 3), np.uint8)
    examples = [{"image": torch.from_numpy(pixels[:count])} for count in (2, 3)]
    export.write_onnx(
        pictures(network, how),
        folder,
        name="image",
        examples=examples,
        axes={"image": {0: "n"}},
        halve_tables=False,
    )


# ---- texts ---------------------------------------------------------------------------------------


def texts(network: Any) -> Any:
    """Gives a module from tokens ``(n, length)`` int64 to ``(n, dim)`` float32, unit rows."""
    from torch import nn

    class Texts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: Any) -> Any:
            own = self.network
            whole = hasattr(own, "text") and not ends(own)
            made = own.text(ids) if whole else _shorter(own, ids)
            made = made[0] if isinstance(made, tuple) else made
            return nn.functional.normalize(made.float(), dim=-1)

    return Texts().eval()


def _shorter(network: Any, ids: Any) -> Any:
    """Does what ``encode_text`` does, for fewer tokens than the longest text has, too."""
    from open_clip.transformer import text_global_pool
    from torch import nn

    own = getattr(network, "text", network)
    length = ids.shape[1]
    x = own.token_embedding(ids) + own.positional_embedding[:length]
    mask = own.attn_mask
    x = own.transformer(x, attn_mask=None if mask is None else mask[:length, :length])
    x = own.ln_final(x)
    pool = getattr(own, "text_pool_type", None) or own.pool_type
    end = own.text_eos_id if hasattr(own, "text_eos_id") else own.eos_id
    x = text_global_pool(x, ids, pool, eos_token_id=end)
    projection = own.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def export_texts(network: Any, checkpoint: Checkpoint, folder: Path) -> None:
    """Writes ``text.onnx`` (input ``ids``, output ``embedding``) and what its tokens need.

    Raises:
        ModelError: If tokens or vectors are other ones than open_clip's.
    """
    import torch

    theirs = tokenizer(checkpoint)
    with torch.inference_mode():
        made = network.encode_text(theirs(list(TEXTS))).float()
        expected = torch.nn.functional.normalize(made, dim=-1).numpy()
    write_texts(texts(network), network, checkpoint, folder, theirs=theirs, expected=expected)


def write_texts(
    module: Any,
    network: Any,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    theirs: Any,
    expected: NDArray[np.float32],
) -> None:
    """Exports a module from tokens to vectors, and compares what it makes of ``TEXTS``.

    Args:
        module: See ``texts``.
        network: That it is made of.
        checkpoint: Of the model.
        folder: Where the files go.
        theirs: open_clip's tokenizer, as long as the module takes texts.
        expected: ``(len(TEXTS), dim)`` float32, unit rows.

    Raises:
        ModelError: If tokens or vectors are other ones.
    """
    import torch

    ids = theirs(list(TEXTS))
    _settings(network, checkpoint, theirs, folder).write(folder)
    ours = Tokens(folder)
    if not np.array_equal(ours(TEXTS), ids.numpy()):
        raise ModelError(f"the tokenizer of {checkpoint.source} is of a kind not known here")
    if hasattr(getattr(network, "text", None), "config"):
        network.text.transformer.set_attn_implementation("eager")  # which the tracer understands
    examples = [
        {"ids": torch.from_numpy(trimmed(ids.numpy()[some], ours.settings))}
        for some in (slice(0, 2), slice(0, 1), slice(2, None))
    ]
    axes = {0: "n", 1: "length"} if ours.settings.trim else {0: "n"}
    export.write_onnx(module, folder, name="text", examples=examples, axes={"ids": axes})
    session = export.open_onnx(folder, "text")
    for row, vector in zip(ours(TEXTS), expected, strict=True):
        short = trimmed(row[None], ours.settings)
        cosine = float(export.run_onnx(session, {"ids": short})[0] @ vector)
        if not cosine >= export.MIN_COSINE:
            raise ModelError(
                f"the exported text tower of {checkpoint.source} gives other vectors than "
                f"open_clip (cosine {cosine:.4f}): this model cannot be used"
            )


def tokenizer(checkpoint: Checkpoint, *, without: int = 0) -> Any:
    """Gives open_clip's own tokenizer for a model.

    Args:
        checkpoint: Of the model.
        without: Tokens by which texts must be shorter than the longest that the tower reads.

    Raises:
        ModelError: If it is damaged, or of a kind not known here.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = checkpoint.config["text_cfg"]
    options = dict(text.get("tokenizer_kwargs") or {})
    if unknown := options.keys() - TOKENIZER_OPTIONS:
        raise ModelError(f"the tokenizer of {checkpoint.source} wants {min(unknown)}: not known")
    length = int(text.get("context_length", 77)) - without
    if checkpoint.tokenizer is None:
        return SimpleTokenizer(context_length=length, **options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return HFTokenizer(
                str(checkpoint.tokenizer),
                context_length=length,
                tokenizer_mode=text.get("tokenizer_mode"),
                trust_remote_code=False,
                **options,
            )
    except Exception as error:  # whatever transformers raises on a damaged or foreign file
        first = " ".join(str(error).split())[:300]
        raise ModelError(f"the tokenizer in {checkpoint.tokenizer} is damaged: {first}") from error


def _settings(network: Any, checkpoint: Checkpoint, theirs: Any, folder: Path) -> Settings:
    """Tells how tokens are made, and writes the tokenizer's file beside."""
    text = checkpoint.config["text_cfg"]
    clean = (text.get("tokenizer_kwargs") or {}).get("clean")
    length = int(theirs.context_length)
    if checkpoint.tokenizer is None:
        return Settings(length, clean or "lower", "clip", trim=ends(network))
    made = theirs.tokenizer
    made.backend_tokenizer.save(str(folder / TOKENIZER))  # with the padding of its last call
    clips = text.get("tokenizer_mode") == "clips"
    if not hasattr(getattr(network, "text", None), "config"):
        trim = ends(network)
    else:  # a tower of transformers looks at no token that is its padding
        same = made.pad_token_id == network.text.config.pad_token_id
        trim = "pad" if same and made.padding_side == "right" and not clips else ""
    return Settings(
        length,
        clean or "whitespace",
        "clips" if clips else "file",
        trim=trim,
        pad=made.pad_token_id or 0,
        begin=made.bos_token_id or 0,
        end=made.eos_token_id or 0,
        head=made.cls_token_id or 0,
        blank=made.sep_token_id if theirs.strip_sep_token else None,
    )


def ends(network: Any) -> str:
    """Tells whether no token looks at those behind it, and a text's vector is that of its end."""
    text = getattr(network, "text", network)
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", ""))
    whole = getattr(text, "cls_emb", None) is not None or getattr(text, "use_pad_mask", False)
    causal = getattr(text, "attn_mask", None) is not None
    return "end" if causal and pool == "argmax" and not whole else ""
