"""Vectors from elsewhere become items of an index.

First everything is read and checked: nothing is written if any row is wrong. Then items are
committed in batches, like those of ``anyseek index``: what is committed when the process is killed
stays, and the same import goes on from there, passing over what is there already.

A file that is there is read, for its digest and its dates, and counts as indexed. One that is not
there keeps its vectors all the same, under the size, time and digest that the import names, or
size 0: when a run over its folder finds it with that content, it takes the vectors over.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from stat import S_ISREG

import numpy as np

from retrieval.errors import ExchangeError, MediaError
from retrieval.exchange.rows import Chunk, Matrix, Source
from retrieval.store import Batch, ItemRecord, Space, Store
from retrieval.store.exchanging import PartRow, Present
from retrieval.types import NO_FACTS, Encoder, Facts, Fingerprint, Modality, Vectors

UNIT = 1e-2  # float16 rounds a unit vector to within 1e-3
ZERO = 1e-6  # below this a vector has no direction
COMMIT_ITEMS = 512  # as in indexer.pipeline
COMMIT_ROWS = 8_192  # of recordings, which have many parts
UNKNOWN = Fingerprint(0, 0)
UNREAD = b""  # the digest of a content that nobody read; no file has it

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where vectors go.

    Attributes:
        space: Identity of the space.
        model: Name of the model that makes it.
        dim: Length of a vector.
        modalities: What the model embeds; anything, if nothing is known of it.
    """

    space: str
    model: str
    dim: int
    modalities: tuple[Modality, ...] = tuple(Modality)


@dataclass(slots=True)
class Brought:
    """What came in, in items.

    Attributes:
        added: Those that the index did not have.
        updated: Those that it had with other vectors, or none in this space.
        unchanged: Those that it had just so.
        missing: Those of all whose file is not there.
        changed: Those of all whose file is not what was embedded: the next run embeds it.
        unread: Files that are there and could not be read, with the reason.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    changed: int = 0
    unread: list[tuple[bytes, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One item with its vectors, as it comes in."""

    where: str
    rows: tuple[PartRow, ...]
    vectors: Vectors

    @property
    def path(self) -> bytes:
        return self.rows[0].path


def bring(
    store: Store,
    sources: Sequence[Source],
    target: Target,
    *,
    normalise: bool = False,
    read: bool = True,
    progress: Progress = lambda done, total: None,
) -> Brought:
    """Takes vectors in; see the module for what happens when.

    Args:
        store: Opened for writing; nobody else may write meanwhile, see ``indexer.lock``.
        sources: All of the target's space.
        target: Where they go.
        normalise: Whether vectors are scaled to length 1; otherwise they must have it.
        read: Whether files that are there are read.
        progress: Told how many vectors of how many are done, first checked, then stored.

    Raises:
        ExchangeError: If any row cannot come in; it is named.
    """
    total = sum(source.count for source in sources)
    known = next((space for space in store.spaces() if space.name == target.space), None)
    if known is not None and known.dim != target.dim:
        raise ExchangeError(
            f"the index has {known.dim} dimensions in the space {target.space}, not {target.dim}"
        )
    _check(store, sources, target, known, normalise, lambda done: progress(done, 2 * total))
    space = store.add_space(Encoder(target.model, target.space, target.dim, {}))
    brought = Brought()
    done = total
    for entries in _batches(_entries(sources, normalise)):
        here = store.present([entry.path for entry in entries], space)
        batch = Batch()
        for entry in entries:
            record = _record(entry, here.get(entry.path), brought, read=read)
            if record is not None:
                batch.records.append(record)
        store.write(batch, space)
        done += sum(len(entry.rows) for entry in entries)
        progress(done, 2 * total)
    return brought


# ---- checking ----------------------------------------------------------------------------------


def _check(
    store: Store,
    sources: Sequence[Source],
    target: Target,
    known: Space | None,
    normalise: bool,
    progress: Callable[[int], None],
) -> None:
    for source in sources:
        if source.count and source.dim != target.dim:
            raise ExchangeError(
                f"{source.file} row 0: its vector has {source.dim} numbers, and those of the space "
                f"{target.space} have {target.dim}"
            )
    others = any(space.name != target.space for space in store.spaces())
    hashes = array("q")  # 8 bytes for each item, where a set of paths would take hundreds
    done = 0
    for entries in _batches(_entries(sources, normalise)):
        for entry in entries:
            if entry.rows[0].modality not in target.modalities:
                raise ExchangeError(
                    f"{entry.where}: is {entry.rows[0].modality}, which {target.model} does not "
                    "embed"
                )
            hashes.append(hash(entry.path))
        if others:
            here = store.present([entry.path for entry in entries], known)
            for entry in entries:
                there = here.get(entry.path)
                if there is not None and there.others and there.parts != len(entry.rows):
                    raise ExchangeError(
                        f"{entry.where}: comes in {len(entry.rows)} part(s), and the index has it "
                        f"in {there.parts} with vectors of another space; import into another "
                        "index with --index"
                    )
        done += sum(len(entry.rows) for entry in entries)
        progress(done)
    _check_distinct(sources, hashes)


def _check_distinct(sources: Sequence[Source], hashes: array[int]) -> None:
    """Refuses a path that comes twice: by hashes first, then exactly for those that meet."""
    ordered = np.sort(np.frombuffer(hashes, np.int64)) if hashes else np.empty(0, np.int64)
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: dict[bytes, str] = {}
    if twice:
        for where, rows, _ in _grouped(sources):
            if hash(rows[0].path) in twice:
                if rows[0].path in seen:
                    raise ExchangeError(
                        f"{where}: {os.fsdecode(rows[0].path)!r} comes a second time, after "
                        f"{seen[rows[0].path]}"
                    )
                seen[rows[0].path] = where


