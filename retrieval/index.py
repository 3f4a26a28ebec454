"""Nearest vectors: sealed FAISS files over the older ids, an exact scan over the fresh ones.

Everything here is derived from the store and can be deleted. A space's vectors of one modality are
covered by **segments**, files of up to 131,072 float16 vectors that FAISS maps into memory and
scans exactly (about 4 ms per 100,000 vectors of 512), and by a **fresh tail** that is read from the
store. Vectors that were removed since are masked. The store says which files count; a file that is
missing or damaged is made good by reading the store.

Scores are inner products of unit vectors, that is cosines: higher is better.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import StorageError
from retrieval.store import Seal, Space, Store
from retrieval.types import Modality

SEGMENT = 131_072  # vectors to a file: sealing one takes at most about 300 MB at 512 dimensions
SEAL_FROM = 4_096  # below this, reading the store is as fast as opening a file
STALE = 0.1  # a segment is made again when this part of it is removed, or as much came after it
READ_ROWS = 8_192

Scores = NDArray[np.float32]
Ids = NDArray[np.int64]


def folder_of(index: Path) -> Path:
    """Names the folder of the files derived from an index; it may be deleted at any time."""
    return index.with_name(index.name + ".derived")


class VectorIndex:
    """The vectors of one space and modality, as they are in the store's snapshot."""

    def __init__(self, store: Store, space: Space, modality: Modality) -> None:
        """Opens the segments and reads the fresh tail.

        Args:
            store: An index, opened for reading.
            space: Whose vectors.
            modality: Of the parts.
        """
        self._segments: list[Any] = []
        self.rebuilt: list[str] = []  # names of files that could not be used
        removed = store.removed(space, modality)
        folder = folder_of(store.path)
        ids: list[Ids] = []
        matrices: list[NDArray[np.float16]] = []
        next_id = 1
        for seal in store.seals(space, modality):
            segment = _opened(folder / seal.file, seal, space)
            if segment is None:
                self.rebuilt.append(seal.file)
                found, matrix = store.vectors(
                    space, modality, first=seal.first_id, last=seal.last_id
                )
                ids.append(found)
                matrices.append(matrix)
                removed = removed[(removed < seal.first_id) | (removed > seal.last_id)]
            elif segment.ntotal:
                self._segments.append(segment)
            next_id = seal.last_id + 1
        found, matrix = store.vectors(space, modality, first=next_id)
        self._removed = removed  # those that an opened segment still holds
        self._ids = np.concatenate([*ids, found])
        self._matrix = np.concatenate([*matrices, matrix])
        sealed = sum(segment.ntotal for segment in self._segments)
        self.size = sealed - len(self._removed) + len(self._ids)

    def search(self, query: Scores, k: int, *, only: Ids | None = None) -> tuple[Scores, Ids]:
        """Finds the ``k`` vectors with the highest cosine; exact.

        Args:
            query: ``(dim,)`` float32 of length 1.
            k: How many; fewer come back only if fewer qualify.
            only: Ascending vector ids; nothing else qualifies.

        Returns:
            Scores ``(m,)`` float32 descending and vector ids ``(m,)``, ``m <= k``; equal scores in
            ascending order of id.
        """
        k = min(k, self.size if only is None else len(only))
        if k < 1:  # which FAISS does not take
            return np.empty(0, np.float32), np.empty(0, np.int64)
        row = np.ascontiguousarray(query, np.float32)[None]
        scores: list[Scores] = []
        ids: list[Ids] = []
        selector = _selector(self._removed, only)
        for segment in self._segments:
            found, labels = _search_segment(segment, row, min(k, segment.ntotal), selector)
            keep = labels[0] >= 0  # FAISS fills up with -1
            scores.append(found[0][keep])
            ids.append(labels[0][keep])
        tail = slice(None) if only is None else np.isin(self._ids, only, assume_unique=True)
        fresh = self._ids[tail]
        if len(fresh):
            scores.append(self._matrix[tail].astype(np.float32) @ row[0])
            ids.append(fresh)
        if not ids:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        return _best(np.concatenate(scores), np.concatenate(ids), k)


def _best(scores: Scores, ids: Ids, k: int) -> tuple[Scores, Ids]:
    if len(scores) > 4 * k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        near = scores >= threshold  # keeps all that tie, so that the order below is complete
        scores, ids = scores[near], ids[near]
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]


def _selector(removed: Ids, only: Ids | None) -> Any:
    """Makes FAISS's filter, or ``None`` if every id in the segments qualifies."""
    import faiss

    if only is not None:
        if len(removed):
            only = np.setdiff1d(only, removed, assume_unique=True)
        return faiss.IDSelectorBatch(only)
    if len(removed):
        return faiss.IDSelectorNot(faiss.IDSelectorBatch(removed))
    return None


