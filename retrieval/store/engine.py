"""How a connection to the index file is opened, and what its failures are called."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote_from_bytes

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from retrieval.errors import (
    IndexBusyError,
    NewerIndexError,
    NotAnIndexError,
    StorageError,
    StoreError,
)
from retrieval.store.schema import APPLICATION_ID

BUSY_S = 30.0  # a batch takes well under a second to commit; 30 s means something is stuck
PAGE_BYTES = 16384  # about fifteen 1 KB vectors to a page: full scans read fewer pages


def open_engine(path: Path, *, write: bool) -> Engine:
    """Opens the database file; with ``write`` it is created where it is missing.

    One connection, explicit transactions: sqlite3's own transaction handling would commit before
    DDL, and schema changes could not be rolled back. A writer takes the write lock at ``BEGIN``,
    so that two writers wait for each other instead of failing half-way.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            location(path, write=write),
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if write:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                if not pages or application == APPLICATION_ID:  # it changes the file: ours alone
                    connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA cache_size = -32768")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: object) -> None:
        connection.exec_driver_sql(  # type: ignore[attr-defined]
            "BEGIN IMMEDIATE" if write else "BEGIN"
        )

    return engine


def location(path: Path, *, write: bool) -> str:
    """Writes the place of a database file as SQLite's own kind of address."""
    file = "file:" + quote_from_bytes(os.fsencode(path))
    if write:
        return file + "?mode=rwc"
    if os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists():
        return file + "?mode=ro"
    return file + "?mode=ro&immutable=1"  # read-only media: no lock or log file can be made


@contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """Turns SQLite's failures, and our own without a path, into errors that name the index."""
    try:
        yield
    except (NotAnIndexError, NewerIndexError) as error:
        advice = (
            "upgrade anyseek, or choose another file with --index"
            if isinstance(error, NewerIndexError)
            else "choose another file with --index"
        )
        raise type(error)(f"{path} {error}; {advice}") from None
    except DatabaseError as error:
        raise _named(path, error.orig) from error
    except sqlite3.DatabaseError as error:
        raise _named(path, error) from error


def _named(path: Path, error: BaseException | None) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_IOERR and _is_full(path.parent):
        code = sqlite3.SQLITE_FULL  # for files other than its own, SQLite does not tell
    match code:
        case sqlite3.SQLITE_NOTADB:
            return NotAnIndexError(
                f"{path} is not an anyseek index; choose another file with --index"
            )
        case sqlite3.SQLITE_FULL:
            return StorageError(
                f"the disk with {path} is full: free some space and run the same command again; "
                "everything committed before is kept"
            )
        case sqlite3.SQLITE_IOERR:
            return StorageError(
                f"the disk with {path} does not take or give data ({error}); "
                "everything committed before is kept"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StorageError(
                f"cannot write or open {path} ({error}); check its permissions, "
                "or choose another place with --index"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return IndexBusyError(
                f"another process has been writing to {path} for over {BUSY_S:.0f} s; "
                "try again when it is done"
            )
        case sqlite3.SQLITE_CORRUPT:
            return StorageError(
                f"{path} is damaged; remove it and run `anyseek index` again to rebuild it"
            )
    return StoreError(f"the index {path} failed: {error}")


def _is_full(folder: Path) -> bool:
    try:
        return os.statvfs(folder).f_bavail == 0
    except OSError:
        return False
