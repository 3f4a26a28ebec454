"""The tables, and how an older file becomes today's: an append-only list of migrations."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BLOB,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

from retrieval.errors import NewerIndexError, NotAnIndexError

APPLICATION_ID = 0x616E7973  # "anys", so that `file` and we recognise an index
FACTS_VERSION = 2  # of what is read from metadata; raise it, and the next run reads them again

tables = MetaData()

items = Table(
    "items",
    tables,
    Column("id", Integer, primary_key=True),
    Column("path", BLOB, nullable=False, unique=True),  # bytes: names need not be UTF-8
    Column("modality", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("content_hash", BLOB, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("duration_s", Float),
    Column("taken_at", Text),
    Column("indexed_at_s", Integer, nullable=False),
    Column("camera", Text),
    Column("lat", Float),
    Column("lon", Float),
    Column("facts_version", Integer, nullable=False),
    Column("beside", BLOB, nullable=False),  # digest of what stands beside the file; often empty
)
WORDS_FROM = 1 << 31
"""Parts from this ordinal on are words that belong to an item; those below are its content.

An index of ``parts`` holds the ordinal, so that telling them apart costs no other read.
"""

parts = Table(
    "parts",
    tables,
    Column("id", Integer, primary_key=True),
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("start_s", Float),
    Column("end_s", Float),
    Column("page", Integer),
    Column("line", Integer),
    Column("text", Text),
    Column("source", Text, nullable=False),
)
spaces = Table(
    "spaces",
    tables,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("dim", Integer, nullable=False),
)
vectors = Table(
    "vectors",
    tables,
    Column("id", Integer, primary_key=True),
    Column("part_id", ForeignKey("parts.id", ondelete="CASCADE"), nullable=False),
    Column("space_id", ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("modality", Text, nullable=False),
    Column("vector", BLOB, nullable=False),  # dim x float16, little-endian, unit length
)
removed = Table(  # vectors that sealed files may still hold
    "removed",
    tables,
    Column("vector_id", Integer, primary_key=True),
    Column("space_id", Integer, nullable=False),
    Column("modality", Text, nullable=False),
)
seals = Table(  # derived files that stand for the vectors of a range of ids
    "seals",
    tables,
    Column("file", Text, primary_key=True),
    Column("space_id", ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("modality", Text, nullable=False),
    Column("first_id", Integer, nullable=False),
    Column("last_id", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
)
concepts = Table(  # what a person taught the index; no item's removal touches it
    "concepts",
    tables,
    Column("name", Text, primary_key=True),
    Column("space_id", ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True),
    Column("vector", BLOB, nullable=False),  # dim x float32, little-endian, unit length
    Column("positives", BLOB, nullable=False),  # paths, joined by NUL
    Column("negatives", BLOB, nullable=False),
    Column("created_s", Integer, nullable=False),
)
tags = Table(  # what items were found to be; they go with their item
    "tags",
    tables,
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),  # A to Z and a to z are the same
    Column("source", Text, primary_key=True),
    Column("probability", Float),
)
meta = Table(
    "meta",
    tables,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)


def _first(connection: Connection) -> None:
    # AUTOINCREMENT: an id is never given twice, so a sealed file cannot mistake a new vector
    # for one it holds.
    for statement in (
        """CREATE TABLE items (
            id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE,
            modality TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
            content_hash BLOB NOT NULL, width INTEGER, height INTEGER, duration_s REAL,
            taken_at TEXT, indexed_at_s INTEGER NOT NULL)""",
        "CREATE INDEX items_by_content ON items (content_hash)",
        """CREATE TABLE parts (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            item_id INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
            ordinal INTEGER NOT NULL, start_s REAL, end_s REAL, page INTEGER, line INTEGER,
            text TEXT, UNIQUE (item_id, ordinal))""",
        """CREATE TABLE spaces (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
            model TEXT NOT NULL, dim INTEGER NOT NULL)""",
        """CREATE TABLE vectors (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            part_id INTEGER NOT NULL REFERENCES parts (id) ON DELETE CASCADE,
            space_id INTEGER NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
            modality TEXT NOT NULL, vector BLOB NOT NULL, UNIQUE (part_id, space_id))""",
        "CREATE INDEX vectors_by_kind ON vectors (space_id, modality, id)",
        """CREATE TABLE removed (
            vector_id INTEGER PRIMARY KEY, space_id INTEGER NOT NULL, modality TEXT NOT NULL)""",
        """CREATE TRIGGER vectors_removed AFTER DELETE ON vectors
            WHEN EXISTS (SELECT 1 FROM seals WHERE space_id = old.space_id
                         AND modality = old.modality AND old.id BETWEEN first_id AND last_id)
            BEGIN INSERT INTO removed VALUES (old.id, old.space_id, old.modality); END""",
        """CREATE TABLE seals (
            file TEXT PRIMARY KEY,
            space_id INTEGER NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
            modality TEXT NOT NULL, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,
            count INTEGER NOT NULL)""",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "INSERT INTO meta VALUES ('generation', '0')",
    ):
        connection.execute(text(statement))


def _facts(connection: Connection) -> None:
    # Pictures that are here already count as unread: the next run reads their metadata, without
    # embedding them again. Sounds and texts have none.
    for statement in (
        "ALTER TABLE items ADD COLUMN camera TEXT",
        "ALTER TABLE items ADD COLUMN lat REAL",
        "ALTER TABLE items ADD COLUMN lon REAL",
        "ALTER TABLE items ADD COLUMN facts_version INTEGER NOT NULL DEFAULT 0",
        "UPDATE items SET facts_version = 1 WHERE modality <> 'image'",
        # The modality at the end lets an index answer alone, without its items' rows.
        """CREATE INDEX items_by_date ON items (taken_at, modality)
            WHERE taken_at IS NOT NULL""",
        "CREATE INDEX items_by_change ON items (mtime_ns, modality) WHERE taken_at IS NULL",
        "CREATE INDEX items_by_camera ON items (camera, modality) WHERE camera IS NOT NULL",
        "CREATE INDEX items_by_place ON items (lat, lon, modality) WHERE lat IS NOT NULL",
    ):
        connection.execute(text(statement))


def _concepts(connection: Connection) -> None:
    connection.execute(
        text(
            """CREATE TABLE concepts (
            name TEXT NOT NULL,
            space_id INTEGER NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
            vector BLOB NOT NULL, positives BLOB NOT NULL, negatives BLOB NOT NULL,
            created_s INTEGER NOT NULL, PRIMARY KEY (name, space_id))"""
        )
    )


def _sources(connection: Connection) -> None:
    # The next run reads what pictures and sounds say of themselves, and what stands beside them,
    # without embedding their content again.
    for statement in (
        "ALTER TABLE parts ADD COLUMN source TEXT NOT NULL DEFAULT 'content'",
        "ALTER TABLE items ADD COLUMN beside BLOB NOT NULL DEFAULT x''",
        "UPDATE items SET facts_version = 2 WHERE modality = 'text'",
    ):
        connection.execute(text(statement))


def _tags(connection: Connection) -> None:
    for statement in (
        """CREATE TABLE tags (
            item_id INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
            tag TEXT NOT NULL COLLATE NOCASE, source TEXT NOT NULL, probability REAL,
            PRIMARY KEY (item_id, tag, source)) WITHOUT ROWID""",
        "CREATE INDEX tags_by_name ON tags (tag, item_id)",
    ):
        connection.execute(text(statement))


def _kinds(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE seals ADD COLUMN kind TEXT NOT NULL DEFAULT 'exact'",
        "ALTER TABLE seals ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0",
    ):
        connection.execute(text(statement))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _first,
    _facts,
    _concepts,
    _sources,
    _tags,
    _kinds,
)
"""Append only: entry ``i`` takes a file from ``user_version`` ``i`` to ``i + 1``."""


def version(connection: Connection) -> int:
    """Gives the schema version of an index; 0 for an empty database.

    Raises:
        NotAnIndexError: If the database belongs to another program.
        NewerIndexError: If it was written by a newer anyseek.
    """
    found = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    application = connection.execute(text("PRAGMA application_id")).scalar_one()
    if application != APPLICATION_ID:
        if found or connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one():
            raise NotAnIndexError("is a database of another program, not an anyseek index")
        return 0
    if found > len(MIGRATIONS):
        raise NewerIndexError(
            f"was written by a newer anyseek (schema {found}; this one knows {len(MIGRATIONS)})"
        )
    return found


def migrate(connection: Connection) -> None:
    """Brings an index to today's schema, one transaction per step.

    ``connection`` must be in driver-level autocommit; see ``retrieval.store.engine``.
    """
    while (done := version(connection)) < len(MIGRATIONS):
        connection.rollback()  # ends the read above; the write lock comes with BEGIN IMMEDIATE
        with connection.begin():
            if version(connection) == done:  # another process may have been first
                MIGRATIONS[done](connection)
                connection.execute(text(f"PRAGMA user_version = {done + 1}"))
                connection.execute(text(f"PRAGMA application_id = {APPLICATION_ID}"))
    connection.rollback()