def _search_segment(segment: Any, row: Scores, k: int, selector: Any) -> tuple[Scores, Ids]:
    if selector is None:
        found, labels = segment.search(row, k)
    else:
        import faiss

        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        found, labels = segment.search(row, k, params=parameters)
    return found, labels


def _opened(path: Path, seal: Seal, space: Space) -> Any | None:
    """Maps a segment into memory; ``None`` if the file is missing, damaged or another's."""
    import faiss

    try:
        # FAISS maps without looking how long the file is, and a short one would end the process
        if path.stat().st_size != _file_bytes(seal.count, space.dim):
            return None
        segment = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError):
        return None
    if segment.ntotal != seal.count or segment.d != space.dim:
        return None
    ids = faiss.vector_to_array(segment.id_map)  # type: ignore[attr-defined]
    if len(ids) and not seal.first_id <= ids[0] <= ids[-1] <= seal.last_id:
        return None
    return segment


def _file_bytes(count: int, dim: int) -> int:
    """Gives the size of a segment's file: a head, float16 vectors, int64 ids."""
    import faiss

    return len(faiss.serialize_index(_empty(dim))) + count * (2 * dim + 8)


def _empty(dim: int) -> Any:
    import faiss

    return faiss.IndexIDMap(
        faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    )


# ---- sealing -----------------------------------------------------------------------------------


def seal(store: Store, space: Space, modality: Modality) -> bool:
    """Brings the segments up to date where that pays; readers go on against the old ones.

    Args:
        store: The index, opened for writing.
        space: Whose vectors.
        modality: Of the parts.

    Returns:
        Whether anything was written.

    Raises:
        StorageError: If a file cannot be written. The old ones stay in use.
    """
    folder = folder_of(store.path)
    wrote = False
    removed = store.removed(space, modality)
    for old in store.seals(space, modality):
        gone = np.searchsorted(removed, old.last_id, "right") - np.searchsorted(
            removed, old.first_id
        )
        if gone > STALE * old.count or _opened(folder / old.file, old, space) is None:
            _replace(store, space, modality, old.first_id, old.last_id, [old])
            wrote = True
    while True:
        existing = store.seals(space, modality)
        newest = existing[-1] if existing else Seal("", 1, 0, 0)
        fresh = store.count_vectors(space, modality, first=newest.last_id + 1)
        if fresh < max(SEAL_FROM, STALE * newest.count):
            break
        merge = bool(existing) and newest.count + fresh <= SEGMENT
        first = newest.first_id if merge else newest.last_id + 1
        _replace(store, space, modality, first, None, [newest] if merge else [])
        wrote = True
    _sweep(store, folder)
    return wrote


def _replace(
    store: Store,
    space: Space,
    modality: Modality,
    first: int,
    last: int | None,
    replaced: list[Seal],
) -> None:
    """Writes one segment over a range of ids, or from ``first`` on as far as a segment goes."""
    segment = _empty(space.dim)
    next_id = first
    bounds = {} if last is None else {"last": last}
    while segment.ntotal < SEGMENT:
        ids, matrix = store.vectors(
            space,
            modality,
            first=next_id,
            limit=min(READ_ROWS, SEGMENT - segment.ntotal),
            **bounds,
        )
        if not len(ids):
            break
        segment.add_with_ids(matrix.astype(np.float32), ids)
        next_id = int(ids[-1]) + 1
    end = next_id - 1 if last is None else last
    name = f"{space.id}-{modality}-{first}-{end}-{secrets.token_hex(4)}.faiss"
    _write(folder_of(store.path), name, segment)
    store.set_seal(space, modality, Seal(name, first, end, segment.ntotal), replaced)


def _write(folder: Path, name: str, segment: Any) -> None:
    """Writes a file so that it is there whole or not at all."""
    import faiss

    temporary = folder / f"{name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(segment, str(temporary))
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(folder / name)
    except (OSError, RuntimeError) as error:  # FAISS reports a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"cannot write {folder / name} ({error}): searches go on without it, only slower"
        ) from error


def _sweep(store: Store, folder: Path) -> None:
    """Deletes files that no reader will open any more."""
    if folder.is_dir():
        used = store.seal_files()
        for path in folder.iterdir():
            if path.suffix in (".faiss", ".tmp") and path.name not in used:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Device:
    """Where vectors are compared, and why there."""

    name: str
    reason: str


def device() -> Device:
    """Tells which processor compares vectors."""
    import faiss

    version = faiss.__version__
    if not hasattr(faiss, "StandardGpuResources"):
        return Device("cpu", f"faiss {version} is the build without GPU code")
    count = faiss.get_num_gpus()
    if count == 0:
        return Device("cpu", f"faiss {version} has GPU code, but no GPU answers")
    return Device(
        "cpu",
        f"faiss {version} sees {count} GPU(s), but an exact scan of mapped files takes less "
        "time than copying them there",
    )
