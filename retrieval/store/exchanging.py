"""What leaves an index with its vectors, and what it has where vectors come in.

One record, ``PartRow``, is what travels in both directions: a vector's part and item without ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.sql import Select

from retrieval.store.records import Space
from retrieval.store.schema import WORDS_FROM, items, parts, vectors
from retrieval.types import NO_FACTS, WHOLE, Facts, Fingerprint, Modality, Place

Rows = Callable[[Select[Any]], Sequence[Any]]
Run = Callable[[str, dict[str, Any]], Sequence[Any]]
START = (0, -1)  # before the first part of the first item
# CROSS keeps the order of the tables: a page is then a walk along the index of parts, where SQLite
# by itself would sort all vectors of the space for every page.
PAGE = f"""
    SELECT p.item_id, p.ordinal, p.start_s, p.end_s, p.page, p.line, p.text,
        i.path, i.modality, i.size, i.mtime_ns, i.content_hash, i.width, i.height, i.duration_s,
        i.taken_at, i.camera, i.lat, i.lon, i.indexed_at_s, v.vector
    FROM parts p CROSS JOIN items i ON i.id = p.item_id
    CROSS JOIN vectors v ON v.part_id = p.id AND v.space_id = :space
    WHERE (p.item_id, p.ordinal) > (:item, :ordinal) AND p.ordinal < {WORDS_FROM}
    ORDER BY p.item_id, p.ordinal LIMIT :limit"""


@dataclass(frozen=True, slots=True)
class PartRow:
    """All that is known of one vector; ``None`` where nothing is.

    Attributes:
        path: Absolute path of the item.
        modality: Of the item.
        ordinal: Of the part in its item, ascending.
        place: Where in its item the part lies.
        fingerprint: Of the file when it was embedded.
        content_hash: 16 bytes of BLAKE2b over that file.
        width: Pixels, as shown.
        height: Pixels, as shown.
        duration_s: Seconds.
        facts: From its metadata.
        indexed_at_s: Seconds since 1970.
    """

    path: bytes
    modality: Modality
    ordinal: int = 0
    place: Place = WHOLE
    fingerprint: Fingerprint | None = None
    content_hash: bytes | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    facts: Facts = NO_FACTS
    indexed_at_s: int | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """An item that the index has at a path where vectors are to come in.

    Attributes:
        fingerprint: As it is stored.
        content_hash: 16 bytes, or none where the content was never read.
        facts: From its metadata.
        parts: How many it has.
        others: Whether it has vectors in another space.
        vectors: Those it has in the space asked about, one after the other.
    """

    fingerprint: Fingerprint
    content_hash: bytes
    facts: Facts
    parts: int
    others: bool
    vectors: bytes


def page(
    run: Run, space: Space, after: tuple[int, int], limit: int
) -> tuple[list[PartRow], NDArray[np.float16], tuple[int, int]]:
    """Reads the next parts of an index, item by item.

    Args:
        run: Runs a statement.
        space: Whose vectors.
        after: What the last page gave; ``START`` for the first.
        limit: At most so many parts.

    Returns:
        Rows, their vectors ``(n, dim)``, and where the next page goes on.
    """
    item_id, ordinal = after
    found = run(PAGE, {"space": space.id, "item": item_id, "ordinal": ordinal, "limit": limit})
    read = [
        PartRow(
            path=row[7],
            modality=Modality(row[8]),
            ordinal=row[1],
            place=Place(*row[2:7]),
            fingerprint=Fingerprint(row[9], row[10]),
            content_hash=row[11] or None,
            width=row[12],
            height=row[13],
            duration_s=row[14],
            facts=Facts(*row[15:19]),
            indexed_at_s=row[19],
        )
        for row in found
    ]
    matrix = np.frombuffer(b"".join(row[20] for row in found), "<f2").reshape(len(found), space.dim)
    return read, matrix, (found[-1][0], found[-1][1]) if found else after


def present(rows: Rows, paths: Sequence[bytes], space: Space | None) -> dict[bytes, Present]:
    """Looks up the items at some paths, at most 10,000; without a space none has vectors in it."""
    space_id = 0 if space is None else space.id
    own: dict[int, list[bytes]] = {}
    found = rows(
        select(
            items.c.id,
            items.c.path,
            items.c.size,
            items.c.mtime_ns,
            items.c.content_hash,
            items.c.taken_at,
            items.c.camera,
            items.c.lat,
            items.c.lon,
            select(func.count())
            .where(parts.c.item_id == items.c.id, parts.c.ordinal < WORDS_FROM)
            .correlate(items)
            .scalar_subquery(),
            select(vectors.c.id)
            .join(parts, vectors.c.part_id == parts.c.id)
            .where(parts.c.item_id == items.c.id, vectors.c.space_id != space_id)
            .correlate(items)
            .exists(),
        ).where(items.c.path.in_(paths))
    )
    if space is not None and found:
        for item_id, vector in rows(
            select(parts.c.item_id, vectors.c.vector)
            .join(vectors, vectors.c.part_id == parts.c.id)
            .where(
                parts.c.item_id.in_([row[0] for row in found]),
                parts.c.ordinal < WORDS_FROM,
                vectors.c.space_id == space.id,
            )
            .order_by(parts.c.item_id, parts.c.ordinal)
        ):
            own.setdefault(item_id, []).append(vector)
    return {
        row[1]: Present(
            Fingerprint(row[2], row[3]),
            row[4],
            Facts(*row[5:9]),
            row[9],
            bool(row[10]),
            b"".join(own.get(row[0], ())),
        )
        for row in found
    }
