"""One index taken into another, in one transaction; and a copy of an index to take it into."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import ExchangeError
from retrieval.store.engine import location, named_failures, open_engine
from retrieval.store.schema import WORDS_FROM, items, parts, vectors

NAMED = 5  # concepts or spaces in a message


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of it, in items.

    Attributes:
        added: Those whose path only the other index had.
        replaced: Those of which the other index had a newer file.
        kept: Those of which this index's file is as new or newer, or the same.
        concepts: Concepts that came in.
    """

    added: int
    replaced: int
    kept: int
    concepts: int


def copy(index: Path, to: Path, *, final: Path | None = None) -> None:
    """Copies an index, as it is at one moment, without its derived files.

    Args:
        index: Is only read.
        to: A path where nothing is.
        final: Where it will lie; messages name that.

    Raises:
        StoreError: If the disk does not take it.
    """
    with (
        named_failures(final or to),
        closing(sqlite3.connect(location(index, write=False), uri=True)) as source,
        closing(sqlite3.connect(location(to, write=True), uri=True)) as target,
    ):
        source.backup(target)
        target.execute("DELETE FROM removed")
        target.execute("DELETE FROM seals")
        target.commit()


def join(
    into: Path,
    other: Path,
    *,
    prefer: str | None = None,
    called: Path | None = None,
    final: Path | None = None,
) -> Joined:
    """Takes the items and concepts of another index in: all of them, or nothing on an error.

    Items meet by path. Where both have one with the same content and parts, it stays, at the newer
    time, and gets the vectors of spaces in which it has none; of different contents the newer
    file's wins, and this index's if they are equally new.

    Args:
        into: An index of today's schema, which is changed.
        other: Another of today's schema, which is only read.
        prefer: Whose concepts win where both have one of a name: ``"A"`` for ``into``, ``"B"`` for
            ``other``.
        called: What messages call the index that ``into`` is a copy of, if it is one.
        final: Where ``into`` will lie, as in ``copy``.

    Raises:
        StoreError: If the disk does not take it.
        ExchangeError: If they have different spaces, or concepts of the same name and no one is
            preferred.
    """
    engine = open_engine(into, write=True)
    with named_failures(final or into):
        try:
            raw = engine.raw_connection()
            connection = raw.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            try:
                connection.execute("ATTACH ? AS other", (location(other, write=False),))
                connection.execute("BEGIN IMMEDIATE")
                try:
                    _check_spaces(connection, called or into, other)
                    taken = _concepts(connection, prefer)
                    result = _items(connection, taken)
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # a full disk has rolled back already
                        connection.execute("ROLLBACK")
                    raise
            finally:
                raw.close()
        finally:
            engine.dispose()
    return result


def _check_spaces(connection: sqlite3.Connection, into: Path, other: Path) -> None:
    ours, theirs = (
        dict(connection.execute(f"SELECT name, dim FROM {schema}.spaces").fetchall())
        for schema in ("main", "other")
    )
    if ours == theirs:
        return
    differences = [
        f"{index} alone has {', '.join(sorted(only)[:NAMED])}"
        for index, only in ((into, ours.keys() - theirs), (other, theirs.keys() - ours))
        if only
    ] or [f"{name} has other dimensions" for name in ours if ours[name] != theirs[name]]
    raise ExchangeError(
        f"the two have different spaces ({'; '.join(differences)}): index both with the same "
        "models, then merge them"
    )


def _concepts(connection: sqlite3.Connection, prefer: str | None) -> int:
    """Takes the concepts of the other index in; an equal one is no clash."""
    mapped = (
        "FROM other.concepts t JOIN other.spaces o ON o.id = t.space_id "
        "JOIN main.spaces s ON s.name = o.name"
    )
    met = f"{mapped} JOIN main.concepts m ON m.name = t.name AND m.space_id = s.id"
    clashes = connection.execute(
        f"SELECT DISTINCT t.name {met} WHERE m.vector <> t.vector "
        "OR m.positives <> t.positives OR m.negatives <> t.negatives ORDER BY 1"
    ).fetchall()
    if clashes and prefer is None:
        names = ", ".join(f"<{name}>" for (name,) in clashes[:NAMED])
        raise ExchangeError(
            f"both have a concept of the name {names}: give --prefer A or --prefer B, or remove "
            "one with `anyseek concept remove`"
        )
    # REPLACE and IGNORE are about the two names alone: everything else was checked where it came in
    manner = "REPLACE" if prefer == "B" else "IGNORE"
    return connection.execute(
        f"INSERT OR {manner} INTO main.concepts "
        "(name, space_id, vector, positives, negatives, created_s) "
        f"SELECT t.name, s.id, t.vector, t.positives, t.negatives, t.created_s {mapped} WHERE true"
    ).rowcount


