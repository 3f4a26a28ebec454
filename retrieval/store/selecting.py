"""Which vectors belong to the items that pass a filter.

Statements are written out, since their speed hangs on the order of the tables: from ``items``,
which has indexes for what is rare, over two covering indexes to the ids of vectors. The vectors
themselves, ten times as many bytes, are never touched.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.filters import EARTH_KM, Filters, Near
from retrieval.store.records import Extent
from retrieval.store.schema import WORDS_FROM

Ids = NDArray[np.int64]
Rows = Callable[[str, dict[str, Any]], Any]  # runs a statement and gives its rows

BLOCKS, BLOCK_ROWS = 24, 128  # looked at for an estimate: 3,072 items, about 2 ms
INDEX_SHARE = 0.03  # of a million by date: 1 % takes 0.4 times as long by the index, 10 % 2.4 times
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_NS, LAST_NS = -(2**63), 2**63 - 1

CAMERAS = """
    WITH RECURSIVE names (name) AS (
        SELECT min(camera) FROM items WHERE camera IS NOT NULL
        UNION ALL
        SELECT (SELECT min(camera) FROM items WHERE camera IS NOT NULL AND camera > name)
        FROM names WHERE name IS NOT NULL)
    SELECT name FROM names WHERE name IS NOT NULL"""


def cameras(rows: Rows) -> list[str]:
    """Lists the names of cameras that the index knows; time grows with their number alone."""
    return [name for (name,) in rows(CAMERAS, {})]


def condition(rows: Rows, filters: Filters) -> tuple[str, dict[str, Any]]:
    """Writes a filter as SQL over ``items``, with its values; a place as a box around it."""
    terms: list[str] = ["1"]
    values: dict[str, Any] = {}
    if filters.under is not None:
        low, high = span(filters.under)
        terms.append("(path = :under OR (path > :low AND path < :high))")
        values |= {"under": filters.under, "low": low, "high": high}
    if filters.after is not None or filters.before is not None:
        # one term for each index; what has no date of its own has that of its last change
        after, before = filters.after or datetime.min, filters.before or datetime.max
        terms.append(
            "((taken_at >= :after AND taken_at < :before)"
            " OR (taken_at IS NULL AND mtime_ns >= :after_ns AND mtime_ns < :before_ns))"
        )
        values |= {"after": after.isoformat(), "before": before.isoformat()}
        values |= {"after_ns": nanoseconds(after), "before_ns": nanoseconds(before)}
    if filters.camera is not None:
        part = " ".join(filters.camera.casefold().split())
        names = [name for name in cameras(rows) if part in name.casefold()]
        terms.append("camera IN (SELECT value FROM json_each(:cameras))")
        values["cameras"] = json.dumps(names)
    if filters.near is not None:
        south, north, spans = filters.near.box()
        sides = [f"lon BETWEEN :west{i} AND :east{i}" for i in range(len(spans))]
        terms.append(f"(lat BETWEEN :south AND :north AND ({' OR '.join(sides)}))")
        values |= {"south": south, "north": north}
        for i, (west, east) in enumerate(spans):
            values |= {f"west{i}": west, f"east{i}": east}
    for column, sign, value in (
        ("width", ">=", filters.min_width),
        ("duration_s", ">=", filters.min_duration_s),
        ("duration_s", "<=", filters.max_duration_s),
    ):
        if value is not None:
            name = f"{column}{len(values)}"
            terms.append(f"{column} {sign} :{name}")
            values[name] = value
    if filters.suffixes:
        ends = []
        for i, suffix in enumerate(filters.suffixes):
            ends.append(f"lower(substr(path, -{len(suffix.encode())})) = :suffix{i}")
            values[f"suffix{i}"] = suffix
        terms.append(f"({' OR '.join(ends)})")
    for i, tag in enumerate(filters.tags):
        terms.append(f"items.id IN (SELECT item_id FROM tags WHERE tag = :tag{i})")
        values[f"tag{i}"] = tag
    return " AND ".join(terms), values


def vector_ids(
    rows: Rows,
    space: int,
    modality: str,
    filters: Filters,
    *,
    without: bool,
    words: bool = False,
) -> Ids:
    """Lists the vectors of the items that pass a filter, or those of all others, ascending.

    Args:
        rows: Runs a statement.
        space: Whose vectors.
        modality: Of the items.
        filters: What they must be.
        without: Lists the vectors of all other items instead.
        words: Those of the words that belong to the items, in place of their content.
    """
    passes, values = condition(rows, filters)
    low, high = (WORDS_FROM, 2 * WORDS_FROM) if words else (0, WORDS_FROM)
    values |= {"space": space, "modality": modality, "low_part": low, "high_part": high}
    # An index brings items in its own order, and the way from each to its vectors jumps about.
    # Inside an expression no index is used, and items come in the order in which they were made.
    if not without and share(rows, modality, filters) > INDEX_SHARE:
        passes = f"({passes}) IS TRUE"
    if filters.near is None:
        found = _joined(rows, f"({passes}) IS NOT TRUE" if without else passes, values)
    elif without:
        # what is outside the box, and what is inside but too far away
        outside = _joined(rows, f"({passes}) IS NOT TRUE", values)
        ids, near = _around(rows, passes, values, filters.near)
        found = np.concatenate([outside, ids[~near]])
    else:
        ids, near = _around(rows, passes, values, filters.near)
        found = ids[near]
    found.sort()
    return found


def _from(passes: str) -> str:
    """Joins the tables in the fast order, which CROSS keeps; the plus lets no index begin there."""
    return f"""
        FROM items CROSS JOIN parts ON parts.item_id = items.id
        AND parts.ordinal >= :low_part AND parts.ordinal < :high_part
        CROSS JOIN vectors ON vectors.part_id = parts.id AND vectors.space_id = :space
        WHERE +items.modality = :modality AND {passes}"""


def _joined(rows: Rows, passes: str, values: dict[str, Any]) -> Ids:
    # one text instead of a row for each id: Python's share of the time is halved
    ((text,),) = rows(f"SELECT group_concat(vectors.id) {_from(passes)}", values)
    return np.fromstring(text or "", np.int64, sep=",") if text else np.empty(0, np.int64)


def _around(
    rows: Rows, passes: str, values: dict[str, Any], near: Near
) -> tuple[Ids, NDArray[np.bool_]]:
    """Gives the vectors in a place's box, and which of them lie near."""
    found = rows(f"SELECT vectors.id, lat, lon {_from(passes)}", values)
    table = np.array([tuple(row) for row in found], np.float64).reshape(len(found), 3)
    ids = np.fromiter((row[0] for row in found), np.int64, len(found))
    return ids, distance_km(near, table[:, 1], table[:, 2]) <= near.km


