"""Damage of every kind is found, named, and taken out without touching what is whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrieval.index
from retrieval.check import Checked, check, repair
from retrieval.errors import StoreError
from retrieval.index import folder_of, seal
from retrieval.store import Batch, Concept, Store
from retrieval.types import Encoder, Modality, Place
from tests.conftest import make_record, rows_of, run_sql, unit_rows

DIM = 8
COUNT = 60


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index in two spaces with sealed files, removed vectors in them, and a concept."""
    monkeypatch.setattr(retrieval.index, "SEAL_FROM", 8)
    monkeypatch.setattr(retrieval.index, "SEGMENT", 32)
    monkeypatch.setattr(retrieval.index, "STALE", 0.3)
    rng = np.random.default_rng(0)
    path = tmp_path / "index.db"
    with Store(path, write=True) as store:
        for name in ("one", "two"):
            space = store.add_space(Encoder("m", name, DIM, {}))
            records = [
                make_record(
                    b"/p/%02d.jpg" % i,
                    unit_rows(rng, 1 + i % 2, DIM),
                    places=[Place(line=line) for line in range(1, 2 + i % 2)],
                )
                for i in range(COUNT)
            ]
            store.write(Batch(records=records), space)
            seal(store, space, Modality.IMAGE)
        store.write(Batch(removed=[3, 50]), space)
        (vector,) = unit_rows(rng, 1, DIM)
        store.put_concept(Concept("cat", vector, (b"/p/01.jpg",), (), 1), space)
    checked = check(path, full=True)
    assert checked.findings == ()
    assert checked.files == 6
    assert checked.compared == checked.faults.all_vectors == 174
    return path


def damage(index: Path, *statements: str) -> None:
    """Writes into an index behind its back, without its rules."""
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def items_of(index: Path) -> dict[bytes, list[tuple[Any, ...]]]:
    """Reads every item by its path, with all its vectors."""
    found: dict[bytes, list[tuple[Any, ...]]] = {}
    for path, *rest in run_sql(
        index,
        "SELECT path, size, mtime_ns, ordinal, space_id, v.modality, vector FROM items i "
        "JOIN parts p ON p.item_id = i.id JOIN vectors v ON v.part_id = p.id "
        "ORDER BY path, space_id, ordinal",
    ):
        found.setdefault(path, []).append(tuple(rest))
    return found


def mended(index: Path, what: str) -> Checked:
    """Checks, without a trace, that something is found; then repairs and checks again."""
    before = rows_of(index), sorted(folder_of(index).iterdir())
    found = check(index, full=True)
    assert (rows_of(index), sorted(folder_of(index).iterdir())) == before
    assert any(what in str(finding) for finding in found.findings), [*map(str, found.findings)]
    repair(index, found)
    assert check(index, full=True).findings == ()
    return found


NAN = "X'" + np.full(DIM, np.nan, "<f2").tobytes().hex() + "'"
LONG = "X'" + np.full(DIM, 1, "<f2").tobytes().hex() + "'"
VECTOR_5 = "(SELECT id FROM vectors WHERE space_id = 1 ORDER BY id LIMIT 1 OFFSET 5)"
ITEM_OF_5 = (
    f"(SELECT p.item_id FROM vectors v JOIN parts p ON p.id = part_id WHERE v.id = {VECTOR_5})"
)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            f"UPDATE vectors SET vector = X'00' WHERE id = {VECTOR_5}",
            "1 vector(s) of a wrong number",
        ),
        (
            f"UPDATE vectors SET vector = {NAN} WHERE id = {VECTOR_5}",
            "1 vector(s) that are not fin",
        ),
        (
            f"UPDATE vectors SET vector = {LONG} WHERE id = {VECTOR_5}",
            "1 vector(s) that are not of l",
        ),
        (
            f"UPDATE vectors SET modality = 'text' WHERE id = {VECTOR_5}",
            "1 vector(s) kept for another",
        ),
    ],
)
def test_broken_vectors(index: Path, statement: str, what: str) -> None:
    """The item's vectors in that space go, and nothing else."""
    before = items_of(index)
    ((path,),) = run_sql(index, f"SELECT path FROM items WHERE id = {ITEM_OF_5}")
    damage(index, statement)
    found = mended(index, what)
    if "kept" not in what:
        assert path.decode() in str(found.findings[0])
    after = items_of(index)
    assert after.pop(path) == [row for row in before.pop(path) if row[3] == 2]
    assert after == before


