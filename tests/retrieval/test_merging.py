"""Two indexes joined, against a model of dictionaries."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import retrieval.exchange.merging as merging
import retrieval.index
from retrieval.check import check
from retrieval.errors import ExchangeError, IndexMissingError, NotAnIndexError, StorageError
from retrieval.exchange.merging import merge
from retrieval.store import Batch, Concept, Space, Store
from retrieval.store.engine import named_failures
from retrieval.store.joining import Joined, copy, join
from retrieval.types import Encoder, Fingerprint, Vectors
from tests.conftest import make_record, rows_of, run_sql, unit_rows

DIM = 8
SPACES = ("one", "two")
PATHS = [b"/%s.jpg" % name for name in (b"a", b"b", b"c", b"d")]


@dataclass(frozen=True)
class Item:
    """What an index may hold at a path: a content in some parts, at a time, in some spaces."""

    content: bytes
    parts: int
    mtime_ns: int
    spaces: tuple[str, ...]


def vectors_of(item: Item, space: str, side: str) -> Vectors:
    """Gives vectors that follow from the content, the space and the index alone."""
    seed = hashlib.blake2b(repr((item.content, item.parts, space, side)).encode()).digest()[:4]
    return unit_rows(np.random.default_rng(list(seed)), item.parts, DIM)


Model = dict[bytes, Item]
models = st.dictionaries(
    st.sampled_from(PATHS),
    st.builds(
        Item,
        st.sampled_from([b"x", b"y"]),
        st.integers(1, 2),
        st.integers(1, 3),
        st.sampled_from([("one",), ("two",), SPACES]),
    ),
)


def make(index: Path, model: Model, side: str) -> None:
    """Makes an index of a model."""
    with Store(index, write=True) as store:
        for name in SPACES:
            space = store.add_space(Encoder("m", name, DIM, {}))
            records = [
                replace(
                    make_record(path, vectors_of(item, name, side), content=item.content),
                    fingerprint=Fingerprint(5, item.mtime_ns),
                )
                for path, item in model.items()
                if name in item.spaces
            ]
            store.write(Batch(records=records), space)


def held(index: Path) -> dict[bytes, tuple[int, dict[str, bytes]]]:
    """Reads time and vectors by space of each path, with sqlite3 alone."""
    found: dict[bytes, tuple[int, dict[str, bytes]]] = {}
    for path, mtime_ns, space, vector in run_sql(
        index,
        "SELECT path, mtime_ns, s.name, vector FROM items i JOIN parts p ON p.item_id = i.id "
        "JOIN vectors v ON v.part_id = p.id JOIN spaces s ON s.id = v.space_id ORDER BY p.ordinal",
    ):
        mine = found.setdefault(path, (mtime_ns, {}))[1]
        mine[space] = mine.get(space, b"") + vector
    return found


def expected(a: Model, b: Model) -> dict[bytes, tuple[int, dict[str, bytes]]]:
    """Joins two models by the rules."""

    def stored(item: Item, side: str) -> dict[str, bytes]:
        return {name: vectors_of(item, name, side).astype("<f2").tobytes() for name in item.spaces}

    result = {path: (item.mtime_ns, stored(item, "a")) for path, item in a.items()}
    for path, item in b.items():
        mine, theirs = a.get(path), stored(item, "b")
        if mine is None:
            result[path] = (item.mtime_ns, theirs)
        elif (mine.content, mine.parts) == (item.content, item.parts):
            newest = max(mine.mtime_ns, item.mtime_ns)
            result[path] = (newest, theirs | result[path][1])
        elif item.mtime_ns > mine.mtime_ns:
            result[path] = (item.mtime_ns, theirs)
    return result


def test_against_a_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any two indexes, into a third and into the first; neither of the two changes unasked."""

    @settings(max_examples=12)
    @given(models, models)
    @example({b"/a.jpg": Item(b"x", 1, 2, SPACES)}, {b"/a.jpg": Item(b"y", 1, 2, SPACES)})
    @example({b"/a.jpg": Item(b"x", 1, 2, ("one",))}, {b"/a.jpg": Item(b"x", 1, 3, ("two",))})
    def same(a: Model, b: Model) -> None:
        folder = tmp_path_factory.mktemp("merge")
        make(folder / "a", a, "a")
        make(folder / "b", b, "b")
        before = rows_of(folder / "a"), rows_of(folder / "b")
        done = merge(folder / "a", folder / "b", folder / "c")
        assert held(folder / "c") == expected(a, b)
        assert done.added == len(b.keys() - a)
        assert done.added + done.replaced + done.kept == len(b)
        assert (rows_of(folder / "a"), rows_of(folder / "b")) == before
        assert merge(folder / "a", folder / "b", None) == done
        assert held(folder / "a") == expected(a, b)
        assert rows_of(folder / "b") == before[1]
        for name in "ac":
            assert check(folder / name).findings == ()

    same()


