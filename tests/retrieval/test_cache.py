"""What was embedded before comes back exactly, and whatever happens to the file, nothing wrong."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import cache
from retrieval.cache import CachedTower, TextCache, cached
from retrieval.types import Modality, Vectors
from tests.conftest import unit_rows
from tests.fakes import WordTower, colour_encoder

ROOT = Path(__file__).resolve().parent.parent.parent
DIM = 8
RECORD = 16 + 8 + 4 * DIM + 8
LARGEST = cache.BUCKETS * cache.WAYS * RECORD


def vectors_of(texts: list[str]) -> Vectors:
    """Unit rows that follow from the texts."""
    rows = [unit_rows(np.random.default_rng(list(text.encode())), 1, DIM) for text in texts]
    return np.concatenate(rows)


def assert_right(found: TextCache, texts: list[str]) -> int:
    """Whatever is there is exactly what was put in; gives how many are."""
    rows = found.get(texts)
    for text, row in zip(texts, rows, strict=True):
        if row is not None:
            np.testing.assert_array_equal(row, vectors_of([text])[0])
    return sum(row is not None for row in rows)


def test_vectors_come_back_exactly(tmp_path: Path) -> None:
    """In order, from another object, and what was never put in is missing."""
    texts = ["dog", "", "a {query} 🐕", "\udcff", "狗" * 1_000]
    vectors = unit_rows(np.random.default_rng(0), 5, DIM)
    TextCache(tmp_path / "new" / "folder", "space", DIM).put(texts, vectors)
    again = TextCache(tmp_path / "new" / "folder", "space", DIM)
    rows = again.get([*reversed(texts), "cat"])
    assert rows[-1] is None
    for row, want in zip(rows, vectors[::-1], strict=False):
        np.testing.assert_array_equal(row, want)
        assert row is not None
        assert row.dtype == np.float32


def test_what_is_put_twice_is_the_latest(tmp_path: Path) -> None:
    """And stands there once."""
    store = TextCache(tmp_path, "space", DIM)
    first, second = unit_rows(np.random.default_rng(0), 2, DIM)
    store.put(["dog"], first[None])
    size = store.path.stat().st_size
    store.put(["dog"], second[None])
    np.testing.assert_array_equal(store.get(["dog"])[0], second)
    assert store.path.stat().st_size == size


def test_spaces_are_apart(tmp_path: Path) -> None:
    """Another space, or another length, knows nothing of the first."""
    TextCache(tmp_path, "one", DIM).put(["dog"], vectors_of(["dog"]))
    assert TextCache(tmp_path, "two", DIM).get(["dog"]) == [None]
    assert TextCache(tmp_path, "one", DIM + 1).get(["dog"]) == [None]
    # nor does it where the file of one is copied over that of another
    other = TextCache(tmp_path, "two", DIM)
    other.path.write_bytes(TextCache(tmp_path, "one", DIM).path.read_bytes())
    assert other.get(["dog"]) == [None]


def test_words_are_not_kept(tmp_path: Path) -> None:
    """Neither they nor a plain hash of them; and only the owner may read."""
    import hashlib

    store = TextCache(tmp_path, "space", DIM)
    store.put(["divorce lawyer"], vectors_of(["divorce lawyer"]))
    content = store.path.read_bytes()
    assert b"divorce" not in content
    assert hashlib.blake2b(b"divorce lawyer", digest_size=16).digest() not in content
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_the_file_stays_small_and_keeps_the_latest(tmp_path: Path) -> None:
    """Twice as many texts as it has room for."""
    store = TextCache(tmp_path, "space", DIM)
    texts = [f"text {number}" for number in range(2 * cache.BUCKETS * cache.WAYS)]
    vectors = np.tile(unit_rows(np.random.default_rng(0), 64, DIM), (len(texts) // 64, 1))
    store.put(texts, vectors)
    assert store.path.stat().st_size <= LARGEST
    rows = store.get(texts)
    for row, want in zip(rows, vectors, strict=True):
        assert row is None or (row == want).all()
    found = [row is not None for row in rows]
    assert all(found[-cache.WAYS :])
    assert sum(found[len(texts) // 2 :]) > sum(found[: len(texts) // 2])
    assert sum(found) > 0.99 * cache.BUCKETS * cache.WAYS


def test_the_oldest_of_a_bucket_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one bucket, the ninth text takes the place of the first."""
    monkeypatch.setattr(cache, "BUCKETS", 1)
    store = TextCache(tmp_path, "space", DIM)
    texts = [f"text {number}" for number in range(cache.WAYS + 1)]
    for text in texts:
        store.put([text], vectors_of([text]))
    assert [row is not None for row in store.get(texts)] == [False] + [True] * cache.WAYS


