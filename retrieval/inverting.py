"""Keeps the inverted lists of a large index in step with its segments.

They are made from the mapped segments, so that the store is hardly read. A file is made again when
what lies beyond it would take longer to compare than the lists themselves, or when a tenth of it is
gone; centroids and codes stay until the number of lists changes. What was built so far is saved now
and then as a file of its own that the store knows, so that a run that was killed goes on there.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval import ladder
from retrieval.inverted import (
    BLOCK,
    PROJECTION_ROWS,
    ROWS_PER_LIST,
    Inverted,
    cores,
    opened,
    projection,
    trained,
)
from retrieval.ladder import Kind, Told, silent
from retrieval.segments import Ids, Segment, write
from retrieval.segments import opened as opened_segment
from retrieval.store import Seal, Space, Store
from retrieval.types import Kept

TAIL_FROM = 16_384  # comparing so many takes as long as looking through the lists of a million
TAIL = 0.02  # of a large file: writing 137 MB for every 20,000 vectors more
STALE = 0.1  # part of a file that is removed
SAVE_EVERY = 1_000_000  # vectors, and a fifth of what there is: about two minutes of work

READY = (Kind.INVERTED, Kind.COMPRESSED)


def seals(store: Store, space: Space, modality: Kept) -> list[Seal]:
    """Lists the files of lists in use: one, or none."""
    return store.seals(space, modality, kinds=READY)


def current(store: Store, space: Space, modality: Kept, folder: Path) -> Inverted | None:
    """Maps the lists in use; ``None`` if there are none or they cannot be used."""
    for seal in seals(store, space, modality):
        return opened(folder / seal.file, seal, space)
    return None


def bring_up_to_date(
    store: Store, space: Space, modality: Kept, folder: Path, *, tell: Told = silent
) -> bool:
    """Makes the lists where an index is large enough, and anew where they are stale.

    Args:
        store: The index, opened for writing, its segments up to date.
        space: Whose vectors.
        modality: Of the parts.
        folder: Of derived files.
        tell: Told what is being built and how far it is.

    Returns:
        Whether anything was written.

    Raises:
        StorageError: If a file cannot be written. The old one stays in use.
    """
    old = seals(store, space, modality)
    unfinished = store.seals(space, modality, kinds=(Kind.BUILDING,))
    exact = store.seals(space, modality)
    count = sum(one.count for one in exact)
    if count < ladder.INVERTED_FROM:
        if old or unfinished:
            store.drop_seals([*old, *unfinished])
        return bool(old or unfinished)
    segments = [opened_segment(folder / one.file, one, space) for one in exact]
    removed = store.removed(space, modality)
    pieces = [
        (one, np.flatnonzero(~one.members(removed)))
        for one in segments
        if one is not None and len(one)
    ]
    used = current(store, space, modality, folder)
    if used is not None and not _stale(used, pieces):
        if unfinished:
            store.drop_seals(unfinished)
        return bool(unfinished)
    if not pieces:
        return False
    replaced = [*old, *unfinished]
    with ThreadPoolExecutor(cores(), thread_name_prefix="anyseek-lists") as pool:
        build = _Build(store, space, modality, folder, pieces, pool, tell)
        build.start(unfinished, old)
        build.run(replaced)
    return True


class _Build:
    """One file in the making."""

    def __init__(
        self,
        store: Store,
        space: Space,
        modality: Kept,
        folder: Path,
        pieces: Sequence[tuple[Segment, Ids]],
        pool: ThreadPoolExecutor,
        tell: Told,
    ) -> None:
        self._store, self._space, self._modality = store, space, modality
        self._folder, self._pieces, self._pool, self._tell = folder, pieces, pool, tell
        self._count = sum(len(alive) for _, alive in pieces)
        self._first = int(pieces[0][0].ids[0])

    def start(self, unfinished: Sequence[Seal], old: Sequence[Seal]) -> None:
        """Takes up what an earlier run left, or the file in use, or begins anew."""
        for seal in (*unfinished, *old):
            found = opened(self._folder / seal.file, seal, self._space, mapped=False)
            if found is None or seal.first_id > self._first:
                continue
            self._rung = ladder.rung(self._count, found.dims)
            if (found.kind, found.lists) != (self._rung.kind, self._rung.lists):
                continue
            self._lists, self._done = found, seal.last_id
            self._first = seal.first_id
            self._tell(str(self._rung), 0, 0)
            found.keep(self._alive(seal))
            return
        matrix = projection(self._sample(PROJECTION_ROWS).astype(np.float32))
        self._rung = ladder.rung(self._count, len(matrix))
        self._tell(str(self._rung), 0, 0)
        sample = self._sample(self._rung.lists * ROWS_PER_LIST)
        projected = np.concatenate(
            [
                sample[start : start + BLOCK].astype(np.float32) @ matrix.T
                for start in range(0, len(sample), BLOCK)
            ]
        )
        file = trained(projected, matrix, self._rung, pool=self._pool, tell=self._tell)
        self._lists, self._done = Inverted(file, Seal("", self._first, self._first, 0)), 0

    def run(self, replaced: Sequence[Seal]) -> None:
        """Adds what is not in yet, and writes the file."""
        saved = self._lists.count
        what = f"building {self._rung.kind} lists"
        for segment, alive in self._pieces:
            at = alive[segment.ids[alive] > self._done]
            for start in range(0, len(at), 4 * BLOCK):
                self._tell(what, self._lists.count, self._count)
                some = at[start : start + 4 * BLOCK]
                self._lists.add(segment.ids[some], segment.rows(some), self._pool)
            self._done = max(self._done, int(segment.ids[-1]))
            if self._lists.count - saved >= max(SAVE_EVERY, saved // 4):
                finished = self._done >= int(self._pieces[-1][0].ids[-1])
                if not finished:
                    before = self._store.seals(self._space, self._modality, kinds=(Kind.BUILDING,))
                    self._write(Kind.BUILDING, before)
                    saved = self._lists.count
        self._tell(what, self._count, self._count)
        unfinished = self._store.seals(self._space, self._modality, kinds=(Kind.BUILDING,))
        self._write(self._rung.kind, [*replaced, *unfinished])

    def _write(self, kind: Kind, replaced: Sequence[Seal]) -> None:
        """Writes the file, and only then says in the store that it is there."""
        first, last = self._first, self._done
        name = (
            f"{self._space.id}-{self._modality}-{first}-{last}-{secrets.token_hex(4)}.lists.faiss"
        )
        write(self._folder, name, self._lists.file)
        size = (self._folder / name).stat().st_size
        seal = Seal(name, first, last, self._lists.count, kind, size)
        self._store.set_seal(self._space, self._modality, seal, replaced)

    def _alive(self, seal: Seal) -> NDArray[np.uint8]:
        member = np.zeros(seal.last_id - seal.first_id + 1, np.bool_)
        for segment, alive in self._pieces:
            ids = segment.ids[alive]
            member[ids[ids <= seal.last_id] - seal.first_id] = True
        return np.packbits(member, bitorder="little")

    def _sample(self, wanted: int) -> NDArray[np.float16]:
        """Gives about so many vectors from all over, always the same."""
        step = max(1, self._count // wanted)
        return np.concatenate([segment.rows(alive[::step]) for segment, alive in self._pieces])


def _stale(used: Inverted, pieces: Sequence[tuple[Segment, Ids]]) -> bool:
    last = used.seal.last_id
    alive = sum(len(alive) for _, alive in pieces)
    beyond = sum(int((segment.ids[alive] > last).sum()) for segment, alive in pieces)
    gone = used.count - (alive - beyond)
    return beyond >= max(TAIL_FROM, TAIL * used.count) or gone > STALE * used.count
