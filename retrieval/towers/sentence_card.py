"""What the files of a sentence-transformers model say, read without the library.

A model is a row of modules, named by the class that each is of. A class outside of the library
would be code of the model's own, and even inside of it only those are taken that read safetensors
and plain settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError
from retrieval.towers import checkpoint
from retrieval.types import Modality

MODULES = frozenset(
    "Transformer CLIPModel Pooling Dense Normalize LayerNorm Dropout WeightedLayerPooling".split()
)
FIRST = ("Transformer", "CLIPModel")
WEIGHTED = ("Transformer", "CLIPModel", "Dense", "LayerNorm", "WeightedLayerPooling")
_CLASS = re.compile(r"sentence_transformers(?:\.[a-z_]\w*)*\.([A-Za-z]\w*)")
_METHOD = re.compile(r"forward|get_(?:text|image)_features")
# further files that a first module may be set up from: the library reads the first that is there
_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_PASSAGES = ("document", "passage", "corpus")
MAX_DIM = 65_536


@dataclass(frozen=True, slots=True)
class Card:
    """A model as its files describe it.

    Attributes:
        folder: That holds them.
        dim: Length of a vector.
        modalities: What it embeds: texts, and pictures if it has a way for them.
        query: Put before a text that asks.
        passage: Put before a text that is found.
        weights: The files that hold weights.
        settings: The other files that bear on the vectors.
        first: The folder of the first module, the transformer.
        pooled: Whether the transformer's own pooling is used; else its weights count for nothing.
        prompt_counts: Whether the tokens of a prompt are in the mean; they are left out of it else.
        side_px: Shorter side that a picture needs.
    """

    folder: Path
    dim: int
    modalities: tuple[Modality, ...]
    query: str
    passage: str
    weights: tuple[Path, ...]
    settings: tuple[Path, ...]
    first: Path
    pooled: bool
    prompt_counts: bool
    side_px: int


def read(folder: Path) -> Card:
    """Reads a model's files.

    Raises:
        ModelError: If one is missing or damaged, names code of the model's own, or needs what
            anyseek does not run.
    """
    modules = _modules(folder)
    kind, first = modules[0]
    if (first / "adapter_config.json").is_file():
        raise ModelError(f"{folder} is an adapter to another model: merge the two and save the sum")
    settings = _first_settings(first)
    taken = _taken(settings, kind, first)
    config = checkpoint.read_object(first / "config.json")
    told = checkpoint.read_object(path) if (path := _told(folder)).is_file() else {}
    query, passage = _prompts(told, path)
    weights = [file for kind, at in modules if kind in WEIGHTED for file in checkpoint.weights(at)]
    places = {folder, *(at for _, at in modules)}
    plain = [file for at in places for file in at.glob("*.json") if not _beside(file)]
    return Card(
        folder=folder,
        dim=_dim(modules, config, told),
        modalities=taken,
        query=query,
        passage=passage,
        weights=tuple(weights),
        settings=tuple(sorted([*plain, *(at for p in places for at in p.glob("*.txt"))])),
        first=first,
        pooled=kind == "CLIPModel" or settings.get("module_output_name") == "sentence_embedding",
        prompt_counts=all(
            checkpoint.read_object(at / "config.json").get("include_prompt", True)
            for kind, at in modules
            if kind == "Pooling"
        ),
        side_px=_side_px(first) if Modality.IMAGE in taken else 0,
    )


def _side_px(first: Path) -> int:
    """Gives the shorter side that the picture processor resizes to; it may crop afterwards."""
    path = first / "preprocessor_config.json"
    if path.is_file():
        table: Any = checkpoint.read_object(path)
    else:  # newer models keep it with the processor
        path = first / "processor_config.json"
        table = checkpoint.read_object(path).get("image_processor")
    size = table.get("size") if isinstance(table, dict) else None
    sides = (
        [size] if isinstance(size, int) else list(size.values()) if isinstance(size, dict) else []
    )
    if not sides or not all(isinstance(side, int) and 0 < side <= 8192 for side in sides):
        raise ModelError(f"{path} does not say how large pictures are to be")
    return int(max(sides))


def _told(folder: Path) -> Path:
    return folder / "config_sentence_transformers.json"


def _beside(file: Path) -> bool:
    """Tells whether a file says nothing about the vectors."""
    return file.name.endswith(".index.json") or file.name in ("data_config.json", "README.json")


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Reads the row of modules: the name of each class, and its folder."""
    path = folder / "modules.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} is not a model of sentence-transformers: it has no modules.json"
        )
    rows = checkpoint.read_json(path)
    found = []
    try:
        for row in rows:
            kind, place = row["type"], row.get("path", "")
            named = _CLASS.fullmatch(kind)
            if named is None or named[1] not in MODULES:
                raise ModelError(f"{path} names {kind}, which anyseek does not run")
            found.append((named[1], checkpoint.inside(folder, place)))
    except (TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is damaged ({error}): pull the model again") from None
    if not found or found[0][0] not in FIRST or any(kind in FIRST for kind, _ in found[1:]):
        raise ModelError(f"{path} is of a model that does not begin with one transformer")
    return found


def _first_settings(first: Path) -> dict[str, Any]:
    for name in _SETTINGS:
        if (first / name).is_file():
            return checkpoint.read_object(first / name)
    return {}


def _taken(settings: dict[str, Any], kind: str, first: Path) -> tuple[Modality, ...]:
    """Tells what the first module embeds, and that its settings lead nowhere else."""
    if settings.get("tokenizer_name_or_path") or settings.get("processor_name"):
        raise ModelError(f"the model in {first} takes its tokenizer from elsewhere: not loaded")
    if settings.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise ModelError(
            f"the model in {first} gives no vectors, but {settings['transformer_task']}"
        )
    table = settings.get("modality_config")
    if table is None:
        # as the library has it: models saved before there were modalities are for texts
        return (Modality.TEXT, Modality.IMAGE) if kind == "CLIPModel" else (Modality.TEXT,)
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise ModelError(f"the settings in {first} are damaged: pull the model again")
    if "message" in table:
        raise ModelError(
            f"the model in {first} is spoken to in messages, which anyseek does not do"
        )
    kinds = [Modality(name) for name in ("text", "image") if name in table]
    for name in kinds:
        if not _METHOD.fullmatch(str(table[name].get("method"))):
            raise ModelError(f"the settings in {first} call {table[name].get('method')!r}: not run")
    if Modality.TEXT not in kinds:
        raise ModelError(f"the model in {first} does not embed texts")
    return tuple(kinds)


def _prompts(told: dict[str, Any], path: Path) -> tuple[str, str]:
    """Gives what is put before queries and before passages.

    That is the prompt ``query``, and the first of ``document``, ``passage`` and ``corpus``; a model
    that has none of them puts its default prompt before both, as the library's ``encode`` does.
    """
    prompts = told.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        text is None or isinstance(text, str) for text in prompts.values()
    ):
        raise ModelError(f"{path} is damaged (prompts): pull the model again")
    passage = next((prompts[key] for key in _PASSAGES if prompts.get(key)), "")
    query = prompts.get("query") or ""
    if query or passage:
        return query, passage
    default = prompts.get(told.get("default_prompt_name")) or ""
    return default, default