def distance_km(
    near: Near, lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Gives distances ``(n,)`` over the sphere by the haversine formula (Sinnott 1984).

    It is exact to the last digits for small distances, where the law of cosines is not.
    """
    here, there = np.radians(near.lat), np.radians(lat)
    across = np.radians(lon - near.lon) / 2
    chord = np.sin((there - here) / 2) ** 2 + np.cos(here) * np.cos(there) * np.sin(across) ** 2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1))))


def share(rows: Rows, modality: str, filters: Filters) -> float:
    """Estimates which part of a modality's items passes a filter, from a few blocks of them.

    Items that were indexed together lie together, so this is rough; it serves to choose a way, not
    to count.
    """
    # two statements in one: asked for both at once, SQLite would go through all items
    ((first, last),) = rows("SELECT (SELECT min(id) FROM items), (SELECT max(id) FROM items)", {})
    if first is None:
        return 0.0
    passes, values = condition(rows, filters)
    starts = np.linspace(first, max(first, last - BLOCK_ROWS + 1), BLOCKS).astype(int).tolist()
    blocks = ", ".join(f"({at})" for at in starts)
    ((some, all_),) = rows(
        f"WITH block (start) AS (VALUES {blocks}) SELECT total(({passes}) IS TRUE), count(*) "
        f"FROM block CROSS JOIN items ON items.id BETWEEN start AND start + {BLOCK_ROWS - 1} "
        "WHERE +modality = :modality",
        values | {"modality": modality},
    )
    return float(some / all_) if all_ else 0.0


def count(rows: Rows, modalities: tuple[str, ...], filters: Filters) -> int:
    """Counts the items of some modalities that pass a filter."""
    passes, values = condition(rows, filters)
    kinds = "modality IN (SELECT value FROM json_each(:modalities))"
    values["modalities"] = json.dumps(modalities)
    if filters.near is None:
        ((number,),) = rows(f"SELECT count(*) FROM items WHERE {kinds} AND {passes}", values)
        return int(number)
    found = rows(f"SELECT lat, lon FROM items WHERE {kinds} AND {passes}", values)
    table = np.array([tuple(row) for row in found], np.float64).reshape(len(found), 2)
    near = distance_km(filters.near, table[:, 0], table[:, 1]) <= filters.near.km
    return int(np.count_nonzero(near))


def span(root: bytes) -> tuple[bytes, bytes]:
    """Gives the open interval in which exactly the paths below ``root`` lie."""
    base = root.rstrip(b"/")
    return base + b"/", base + b"0"  # "0" follows "/"


def nanoseconds(when: datetime) -> int:
    """Gives a moment of this machine's clock as nanoseconds since 1970, as far as they go."""
    try:
        since = when.astimezone(UTC) - EPOCH
    except (OverflowError, ValueError, OSError):  # the ends of the calendar have no neighbours
        return FIRST_NS if when < datetime(1970, 1, 1) else LAST_NS
    return max(FIRST_NS, min(LAST_NS, since // timedelta(microseconds=1) * 1000))


def date_of(taken_at: str | None, mtime_ns: int) -> datetime | None:
    """Gives an item's moment: when it was taken, else last changed, by this machine's clock."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if taken_at is not None:
            return datetime.fromisoformat(taken_at)
        return datetime.fromtimestamp(mtime_ns // 10**9)
    return None


def extent(rows: Rows, modalities: tuple[str, ...]) -> Extent:
    """Tells between what the items of some modalities lie."""
    kinds = "modality IN (SELECT value FROM json_each(:modalities))"
    ((*dates, width, shortest_s, longest_s, placed),) = rows(
        f"""SELECT min(taken_at), max(taken_at),
            min(mtime_ns) FILTER (WHERE taken_at IS NULL),
            max(mtime_ns) FILTER (WHERE taken_at IS NULL),
            max(width), min(duration_s), max(duration_s), count(lat)
            FROM items WHERE {kinds}""",
        {"modalities": json.dumps(modalities)},
    )
    taken_first, taken_last, changed_first, changed_last = dates
    moments = [date_of(taken, 0) for taken in (taken_first, taken_last) if taken is not None]
    moments += [date_of(None, ns) for ns in (changed_first, changed_last) if ns is not None]
    known = [moment for moment in moments if moment is not None]
    return Extent(
        oldest=min(known, default=None),
        newest=max(known, default=None),
        cameras=tuple(cameras(rows)),
        placed=placed,
        width=width,
        shortest_s=shortest_s,
        longest_s=longest_s,
        tags=tuple(name for (name,) in rows("SELECT DISTINCT tag FROM tags ORDER BY tag", {})),
    )
