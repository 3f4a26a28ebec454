"""Nearest vectors: sealed FAISS files over the older ids, an exact scan over the fresh ones.

Everything here is derived from the store and can be deleted. A space's vectors of one modality are
covered by **segments**, files of up to 131,072 float16 vectors that FAISS maps into memory and
scans exactly (about 4 ms per 100,000 vectors of 512), and by a **fresh tail** that is read from the
store. Over the segments of a large index lie **inverted lists**, which propose whom to compare; see
``retrieval.inverted``. Vectors that were removed since are masked. The store says which files
count; a file that is missing or damaged is made good by reading the store.

Scores are inner products of unit vectors, that is cosines: higher is better.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval import inverting
from retrieval.gpu import Device as Device
from retrieval.gpu import device as device
from retrieval.inverted import Inverted
from retrieval.ladder import PROBES, Told, silent
from retrieval.planner import Decision, Plan, Probing, choose, probing
from retrieval.segments import Ids, Mask, Scores, Segment, empty, opened, write
from retrieval.store import Seal, Space, Store
from retrieval.types import Kept

SEGMENT = 131_072  # vectors to a file: sealing one takes at most about 300 MB at 512 dimensions
SEAL_FROM = 4_096  # below this, reading the store is as fast as opening a file
STALE = 0.1  # a segment is made again when this part of it is removed, or as much came after it
READ_ROWS = 8_192


def folder_of(index: Path) -> Path:
    """Names the folder of the files derived from an index; it may be deleted at any time."""
    return index.with_name(index.name + ".derived")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who qualifies for a search.

    Attributes:
        masks: Of each segment.
        fresh: Of the tail; all of it where it is ``None``.
        beyond: Of the last segments, those whom inverted lists do not have.
        listed: How many qualify that the lists have.
        bits: Who they are, see ``retrieval.inverted``; all that the lists have if ``None``.
    """

    masks: Sequence[Mask]
    fresh: Mask | None
    beyond: Sequence[Mask] = ()
    listed: int = 0
    bits: NDArray[np.uint8] | None = None


