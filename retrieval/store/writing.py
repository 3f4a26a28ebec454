"""The one transaction that changes index data."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Connection, func, insert, literal, select, text

from retrieval.store.records import Batch, Captions, ItemRecord, Relocation, Space
from retrieval.store.schema import (
    FACTS_VERSION,
    WORDS_FROM,
    concepts,
    items,
    parts,
    removed,
    seals,
    spaces,
    vectors,
)
from retrieval.types import NO_FACTS, Facts, Fingerprint, Modality, Place, Source, words_of

T = TypeVar("T")
GENERATION = text("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
MAX_VARIABLES = 10_000  # SQLite takes 32,766 values in one statement


def apply(connection: Connection, batch: Batch, space: Space) -> None:
    """Writes a batch within the caller's transaction; copies first, while their sources stand."""
    now_s = int(time.time())
    for copy in batch.copies:
        new_id = _copy(connection, copy, now_s)
        _set_captions(connection, new_id, copy.captions, space)
    for move in batch.moves:
        connection.execute(
            items.delete().where(items.c.path == move.path, items.c.id != move.item_id)
        )
        _set_file(connection, move)
        _set_captions(connection, move.item_id, move.captions, space)
    for touch in batch.touched:
        _set_file(connection, touch)
        _set_captions(connection, touch.item_id, touch.captions, space)
    for ids in _groups(batch.removed):
        connection.execute(items.delete().where(items.c.id.in_(ids)))
    if batch.records:
        _put(connection, batch.records, space, now_s)
    connection.execute(GENERATION)


def _set_file(connection: Connection, change: Relocation) -> None:
    connection.execute(
        items.update()
        .where(items.c.id == change.item_id)
        .values(
            path=change.path,
            size=change.fingerprint.size,
            mtime_ns=change.fingerprint.mtime_ns,
            **({} if change.facts is None else _facts_row(change.facts)),
            **({} if change.captions is None else {"beside": change.captions.beside}),
        )
    )


def _set_captions(
    connection: Connection, item_id: int, captions: Captions | None, space: Space
) -> None:
    """Stores the words that belong to an item; of the same words the other spaces' vectors stay."""
    if captions is None:
        return
    its_words = (parts.c.item_id == item_id, parts.c.ordinal >= WORDS_FROM)
    old = connection.execute(
        select(parts.c.id, parts.c.source, parts.c.text).where(*its_words).order_by(parts.c.ordinal)
    ).all()
    if [tuple(row[1:]) for row in old] != [(str(one.source), one.text) for one in captions.words]:
        connection.execute(parts.delete().where(*its_words))
        if captions.words:
            connection.execute(
                insert(parts),
                [
                    {"item_id": item_id, "ordinal": WORDS_FROM + at}
                    | {"source": str(one.source), "text": one.text}
                    for at, one in enumerate(captions.words)
                ],
            )
    if not captions.words:
        return
    ids = connection.execute(select(parts.c.id).where(*its_words).order_by(parts.c.ordinal)).all()
    part_ids = [row[0] for row in ids]
    connection.execute(
        vectors.delete().where(vectors.c.space_id == space.id, vectors.c.part_id.in_(part_ids))
    )
    modality = connection.execute(select(items.c.modality).where(items.c.id == item_id))
    kept = str(words_of(Modality(modality.scalar_one())))
    connection.execute(
        insert(vectors),
        [
            {"part_id": part_id, "space_id": space.id, "modality": kept, "vector": row.tobytes()}
            for part_id, row in zip(part_ids, captions.vectors.astype("<f2"), strict=True)
        ],
    )