def test_items_that_lost_something(index: Path) -> None:
    """Items with gaps lose what a new run makes anew; items without a vector go."""
    before = items_of(index)
    damage(
        index,
        "DELETE FROM vectors WHERE space_id = 1 AND id IN (SELECT v.id FROM vectors v "
        "JOIN parts p ON p.id = part_id JOIN items ON items.id = p.item_id "
        "WHERE path = CAST('/p/11.jpg' AS BLOB) AND ordinal = 1)",
    )
    mended(index, "1 item(s) of which some parts have no vector, the first of /p/11.jpg")
    after = items_of(index)
    assert after.pop(b"/p/11.jpg") == [row for row in before.pop(b"/p/11.jpg") if row[3] == 2]
    assert after == before
    damage(
        index,
        "DELETE FROM parts WHERE item_id = (SELECT id FROM items WHERE path = "
        "CAST('/p/12.jpg' AS BLOB))",
    )
    mended(index, "row(s) of vectors belong to nothing")
    after.pop(b"/p/12.jpg")
    assert {p: rows for p, rows in items_of(index).items() if p != b"/p/11.jpg"} == after
    assert run_sql(index, "SELECT 1 FROM items WHERE path = CAST('/p/12.jpg' AS BLOB)") == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM items WHERE id = 20", "row(s) of parts belong to nothing"),
        ("UPDATE items SET modality = 'smell' WHERE id = 20", "item(s) with a kind, path"),
        ("UPDATE items SET content_hash = X'0011' WHERE id = 20", "item(s) with a kind, path"),
        ("UPDATE items SET path = 'text' WHERE id = 20", "item(s) with a kind, path"),
        ("INSERT INTO parts (item_id, ordinal) VALUES (20, 7)", "some parts have no vector"),
        (
            "INSERT INTO items (path, modality, size, mtime_ns, content_hash, indexed_at_s) "
            "VALUES (X'2F61', 'image', 1, 1, X'', 1)",
            "1 item(s) without a vector, the first of /a",
        ),
    ],
)
def test_broken_items(index: Path, statement: str, what: str) -> None:
    """Whatever is wrong with an item, the others stay."""
    before = items_of(index)
    ((path,),) = run_sql(index, "SELECT path FROM items WHERE id = 20")
    damage(index, statement)
    mended(index, what)
    after = items_of(index)
    after.pop(path, None)
    before.pop(path)
    assert after == before


def test_broken_concepts(index: Path) -> None:
    """A concept without a direction is named and forgotten."""
    damage(index, "UPDATE concepts SET vector = zeroblob(32)")
    mended(index, "the concept <cat> has a broken vector")
    assert run_sql(index, "SELECT count(*) FROM concepts") == [(0,)]


def files_of(index: Path) -> list[Path]:
    """Lists the derived files."""
    return sorted(folder_of(index).glob("*.faiss"))


def flip(file: Path, at: int, bit: int = 0x40) -> None:
    """Changes a bit of a file."""
    data = bytearray(file.read_bytes())
    data[at] ^= bit
    file.write_bytes(data)


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "is truncated or of other content"),
        (lambda file: file.write_bytes(b"\0" * file.stat().st_size), "is truncated or of other"),
        (lambda file: flip(file, file.stat().st_size // 2), "holds other vectors than the index"),
        (lambda file: flip(file, file.stat().st_size // 2, 1), "holds other vectors than the ind"),
        (lambda file: flip(file, file.stat().st_size // 2 + 1, 1), "holds other vectors than the"),
        (lambda file: flip(file, file.stat().st_size - 80), "vector(s) of the index and holds"),
    ],
)
def test_derived_files(index: Path, which: int, change: Any, what: str) -> None:
    """They are made anew from the index, which does not change."""
    before = items_of(index)
    change(files_of(index)[which])
    mended(index, what)
    assert items_of(index) == before


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM seals WHERE first_id = (SELECT min(first_id) FROM seals)", "and in none"),
        ("UPDATE seals SET last_id = last_id + 40 WHERE first_id = 1", "overlaps another one"),
        ("INSERT INTO removed VALUES (10, 1, 'image')", "entry(s) of removed vectors that are not"),
        ("INSERT INTO removed VALUES (99999, 1, 'image')", "entry(s) of removed vectors that are"),
        ("DELETE FROM removed", "lacks 0 vector(s) of the index and holds"),
        ("UPDATE seals SET space_id = 77 WHERE first_id = 1", "row(s) of seals belong to nothing"),
    ],
)
def test_what_says_which_files_count(index: Path, statement: str, what: str) -> None:
    """Ranges, masks and names that disagree with the index."""
    before = items_of(index)
    damage(index, statement)
    mended(index, what)
    assert items_of(index) == before


def test_files_that_nobody_names(index: Path) -> None:
    """What a killed run left is named and deleted; what is not ours stays."""
    for name in ("left.faiss", "left.faiss.tmp", "notes.txt"):
        (folder_of(index) / name).write_bytes(b"x")
    mended(index, "2 derived file(s) that the index does not name")
    assert {path.name for path in folder_of(index).iterdir() if path.suffix != ".faiss"} == {
        "notes.txt"
    }


def test_a_broken_index_of_a_table(index: Path) -> None:
    """SQLite's own indexes are made anew from the tables."""
    before = items_of(index)
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'items_by_content'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(index.read_bytes())
    digest = run_sql(index, "SELECT content_hash FROM items WHERE id = 20")[0][0]
    at = data.index(digest, (page - 1) * size, page * size)
    data[at] ^= 0xFF
    index.write_bytes(data)
    mended(index, "SQLite finds the file damaged")
    assert items_of(index) == before


def test_a_page_of_zeros(index: Path) -> None:
    """What is beyond repair is an error that says so, before or after the check."""
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'vectors'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(index.read_bytes())
    data[(page - 1) * size : page * size] = bytes(size)
    index.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged; remove it and run `anyseek index` again"):
        repair(index, check(index))