@given(length=st.integers(0, LARGEST))
def test_cut_off_anywhere(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is left is right, and the next text is kept again."""
    store = TextCache(tmp_path_factory.mktemp("cut"), "space", DIM)
    texts = [f"text {number}" for number in range(20)]
    store.put(texts, vectors_of(texts))
    with store.path.open("r+b") as file:
        file.truncate(min(length, store.path.stat().st_size))
    assert_right(store, texts)
    store.put(texts[:1], vectors_of(texts[:1]))
    assert assert_right(store, texts) >= 1


@given(at=st.integers(0, 20 * RECORD - 1), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(
    at: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It costs its own record and no other."""
    store = TextCache(tmp_path_factory.mktemp("bit"), "space", DIM)
    texts = [f"text {number}" for number in range(20)]
    store.put(texts, vectors_of(texts))
    content = bytearray(store.path.read_bytes())
    used = [
        place
        for start in range(0, len(content), RECORD)
        if any(content[start : start + RECORD])
        for place in range(start, start + RECORD)
    ]
    content[used[at]] ^= 1 << bit
    store.path.write_bytes(content)
    assert assert_right(store, texts) == 19


@pytest.mark.parametrize("content", [b"", b"\0" * 100_000, b"junk" * 50_000, b"\xff" * 300_000])
def test_other_content_is_no_cache(tmp_path: Path, content: bytes) -> None:
    """Nothing is found in it, and it is written over."""
    store = TextCache(tmp_path, "space", DIM)
    store.path.write_bytes(content)
    assert store.get(["dog"]) == [None]
    store.put(["dog"], vectors_of(["dog"]))
    assert assert_right(store, ["dog"]) == 1


def test_a_record_that_is_no_unit_vector_is_not_used(tmp_path: Path) -> None:
    """Even with a right checksum: it would spoil every score."""
    store = TextCache(tmp_path, "space", DIM)
    rows = np.stack([np.full(DIM, np.nan), np.zeros(DIM), np.full(DIM, 9)]).astype(np.float32)
    store.put(["a", "b", "c"], rows)
    assert store.get(["a", "b", "c"]) == [None, None, None]


def test_places_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """A file for a folder, a folder for the file, a pipe, a full disk: no cache, and no word."""
    (tmp_path / "file").write_bytes(b"")
    cases = [TextCache(tmp_path / "file", "space", DIM)]
    for name, make in (("folder", Path.mkdir), ("pipe", os.mkfifo)):
        store = TextCache(tmp_path / name, "space", DIM)
        store.path.parent.mkdir()
        make(store.path)
        cases.append(store)
    full = TextCache(tmp_path / "full", "space", DIM)
    full.path.parent.mkdir()
    full.path.symlink_to("/dev/full")
    for store in (*cases, full):
        store.put(["dog"], vectors_of(["dog"]))
        assert store.get(["dog"]) == [None]


def test_only_so_many_spaces_are_kept(tmp_path: Path) -> None:
    """The one that was written to longest ago goes; other files in the folder stay."""
    (tmp_path / "use.npy").write_bytes(b"")
    stores = [TextCache(tmp_path, f"space {number}", DIM) for number in range(cache.FILES + 2)]
    for number, store in enumerate(stores):
        store.put(["dog"], vectors_of(["dog"]))
        os.utime(store.path, (number, number))
    assert [store.path.exists() for store in stores] == [False] * 2 + [True] * cache.FILES
    assert (tmp_path / "use.npy").exists()


WRITER = """
import sys
from pathlib import Path
from retrieval.cache import TextCache
from tests.retrieval.test_cache import DIM, vectors_of
first, last, rounds = map(int, sys.argv[2:])
texts = [f"text {number}" for number in range(first, last)]
vectors = vectors_of(texts)
store = TextCache(Path(sys.argv[1]), "space", DIM)
for _ in range(rounds):
    for at in range(len(texts)):
        store.put(texts[at : at + 1], vectors[at : at + 1])
    print("round", flush=True)
"""


def writer(folder: Path, first: int, last: int, rounds: int) -> subprocess.Popen[bytes]:
    """Starts a process that keeps texts, over and over."""
    numbers = [str(first), str(last), str(rounds)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), *numbers], cwd=ROOT, stdout=subprocess.PIPE
    )


