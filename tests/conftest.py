"""What all tests share: reproducible property tests, and items made up for the store."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from retrieval.store import ItemRecord
from retrieval.types import WHOLE, Facts, Fingerprint, Modality, Place, Vectors

# Examples follow from the code alone, so a run that passes once passes again; machines are busy,
# so nothing is judged by its time.
settings.register_profile("anyseek", deadline=None, derandomize=True, database=None)
settings.load_profile("anyseek")


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Lets Ctrl-C through, to the tests' children too, where they run in the background of a shell.

    Such a shell has its jobs ignore the signal, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> Vectors:
    """Random float32 rows of length 1."""
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def content_hash(content: str | bytes) -> bytes:
    """16 bytes that stand for a content."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).digest()


def make_record(
    path: bytes,
    vectors: Vectors,
    *,
    content: str | bytes | None = None,
    modality: Modality = Modality.IMAGE,
    places: Sequence[Place] = (),
    fingerprint: Fingerprint | None = None,
    taken_at: str | None = None,
    camera: str | None = None,
    lat: float | None = None,
    lon: float | None = None,
    width: int | None = 640,
    duration_s: float | None = None,
) -> ItemRecord:
    """An item for the store; without a content, one that no other path has."""
    return ItemRecord(
        path=path,
        fingerprint=fingerprint or Fingerprint(len(path), 1_000_000_007 + len(path)),
        content_hash=content_hash(path if content is None else content),
        modality=modality,
        places=tuple(places) or (WHOLE,) * len(vectors),
        vectors=vectors,
        width=width,
        height=480,
        facts=Facts(taken_at, camera, lat, lon),
        duration_s=duration_s,
    )


def rows_of(index: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of an index, read with sqlite3 alone."""
    with closing(sqlite3.connect(index)) as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
            for table in tables
        }


def run_sql(index: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Runs statements with sqlite3 alone, and gives the rows of the last one."""
    rows: list[tuple[Any, ...]] = []
    with closing(sqlite3.connect(index)) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        connection.commit()
    return rows
