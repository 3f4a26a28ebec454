"""The store against plain SQL, plain dictionaries and failures at every step."""

from __future__ import annotations

import itertools
import resource
import sqlite3
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from retrieval.errors import (
    IndexBusyError,
    IndexMissingError,
    NewerIndexError,
    NotAnIndexError,
    StorageError,
    StoreError,
)
from retrieval.filters import Filters
from retrieval.store import Batch, Relocation, Seal, Space, Store, Twin, engine, schema
from retrieval.store import store as store_module
from retrieval.store import writing as writing_module
from retrieval.types import Encoder, Fingerprint, Modality, Place
from tests.conftest import content_hash, make_record, rows_of, run_sql, unit_rows

DIM = 4
FIRST = Encoder("toy", "toy-1", DIM, {})
SECOND = Encoder("other", "other-7", 6, {})
IMAGE, TEXT = Modality.IMAGE, Modality.TEXT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the index goes; the name has every character that a URI would misread."""
    return tmp_path / "my index?mode=ro#1%41.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """An empty index."""
    with Store(path, write=True) as store:
        yield store


@pytest.fixture
def space(store: Store) -> Space:
    """Its first space."""
    return store.add_space(FIRST)


@pytest.fixture
def rng() -> np.random.Generator:
    """Vectors that no test shares by chance."""
    return np.random.default_rng(7)


def put(store: Store, space: Space, *paths: bytes, seed: int = 0) -> list[int]:
    """Stores one-part items at some paths and gives their ids."""
    rng = np.random.default_rng(seed)
    records = [make_record(path, unit_rows(rng, 1, space.dim)) for path in paths]
    store.write(Batch(records=records), space)
    return [item_id(store, path) for path in paths]


def item_id(store: Store, path: bytes) -> int:
    """The id of an item that must be there."""
    found = store.item(path)
    assert found is not None, path
    return found[0]


def paths_of(store: Store, space: Space, root: bytes = b"/") -> list[bytes]:
    """The known paths, as they come."""
    return [known.path for known in store.known(root, space)]


# ---- writing and reading back ------------------------------------------------------------------


def test_everything_of_an_item_comes_back(
    store: Store, space: Space, path: Path, rng: np.random.Generator
) -> None:
    """Items, places and float16 vectors are in the file to the last bit, and read so."""
    vectors = unit_rows(rng, 3, DIM)
    places = (
        Place(start_s=0.0, end_s=10.25),
        Place(page=3, line=17, text="Größe “x”\n你好 🐕"),
        Place(),
    )
    record = make_record(
        b"/a/b.txt",
        vectors,
        content="hello",
        modality=TEXT,
        places=places,
        fingerprint=Fingerprint(2**40 + 1, 1_700_000_000_123_456_789),
        taken_at="2024-05-31T18:04:00",
        camera="Apple iPhone 12",
        lat=-33.5,
        lon=151.25,
    )
    store.write(Batch(records=[record]), space)

    ((item, *columns, indexed_at_s, camera, lat, lon, version, beside),) = run_sql(
        path, "SELECT * FROM items"
    )
    assert (camera, lat, lon, version) == ("Apple iPhone 12", -33.5, 151.25, schema.FACTS_VERSION)
    assert beside == b""
    assert columns == [
        *(b"/a/b.txt", "text", 2**40 + 1, 1_700_000_000_123_456_789, content_hash("hello")),
        *(640, 480, None, "2024-05-31T18:04:00"),
    ]
    assert indexed_at_s > 1_700_000_000
    parts = run_sql(
        path,
        "SELECT ordinal, start_s, end_s, page, line, text FROM parts ORDER BY id",
    )
    assert parts == [
        (0, 0.0, 10.25, None, None, None),
        (1, None, None, 3, 17, "Größe “x”\n你好 🐕"),
        (2, None, None, None, None, None),
    ]
    blobs = run_sql(path, "SELECT vector FROM vectors ORDER BY id")
    assert blobs == [(struct.pack(f"<{DIM}e", *row.tolist()),) for row in vectors]

    assert store.item(b"/a/b.txt") == (item, record.fingerprint, TEXT)
    assert store.item(b"/a/b") is None
    np.testing.assert_array_equal(store.item_vectors(item, space), vectors.astype(np.float16))
    ids, matrix = store.vectors(space, TEXT)
    np.testing.assert_array_equal(matrix, vectors.astype(np.float16))
    found = store.found(ids.tolist())
    assert [found[i].place for i in ids.tolist()] == list(places)
    assert {(row.item_id, row.path, row.modality) for row in found.values()} == {
        (item, b"/a/b.txt", TEXT)
    }
    assert store.sizes().tolist() == [2**40 + 1]


def test_slices_of_the_vectors_are_the_slices_of_the_matrix(store: Store, space: Space) -> None:
    """Bounds, limits and counts agree with slicing by id; modalities and spaces do not mix."""
    other = store.add_space(SECOND)
    for number in range(12):
        modality = TEXT if number % 3 == 0 else IMAGE
        target = other if number % 4 == 0 else space
        rows = unit_rows(np.random.default_rng(number), 1 + number % 2, target.dim)
        record = make_record(b"/%d" % number, rows, modality=modality)
        store.write(Batch(records=[record]), target)
    every = run_sql(store.path, "SELECT id, space_id, modality, vector FROM vectors ORDER BY id")
    for target, modality in itertools.product((space, other), (IMAGE, TEXT)):
        own = [row for row in every if row[1:3] == (target.id, modality)]
        for first, last, limit in itertools.product((1, 4, 7, 99), (0, 6, 11, 99), (0, 2, -1)):
            ids, matrix = store.vectors(target, modality, first=first, last=last, limit=limit)
            want = [row for row in own if first <= row[0] <= last]
            want = want[:limit] if limit >= 0 else want
            assert ids.tolist() == [row[0] for row in want]
            assert matrix.shape == (len(want), target.dim)
            assert matrix.tobytes() == b"".join(row[3] for row in want)
        for first in (1, 5, 99):
            count = sum(row[0] >= first for row in own)
            assert store.count_vectors(target, modality, first=first) == count
    assert store.modalities(space) == (IMAGE, TEXT)
    assert store.modalities(other) == (IMAGE, TEXT)
    assert store.modalities(Space(9, "", "", 1)) == ()


@pytest.mark.parametrize("count", [1, 7, 50, 600, 2_000])
def test_a_sample_is_spread_and_always_the_same(store: Store, space: Space, count: int) -> None:
    """Of a kind whose files take turns with another's, about so many, all over, no row twice."""
    rng = np.random.default_rng(0)
    records = [
        make_record(
            str(number).encode(),
            unit_rows(rng, 1, DIM),
            modality=IMAGE if number % 4 == 0 else TEXT,
        )
        for number in range(4 * 600)
    ]
    store.write(Batch(records=records), space)
    rows = store.sample(space, IMAGE, count)
    _, every = store.vectors(space, IMAGE)
    places = [np.flatnonzero((every == row).all(axis=1)).tolist() for row in rows]
    (at,) = np.array(places).T
    assert len(set(at.tolist())) == len(rows)
    assert 0.4 * min(count, 600) <= len(rows) <= count
    if count >= 50:
        assert at.min() < 600 / 3
        assert at.max() > 600 * 2 / 3
    np.testing.assert_array_equal(store.sample(space, IMAGE, count), rows)
    assert store.sample(space, Modality.AUDIO, count).shape == (0, DIM)