def test_two_processes_at_once(tmp_path: Path) -> None:
    """What either wrote last is there, whole."""
    writers = [writer(tmp_path, 0, 200, 20), writer(tmp_path, 100, 300, 20)]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    texts = [f"text {number}" for number in range(300)]
    assert assert_right(TextCache(tmp_path, "space", DIM), texts) == 300


def test_a_killed_process_leaves_nothing_wrong(tmp_path: Path) -> None:
    """Killed while it writes, again and again."""
    texts = [f"text {number}" for number in range(200)]
    for _ in range(3):
        process = writer(tmp_path, 0, 200, 1_000_000)
        assert process.stdout is not None
        assert process.stdout.readline() == b"round\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert assert_right(TextCache(tmp_path, "space", DIM), texts) >= 199


# ---- before a tower ------------------------------------------------------------------------------


def test_a_tower_is_asked_once(tmp_path: Path) -> None:
    """For what is new, once for a text that comes twice, and the rows keep their order."""
    tower = WordTower()
    texts = ["red", "a blue thing", "red", "green and red"]
    want = WordTower().embed(texts)
    first = CachedTower(tower, TextCache(tmp_path, "space", DIM))
    np.testing.assert_array_equal(first.embed([first.prepare(text) for text in texts]), want)
    assert tower.embedded == 3
    got = CachedTower(tower, TextCache(tmp_path, "space", DIM)).embed(["black", *texts])
    np.testing.assert_array_equal(got[1:], want)
    assert got.dtype == np.float32
    assert tower.embedded == 4


def test_a_tower_gets_what_it_prepared(tmp_path: Path) -> None:
    """The words are the key, whatever the tower makes of them."""

    class Upper(WordTower):
        def prepare(self, content: str) -> str:
            return content.upper()

        def embed(self, batch: Sequence[str]) -> Vectors:
            assert list(batch) == ["RED"]
            return super().embed(batch)

    tower = CachedTower(Upper(), TextCache(tmp_path, "space", DIM))
    for _ in range(2):
        tower.embed([tower.prepare("red")])
    assert (tower.side_px, tower.rate_hz) == (None, None)


def test_an_encoder_keeps_its_other_towers(tmp_path: Path) -> None:
    """Only words are cached, under the encoder's space."""
    encoder = colour_encoder()
    got = cached(encoder, tmp_path)
    assert got.towers[Modality.IMAGE] is encoder.towers[Modality.IMAGE]
    got.towers[Modality.TEXT].embed(["red"])
    assert TextCache(tmp_path, encoder.space, encoder.dim).get(["red"])[0] is not None
    assert (got.space, got.dim, got.model) == (encoder.space, encoder.dim, encoder.model)