def _copy(connection: Connection, copy: Relocation, now_s: int) -> int:
    connection.execute(items.delete().where(items.c.path == copy.path, items.c.id != copy.item_id))
    shared = ("modality", "content_hash", "width", "height", "duration_s", *_facts_row(NO_FACTS))
    result = connection.execute(
        insert(items).from_select(
            ["path", "size", "mtime_ns", "indexed_at_s", "beside", *shared],
            select(
                literal(copy.path),
                literal(copy.fingerprint.size),
                literal(copy.fingerprint.mtime_ns),
                literal(now_s),
                literal(b"" if copy.captions is None else copy.captions.beside),
                *(items.c[name] for name in shared),
            ).where(items.c.id == copy.item_id),
        )
    )
    assert result.rowcount == 1, "the source of a copy is in the index"
    new_id = connection.execute(select(items.c.id).where(items.c.path == copy.path)).scalar_one()
    where = ("ordinal", "start_s", "end_s", "page", "line", "text", "source")
    connection.execute(
        insert(parts).from_select(
            ["item_id", *where],
            select(literal(new_id), *(parts.c[name] for name in where))
            .where(parts.c.item_id == copy.item_id, parts.c.ordinal < WORDS_FROM)
            .order_by(parts.c.ordinal),
        )
    )
    source, target = parts.alias(), parts.alias()
    connection.execute(
        insert(vectors).from_select(
            ["part_id", "space_id", "modality", "vector"],
            select(
                target.c.id,
                vectors.c.space_id,
                vectors.c.modality,
                vectors.c.vector,
            )
            .join(source, vectors.c.part_id == source.c.id)
            .join(target, target.c.ordinal == source.c.ordinal)
            .where(source.c.item_id == copy.item_id, target.c.item_id == new_id)
            .order_by(target.c.ordinal),
        )
    )
    return int(new_id)


def _put(connection: Connection, records: Sequence[ItemRecord], space: Space, now_s: int) -> None:
    """Stores items: a statement per table, not per item, since each costs a good 0.1 ms."""
    for record in records:
        if record.vectors.shape != (len(record.places), space.dim) or not record.places:
            raise ValueError(
                f"{record.path!r} has vectors {record.vectors.shape} for {len(record.places)} "
                f"part(s) in a space of {space.dim} dimensions"
            )
    old = {}
    for group in _groups([record.path for record in records]):
        for path, content_hash, item_id, size, mtime_ns, count in connection.execute(
            select(
                items.c.path,
                items.c.content_hash,
                items.c.id,
                items.c.size,
                items.c.mtime_ns,
                func.count(parts.c.id),
            )
            .join(parts, parts.c.item_id == items.c.id)
            .where(items.c.path.in_(group), parts.c.ordinal < WORDS_FROM)
            .group_by(items.c.id)
        ):
            old[path] = (content_hash, count, item_id, Fingerprint(size, mtime_ns))
    kept: list[ItemRecord] = []
    new: list[ItemRecord] = []
    for record in records:
        content_hash, count, _, fingerprint = old.get(record.path, (None, 0, 0, None))
        # what came in without being read is what has its size and time
        unread = content_hash == b"" and fingerprint == record.fingerprint
        same = (unread or content_hash == record.content_hash) and (
            count == len(record.places) or _timed(record)
        )
        (kept if same else new).append(record)

    # The same content in another space: the vectors of the other spaces stay.
    aligned: dict[bytes, list[int]] = {}
    for record in kept:
        item_id = old[record.path][2]
        change = Relocation(item_id, record.path, record.fingerprint, record.facts, record.captions)
        _set_file(connection, change)
        if old[record.path][0] != record.content_hash:
            connection.execute(
                items.update().where(items.c.id == item_id).values(content_hash=record.content_hash)
            )
        its_parts = select(parts.c.id).where(
            parts.c.item_id == item_id, parts.c.ordinal < WORDS_FROM
        )
        connection.execute(
            vectors.delete().where(vectors.c.space_id == space.id, vectors.c.part_id.in_(its_parts))
        )
        if _timed(record):
            aligned[record.path] = _windows(connection, item_id, record.places)
    for group in _groups([record.path for record in new]):
        connection.execute(items.delete().where(items.c.path.in_(group)))
    if new:
        connection.execute(insert(items), [_item_row(record, now_s) for record in new])
    ids: dict[bytes, int] = {}
    for group in _groups([record.path for record in records]):
        for path, item_id in connection.execute(
            select(items.c.path, items.c.id).where(items.c.path.in_(group))
        ):
            ids[path] = item_id
    if new:
        connection.execute(
            insert(parts),
            [
                {"item_id": ids[record.path], "ordinal": ordinal, **_place_row(place)}
                for record in new
                for ordinal, place in enumerate(record.places)
            ],
        )
    part_ids: dict[tuple[int, int], int] = {}  # of an item, by the place in its record
    for id_group in _groups(list(ids.values())):
        for part_id, item_id, ordinal in connection.execute(
            select(parts.c.id, parts.c.item_id, parts.c.ordinal).where(
                parts.c.item_id.in_(id_group), parts.c.ordinal < WORDS_FROM
            )
        ):
            part_ids[item_id, ordinal] = part_id
    for path, own in aligned.items():
        part_ids.update(((ids[path], at), part_id) for at, part_id in enumerate(own))
    connection.execute(
        insert(vectors),
        [
            {
                "part_id": part_ids[ids[record.path], ordinal],
                "space_id": space.id,
                "modality": str(record.modality),
                "vector": vector.tobytes(),
            }
            for record in records
            for ordinal, vector in enumerate(record.vectors.astype("<f2"))
        ],
    )
    for record in records:
        _set_captions(connection, ids[record.path], record.captions, space)