def concept(name: str, seed: int) -> Concept:
    """Makes a concept."""
    (vector,) = unit_rows(np.random.default_rng(seed), 1, DIM)
    return Concept(name, vector, (b"/x.jpg",), (), 1_700_000_000 + seed)


def teach(index: Path, *concepts: Concept) -> None:
    """Stores concepts in the first space."""
    with Store(index, write=True) as store:
        for one in concepts:
            store.put_concept(one, store.spaces()[0])


def test_concepts(tmp_path: Path) -> None:
    """Both indexes' come along; of one name, one wins by name, and equal ones do not clash."""
    a, b = tmp_path / "a", tmp_path / "b"
    make(a, {}, "a")
    make(b, {}, "b")
    teach(a, concept("cat", 1), concept("same", 3), concept("mine", 4))
    teach(b, concept("cat", 2), concept("same", 3), concept("yours", 5))
    before = rows_of(a), rows_of(b)
    with pytest.raises(
        ExchangeError, match=r"both have a concept of the name <cat>: give --prefer"
    ):
        merge(a, b, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExchangeError, match="<cat>"):
        merge(a, b, None)
    assert (rows_of(a), rows_of(b)) == before
    for prefer, seed in (("A", 1), ("B", 2)):
        merge(a, b, tmp_path / prefer, prefer=prefer)
        with Store(tmp_path / prefer) as store:
            found = {one.name: one.created_s for one in store.concepts(store.spaces()[0])}
        assert found == {
            "cat": 1_700_000_000 + seed,
            "same": 1_700_000_003,
            "mine": 1_700_000_004,
            "yours": 1_700_000_005,
        }


def test_what_cannot_be_joined(tmp_path: Path) -> None:
    """Other spaces, other dimensions, no index, the same index, something in the way."""
    a, b, c = (tmp_path / name for name in "abc")
    make(a, {}, "a")
    for name, dim in (("one", DIM), ("three", DIM)):
        with Store(b, write=True) as store:
            store.add_space(Encoder("m", name, dim, {}))
    with pytest.raises(
        ExchangeError, match=r"different spaces \(.*a alone has two; .*b alone has th"
    ):
        merge(a, b, c)
    for name, dim in (("one", DIM), ("two", DIM + 1)):
        with Store(tmp_path / "d", write=True) as store:
            store.add_space(Encoder("m", name, dim, {}))
    with pytest.raises(ExchangeError, match=r"two has other dimensions"):
        merge(a, tmp_path / "d", c)
    (tmp_path / "no").write_text("something else entirely")
    with pytest.raises(NotAnIndexError):
        merge(a, tmp_path / "no", c)
    with pytest.raises(IndexMissingError):
        merge(a, tmp_path / "gone", c)
    (tmp_path / "again").symlink_to(a)
    with pytest.raises(ExchangeError, match="are the same index"):
        merge(a, tmp_path / "again", None)
    with pytest.raises(ExchangeError, match="is there already"):
        merge(a, b, b)
    assert not list(tmp_path.glob(".c*"))
    assert not c.exists()


def test_seals_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The joined index has derived files of its own, and neither index's are touched."""
    monkeypatch.setattr(retrieval.index, "SEAL_FROM", 4)
    rng = np.random.default_rng(0)
    for name in "ab":
        make(tmp_path / name, {}, name)
        with Store(tmp_path / name, write=True) as store:
            (space, _) = store.spaces()
            paths = [b"/%s%d.jpg" % (name.encode(), i) for i in range(20)]
            records = [make_record(path, unit_rows(rng, 1, DIM)) for path in paths]
            store.write(Batch(records=records), space)
        merging._seal(tmp_path / name)
    assert merge(tmp_path / "a", tmp_path / "b", tmp_path / "c") == Joined(20, 0, 0, 0)
    merge(tmp_path / "a", tmp_path / "b", None)
    for name, count in (("a", 40), ("b", 20), ("c", 40)):
        checked = check(tmp_path / name, full=True)
        assert (checked.findings, checked.compared) == ((), count)


