"""Finds the files of a model of open_clip, and tells from them what it is; imports no library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError, ModelMissingError
from retrieval.towers import clip_pixels
from retrieval.towers.checkpoint import (
    digest,
    licence,
    pickles_allowed,
    read_object,
    refused,
    tensors,
)
from retrieval.towers.clip_pixels import Preprocess
from retrieval.towers.hub import PLAIN_NAME, cached, missing
from retrieval.towers.open_clip_tables import architecture, pretrained, tag_of

CONFIG = "open_clip_config.json"
SAFE = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
PICKLES = ("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "pytorch_model.bin")
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
LAYOUT = "1"  # of towers and preprocessing here; another makes other spaces


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model whose files are all there.

    Attributes:
        source: As it was asked for.
        config: Of the towers, what open_clip calls ``model_cfg``.
        preprocess: Of pictures.
        weights: Safetensors, or a pickle if those are allowed.
        tokenizer: Folder of the tokenizer's files; ``None`` for CLIP's own.
        text: Folder with the ``config.json`` of a text tower of transformers.
        licence: As its card says.
    """

    source: str
    config: dict[str, Any]
    preprocess: Preprocess
    weights: Path
    tokenizer: Path | None
    text: Path | None
    licence: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a source needs of the hub: the name of a repository, and files in order of preference.

    Attributes:
        repository: ``ORG/NAME``, or a name alone.
        files: Of these the first that there is, if ``one``; otherwise all that there are.
        one: Whether one is enough and one is needed.
    """

    repository: str
    files: tuple[str, ...]
    one: bool = True


def wanted(source: str) -> tuple[Wanted, ...]:
    """Lists what a source needs of the hub, as far as it can be told before all of it is there.

    Raises:
        ModelError: If the source means nothing.
    """
    kind, name = _parsed(source)
    if kind == "local-dir":
        found: list[Wanted] = []
        config = read_object(_folder(name) / CONFIG)
    elif kind == "hf-hub":
        found = [Wanted(name, (CONFIG,)), Wanted(name, (*SAFE, *_allowed(PICKLES)))]
        found.append(Wanted(name, (*TOKENIZERS, "README.md"), one=False))
        path = cached(name, CONFIG)
        config = read_object(path) if path else {}
    else:
        arch, tag = name.split("/", 1)
        config = {"model_cfg": architecture(arch)}
        found = [] if _is_path(tag) else [Wanted(*_weights_of(arch, tag))]
    text = _text_config(config.get("model_cfg", {}))
    if text.get("hf_tokenizer_name") and kind is None:
        found.append(Wanted(str(text["hf_tokenizer_name"]), TOKENIZERS, one=False))
    if text.get("hf_model_name") and not (kind == "local-dir" and _own_text(_folder(name), text)):
        found.append(Wanted(str(text["hf_model_name"]), ("config.json",)))
    return tuple(found)


def find(source: str) -> Checkpoint:
    """Finds all files of a model, and checks what can be checked without reading the weights.

    Raises:
        ModelMissingError: If some are not on this machine.
        ModelError: If the source means nothing, or the files make no sense.
    """
    kind, name = _parsed(source)
    if kind is None:
        return _by_architecture(source, *name.split("/", 1))
    folder = _folder(name) if kind == "local-dir" else None
    path = folder / CONFIG if folder else cached(name, CONFIG)
    if path is None or not path.is_file():
        raise _absent(source, f"no {CONFIG}" if folder else "")
    told = read_object(path)
    config, preprocess = told.get("model_cfg"), told.get("preprocess_cfg")
    if not isinstance(config, dict) or not isinstance(preprocess, dict):
        raise ModelError(f"{path} lacks model_cfg or preprocess_cfg: it is no model of open_clip")
    if folder is None:
        weights = cached(name, *SAFE, *_allowed(PICKLES))
        pickled = cached(name, *PICKLES)
    else:
        weights, pickled = _weights_in(folder)
    if weights is None and pickled is not None:
        raise refused(pickled)
    if weights is None:
        raise _absent(source, "no weights, as open_clip_model.safetensors" if folder else "")
    card = folder / "README.md" if folder else cached(name, "README.md")
    return _checked(source, config, preprocess, weights, folder or path.parent, card)


def _by_architecture(source: str, arch: str, tag: str) -> Checkpoint:
    config = architecture(arch)
    if not _is_path(tag):
        repository, files, _ = _weights_of(arch, tag)
        weights = cached(repository, *files)
        if weights is None:
            pickled = cached(repository, *PICKLES)
            raise refused(pickled) if pickled else _absent(source)
        row = pretrained(arch)[tag_of(tag)]
        config["quick_gelu"] = bool(row.get("quick_gelu", False))  # what it was trained with
        return _checked(source, config, row, weights, None, cached(repository, "README.md"))
    weights = Path(tag).expanduser()
    if not weights.is_file():
        raise ModelError(f"there is no file {tag}: give weights that open_clip names, or a file")
    rows = list(pretrained(arch).values())
    size = _size(config)
    hows = {clip_pixels.read(row, size) for row in rows}
    if hows != {clip_pixels.read({}, size)}:
        raise ModelError(
            f"how pictures are prepared for {arch} depends on its weights, which {weights.name} "
            f"does not tell: put it into a folder with its {CONFIG}, and use local-dir:FOLDER"
        )
    if weights.suffix != ".safetensors" and not _allowed((tag,)):
        raise refused(weights)
    return _checked(source, config, {}, weights, None, None)


def _checked(
    source: str,
    config: dict[str, Any],
    preprocess: Mapping[str, Any],
    weights: Path,
    folder: Path | None,
    card: Path | None,
) -> Checkpoint:
    """Finds the tokenizer and the text tower's description, and looks at the weights' ends."""
    text, vision = _text_config(config), config.get("vision_cfg")
    if not isinstance(vision, dict) or not text or not isinstance(config.get("embed_dim"), int):
        raise ModelError(f"{source}: its {CONFIG} describes no towers for pictures and texts")
    trunk = vision.get("timm_model_name")
    if trunk is not None and not (isinstance(trunk, str) and PLAIN_NAME.fullmatch(trunk)):
        raise ModelError(f"{source}: its {CONFIG} names a picture tower elsewhere, {trunk!r}")
    tokenizer = described = None
    if text.get("hf_tokenizer_name"):
        tokenizer = folder if folder and _tokenizer_files(folder) else None
        if tokenizer is None and (folder is None or "hf-hub:" in source[:7]):
            found = cached(str(text["hf_tokenizer_name"]), *TOKENIZERS)
            tokenizer = found.parent if found else None
        if tokenizer is None:
            raise _absent(source, "no tokenizer.json" if source.startswith("local-dir:") else "")
    if text.get("hf_model_name"):
        described = folder and _own_text(folder, text)
        if described is None:
            found = cached(str(text["hf_model_name"]), "config.json")
            if found is None:
                raise _absent(source)
            described = found.parent
    if weights.suffix == ".safetensors":
        tensors(weights)
    how = clip_pixels.read(preprocess, _size(config))
    return Checkpoint(source, config, how, weights, tokenizer, described, licence(card))


def _parsed(source: str) -> tuple[str | None, str]:
    kind, colon, name = source.partition(":")
    if colon and kind in ("hf-hub", "local-dir") and name:
        return kind, name
    if "/" not in source or not PLAIN_NAME.fullmatch(source.split("/")[0]):
        raise ModelError(
            f"{source!r} names no model of open_clip: "
            "use ARCH/PRETRAINED, hf-hub:ORG/NAME or local-dir:FOLDER"
        )
    return None, source


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ModelMissingError(f"there is no folder {name}")
    return folder.resolve()


def _is_path(tag: str) -> bool:
    return "/" in tag or Path(tag).suffix in (".safetensors", ".pt", ".pth", ".bin", ".npz", ".npy")


def _text_config(config: Any) -> dict[str, Any]:
    text = config.get("text_cfg") if isinstance(config, dict) else None
    return text if isinstance(text, dict) else {}


def _size(config: Mapping[str, Any]) -> Any:
    vision = config.get("vision_cfg")
    return vision.get("image_size", 224) if isinstance(vision, dict) else 224


def _own_text(folder: Path, text: Mapping[str, Any]) -> Path | None:
    """Finds the description of a text tower inside a model's own folder, and nowhere else."""
    own = (folder / str(text["hf_model_name"])).resolve()
    inside = own == folder.resolve() or folder.resolve() in own.parents
    return own if inside and (own / "config.json").is_file() else None


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZERS if (folder / name).is_file()]


