"""What an index file holds, read with plain SQL and FAISS, and whether it all agrees."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from PIL import Image

from retrieval.index import folder_of
from retrieval.store.schema import WORDS_FROM
from tests.fakes import PALETTE


@dataclass(frozen=True)
class Item:
    """One item with everything that belongs to it, but without row ids."""

    modality: str
    size: int
    mtime_ns: int
    content_hash: bytes
    pixels: tuple[int | None, int | None]
    texts: tuple[str | None, ...]
    vectors: tuple[bytes, ...]


@contextmanager
def opened(index: Path) -> Iterator[sqlite3.Connection]:
    """Opens an index behind the program's back."""
    with closing(sqlite3.connect(index)) as connection:
        yield connection


def items(index: Path) -> dict[bytes, Item]:
    """Reads every item by its path."""
    with opened(index) as connection:
        result = {}
        for row in connection.execute(
            "SELECT id, path, modality, size, mtime_ns, content_hash, width, height FROM items"
        ):
            parts = connection.execute(
                "SELECT p.text, v.vector FROM parts p JOIN vectors v ON v.part_id = p.id "
                "WHERE p.item_id = ? ORDER BY p.ordinal, v.space_id",
                row[:1],
            ).fetchall()
            result[row[1]] = Item(
                modality=row[2],
                size=row[3],
                mtime_ns=row[4],
                content_hash=row[5],
                pixels=row[6:8],
                texts=tuple(part[0] for part in parts),
                vectors=tuple(part[1] for part in parts),
            )
        return result


def ids(index: Path) -> dict[bytes, int]:
    """Reads the row id of every item."""
    with opened(index) as connection:
        return dict(connection.execute("SELECT path, id FROM items").fetchall())


def generation(index: Path) -> int:
    """Reads how many writes the index has seen."""
    with opened(index) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    return int(row[0])


def check(index: Path) -> None:
    """Asserts that items, parts, vectors, masks and sealed files agree with each other."""
    with opened(index) as connection:

        def rows(statement: str, *values: Any) -> list[Any]:
            return connection.execute(statement, values).fetchall()

        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("PRAGMA foreign_key_check") == []
        assert rows("SELECT path FROM items WHERE id NOT IN (SELECT item_id FROM parts)") == []
        assert rows("SELECT id FROM parts WHERE id NOT IN (SELECT part_id FROM vectors)") == []
        assert rows("SELECT id FROM parts WHERE item_id NOT IN (SELECT id FROM items)") == []
        assert rows("SELECT id FROM vectors WHERE part_id NOT IN (SELECT id FROM parts)") == []
        for first, where in ((0, "<"), (WORDS_FROM, ">=")):
            assert (
                rows(
                    f"SELECT item_id FROM parts WHERE ordinal {where} {WORDS_FROM} "
                    f"AND (source = 'content') = (ordinal < {WORDS_FROM}) GROUP BY item_id "
                    f"HAVING min(ordinal) != {first} OR max(ordinal) - {first} != count(*) - 1"
                )
                == []
            )
        assert (
            rows(
                "SELECT v.id FROM vectors v JOIN spaces s ON s.id = v.space_id "
                "WHERE length(v.vector) != 2 * s.dim"
            )
            == []
        )
        assert (
            rows(
                "SELECT v.id FROM vectors v JOIN parts p ON p.id = v.part_id "
                "JOIN items i ON i.id = p.item_id WHERE v.modality != i.modality || "
                "CASE p.source WHEN 'content' THEN '' ELSE ' words' END"
            )
            == []
        )
        ends: dict[Any, int] = {}
        masked = set()
        for file, space, modality, first, last, count in rows(
            "SELECT file, space_id, modality, first_id, last_id, count FROM seals ORDER BY first_id"
        ):
            assert ends.get((space, modality), 0) < first <= last
            ends[space, modality] = last
            segment: Any = faiss.read_index(os.fspath(folder_of(index) / file))
            sealed = faiss.vector_to_array(segment.id_map).tolist()
            present = dict(
                rows(
                    "SELECT id, vector FROM vectors "
                    "WHERE space_id = ? AND modality = ? AND id BETWEEN ? AND ?",
                    *(space, modality, first, last),
                )
            )
            mask = {
                row[0]
                for row in rows(
                    "SELECT vector_id FROM removed "
                    "WHERE space_id = ? AND modality = ? AND vector_id BETWEEN ? AND ?",
                    *(space, modality, first, last),
                )
            }
            assert len(sealed) == count
            assert set(sealed) == present.keys() | mask
            assert not present.keys() & mask
            flat: Any = faiss.downcast_index(segment.index)
            codes = faiss.vector_to_array(flat.codes)
            for id, code in zip(sealed, np.split(codes, max(count, 1)), strict=count > 0):
                assert id in mask or code.tobytes() == present[id]
            masked |= mask
        assert {row[0] for row in rows("SELECT vector_id FROM removed")} == masked


def draw(path: Path, seed: int, *, mtime_ns: int | None = None, side_px: int = 8) -> None:
    """Writes a picture in random colours; pictures of one side have files of one size."""
    random = np.random.default_rng(seed)
    # a few colours at uneven shares, so that the vectors of two pictures differ clearly
    pixels = PALETTE[random.choice(8, (side_px, side_px), p=random.dirichlet(np.full(8, 0.4)))]
    Image.fromarray(pixels.astype(np.uint8)).save(path, "BMP")
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