def _timed(record: ItemRecord) -> bool:
    return record.places[0].start_s is not None


def _windows(connection: Connection, item_id: int, places: Sequence[Place]) -> list[int]:
    """Finds or makes the parts of a recording for its windows: part ids, in their order.

    Models hear at rates of their own, and a window at the edge of silence may count for one and not
    for another. So windows are matched by their start, and each space has vectors of those it uses.
    """
    content = (parts.c.item_id == item_id, parts.c.ordinal < WORDS_FROM)
    connection.execute(parts.delete().where(*content, parts.c.id.not_in(select(vectors.c.part_id))))
    known = {
        round(start_s, 2): part_id
        for part_id, start_s in connection.execute(
            select(parts.c.id, parts.c.start_s).where(*content, parts.c.start_s.is_not(None))
        )
    }
    last = connection.execute(select(func.max(parts.c.ordinal)).where(*content)).scalar()
    last = -1 if last is None else int(last)
    ordinal = last
    found = []
    for place in places:
        assert place.start_s is not None
        part_id = known.get(round(place.start_s, 2))
        if part_id is None:
            ordinal += 1
            part_id = connection.execute(
                insert(parts)
                .values(item_id=item_id, ordinal=ordinal, **_place_row(place))
                .returning(parts.c.id)
            ).scalar_one()
        found.append(part_id)
    if ordinal != last:
        _order_by_time(connection, item_id)
    return found


def _order_by_time(connection: Connection, item_id: int) -> None:
    """Numbers the parts of a recording anew, by way of numbers that none has."""
    own = select(parts.c.id).where(parts.c.item_id == item_id, parts.c.ordinal < WORDS_FROM)
    own = own.order_by(parts.c.start_s)
    ids = [row[0] for row in connection.execute(own)]
    for sign in (-1, 1):
        for at, part_id in enumerate(ids):
            number = -1 - at if sign < 0 else at
            connection.execute(parts.update().where(parts.c.id == part_id).values(ordinal=number))


def drop(connection: Connection, space: Space) -> None:
    """Drops a space within the caller's transaction, and items that have no vectors left."""
    for table in (seals, removed, vectors, concepts):  # seals first: nothing is masked any more
        connection.execute(table.delete().where(table.c.space_id == space.id))
    connection.execute(spaces.delete().where(spaces.c.id == space.id))
    connection.execute(parts.delete().where(parts.c.id.not_in(select(vectors.c.part_id))))
    content = select(parts.c.item_id).where(parts.c.ordinal < WORDS_FROM)
    connection.execute(items.delete().where(items.c.id.not_in(content)))
    connection.execute(GENERATION)


def _item_row(record: ItemRecord, now_s: int) -> dict[str, object]:
    return {
        "path": record.path,
        "modality": str(record.modality),
        "size": record.fingerprint.size,
        "mtime_ns": record.fingerprint.mtime_ns,
        "content_hash": record.content_hash,
        "width": record.width,
        "height": record.height,
        "duration_s": record.duration_s,
        "indexed_at_s": now_s,
        "beside": b"" if record.captions is None else record.captions.beside,
        **_facts_row(record.facts),
    }


def _facts_row(facts: Facts) -> dict[str, object]:
    return {**dataclasses.asdict(facts), "facts_version": FACTS_VERSION}


def _place_row(place: Place) -> dict[str, object]:
    return {
        "start_s": place.start_s,
        "end_s": place.end_s,
        "page": place.page,
        "line": place.line,
        "text": place.text,
        "source": str(Source.CONTENT),
    }


def _groups(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), MAX_VARIABLES):
        yield values[start : start + MAX_VARIABLES]
