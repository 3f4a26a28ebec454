"""What can be broken in an index file, and how it is taken out so that it can be made anew.

Nothing whole is touched: a vector that cannot be right goes together with the other vectors of its
item in its space, since an item with some of them would count as complete; an item without any
vector goes as a whole, and the next run over its folder finds a new file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from retrieval.store.schema import WORDS_FROM
from retrieval.types import Modality

Rows = Callable[[str, dict[str, Any]], Sequence[Any]]

PAGE_ROWS = 8_192  # vectors looked at at a time: 8 MB at 512 dimensions
UNIT = 1e-2  # float16 rounds a unit vector to within 1e-3; ten times that is no rounding
NAMED = 10  # of what SQLite itself finds; a broken page brings hundreds

ORPHANS = {
    "parts": "item_id NOT IN (SELECT id FROM items)",
    "vectors": "part_id NOT IN (SELECT id FROM parts) "
    "OR space_id NOT IN (SELECT id FROM spaces WHERE dim > 0)",
    "seals": "space_id NOT IN (SELECT id FROM spaces)",
    "concepts": "space_id NOT IN (SELECT id FROM spaces)",
}
# An item's vectors in a space of which some parts have none; parts without items are orphans. Of a
# recording a model may find other windows silent than the next, and words need a model that reads.
GAPS = f"""
    SELECT p.item_id AS item_id, v.space_id AS space_id
    FROM vectors v JOIN parts p ON p.id = v.part_id
    WHERE p.ordinal < {WORDS_FROM} AND p.start_s IS NULL
    GROUP BY p.item_id, v.space_id
    HAVING count(*) <> (SELECT count(*) FROM parts
        WHERE parts.item_id = p.item_id AND parts.ordinal < {WORDS_FROM})"""
OTHER_KIND = """
    SELECT v.id AS id FROM vectors v CROSS JOIN parts p ON p.id = v.part_id
    CROSS JOIN items i ON i.id = p.item_id
    WHERE v.modality <> i.modality || CASE p.source WHEN 'content' THEN '' ELSE ' words' END"""
ODD_ITEMS = f"""
    modality NOT IN ({", ".join(f"'{modality}'" for modality in Modality)})
    OR length(content_hash) NOT IN (0, 16) OR typeof(path) <> 'blob' OR length(path) = 0
    OR size < 0"""
EMPTY_ITEMS = """
    NOT EXISTS (SELECT 1 FROM parts p JOIN vectors v ON v.part_id = p.id
                WHERE p.item_id = items.id)"""
STALE_MASKS = """
    vector_id IN (SELECT id FROM vectors)
    OR NOT EXISTS (SELECT 1 FROM seals s WHERE s.space_id = removed.space_id
        AND s.modality = removed.modality AND removed.vector_id BETWEEN s.first_id AND s.last_id)"""


@dataclass(frozen=True, slots=True)
class Faults:
    """What is broken; counts of rows, and the ids that a repair needs.

    Attributes:
        file: What SQLite finds wrong with the file itself, at most ten lines.
        orphans: Rows by table that belong to nothing.
        sizes: Vectors of a wrong number of bytes.
        numbers: Vectors that are not finite.
        lengths: Vectors that are not of length 1.
        kinds: Vectors that are kept for another modality than their item's.
        gaps: Items in a space where some of their parts have no vector.
        items: Items with a modality, path, size or digest that none can have.
        empty: Items without any part or vector.
        masks: Entries of removed vectors that are there, or that no derived file covers.
        concepts: Names of concepts whose vector cannot be one, with the ids of their spaces.
        first: A path for each of the kinds above that have one, by the attribute's name.
        vector_ids: Of all vectors that cannot stay.
        all_items: How many items there are, broken or not.
        all_vectors: How many vectors.
    """

    file: tuple[str, ...] = ()
    orphans: dict[str, int] | None = None
    sizes: int = 0
    numbers: int = 0
    lengths: int = 0
    kinds: int = 0
    gaps: int = 0
    items: int = 0
    empty: int = 0
    masks: int = 0
    concepts: tuple[tuple[str, int], ...] = ()
    first: dict[str, bytes] | None = None
    vector_ids: tuple[int, ...] = ()
    all_items: int = 0
    all_vectors: int = 0


def faults(rows: Rows) -> Faults:
    """Goes through an index file; reads every vector once, in pages."""
    said = [str(row[0]) for row in rows(f"PRAGMA integrity_check({NAMED})", {})]
    first: dict[str, bytes] = {}

    def number(kind: str, statement: str) -> int:
        ((count, path),) = rows(statement, {})
        if count and path is not None:
            first[kind] = bytes(path) if isinstance(path, bytes) else str(path).encode()
        return int(count)

    orphans = {
        table: count
        for table, wrong in ORPHANS.items()
        if (count := rows(f"SELECT count(*) FROM {table} WHERE {wrong}", {})[0][0])
    }
    sizes, numbers, lengths = _vectors(rows)
    for kind, ids in (("sizes", sizes), ("numbers", numbers), ("lengths", lengths)):
        if ids:
            found = rows(
                "SELECT path FROM items i JOIN parts p ON p.item_id = i.id "
                "JOIN vectors v ON v.part_id = p.id WHERE v.id = :id",
                {"id": ids[0]},
            )
            first |= {kind: found[0][0]} if found else {}
    others = [row[0] for row in rows(OTHER_KIND, {})]
    return Faults(
        file=() if said == ["ok"] else tuple(said),
        orphans=orphans,
        sizes=len(sizes),
        numbers=len(numbers),
        lengths=len(lengths),
        kinds=len(others),
        gaps=number(
            "gaps",
            f"SELECT count(*), min(path) FROM ({GAPS}) AS g JOIN items ON items.id = g.item_id",
        ),
        items=number("items", f"SELECT count(*), min(path) FROM items WHERE {ODD_ITEMS}"),
        empty=number("empty", f"SELECT count(*), min(path) FROM items WHERE {EMPTY_ITEMS}"),
        masks=rows(f"SELECT count(*) FROM removed WHERE {STALE_MASKS}", {})[0][0],
        concepts=_concepts(rows),
        first=first,
        vector_ids=(*sizes, *numbers, *lengths, *others),
        all_items=rows("SELECT count(*) FROM items", {})[0][0],
        all_vectors=rows("SELECT count(*) FROM vectors", {})[0][0],
    )


def _vectors(rows: Rows) -> tuple[list[int], list[int], list[int]]:
    """Lists vectors of a wrong size, those that are not finite, those not of length 1."""
    sizes: list[int] = []
    numbers: list[int] = []
    lengths: list[int] = []
    for space_id, dim in rows("SELECT id, dim FROM spaces WHERE dim > 0", {}):
        last = 0
        while page := rows(
            "SELECT id, vector FROM vectors WHERE space_id = :space AND id > :last "
            "ORDER BY id LIMIT :limit",
            {"space": space_id, "last": last, "limit": PAGE_ROWS},
        ):
            last = page[-1][0]
            right = [row for row in page if isinstance(row[1], bytes) and len(row[1]) == 2 * dim]
            if len(right) < len(page):
                whole = {row[0] for row in right}
                sizes += [row[0] for row in page if row[0] not in whole]
            ids = np.fromiter((row[0] for row in right), np.int64, len(right))
            matrix = np.frombuffer(b"".join(row[1] for row in right), "<f2")
            values = matrix.reshape(len(right), dim).astype(np.float32)
            finite = np.asarray(np.isfinite(values).all(axis=1))
            norms = np.linalg.norm(np.where(finite[:, None], values, 0), axis=1)
            numbers += ids[~finite].tolist()
            lengths += ids[finite & (np.abs(norms - 1) > UNIT)].tolist()
    return sizes, numbers, lengths


def _concepts(rows: Rows) -> tuple[tuple[str, int], ...]:
    broken = []
    for name, space_id, vector, dim in rows(
        "SELECT c.name, s.id, c.vector, s.dim FROM concepts c JOIN spaces s ON s.id = c.space_id "
        "ORDER BY c.name",
        {},
    ):
        values = np.frombuffer(vector, "<f4") if len(vector) == 4 * dim else np.zeros(1, "<f4")
        whole = bool(np.isfinite(values).all())
        if not whole or abs(float(np.linalg.norm(values)) - 1) > UNIT:
            broken.append((str(name), int(space_id)))
    return tuple(broken)


def mend(connection: Connection, found: Faults) -> None:
    """Takes out what ``faults`` found, within the caller's transaction.

    What SQLite finds wrong with its own indexes of the tables is made anew from the tables.
    """

    def run(statement: str, **values: Any) -> None:
        connection.execute(text(statement).bindparams(**values))

    if found.file:
        run("REINDEX")
    for table, wrong in ORPHANS.items():
        run(f"DELETE FROM {table} WHERE {wrong}")
    run("CREATE TEMP TABLE broken (item_id INTEGER, space_id INTEGER)")
    run(
        "INSERT INTO broken SELECT p.item_id, v.space_id FROM vectors v "
        "JOIN parts p ON p.id = v.part_id WHERE v.id IN (SELECT value FROM json_each(:ids))",
        ids=json.dumps(found.vector_ids),
    )
    run(f"INSERT INTO broken {GAPS}")
    run(
        "DELETE FROM vectors WHERE id IN (SELECT v.id FROM broken b "
        "JOIN parts p ON p.item_id = b.item_id "
        "JOIN vectors v ON v.part_id = p.id AND v.space_id = b.space_id)"
    )
    run("DROP TABLE broken")
    run(f"DELETE FROM items WHERE {ODD_ITEMS}")
    run(f"DELETE FROM items WHERE {EMPTY_ITEMS}")
    for name, space_id in found.concepts:
        run(
            "DELETE FROM concepts WHERE name = :name AND space_id = :space",
            name=name,
            space=space_id,
        )
    run(f"DELETE FROM removed WHERE {STALE_MASKS}")
    run("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