def test_found_looks_up_any_number_of_ids(
    store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lookups are cut into statements; unknown ids are left out."""
    monkeypatch.setattr(store_module, "MAX_VARIABLES", 3)
    put(store, space, *(b"/%d" % number for number in range(8)))
    found = store.found([99, 8, 1, 7, 2, 6, 3, 5, 4, -1])
    assert {key: row.path for key, row in found.items()} == {
        number + 1: b"/%d" % number for number in range(8)
    }
    assert store.found([]) == {}


def test_a_batch_larger_than_a_statement_is_written_whole(
    store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of SQL variables have no seams: replacing, adding and removing go through them."""
    monkeypatch.setattr(writing_module, "MAX_VARIABLES", 3)
    names = [b"/%02d" % number for number in range(11)]
    first = put(store, space, *names, seed=1)
    replaced = [
        make_record(name, unit_rows(np.random.default_rng(i), 2, DIM), content=b"new" + name)
        for i, name in enumerate(names[:7])
    ]
    store.write(Batch(records=replaced, removed=first[7:]), space)
    assert paths_of(store, space) == names[:7]
    for record in replaced:
        np.testing.assert_array_equal(
            store.item_vectors(item_id(store, record.path), space),
            record.vectors.astype(np.float16),
        )


def test_summary_counts_what_is_there(store: Store, space: Space) -> None:
    """The figures for `status` are those of the rows."""
    assert store.summary().last_indexed_s is None
    other = store.add_space(SECOND)
    rng = np.random.default_rng(0)
    store.write(
        Batch(
            records=[
                make_record(b"/1.jpg", unit_rows(rng, 1, DIM)),
                make_record(b"/2.jpg", unit_rows(rng, 1, DIM)),
                make_record(b"/3.txt", unit_rows(rng, 5, DIM), modality=TEXT),
            ]
        ),
        space,
    )
    store.write(Batch(records=[make_record(b"/1.jpg", unit_rows(rng, 1, other.dim))]), other)
    summary = store.summary()
    assert summary.items == {IMAGE: 2, TEXT: 1}
    assert summary.parts == {IMAGE: 2, TEXT: 5}
    assert summary.vectors == {("toy-1", IMAGE): 2, ("toy-1", TEXT): 5, ("other-7", IMAGE): 1}
    assert summary.spaces == (space, other)
    assert summary.generation == 2
    assert (
        summary.last_indexed_s == run_sql(store.path, "SELECT max(indexed_at_s) FROM items")[0][0]
    )


def test_spaces_are_added_once_and_keep_their_order(store: Store, path: Path) -> None:
    """The first space stays the default, whatever is asked for later."""
    first, second = store.add_space(FIRST), store.add_space(SECOND)
    assert (first.name, first.model, first.dim) == ("toy-1", "toy", DIM)
    assert store.add_space(FIRST) == first
    assert store.add_space(SECOND) == second
    assert store.spaces() == (first, second)
    with Store(path) as reader:
        assert reader.spaces() == (first, second)


# ---- the kinds of change -----------------------------------------------------------------------


def test_new_content_replaces_parts_and_vectors(
    store: Store, space: Space, path: Path, rng: np.random.Generator
) -> None:
    """Nothing of the old content is left, in any space, and the row is a new one."""
    other = store.add_space(SECOND)
    store.write(Batch(records=[make_record(b"/x", unit_rows(rng, 3, DIM), content="a")]), space)
    store.write(
        Batch(records=[make_record(b"/x", unit_rows(rng, 3, other.dim), content="a")]), other
    )
    old = item_id(store, b"/x")
    vectors = unit_rows(rng, 2, DIM)
    store.write(Batch(records=[make_record(b"/x", vectors, content="b")]), space)
    new = item_id(store, b"/x")
    assert new > old
    assert run_sql(path, "SELECT item_id, ordinal FROM parts ORDER BY id") == [(new, 0), (new, 1)]
    np.testing.assert_array_equal(store.item_vectors(new, space), vectors.astype(np.float16))
    assert len(run_sql(path, "SELECT id FROM vectors")) == 2
    assert len(store.item_vectors(new, other)) == 0


def test_the_same_content_in_a_second_space_keeps_the_first(
    store: Store, space: Space, path: Path, rng: np.random.Generator
) -> None:
    """One item with one set of parts carries vectors of both spaces."""
    one, two = unit_rows(rng, 2, DIM), unit_rows(rng, 2, 6)
    store.write(Batch(records=[make_record(b"/x", one, content="a")]), space)
    item = item_id(store, b"/x")
    other = store.add_space(SECOND)
    (known,) = store.known(b"/", other)
    assert not known.complete
    later = make_record(b"/x", two, content="a", fingerprint=Fingerprint(5, 77))
    store.write(Batch(records=[later]), other)
    assert store.item(b"/x") == (item, Fingerprint(5, 77), IMAGE)
    np.testing.assert_array_equal(store.item_vectors(item, space), one.astype(np.float16))
    np.testing.assert_array_equal(store.item_vectors(item, other), two.astype(np.float16))
    assert run_sql(path, "SELECT count(*) FROM parts") == [(2,)]
    assert [known.complete for known in store.known(b"/", space)] == [True]
    assert [known.complete for known in store.known(b"/", other)] == [True]
    again = unit_rows(rng, 2, DIM)  # the same content embedded once more in the first space
    store.write(Batch(records=[make_record(b"/x", again, content="a")]), space)
    np.testing.assert_array_equal(store.item_vectors(item, space), again.astype(np.float16))
    np.testing.assert_array_equal(store.item_vectors(item, other), two.astype(np.float16))


def test_the_same_content_split_otherwise_is_replaced(
    store: Store, space: Space, rng: np.random.Generator
) -> None:
    """Parts that another way of splitting made are not given the new vectors."""
    store.write(Batch(records=[make_record(b"/x", unit_rows(rng, 2, DIM), content="a")]), space)
    store.write(Batch(records=[make_record(b"/x", unit_rows(rng, 3, DIM), content="a")]), space)
    assert len(store.item_vectors(item_id(store, b"/x"), space)) == 3
    assert run_sql(store.path, "SELECT count(*) FROM parts") == [(3,)]


def test_a_copy_takes_parts_and_the_vectors_of_every_space(
    store: Store, space: Space, rng: np.random.Generator
) -> None:
    """The copy stands for itself: removing the source leaves it whole."""
    other = store.add_space(SECOND)
    one, two = unit_rows(rng, 3, DIM), unit_rows(rng, 3, other.dim)
    places = (Place(line=1, text="a"), Place(line=5, text="b"), Place(page=2))
    for rows, target in ((one, space), (two, other)):
        store.write(
            Batch(
                records=[
                    make_record(
                        b"/x",
                        rows,
                        content="a",
                        modality=TEXT,
                        places=places,
                        taken_at="2020",
                        camera="X",
                        lat=1.0,
                    )
                ]
            ),
            target,
        )
    put(store, space, b"/taken")
    source = item_id(store, b"/x")
    copies = [
        Relocation(source, b"/new", Fingerprint(3, 4)),
        Relocation(source, b"/taken", Fingerprint(5, 6)),
    ]
    store.write(Batch(copies=copies), space)
    store.write(Batch(removed=[source]), space)
    assert paths_of(store, space) == [b"/new", b"/taken"]
    columns = (
        "modality, content_hash, width, height, duration_s, taken_at, camera, lat, facts_version,"
        " size, mtime_ns"
    )
    shared = ("text", content_hash("a"), 640, 480, None, "2020", "X", 1.0, schema.FACTS_VERSION)
    assert run_sql(store.path, f"SELECT {columns} FROM items ORDER BY path") == [
        (*shared, 3, 4),
        (*shared, 5, 6),
    ]
    for name in (b"/new", b"/taken"):
        copy = item_id(store, name)
        np.testing.assert_array_equal(store.item_vectors(copy, space), one.astype(np.float16))
        np.testing.assert_array_equal(store.item_vectors(copy, other), two.astype(np.float16))
    ids, _ = store.vectors(other, TEXT)
    assert [found.place for found in store.found(ids.tolist()).values()] == [*places, *places]


def test_a_move_keeps_the_item_and_ends_what_was_at_the_new_path(
    store: Store, space: Space
) -> None:
    """A rename onto a known file leaves one item with the id and vectors of the renamed one."""
    a, b, c = put(store, space, b"/a", b"/b", b"/c")
    vectors = store.item_vectors(a, space)
    moves = [Relocation(a, b"/b", Fingerprint(8, 9)), Relocation(c, b"/d", Fingerprint(1, 2))]
    store.write(Batch(moves=moves), space)
    assert paths_of(store, space) == [b"/b", b"/d"]
    assert store.item(b"/b") == (a, Fingerprint(8, 9), IMAGE)
    assert store.item(b"/d") == (c, Fingerprint(1, 2), IMAGE)
    np.testing.assert_array_equal(store.item_vectors(a, space), vectors)
    assert len(store.item_vectors(b, space)) == 0
    assert run_sql(store.path, "SELECT count(*) FROM parts") == [(2,)]


def test_a_moved_away_path_can_be_taken_in_the_same_batch(
    store: Store, space: Space, rng: np.random.Generator
) -> None:
    """`mv a b` and a new file at `a` between two runs come as one batch."""
    (a,) = put(store, space, b"/a")
    record = make_record(b"/a", unit_rows(rng, 1, DIM), content="new")
    store.write(
        Batch(moves=[Relocation(a, b"/b", Fingerprint(1, 1))], records=[record]),
        space,
    )
    assert item_id(store, b"/b") == a
    assert item_id(store, b"/a") > a
    np.testing.assert_array_equal(
        store.item_vectors(item_id(store, b"/a"), space), record.vectors.astype(np.float16)
    )


def test_touched_items_only_change_their_fingerprint(store: Store, space: Space) -> None:
    """The same content at a new time costs no vectors."""
    a, b = put(store, space, b"/a", b"/b")
    before = rows_of(store.path)
    store.write(Batch(touched=[Relocation(a, b"/a", Fingerprint(2, 99))]), space)
    after = rows_of(store.path)
    assert store.item(b"/a") == (a, Fingerprint(2, 99), IMAGE)
    assert item_id(store, b"/b") == b
    for table in ("parts", "vectors", "spaces", "removed"):
        assert after[table] == before[table]


def test_removed_items_leave_nothing_behind(store: Store, space: Space, path: Path) -> None:
    """Parts and vectors go with their item, and with no other."""
    a, b, c = put(store, space, b"/a", b"/b", b"/c")
    kept = store.item_vectors(b, space)
    store.write(Batch(removed=[a, c]), space)
    assert paths_of(store, space) == [b"/b"]
    np.testing.assert_array_equal(store.item_vectors(b, space), kept)
    assert run_sql(path, "SELECT item_id FROM parts") == [(b,)]
    assert run_sql(path, "SELECT count(*) FROM vectors") == [(1,)]
    assert run_sql(path, "SELECT count(*) FROM removed") == [(0,)]  # no sealed file holds them


def test_ids_are_never_given_twice(store: Store, space: Space, path: Path) -> None:
    """A sealed file cannot mistake a new vector for one that it holds."""
    (last,) = put(store, space, b"/a", b"/b")[1:]
    highest = [
        run_sql(path, f"SELECT max(id) FROM {table}")[0][0] for table in ("parts", "vectors")
    ]
    store.write(Batch(removed=[last]), space)
    (new,) = put(store, space, b"/c")
    assert new > last
    assert run_sql(path, "SELECT max(id) FROM parts")[0][0] > highest[0]
    assert run_sql(path, "SELECT max(id) FROM vectors")[0][0] > highest[1]


def test_removed_vectors_are_listed_where_a_sealed_file_holds_them(
    store: Store, space: Space, rng: np.random.Generator
) -> None:
    """Only ids within a seal of the same space and modality are masked."""
    other = store.add_space(SECOND)
    items = put(store, space, b"/1", b"/2", b"/3", b"/4", b"/5")  # vector ids 1..5
    store.write(
        Batch(records=[make_record(b"/t", unit_rows(rng, 2, DIM), modality=TEXT)]), space
    )  # 6, 7
    put(store, other, b"/o1", b"/o2")  # 8, 9
    old = Seal("one", 2, 6, 4)  # 6 is a text's
    store.set_seal(space, IMAGE, old, [])
    store.set_seal(other, IMAGE, Seal("two", 1, 8, 1), [])
    assert store.seals(space, IMAGE) == [old]
    assert store.seals(space, TEXT) == []
    assert store.seal_files() == {"one", "two"}
    gone = [items[0], items[1], items[3], items[4], item_id(store, b"/t"), item_id(store, b"/o1")]
    store.write(Batch(removed=gone), space)
    assert store.removed(space, IMAGE).tolist() == [2, 4, 5]
    assert store.removed(space, TEXT).tolist() == []
    assert store.removed(other, IMAGE).tolist() == [8]
    new = Seal("three", 1, 9, 1)
    store.set_seal(space, IMAGE, new, [old])
    assert store.seals(space, IMAGE) == [new]
    assert store.seal_files() == {"two", "three"}
    assert store.removed(space, IMAGE).tolist() == []
    assert store.removed(other, IMAGE).tolist() == [8]


def test_twins_are_items_with_the_content_and_vectors(
    store: Store, space: Space, rng: np.random.Generator
) -> None:
    """Oldest first, and only those that have vectors in the space."""
    other = store.add_space(SECOND)
    for name, target in ((b"/z", space), (b"/a", space), (b"/m", other)):
        record = make_record(
            name, unit_rows(rng, 1, target.dim), content="same", fingerprint=Fingerprint(4, 5)
        )
        store.write(Batch(records=[record]), target)
    put(store, space, b"/else")
    z, a, m = (item_id(store, name) for name in (b"/z", b"/a", b"/m"))
    same = content_hash("same")
    print_ = Fingerprint(4, 5)
    assert store.twins(same, space) == [Twin(z, b"/z", print_), Twin(a, b"/a", print_)]
    assert store.twins(same, other) == [Twin(m, b"/m", print_)]
    assert store.twins(content_hash("nothing"), space) == []


# ---- all or nothing ----------------------------------------------------------------------------

STEPS = {
    "copies": "BEFORE INSERT ON items WHEN new.path = X'2F636F7079'",  # /copy
    "copied vectors": "AFTER INSERT ON vectors WHEN (SELECT count(*) FROM vectors) = 8",
    "moves": "BEFORE UPDATE ON items WHEN new.path = X'2F6D6F766564'",  # /moved
    "touches": "BEFORE UPDATE ON items WHEN new.size = 4321",
    "removals": "AFTER DELETE ON items WHEN old.path = X'2F67'",  # /g
    "replacements": "AFTER DELETE ON items WHEN old.path = X'2F72'",  # /r
    "items": "AFTER INSERT ON items WHEN new.path = X'2F6E6577'",  # /new
    "parts": "BEFORE INSERT ON parts WHEN new.ordinal = 2",
    "vectors": "AFTER INSERT ON vectors WHEN (SELECT count(*) FROM vectors) = 10",
    "generation": "BEFORE UPDATE ON meta",
}


def _full_batch(store: Store, space: Space) -> Batch:
    """A batch with every kind of change, for an index with /a, /m, /t, /g and /r."""
    rng = np.random.default_rng(3)
    return Batch(
        records=[
            make_record(b"/new", unit_rows(rng, 3, DIM)),
            make_record(b"/r", unit_rows(rng, 1, DIM), content="replaced"),
        ],
        moves=[Relocation(item_id(store, b"/m"), b"/moved", Fingerprint(1, 1))],
        copies=[Relocation(item_id(store, b"/a"), b"/copy", Fingerprint(2, 2))],
        touched=[Relocation(item_id(store, b"/t"), b"/t", Fingerprint(4321, 3))],
        removed=[item_id(store, b"/g")],
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_changes_nothing(
    step: str, store: Store, space: Space, path: Path
) -> None:
    """A batch is applied whole or not at all, and the generation goes with it."""
    put(store, space, b"/a", b"/m", b"/t", b"/g", b"/r", b"/rest", b"/more")
    store.set_seal(space, IMAGE, Seal("s", 1, 7, 7), [])
    before = rows_of(path)
    run_sql(path, f"CREATE TRIGGER boom {STEPS[step]} BEGIN SELECT RAISE(ABORT, 'boom'); END")
    batch = _full_batch(store, space)
    with pytest.raises(StoreError, match="boom"):
        store.write(batch, space)
    assert rows_of(path) == before
    assert store.generation() == 1
    run_sql(path, "DROP TRIGGER boom")
    store.write(batch, space)
    assert store.generation() == 2
    assert paths_of(store, space) == [
        *(b"/a", b"/copy", b"/more", b"/moved", b"/new", b"/r", b"/rest", b"/t")
    ]
    assert store.removed(space, IMAGE).tolist() == [4, 5]


@pytest.mark.parametrize(
    ("parts", "vectors"), [(2, (1, DIM)), (1, (2, DIM)), (1, (1, DIM + 1)), (0, (0, DIM))]
)
def test_a_record_whose_vectors_disagree_is_refused(
    parts: int, vectors: tuple[int, int], store: Store, space: Space, path: Path
) -> None:
    """Neither a part without a vector nor a vector of another length gets in."""
    put(store, space, b"/a")
    before = rows_of(path)
    good = make_record(b"/good", unit_rows(np.random.default_rng(1), 1, DIM))
    bad = make_record(b"/bad", np.ones(vectors, np.float32))
    object.__setattr__(bad, "places", (Place(),) * parts)
    with pytest.raises(ValueError, match="part"):
        store.write(Batch(records=[good, bad], removed=[1]), space)
    assert rows_of(path) == before


def test_generations_count_writes_and_nothing_else(store: Store, space: Space, path: Path) -> None:
    """Empty batches and new spaces leave the generation; it survives closing."""
    assert store.generation() == 0
    store.write(Batch(), space)
    store.add_space(SECOND)
    assert store.generation() == 0
    put(store, space, b"/a")
    put(store, space, b"/a")
    assert store.generation() == 2
    with Store(path) as reader:
        assert reader.generation() == 2


def test_a_full_disk_keeps_what_was_committed(
    store: Store, space: Space, path: Path, rng: np.random.Generator
) -> None:
    """A batch that finds no room is not there at all, and goes in once there is room."""
    put(store, space, b"/a", b"/b")
    before = rows_of(path)
    filler = Place(text="x" * 20_000)
    big = Batch(
        records=[
            make_record(b"/big%d" % number, unit_rows(rng, 1, DIM), places=(filler,))
            for number in range(20)
        ],
        removed=[1],
    )

    def limit(pages: int) -> None:
        with store._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    limit(run_sql(path, "PRAGMA page_count")[0][0] + 5)
    with pytest.raises(StorageError, match=r"full: free some space.*committed before is kept"):
        store.write(big, space)
    assert rows_of(path) == before
    assert paths_of(store, space) == [b"/a", b"/b"]
    limit(1_000_000)
    store.write(big, space)
    assert len(paths_of(store, space)) == 21
    assert store.generation() == 2
    assert run_sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_disk_that_refuses_the_commit_keeps_what_was_committed(
    store: Store, space: Space, path: Path, rng: np.random.Generator
) -> None:
    """The log file cannot grow: the failure comes at the end, and still nothing is half there."""
    put(store, space, b"/a", b"/b")
    before = rows_of(path)
    filler = Place(text="x" * 50_000)
    big = Batch(
        records=[
            make_record(b"/big%d" % number, unit_rows(rng, 1, DIM), places=(filler,))
            for number in range(20)
        ]
    )
    log = Path(f"{path}-wal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 100_000, hard))
    try:
        with pytest.raises(StorageError, match="everything committed before is kept"):
            store.write(big, space)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert rows_of(path) == before
    store.write(big, space)
    assert store.generation() == 2
    assert len(paths_of(store, space)) == 22
    assert run_sql(path, "PRAGMA integrity_check") == [("ok",)]


# ---- paths -------------------------------------------------------------------------------------

ODD = [
    b"/caf\xe9.jpg",  # Latin-1, not UTF-8
    b"/\xff\xfe\x80",
    b"/line\nbreak.jpg",
    b"/quote'\"`;--.jpg",
    "/🐕 dog.jpg".encode(),
    b"/ leading and trailing ",
    b"/100%_.jpg",
    b"/x" * 1000,
]


def test_odd_paths_come_back_as_they_went_in(store: Store, space: Space, path: Path) -> None:
    """Names are bytes, with no character that is special."""
    ids = put(store, space, *ODD)
    assert [item_id(store, name) for name in ODD] == ids
    assert paths_of(store, space) == sorted(ODD)
    with Store(path) as reader:
        assert paths_of(reader, space) == sorted(ODD)
        for name, item in zip(ODD, ids, strict=True):
            assert [known.id for known in reader.known(name, space)] == [item]


def test_what_is_under_a_path_is_told_by_whole_names(store: Store, space: Space) -> None:
    """Prefixes, wildcards and the neighbours of "/" in the order of bytes are no traps."""
    names = [b"/a", b"/a/b", b"/a/b/c", b"/a/bc", b"/a/b.d", b"/a/b0", b"/a%/x", b"/a_/x", b"/ab/x"]
    put(store, space, *names)
    assert paths_of(store, space, b"/a/b") == [b"/a/b", b"/a/b/c"]
    assert paths_of(store, space, b"/a%") == [b"/a%/x"]
    assert paths_of(store, space, b"/a_") == [b"/a_/x"]
    assert paths_of(store, space, b"/a/bc") == [b"/a/bc"]
    assert paths_of(store, space, b"/A") == []
    assert paths_of(store, space, b"/") == sorted(names)


COMPONENTS = st.lists(
    st.sampled_from([b"a", b"b", b"ab", b"%", b"_", b".", b"-", b"0", b"\xff", b"A", b"\x01"]),
    min_size=1,
    max_size=4,
)
PATHS = COMPONENTS.map(lambda names: b"/" + b"/".join(names))


@settings(max_examples=40)
@given(paths=st.lists(PATHS, unique=True, max_size=20), roots=st.lists(PATHS, max_size=4))
def test_known_is_every_path_at_or_under_the_root_in_order(
    paths: list[bytes], roots: list[bytes]
) -> None:
    """Paging loses and repeats nothing, and filters by folder agree with it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        Store(Path(folder) / "i", write=True) as store,
    ):
        patch.setattr(store_module, "PAGE_ROWS", 3)
        space = store.add_space(FIRST)
        put(store, space, *paths)
        for root in [b"/", *roots, *paths[:3]]:
            below = root if root == b"/" else root + b"/"
            want = sorted(name for name in paths if name == root or name.startswith(below))
            assert paths_of(store, space, root) == want
            ids = store.vector_ids(space, IMAGE, Filters(under=root))
            assert ids.tolist() == sorted(ids.tolist())
            assert sorted(row.path for row in store.found(ids.tolist()).values()) == want


def test_the_index_may_be_written_while_it_is_compared(
    store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits between two pages neither end nor confuse the listing."""
    monkeypatch.setattr(store_module, "PAGE_ROWS", 2)
    names = [b"/%02d" % number for number in range(10)]
    ids = put(store, space, *names)
    seen = []
    for number, known in enumerate(store.known(b"/", space)):
        seen.append(known.path)
        store.write(Batch(removed=[ids[number]]), space)
    assert seen == names
    assert paths_of(store, space) == []


# ---- opening -----------------------------------------------------------------------------------


def test_a_missing_index_is_not_made_by_reading(tmp_path: Path) -> None:
    """The message says how to make one."""
    with pytest.raises(IndexMissingError, match=r"no index at .*anyseek index FOLDER"):
        Store(tmp_path / "none" / "i.db")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_index(tmp_path: Path) -> None:
    """Reading and writing say so before SQLite gets to see it."""
    for write in (False, True):
        with pytest.raises(StorageError, match="is a folder"):
            Store(tmp_path, write=write)


def test_a_place_below_a_file_is_no_place(tmp_path: Path) -> None:
    """A parent that cannot be made is told with the reason."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot make the folder"):
        Store(tmp_path / "file" / "sub" / "i.db", write=True)


def test_an_empty_file_becomes_an_index_only_by_writing(tmp_path: Path) -> None:
    """A reader finds it unready; a writer brings it to today's schema."""
    path = tmp_path / "i.db"
    path.touch()
    with pytest.raises(IndexMissingError, match="make it ready"):
        Store(path)
    assert path.stat().st_size == 0
    Store(path, write=True).close()
    with Store(path) as reader:
        assert reader.generation() == 0
    assert run_sql(path, "PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
    assert run_sql(path, "PRAGMA application_id") == [(schema.APPLICATION_ID,)]


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("content", [b"tea", b"a text, no database\n" * 900], ids=["tiny", "long"])
def test_a_text_file_is_not_an_index(content: bytes, write: bool, tmp_path: Path) -> None:
    """It is refused and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(NotAnIndexError, match=r"notes\.txt is not an anyseek index.*--index"):
        Store(path, write=write)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (x)",
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 7; CREATE TABLE t(x)",
    ],
)
def test_another_programs_database_is_refused_and_kept(
    sql: str, write: bool, tmp_path: Path
) -> None:
    """Not a byte of it changes, not even its journal mode, and no file appears beside it."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
    before = path.read_bytes()
    with pytest.raises(NotAnIndexError, match="another program"):
        Store(path, write=write)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_says_how_to_go_on(store: Store, space: Space, path: Path) -> None:
    """Pages of nonsense are a named error, not an SQL one."""
    put(store, space, *(b"/%d" % number * 300 for number in range(50)))
    store.close()
    with path.open("r+b") as file:
        file.seek(16384)
        file.write(b"\xa5" * (path.stat().st_size - 16384))
    with pytest.raises(StorageError, match=r"is damaged; remove it"), Store(path) as reader:
        paths_of(reader, space)


@pytest.mark.parametrize("write", [False, True])
def test_a_newer_schema_is_refused_and_kept(write: bool, store: Store, path: Path) -> None:
    """An older anyseek does not touch an index of a newer one."""
    store.close()
    run_sql(path, f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(NewerIndexError, match=r"newer anyseek .*upgrade anyseek"):
        Store(path, write=write)
    assert path.read_bytes() == before


def _adds_a_table(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE added (x)"))
    connection.execute(text("INSERT INTO added VALUES (1)"))
    connection.execute(text("DROP INDEX items_by_content"))


def _fails_half_way(connection: Connection) -> None:
    _adds_a_table(connection)
    connection.execute(text("UPDATE meta SET value = 'spoilt'"))
    connection.execute(text("INSERT INTO nowhere VALUES (1)"))


TODAY = schema.MIGRATIONS


def _migrations(monkeypatch: pytest.MonkeyPatch, *added: Any) -> None:
    migrations = (*TODAY, *added)
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    monkeypatch.setattr(store_module, "MIGRATIONS", migrations)


def test_a_migration_that_fails_half_way_leaves_the_old_index(
    store: Store, space: Space, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables, rows and the version are those of before; a good migration then takes it on."""
    put(store, space, b"/a")
    store.close()
    tables, rows = run_sql(path, "SELECT * FROM sqlite_master"), rows_of(path)
    _migrations(monkeypatch, _fails_half_way)
    with pytest.raises(StoreError, match="nowhere"):
        Store(path, write=True)
    assert run_sql(path, "SELECT * FROM sqlite_master") == tables
    assert rows_of(path) == rows
    assert run_sql(path, "PRAGMA user_version") == [(len(TODAY),)]
    with pytest.raises(IndexMissingError):  # a reader does not migrate
        Store(path)
    _migrations(monkeypatch, _adds_a_table)
    with Store(path, write=True) as migrated:
        assert paths_of(migrated, space) == [b"/a"]
    assert run_sql(path, "PRAGMA user_version") == [(len(TODAY) + 1,)]
    assert run_sql(path, "SELECT * FROM added") == [(1,)]
    assert rows_of(path)["items"] == rows["items"]


def test_migrations_before_a_failing_one_are_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is its own transaction, from an empty file on."""
    _migrations(monkeypatch, _adds_a_table, _fails_half_way)
    with pytest.raises(StoreError):
        Store(path, write=True)
    assert run_sql(path, "PRAGMA user_version") == [(len(TODAY) + 1,)]
    assert run_sql(path, "SELECT * FROM added") == [(1,)]
    assert run_sql(path, "SELECT value FROM meta WHERE key = 'generation'") == [("0",)]


# ---- several at once ---------------------------------------------------------------------------


def test_a_reader_cannot_write(store: Store, space: Space, path: Path) -> None:
    """Whatever is tried through a store opened for reading, the file stays as it is."""
    put(store, space, b"/a")
    before = rows_of(path)
    record = make_record(b"/b", unit_rows(np.random.default_rng(0), 1, DIM))
    with Store(path) as reader, pytest.raises(StoreError):
        reader.write(Batch(records=[record]), space)
    with Store(path) as reader, pytest.raises(StoreError):
        reader.add_space(SECOND)
    with Store(path) as reader, pytest.raises(StoreError):
        reader.set_seal(space, IMAGE, Seal("s", 1, 1, 1), [])
    assert rows_of(path) == before


def test_a_reader_sees_one_moment(store: Store, space: Space, path: Path) -> None:
    """Commits after a reader opened are not seen by it, but by the next one."""
    put(store, space, b"/a", b"/b")
    with Store(path) as reader:
        ids, matrix = store.vectors(space, IMAGE)
        store.write(Batch(removed=[1]), space)
        put(store, space, b"/c")
        assert paths_of(reader, space) == [b"/a", b"/b"]
        assert reader.generation() == 1
        seen_ids, seen = reader.vectors(space, IMAGE)
        np.testing.assert_array_equal(seen_ids, ids)
        np.testing.assert_array_equal(seen, matrix)
        with Store(path) as later:
            assert paths_of(later, space) == [b"/b", b"/c"]
            assert later.generation() == 3


def test_a_writer_that_waits_too_long_says_who_is_in_the_way(
    store: Store, space: Space, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that holds the write lock is an error of its own."""
    monkeypatch.setattr(engine, "BUSY_S", 0.05)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        Store(path, write=True) as second,
    ):
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(IndexBusyError, match="another process"):
            put(second, space, b"/a")
        with Store(path) as reader:  # reading goes on
            assert reader.generation() == 0
        connection.execute("ROLLBACK")
        put(second, space, b"/a")
        assert second.generation() == 1


def test_two_writers_wait_for_each_other(path: Path) -> None:
    """Batches from two threads, each with its own store, are all there."""
    Store(path, write=True).close()
    failures: list[BaseException] = []

    def work(name: bytes) -> None:
        try:
            with Store(path, write=True) as store:
                space = store.add_space(FIRST)
                for number in range(15):
                    put(store, space, b"/%s/%d" % (name, number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store(path) as store:
        assert store.generation() == 30
        assert len(paths_of(store, store.spaces()[0])) == 30


# ---- random batches against dictionaries -------------------------------------------------------


@dataclass
class ModelItem:
    """An item as a dictionary would keep it."""

    content: str
    fingerprint: Fingerprint
    modality: Modality
    places: tuple[Place, ...]
    vectors: dict[str, NDArray[np.float16]]

    def copied(self, fingerprint: Fingerprint) -> ModelItem:
        """The same content elsewhere."""
        return ModelItem(self.content, fingerprint, self.modality, self.places, dict(self.vectors))


@dataclass
class Drawn:
    """A batch and the dictionary that it should lead to."""

    batch: Batch = field(default_factory=Batch)
    after: dict[bytes, ModelItem] = field(default_factory=dict)


NAMES = [b"/%c" % letter for letter in b"abcdef"]


def _drawn(
    data: st.DataObject, store: Store, space: Space, before: dict[bytes, ModelItem]
) -> Drawn:
    """Draws a batch that makes sense, in the order in which a batch is applied."""
    drawn = Drawn(after=dict(before))
    after = drawn.after
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def fingerprint() -> Fingerprint:
        return Fingerprint(int(rng.integers(1, 9)), int(rng.integers(1, 2**62)))

    alive = {name: item_id(store, name) for name in before}
    for _ in range(data.draw(st.integers(0, 2)) if alive else 0):
        source = data.draw(st.sampled_from(sorted(alive)))
        target = data.draw(st.sampled_from(NAMES))
        if target != source:
            print_ = fingerprint()
            drawn.batch.copies.append(Relocation(alive[source], target, print_))
            after[target] = after[source].copied(print_)
            alive.pop(target, None)
    for _ in range(data.draw(st.integers(0, 2)) if alive else 0):
        if not alive:
            break
        source = data.draw(st.sampled_from(sorted(alive)))
        target = data.draw(st.sampled_from(NAMES))
        print_ = fingerprint()
        item = alive.pop(source)
        drawn.batch.moves.append(Relocation(item, target, print_))
        after[target] = after.pop(source).copied(print_)
        alive.pop(target, None)
    for name in sorted(alive):
        match data.draw(st.sampled_from(["keep", "keep", "touch", "remove"])):
            case "touch":
                print_ = fingerprint()
                drawn.batch.touched.append(Relocation(alive[name], name, print_))
                after[name] = after[name].copied(print_)
            case "remove":
                drawn.batch.removed.append(alive[name])
                del after[name]
    for name in data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3)):
        content = data.draw(st.sampled_from("xyz"))
        modality = TEXT if content == "z" else IMAGE
        places = tuple(Place(line=int(line)) for line in rng.integers(1, 99, 1 + ord(content) % 3))
        vectors = unit_rows(rng, len(places), space.dim)
        print_ = fingerprint()
        drawn.batch.records.append(
            make_record(
                name,
                vectors,
                content=content,
                modality=modality,
                places=places,
                fingerprint=print_,
            )
        )
        own = {space.name: vectors.astype(np.float16)}
        old = after.get(name)
        if old is not None and old.content == content:
            own = {**old.vectors, **own}
            places = old.places
        after[name] = ModelItem(content, print_, modality, places, own)
    return drawn


def _check(store: Store, spaces: tuple[Space, ...], model: dict[bytes, ModelItem]) -> None:
    """Compares every row with the dictionary, and counts that there are no others."""
    rows = rows_of(store.path)
    assert {row[1] for row in rows["items"]} == set(model)
    assert len(rows["parts"]) == sum(len(item.places) for item in model.values())
    assert len(rows["vectors"]) == sum(
        len(matrix) for item in model.values() for matrix in item.vectors.values()
    )
    for name, item in model.items():
        found = store.item(name)
        assert found is not None
        assert found[1:] == (item.fingerprint, item.modality)
        (row,) = (row for row in rows["items"] if row[1] == name)
        assert row[5] == content_hash(item.content)
        for space in spaces:
            want = item.vectors.get(space.name, np.empty((0, space.dim), np.float16))
            np.testing.assert_array_equal(store.item_vectors(found[0], space), want)
            (known,) = store.known(name, space)
            assert (known.id, known.fingerprint) == (found[0], item.fingerprint)
            assert known.complete == (space.name in item.vectors)
    for space, modality in itertools.product(spaces, Modality):
        ids, matrix = store.vectors(space, modality)
        found_rows = store.found(ids.tolist())
        pairs = [(found_rows[i].path, found_rows[i].place) for i in ids.tolist()]
        expected = {
            (name, place): vector.tobytes()
            for name, item in model.items()
            if item.modality is modality and space.name in item.vectors
            for place, vector in zip(item.places, item.vectors[space.name], strict=True)
        }
        if len(set(pairs)) == len(pairs):  # unless two parts of an item drew the same line
            assert dict(zip(pairs, map(bytes, matrix), strict=True)) == expected


@settings(max_examples=40)
@given(data=st.data())
def test_random_batches_agree_with_a_dictionary(data: st.DataObject) -> None:
    """Items, vectors and generation follow a plain model; failing batches leave no trace."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "i.db"
        store = Store(path, write=True)
        try:
            spaces = (store.add_space(FIRST), store.add_space(SECOND))
            model: dict[bytes, ModelItem] = {}
            generation = 0
            retired: set[int] = set()
            current: set[int] = set()
            for _ in range(data.draw(st.integers(1, 6))):
                space = data.draw(st.sampled_from(spaces))
                drawn = _drawn(data, store, space, model)
                if len(drawn.batch) and data.draw(st.integers(0, 3)) == 0:
                    run_sql(
                        path,
                        "CREATE TRIGGER boom BEFORE UPDATE ON meta"
                        " BEGIN SELECT RAISE(ABORT, 'boom'); END",
                    )
                    with pytest.raises(StoreError, match="boom"):
                        store.write(drawn.batch, space)
                    run_sql(path, "DROP TRIGGER boom")
                else:
                    store.write(drawn.batch, space)
                    model = drawn.after
                    generation += len(drawn.batch) > 0
                if data.draw(st.booleans()):
                    store.close()
                    store = Store(path, write=True)
                assert store.generation() == generation
                _check(store, spaces, model)
                now = {row[0] for row in run_sql(path, "SELECT id FROM vectors")}
                assert not now & retired
                retired |= current - now
                current = now
        finally:
            store.close()


def test_a_sample_of_heaps(store: Store, space: Space) -> None:
    """Where ids lie in one heap and one far away, it is still all over, and of the size asked."""
    rng = np.random.default_rng(5)
    heap = [make_record(b"/a%d" % at, unit_rows(rng, 1, DIM)) for at in range(300)]
    store.write(Batch(records=heap), space)
    store.write(Batch(removed=[]), space)
    run_sql(store.path, "UPDATE sqlite_sequence SET seq = 500000 WHERE name = 'vectors'")
    store.write(Batch(records=[make_record(b"/z", unit_rows(rng, 1, DIM))]), space)
    rows = store.sample(space, IMAGE, 100)
    _, every = store.vectors(space, IMAGE)
    assert 50 <= len(rows) <= 100
    at = [int(np.flatnonzero((every == row).all(axis=1))[0]) for row in rows]
    assert at == sorted(set(at))
    assert np.diff(at).max() <= 4
