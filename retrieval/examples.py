"""Files given as examples: the vector of each, taken from the index where it has it.

So what is on a drive that is not plugged in can still be an example.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.errors import MediaError, QueryError
from retrieval.store import Space, Store
from retrieval.types import Encoder, Modality, Vectors


@dataclass(frozen=True, slots=True)
class Example:
    """A file with its vector.

    Attributes:
        path: Absolute, as the index has it or would have it.
        modality: Of the file.
        vector: ``(1, dim)`` float32, the mean of its parts at length 1.
    """

    path: bytes
    modality: Modality
    vector: Vectors


def example(store: Store, space: Space, encoder: Encoder, path: Path) -> Example:
    """Reads a file that need not be indexed; one that is, and has not changed, is not embedded.

    An indexed file need not be there: then its vector is that of what was indexed.

    Args:
        store: An index.
        space: Whose vectors are wanted.
        encoder: Of that space; its weights are read only if something must be embedded.
        path: A picture, a sound or a text.

    Raises:
        QueryError: If the file cannot be used.
    """
    from retrieval import media  # a search in words needs no decoder

    if path.is_dir():
        raise QueryError(f"{path} is a folder; name a picture, a sound or a text")
    own = own_path(store, path)
    modality = media.modality_of(own)
    vector = None if modality is None else stored(store, space, own)
    if vector is None and not os.path.lexists(path):
        raise QueryError(f"there is no file at {path}")
    if modality is None or (vector is None and modality not in encoder.towers):
        raise QueryError(f"{path} is no kind of file that this index can be searched with")
    return Example(own, modality, embedded(encoder, modality, path) if vector is None else vector)


def own_path(store: Store, path: Path) -> bytes:
    """Gives the path by which the index knows a file: links to files keep their names."""
    linked = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 (no loops)
    real = os.path.realpath(path)
    if store.item(os.fsencode(linked)) is None and store.item(os.fsencode(real)):
        return os.fsencode(real)
    return os.fsencode(linked)


def stored(store: Store, space: Space, own: bytes) -> Vectors | None:
    """Gives an indexed file's vector, unless the file is there and no longer what was indexed."""
    stored = store.item(own)
    if stored is None:
        return None
    with contextlib.suppress(OSError):  # it is gone, or cannot be looked at
        stat = os.stat(own)  # noqa: PTH116 (bytes)
        if (stat.st_size, stat.st_mtime_ns) != (stored[1].size, stored[1].mtime_ns):
            return None
    vectors = store.item_vectors(stored[0], space)
    return _mean(vectors.astype(np.float32)) if len(vectors) else None


def embedded(encoder: Encoder, modality: Modality, path: Path) -> Vectors:
    """Reads a file and gives its vector ``(1, dim)``; may be called from several threads.

    Raises:
        QueryError: If the file cannot be used.
    """
    from retrieval import media, sounds

    tower = encoder.towers[modality]
    try:
        if tower.rate_hz is not None:
            return _mean(sounds.embed(sounds.windows(path, tower.rate_hz), tower).vectors)
        data = media.read(path).data
        item = media.decode(data, os.fsencode(path), side_px=tower.side_px)
    except MediaError as error:
        raise QueryError(f"{path} {error}") from error
    return _mean(tower.embed([tower.prepare(part.content) for part in item.parts]))


def _mean(vectors: Vectors) -> Vectors:
    """Averages unit rows to one unit row ``(1, dim)``."""
    mean = vectors.mean(axis=0, keepdims=True)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)