def _checked(chunk: Chunk, normalise: bool) -> Vectors:
    """Gives a chunk's vectors, if each is one; in float64, where no square overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        values: Matrix = chunk.vectors.astype(np.float64)
        norms = np.linalg.norm(values, axis=1)
        finite = np.isfinite(norms)
        wrong = ~finite | (norms < ZERO)
        if not normalise:
            wrong |= np.abs(norms - 1) > UNIT
    if wrong.any():
        at = int(wrong.argmax())
        if not finite[at]:
            reason = "its vector is not finite"
        elif norms[at] < ZERO:
            reason = "its vector is zero, and points nowhere"
        else:
            reason = (
                f"its vector has length {norms[at]:.4g}, not 1; --normalise scales all to length 1"
            )
        path = os.fsdecode(chunk.rows[at].path)
        raise ExchangeError(f"{chunk.file} row {chunk.first + at} ({path}): {reason}")
    if normalise:
        values /= norms[:, None]
    return values.astype(np.float32)


# ---- from rows to items ------------------------------------------------------------------------


def _grouped(
    sources: Sequence[Source], vectors: Callable[[Chunk], Vectors] | None = None
) -> Iterator[tuple[str, tuple[PartRow, ...], Vectors | None]]:
    """Puts rows that follow each other and have one path together."""
    where = ""
    rows: list[PartRow] = []
    own: list[Vectors] = []
    for source in sources:
        for chunk in source.chunks():
            matrix = None if vectors is None else vectors(chunk)
            for at, row in enumerate(chunk.rows):
                same = rows and rows[-1].path == row.path and row.ordinal > rows[-1].ordinal
                if rows and not same:
                    yield where, tuple(rows), np.stack(own) if own else None
                    rows, own = [], []
                if not rows:
                    where = f"{chunk.file} row {chunk.first + at} ({os.fsdecode(row.path)})"
                rows.append(row)
                if matrix is not None:
                    own.append(matrix[at])
    if rows:
        yield where, tuple(rows), np.stack(own) if own else None


def _entries(sources: Sequence[Source], normalise: bool) -> Iterator[_Entry]:
    for where, rows, vectors in _grouped(sources, lambda chunk: _checked(chunk, normalise)):
        assert vectors is not None
        yield _Entry(where, rows, vectors)


def _batches(entries: Iterator[_Entry]) -> Iterator[list[_Entry]]:
    batch: list[_Entry] = []
    rows = 0
    for entry in entries:
        batch.append(entry)
        rows += len(entry.rows)
        if len(batch) >= COMMIT_ITEMS or rows >= COMMIT_ROWS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


# ---- items and their files ---------------------------------------------------------------------


def _record(
    entry: _Entry, there: Present | None, brought: Brought, *, read: bool
) -> ItemRecord | None:
    """Makes the item to store; ``None`` if the index has it just so."""
    stored = entry.vectors.astype("<f2").tobytes()
    now = _now(entry.path)
    same = there if there is not None and there.vectors == stored else None
    # what came in before is not read again
    if same is not None and same.fingerprint == now and (same.content_hash or not read):
        brought.unchanged += 1
        return None
    fingerprint, content_hash, facts = _content(entry, there, now, brought, read=read)
    if same is not None and same.fingerprint == fingerprint and same.content_hash == content_hash:
        brought.unchanged += 1
        return None
    brought.added += there is None
    brought.updated += there is not None
    first = entry.rows[0]
    return ItemRecord(
        path=entry.path,
        fingerprint=fingerprint,
        content_hash=content_hash,
        modality=first.modality,
        places=tuple(row.place for row in entry.rows),
        vectors=entry.vectors,
        width=first.width,
        height=first.height,
        duration_s=first.duration_s,
        facts=facts,
    )


def _now(path: bytes) -> Fingerprint | None:
    """Gives the fingerprint of a file that is there."""
    try:
        stat = os.stat(path)  # noqa: PTH116 (bytes)
    except OSError:
        return None
    return Fingerprint(stat.st_size, stat.st_mtime_ns) if S_ISREG(stat.st_mode) else None


def _content(
    entry: _Entry,
    there: Present | None,
    now: Fingerprint | None,
    brought: Brought,
    *,
    read: bool,
) -> tuple[Fingerprint, bytes, Facts]:
    """Says of which content an item's vectors are, and what its metadata say.

    What the import does not know is taken from the file, else from what the index had.
    """
    said = entry.rows[0]
    facts = said.facts
    if facts == NO_FACTS and there is not None:
        facts = there.facts
    if now is not None and read:
        from retrieval import media

        try:
            content = media.read(entry.path)
        except MediaError as error:
            brought.unread.append((entry.path, str(error)))
        else:
            if said.content_hash is None or said.content_hash == content.content_hash:
                if facts == NO_FACTS:
                    facts = media.facts(content.data, entry.path)
                return content.fingerprint, content.content_hash, facts
            brought.changed += 1
            claimed = said.fingerprint or UNKNOWN
            # the size and time that it has now would say that it is what was embedded
            kept = UNKNOWN if claimed == content.fingerprint else claimed
            return kept, said.content_hash, said.facts
    brought.missing += now is None
    if said.fingerprint is not None:
        fingerprint = said.fingerprint
    elif there is not None and now in (None, there.fingerprint):
        fingerprint = there.fingerprint
    else:
        fingerprint = now or UNKNOWN
    content_hash = said.content_hash
    if content_hash is None and there is not None and there.fingerprint == fingerprint:
        content_hash = there.content_hash
    return fingerprint, content_hash or UNREAD, facts
