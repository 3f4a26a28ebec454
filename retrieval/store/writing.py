"""The one transaction that changes index data."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Connection, func, insert, literal, select, text

from retrieval.store.records import Batch, ItemRecord, Relocation, Space
from retrieval.store.schema import FACTS_VERSION, items, parts, vectors
from retrieval.types import NO_FACTS, Facts, Fingerprint, Place

T = TypeVar("T")
MAX_VARIABLES = 10_000  # SQLite takes 32,766 values in one statement


def apply(connection: Connection, batch: Batch, space: Space) -> None:
    """Writes a batch within the caller's transaction; copies first, while their sources stand."""
    now_s = int(time.time())
    for copy in batch.copies:
        _copy(connection, copy, now_s)
    for move in batch.moves:
        connection.execute(
            items.delete().where(items.c.path == move.path, items.c.id != move.item_id)
        )
        _set_file(connection, move)
    for touch in batch.touched:
        _set_file(connection, touch)
    for ids in _groups(batch.removed):
        connection.execute(items.delete().where(items.c.id.in_(ids)))
    if batch.records:
        _put(connection, batch.records, space, now_s)
    connection.execute(
        text("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
    )


def _set_file(connection: Connection, change: Relocation) -> None:
    connection.execute(
        items.update()
        .where(items.c.id == change.item_id)
        .values(
            path=change.path,
            size=change.fingerprint.size,
            mtime_ns=change.fingerprint.mtime_ns,
            **({} if change.facts is None else _facts_row(change.facts)),
        )
    )


def _copy(connection: Connection, copy: Relocation, now_s: int) -> None:
    connection.execute(items.delete().where(items.c.path == copy.path, items.c.id != copy.item_id))
    shared = ("modality", "content_hash", "width", "height", "duration_s", *_facts_row(NO_FACTS))
    result = connection.execute(
        insert(items).from_select(
            ["path", "size", "mtime_ns", "indexed_at_s", *shared],
            select(
                literal(copy.path),
                literal(copy.fingerprint.size),
                literal(copy.fingerprint.mtime_ns),
                literal(now_s),
                *(items.c[name] for name in shared),
            ).where(items.c.id == copy.item_id),
        )
    )
    assert result.rowcount == 1, "the source of a copy is in the index"
    new_id = connection.execute(select(items.c.id).where(items.c.path == copy.path)).scalar_one()
    where = ("ordinal", "start_s", "end_s", "page", "line", "text")
    connection.execute(
        insert(parts).from_select(
            ["item_id", *where],
            select(literal(new_id), *(parts.c[name] for name in where))
            .where(parts.c.item_id == copy.item_id)
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
            .where(items.c.path.in_(group))
            .group_by(items.c.id)
        ):
            old[path] = (content_hash, count, item_id, Fingerprint(size, mtime_ns))
    kept: list[ItemRecord] = []
    new: list[ItemRecord] = []
    for record in records:
        content_hash, count, _, fingerprint = old.get(record.path, (None, 0, 0, None))
        # what came in without being read is what has its size and time
        unread = content_hash == b"" and fingerprint == record.fingerprint
        same = (unread or content_hash == record.content_hash) and count == len(record.places)
        (kept if same else new).append(record)

    # The same content in another space: the vectors of the other spaces stay.
    for record in kept:
        item_id = old[record.path][2]
        _set_file(connection, Relocation(item_id, record.path, record.fingerprint, record.facts))
        if old[record.path][0] != record.content_hash:
            connection.execute(
                items.update().where(items.c.id == item_id).values(content_hash=record.content_hash)
            )
        its_parts = select(parts.c.id).where(parts.c.item_id == item_id)
        connection.execute(
            vectors.delete().where(vectors.c.space_id == space.id, vectors.c.part_id.in_(its_parts))
        )
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
    part_ids: dict[tuple[int, int], int] = {}
    for id_group in _groups(list(ids.values())):
        for part_id, item_id, ordinal in connection.execute(
            select(parts.c.id, parts.c.item_id, parts.c.ordinal).where(
                parts.c.item_id.in_(id_group)
            )
        ):
            part_ids[item_id, ordinal] = part_id
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
    }


def _groups(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), MAX_VARIABLES):
        yield values[start : start + MAX_VARIABLES]