class VectorIndex:
    """The vectors of one space and modality, as they are in the store's snapshot."""

    def __init__(self, store: Store, space: Space, modality: Kept, *, exact: bool = False) -> None:
        """Opens the segments and reads the fresh tail.

        Args:
            store: An index, opened for reading.
            space: Whose vectors.
            modality: Of the parts.
            exact: Whether inverted lists are left alone and all vectors compared.
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
        self._chosen: tuple[Ids, Chosen] | None = None  # of the last filtered search
        self._lists: Inverted | None = None
        if not exact:
            self._lists = inverting.current(store, space, modality, folder)
            if self._lists is None:
                self.rebuilt += [one.file for one in inverting.seals(store, space, modality)]
        self._everyone = self._choose(None)
        self.plans: list[Decision] = []  # of the last search, one for each segment

    def search(self, query: Scores, k: int, *, only: Ids | None = None) -> tuple[Scores, Ids]:
        """Finds the ``k`` vectors with the highest cosine.

        Exact without inverted lists, and with them where few qualify or many are wanted, see
        ``retrieval.planner``. Otherwise some of the nearest may be missing, and others follow in
        their places; the scores of those that come are exact all the same.

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
        chosen = self._everyone if only is None else self._among(only)
        masks = chosen.masks
        scores: list[Scores] = []
        ids: list[Ids] = []
        plans = []  # searches may run at once, in threads
        how = self._probing(chosen, k)
        if how is not None:
            found, labels = self._probed(query, min(k, chosen.listed), chosen, how)
            scores.append(found)
            ids.append(labels)
            reason = f"{how.probes} of {self._probes()[1]} lists, {chosen.listed} match"
            plans.append(Decision(Plan.PROBE, reason))
            masks = chosen.beyond
        for segment, mask in zip(
            self._segments[len(self._segments) - len(masks) :], masks, strict=True
        ):
            plans.append(choose(len(mask), int(mask.sum()), k))
            found, labels = segment.search(query, k, mask, plans[-1].plan)
            scores.append(found)
            ids.append(labels)
        self.plans = plans
        rows = self._matrix if chosen.fresh is None else self._matrix[chosen.fresh]
        scores.append(rows.astype(np.float32) @ query)
        ids.append(self._ids if chosen.fresh is None else self._ids[chosen.fresh])
        return _best(np.concatenate(scores), np.concatenate(ids), k)

    def ids(self) -> Ids:
        """Lists the ids of all vectors, ascending."""
        sealed = zip(self._segments, self._alive, strict=True)
        # the ids of a damaged file, read from the store, may lie between those of others
        return np.sort(np.concatenate([self._ids, *(one.ids[alive] for one, alive in sealed)]))

    def _among(self, only: Ids) -> Chosen:
        """Tells who qualifies in each segment and in the tail; a search is often asked again."""
        if self._chosen is None or self._chosen[0] is not only:
            self._chosen = (only, self._choose(only))
        return self._chosen[1]

    def _choose(self, only: Ids | None) -> Chosen:
        masks, fresh = self._alive, None
        if only is not None:
            sealed = zip(self._segments, self._alive, strict=True)
            masks = [alive & one.members(only) for one, alive in sealed]
            fresh = _contained(self._ids, only)
        if self._lists is None:
            return Chosen(masks, fresh)
        first, last = self._lists.seal.first_id, self._lists.seal.last_id
        start = sum(1 for one in self._segments if one.ids[-1] <= last)
        tail = zip(self._segments[start:], masks[start:], strict=True)
        beyond = [mask & (one.ids > last) for one, mask in tail]
        listed = sum(map(np.count_nonzero, masks)) - sum(map(np.count_nonzero, beyond))
        bits = None
        if listed < self._lists.count:
            member = np.zeros(last - first + 1, np.bool_)
            for one, mask in zip(self._segments, masks, strict=True):
                some = one.ids[mask]
                member[some[(some >= first) & (some <= last)] - first] = True
            bits = np.packbits(member, bitorder="little")
        return Chosen(masks, fresh, beyond, int(listed), bits)

    def _probing(self, chosen: Chosen, k: int) -> Probing | None:
        if self._lists is None:
            return None
        probes, lists = self._probes()
        return probing(self._lists.count, chosen.listed, k, lists=lists, probes=probes)

    def _probes(self) -> tuple[int, int]:
        return PROBES, self._lists.lists if self._lists is not None else 0

    def _probed(self, query: Scores, k: int, chosen: Chosen, how: Probing) -> tuple[Scores, Ids]:
        """Compares what the lists propose; looks through more of them until ``k`` are found."""
        assert self._lists is not None
        probes = how.probes
        while True:
            near = self._lists.near(query, how.count, probes=probes, bits=chosen.bits)
            found = [one.among(query, near) for one in self._segments]
            scores, ids = (np.concatenate(column) for column in zip(*found, strict=True))
            if len(ids) >= k or probes >= self._lists.lists:
                return scores, ids
            probes *= 4


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


def seal(store: Store, space: Space, modality: Kept, *, tell: Told = silent) -> bool:
    """Brings the derived files up to date where that pays; readers go on against the old ones.

    Args:
        store: The index, opened for writing; nobody else may write meanwhile.
        space: Whose vectors.
        modality: Of the parts.
        tell: Told what is being built and how far it is.

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
    wrote |= inverting.bring_up_to_date(store, space, modality, folder, tell=tell)
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
    write(folder_of(store.path), name, segment)
    store.set_seal(space, modality, Seal(name, first, end, segment.ntotal), replaced)


def sweep(store: Store) -> None:
    """Deletes derived files that no reader will open any more."""
    folder = folder_of(store.path)
    if folder.is_dir():
        used = store.seal_files()
        for path in folder.iterdir():
            if path.suffix in (".faiss", ".tmp") and path.name not in used:
                path.unlink(missing_ok=True)
