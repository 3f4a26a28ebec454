"""Text towers of transformers, exported once: tokens by ``tokenizers``, vectors by ONNX Runtime.

The export holds the network and the tokenizer as transformers had set it up, with its truncation
and padding, so that a cold search gives the same tokens without importing it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.errors import ModelError
from retrieval.towers import export
from retrieval.types import Vectors

STEM = "text"
TOKENIZER = "tokenizer.json"
EXAMPLES = (
    ("a dog on the beach", "thunder"),
    ("雪山和湖", "", "An old man plays the accordion while children dance. " * 12),
    ("42",),
)
"""Batches on which the export must give the vectors that torch gives: short, long, empty."""
BATCH = 32  # texts at once: long ones are padded to the longest


class TextTower:
    """Texts into a space, through an export that is made when it is first used."""

    def __init__(
        self,
        name: str,
        make: Callable[[Path], None],
        *,
        prompt: str = "",
        cache: Path | None = None,
    ) -> None:
        """Names the export; nothing is read yet.

        Args:
            name: Of the export: the space, and whatever else it depends on.
            make: Fills its folder, by ``freeze``.
            prompt: Put before each text.
            cache: Holds the exports; the platform's cache folder by default.
        """
        self._name = name
        self._make = make
        self._prompt = prompt
        self._cache = cache
        self._opened: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    @property
    def side_px(self) -> None:
        """Moot for texts."""
        return None

    @property
    def rate_hz(self) -> None:
        """Moot for texts."""
        return None

    @property
    def identity(self) -> str:
        """What the vectors of texts depend on beyond the space: the network and the prompt."""
        return f"{self._name}\n{self._prompt}"

    def prepare(self, content: str) -> str:
        """Takes a text as it is."""
        return content

    def embed(self, batch: Sequence[str]) -> Vectors:
        """Embeds texts: ``(n, dim)`` float32, unit rows, in order."""
        session, tokenizer = self._open()
        rows = []
        for start in range(0, len(batch), BATCH):
            texts = [self._prompt + text for text in batch[start : start + BATCH]]
            tokens = tokens_of(tokenizer, texts, [one.name for one in session.get_inputs()])
            rows.append(export.run_onnx(session, tokens))
        return np.concatenate(rows)

    def _open(self) -> tuple[Any, Any]:
        with self._lock:
            if self._opened is None:
                folder = export.exported(self._name, self._make, cache=self._cache)
                try:
                    self._opened = _read(folder)
                except ModelError:  # it looked whole; once more from the start
                    export.forget(folder)
                    self._opened = _read(export.exported(self._name, self._make, cache=self._cache))
            return self._opened


def _read(folder: Path) -> tuple[Any, Any]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library's errors are bare exceptions
        raise ModelError(
            f"{folder / TOKENIZER} cannot be read ({error}): delete {folder}"
        ) from None
    return export.open_onnx(folder, STEM), tokenizer


def tokens_of(tokenizer: Any, texts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Gives the network's inputs: ``(n, longest)`` int64 each.

    Args:
        tokenizer: Of the library ``tokenizers``, with truncation and padding set.
        texts: At least one.
        names: Which inputs, as transformers calls them.
    """
    found = tokenizer.encode_batch(list(texts))
    columns = {
        "input_ids": [one.ids for one in found],
        "attention_mask": [one.attention_mask for one in found],
        "token_type_ids": [one.type_ids for one in found],
    }
    return {name: np.array(columns[name], np.int64) for name in names}


def freeze(
    folder: Path,
    network: Any,
    tokenizer: Any,
    *,
    inputs: Sequence[str],
    max_tokens: int,
    prompt: str = "",
) -> None:
    """Fills the folder of an export.

    Args:
        folder: Empty.
        network: A torch module on the CPU that takes the inputs in their order, ``(n, t)`` int64,
            and gives ``(n, dim)`` unit rows.
        tokenizer: Of transformers, a fast one.
        inputs: Their names.
        max_tokens: Longer texts are cut off.
        prompt: Put before each example, if the network counts on it.

    Raises:
        ModelError: If the export gives other tokens or vectors than transformers, or the tokenizer
            is not one that runs without it.
    """
    import torch
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{type(tokenizer).__name__} has no fast form: this model's texts cannot be read"
        )
    own = Tokenizer.from_str(backend.to_str())
    own.enable_truncation(max_tokens, direction=tokenizer.truncation_side)
    own.enable_padding(
        direction=tokenizer.padding_side,
        pad_id=tokenizer.pad_token_id or 0,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_token=tokenizer.pad_token or "",
    )
    examples = []
    for some in EXAMPLES:
        texts = [prompt + text for text in some]
        tokens = tokens_of(own, texts, inputs)
        theirs = tokenizer(texts, padding=True, truncation="longest_first", max_length=max_tokens)
        if tokens["input_ids"].tolist() != theirs["input_ids"]:
            raise ModelError("the tokenizer gives other tokens on its own: it cannot be used")
        if tokens["input_ids"].shape[1]:  # some tokenizers make nothing of an empty text
            examples.append({name: torch.from_numpy(value) for name, value in tokens.items()})
    axes = {name: {0: "n", 1: "t"} for name in inputs}
    export.write_onnx(network, folder, name=STEM, examples=examples, axes=axes)
    own.save(str(folder / TOKENIZER))