def _items(connection: sqlite3.Connection, concepts: int) -> Joined:
    run = connection.execute
    run(
        f"""CREATE TEMP TABLE met AS
        SELECT t.id AS theirs, m.id AS ours, t.mtime_ns > m.mtime_ns AS newer,
            t.content_hash = m.content_hash AND t.modality = m.modality
            AND (SELECT count(*) FROM other.parts
                 WHERE item_id = t.id AND ordinal < {WORDS_FROM})
              = (SELECT count(*) FROM main.parts
                 WHERE item_id = m.id AND ordinal < {WORDS_FROM}) AS same
        FROM other.items t CROSS JOIN main.items m ON m.path = t.path"""
    )
    run(
        """CREATE TEMP TABLE space_of AS SELECT o.id AS theirs, s.id AS ours
        FROM other.spaces o JOIN main.spaces s ON s.name = o.name"""
    )
    run("DELETE FROM main.items WHERE id IN (SELECT ours FROM met WHERE newer AND NOT same)")
    run(
        """UPDATE main.items SET (size, mtime_ns) = (
            SELECT size, mtime_ns FROM other.items t JOIN met ON met.theirs = t.id
            WHERE met.ours = main.items.id)
        WHERE id IN (SELECT ours FROM met WHERE newer AND same)"""
    )
    columns = ", ".join(column.name for column in items.columns if column.name != "id")
    added = run(
        f"""INSERT INTO main.items ({columns}) SELECT {columns} FROM other.items t
        WHERE t.id NOT IN (SELECT theirs FROM met WHERE same OR NOT newer) ORDER BY t.id"""
    ).rowcount
    run("CREATE TEMP TABLE item_of (theirs INTEGER PRIMARY KEY, ours INTEGER, fresh INTEGER)")
    run("INSERT INTO item_of SELECT theirs, ours, 0 FROM met WHERE same")
    run(
        """INSERT INTO item_of SELECT t.id, m.id, 1
        FROM other.items t CROSS JOIN main.items m ON m.path = t.path
        WHERE t.id NOT IN (SELECT theirs FROM met WHERE same OR NOT newer)"""
    )
    columns = ", ".join(c.name for c in parts.columns if c.name not in ("id", "item_id"))
    run(
        f"""INSERT INTO main.parts (item_id, {columns})
        SELECT item_of.ours, {columns} FROM other.parts p
        CROSS JOIN item_of ON item_of.theirs = p.item_id AND fresh ORDER BY p.id"""
    )
    names = [c.name for c in vectors.columns if c.name not in ("id", "part_id", "space_id")]
    run(
        f"""INSERT INTO main.vectors (part_id, space_id, {", ".join(names)})
        SELECT mine.id, space_of.ours, {", ".join(f"v.{name}" for name in names)}
        FROM other.vectors v CROSS JOIN other.parts p ON p.id = v.part_id
        CROSS JOIN item_of ON item_of.theirs = p.item_id
        CROSS JOIN main.parts mine ON mine.item_id = item_of.ours AND mine.ordinal = p.ordinal
        CROSS JOIN space_of ON space_of.theirs = v.space_id
        WHERE fresh OR p.ordinal < {WORDS_FROM} AND NOT EXISTS (
            SELECT 1 FROM main.vectors x WHERE x.part_id = mine.id AND x.space_id = space_of.ours)
        ORDER BY v.id"""
    )
    run(
        """INSERT OR IGNORE INTO main.tags (item_id, tag, source, probability)
        SELECT item_of.ours, tag, source, probability
        FROM other.tags t CROSS JOIN item_of ON item_of.theirs = t.item_id"""
    )
    ((met, replaced),) = run("SELECT count(*), total(newer AND NOT same) FROM met").fetchall()
    run("UPDATE main.meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
    for table in ("met", "space_of", "item_of"):
        run(f"DROP TABLE temp.{table}")
    return Joined(added - int(replaced), int(replaced), met - int(replaced), concepts)
