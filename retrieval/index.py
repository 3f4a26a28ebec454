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
from retrieval.planner import Decision, choose
from retrieval.segments import Ids, Mask, Scores, Segment, empty, opened
from retrieval.store import Seal, Space, Store
from retrieval.types import Kept

SEGMENT = 131_072  # vectors to a file: sealing one takes at most about 300 MB at 512 dimensions
SEAL_FROM = 4_096  # below this, reading the store is as fast as opening a file
STALE = 0.1  # a segment is made again when this part of it is removed, or as much came after it
READ_ROWS = 8_192


def folder_of(index: Path) -> Path:
    """Names the folder of the files derived from an index; it may be deleted at any time."""
    return index.with_name(index.name + ".derived")


class VectorIndex:
    """The vectors of one space and modality, as they are in the store's snapshot."""

    def __init__(self, store: Store, space: Space, modality: Kept) -> None:
        """Opens the segments and reads the fresh tail.

        Args:
            store: An index, opened for reading.
            space: Whose vectors.
            modality: Of the parts.
        """
        self._segments: list[Segment] = []
        self.rebuilt: list[str] = []  # names of files that could not be used
        removed = store.removed(space, modality)
        folder = folder_of(store.path)
        ids: list[Ids] = []
        matrices: list[NDArray[np.float16]] = []
        next_id = 1
        for seal in store.seals(space, modality):
            segment = opened(folder / seal.file, seal, space)
            if segment is None:
                self.rebuilt.append(seal.file)
                found, matrix = store.vectors(
                    space, modality, first=seal.first_id, last=seal.last_id
                )
                ids.append(found)
                matrices.append(matrix)
                removed = removed[(removed < seal.first_id) | (removed > seal.last_id)]
            elif len(segment):
                self._segments.append(segment)
            next_id = seal.last_id + 1
        found, matrix = store.vectors(space, modality, first=next_id)
        self._alive = [~segment.members(removed) for segment in self._segments]
        self._ids = np.concatenate([*ids, found])
        self._matrix = np.concatenate([*matrices, matrix])
        self.size = sum(int(alive.sum()) for alive in self._alive) + len(self._ids)
        self._chosen: tuple[Ids, list[Mask], Mask] | None = None  # of the last filtered search
        self.plans: list[Decision] = []  # of the last search, one for each segment

    def search(self, query: Scores, k: int, *, only: Ids | None = None) -> tuple[Scores, Ids]:
        """Finds the ``k`` vectors with the highest cosine; exact.

        Args:
            query: ``(dim,)`` float32 of length 1.
            k: How many; fewer come back only if fewer qualify.
            only: Ascending vector ids; nothing else qualifies. What was worked out for them is kept
                for the next search with the same array, which must not be changed.

        Returns:
            Scores ``(m,)`` float32 descending and vector ids ``(m,)``, ``m <= k``; equal scores in
            ascending order of id.
        """
        if k < 1:  # which FAISS does not take
            return np.empty(0, np.float32), np.empty(0, np.int64)
        query = np.ascontiguousarray(query, np.float32)
        masks, fresh = (self._alive, None) if only is None else self._masks(only)
        scores: list[Scores] = []
        ids: list[Ids] = []
        plans = []  # searches may run at once, in threads
        for segment, mask in zip(self._segments, masks, strict=True):
            plans.append(choose(len(mask), int(mask.sum()), k))
            found, labels = segment.search(query, k, mask, plans[-1].plan)
            scores.append(found)
            ids.append(labels)
        self.plans = plans
        rows = self._matrix if fresh is None else self._matrix[fresh]
        scores.append(rows.astype(np.float32) @ query)
        ids.append(self._ids if fresh is None else self._ids[fresh])
        return _best(np.concatenate(scores), np.concatenate(ids), k)

    def ids(self) -> Ids:
        """Lists the ids of all vectors, ascending."""
        sealed = zip(self._segments, self._alive, strict=True)
        # the ids of a damaged file, read from the store, may lie between those of others
        return np.sort(np.concatenate([self._ids, *(one.ids[alive] for one, alive in sealed)]))

    def _masks(self, only: Ids) -> tuple[list[Mask], Mask]:
        """Tells who qualifies in each segment and in the tail; a search is often asked again."""
        if self._chosen is None or self._chosen[0] is not only:
            sealed = zip(self._segments, self._alive, strict=True)
            masks = [alive & one.members(only) for one, alive in sealed]
            self._chosen = (only, masks, _contained(self._ids, only))
        return self._chosen[1:]


def _contained(ids: Ids, only: Ids) -> Mask:
    """Tells which ids are among some that ascend."""
    if not len(only):
        return np.zeros(len(ids), np.bool_)
    at = np.searchsorted(only, ids).clip(max=len(only) - 1)
    return np.asarray(only[at] == ids)


def _best(scores: Scores, ids: Ids, k: int) -> tuple[Scores, Ids]:
    k = min(k, len(scores))
    if len(scores) > 4 * k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        near = scores >= threshold  # keeps all that tie, so that the order below is complete
        scores, ids = scores[near], ids[near]
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]


# ---- sealing -----------------------------------------------------------------------------------


def seal(store: Store, space: Space, modality: Kept) -> bool:
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
        if gone > STALE * old.count or opened(folder / old.file, old, space) is None:
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
    sweep(store)
    return wrote


def _replace(
    store: Store,
    space: Space,
    modality: Kept,
    first: int,
    last: int | None,
    replaced: list[Seal],
) -> None:
    """Writes one segment over a range of ids, or from ``first`` on as far as a segment goes."""
    segment = empty(space.dim)
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


def sweep(store: Store) -> None:
    """Deletes derived files that no reader will open any more."""
    folder = folder_of(store.path)
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