class Small:
    """``sqlite3``, whose new files can have a few pages alone."""

    def connect(self, name: str, *, uri: bool) -> sqlite3.Connection:
        """Opens a file."""
        connection = sqlite3.connect(name, uri=uri)
        if name.endswith("rwc"):
            connection.execute("PRAGMA max_page_count = 3")
        return connection


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that cannot grow is left as it was."""
    a, b = tmp_path / "a", tmp_path / "b"
    make(a, {}, "a")
    make(b, {}, "b")
    with Store(b, write=True) as store:
        vectors = unit_rows(np.random.default_rng(0), 500, DIM)
        records = [make_record(b"/%d.jpg" % i, vectors[i : i + 1]) for i in range(500)]
        store.write(Batch(records=records), store.spaces()[0])
    before = rows_of(a)
    real = join.__globals__["open_engine"]

    def small(path: Path, *, write: bool) -> object:
        engine = real(path, write=write)
        with engine.connect() as connection:
            used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {used + 2}")
            connection.rollback()
        return engine

    monkeypatch.setitem(join.__globals__, "open_engine", small)
    with pytest.raises(StorageError, match=f"the disk with {a} is full: free some space"):
        merge(a, b, None)
    assert rows_of(a) == before
    with pytest.raises(StorageError, match=f"the disk with {tmp_path}/c is full: free some space"):
        merge(a, b, tmp_path / "c")
    monkeypatch.setitem(copy.__globals__, "sqlite3", Small())  # full before the copy is whole
    with pytest.raises(StorageError, match=f"the disk with {tmp_path}/c is full: free some space"):
        merge(a, b, tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir() if "-" not in path.name) == ["a", "b"]


def test_full_disk_that_sqlite_does_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its shared memory cannot grow it speaks of any failure."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    for free, said in ((9, "does not take or give data"), (0, "is full: free some space")):
        monkeypatch.setattr(os, "statvfs", lambda _, free=free: SimpleNamespace(f_bavail=free))
        with (
            pytest.raises(StorageError, match=f"the disk with {tmp_path}/a {said}"),
            named_failures(tmp_path / "a"),
        ):
            raise error


KILLED = """
import os, sys
from pathlib import Path
from retrieval.store import joining
def die(*_):
    os.kill(os.getpid(), 9)
joining.Joined = die  # when all is written, before it is committed
joining.join(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed(tmp_path: Path) -> None:
    """A merge that is killed before its end has not happened."""
    rng = np.random.default_rng(0)
    for name in "ab":
        make(tmp_path / name, {}, name)
        with Store(tmp_path / name, write=True) as store:
            record = make_record(b"/%s.jpg" % name.encode(), unit_rows(rng, 1, DIM))
            store.write(Batch(records=[record]), Space(1, "one", "m", DIM))
    before = held(tmp_path / "a")
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a", tmp_path / "b"])
    assert done.returncode == -9
    assert held(tmp_path / "a") == before
    assert merge(tmp_path / "a", tmp_path / "b", None) == Joined(1, 0, 0, 0)


KILLED_BEFORE_THE_END = """
import os, sys
from pathlib import Path
from retrieval.exchange import merging
merging.os.fsync = lambda _: os.kill(os.getpid(), 9)  # all is written, and has no name yet
merging.merge(*map(Path, sys.argv[1:]))
"""


def test_killed_beside_its_target(tmp_path: Path) -> None:
    """What a killed merge left beside the new index goes with the next one."""
    for name in "ab":
        make(tmp_path / name, {}, name)
    places = [tmp_path / name for name in ("a", "b", "c")]
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_END, *places])
    assert done.returncode == -9
    left = {path.name for path in tmp_path.iterdir()}
    assert ".c.tmp" in left
    assert "c" not in left
    merge(*places)
    assert not list(tmp_path.glob(".c*"))
    assert check(tmp_path / "c").findings == ()