def _weights_in(folder: Path) -> tuple[Path | None, Path | None]:
    """Finds weights as open_clip does, and a pickle; the former may be one if that is allowed."""
    pickled = [folder / name for name in PICKLES if (folder / name).is_file()]
    pickled += sorted((*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
    safe = [folder / name for name in SAFE if (folder / name).is_file()]
    safe += sorted(folder.glob("*.safetensors"))
    found = [*safe, *_allowed(pickled)]
    return (found[0] if found else None), (pickled[0] if pickled else None)


def _allowed(pickles: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(pickles) if pickles_allowed() else ()


def _absent(source: str, why: str = "") -> ModelMissingError:
    if why:
        return ModelMissingError(f"{source} is not complete: {why}")
    return missing(source)


def _weights_of(arch: str, tag: str) -> tuple[str, tuple[str, ...], bool]:
    """Gives the repository and the files of weights that open_clip's table names."""
    rows = pretrained(arch)
    row = rows.get(tag_of(tag))
    if row is None:
        there = ", ".join(rows) or "none"
        raise ModelError(f"open_clip has no weights {tag!r} for {arch}; there are: {there}")
    repository, _, file = str(row.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise ModelError(f"{arch}/{tag} is published as a pickle alone: take other weights")
    own = (f"{Path(file).stem}.safetensors",) if file else SAFE
    return repository, (*own, *_allowed((file,) if file else PICKLES)), True


# ---- identity ------------------------------------------------------------------------------------


def space(checkpoint: Checkpoint) -> str:
    """Gives the identity of a model's vectors: ``open_clip-ARCH-`` and twelve hexadecimal digits.

    It comes from the content of the weights, the towers' description, the preprocessing and the
    tokenizer, and not from where they lie.
    """
    files = [checkpoint.weights]
    if checkpoint.tokenizer:
        files += _tokenizer_files(checkpoint.tokenizer)
    if checkpoint.text:
        files.append(checkpoint.text / "config.json")
    told = [LAYOUT, repr(checkpoint.preprocess), json.dumps(checkpoint.config, sort_keys=True)]
    told += [digest(path) for path in files]
    identity = hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
    return f"open_clip-{label(checkpoint.config)}-{identity}"


def label(config: Mapping[str, Any]) -> str:
    """Names the picture tower in a few letters: ``fastvit_mci1``, ``ViT-12x768-32-256``."""
    vision = config["vision_cfg"]
    size = _size(config)
    side = size if isinstance(size, int) else "x".join(map(str, size))
    if vision.get("timm_model_name"):
        return str(vision["timm_model_name"])
    layers, width = vision.get("layers", 12), vision.get("width", 768)
    if isinstance(layers, list):
        return f"RN{'-'.join(map(str, layers))}x{width}-{side}"
    return f"ViT-{layers}x{width}-{vision.get('patch_size', 16)}-{side}"