def _dim(modules: list[tuple[str, Path]], config: dict[str, Any], told: dict[str, Any]) -> int:
    """Gives the length of a vector, from the last module that decides it."""
    dim: object = None
    for kind, at in modules:
        if kind in FIRST:
            text = config.get("text_config")
            inner = text if isinstance(text, dict) else {}
            dim = config.get("projection_dim") or inner.get("projection_size")
            dim = dim or config.get("hidden_size") or config.get("dim") or inner.get("hidden_size")
        elif kind == "Dense":
            dim = checkpoint.read_object(at / "config.json").get("out_features")
        elif kind == "Pooling":
            dim = _pooled_dim(checkpoint.read_object(at / "config.json"))
    shorter = told.get("truncate_dim")
    if isinstance(shorter, int) and isinstance(dim, int):
        dim = min(dim, shorter)
    if not isinstance(dim, int) or not 0 < dim <= MAX_DIM:
        raise ModelError(f"the model in {modules[0][1]} does not say how long its vectors are")
    return dim


def _pooled_dim(table: dict[str, Any]) -> int | None:
    dim = table.get("embedding_dimension", table.get("word_embedding_dimension"))
    modes = table.get("pooling_mode")
    if modes is None:
        # before version 5: one switch for each way
        count = sum(bool(on) for name, on in table.items() if name.startswith("pooling_mode_"))
        count = count or 1
    else:
        count = 1 if isinstance(modes, str) else len(modes)
    return dim * count if isinstance(dim, int) else None
