"""What was embedded once is there again, bit for bit, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation import feature_cache
from retrieval.evaluation.feature_cache import FeatureCache
from tests.conftest import unit_rows

DIM = 8
RNG = np.random.default_rng(5)


def test_rows_come_back(tmp_path: Path) -> None:
    """In this process and the next, one row or several; but not in another space."""
    cache = FeatureCache(tmp_path / "made", "space", DIM)
    rows = {cache.key("image", b"a"): unit_rows(RNG, 1, DIM)}
    rows[cache.key("audio", b"a")] = unit_rows(RNG, 5, DIM)
    for key, vectors in rows.items():
        assert cache.get(key) is None
        cache.put(key, vectors)
    for again in (cache, FeatureCache(tmp_path / "made", "space", DIM)):
        for key, vectors in rows.items():
            found = again.get(key)
            assert found is not None
            assert found.dtype == np.float32
            assert found.tobytes() == vectors.tobytes()
    other = FeatureCache(tmp_path / "made", "other", DIM)
    assert other.key("image", b"a") != cache.key("image", b"a")
    assert other.get(cache.key("image", b"a")) is None
    assert cache.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", range(0, 180, 7))
def test_a_tail_that_broke_off(tmp_path: Path, cut: int) -> None:
    """The whole records before it stay, and others can follow."""
    cache = FeatureCache(tmp_path, "space", DIM)
    keys = [cache.key("image", bytes([number])) for number in range(4)]
    vectors = unit_rows(RNG, 4, DIM)
    for key, row in zip(keys[:3], vectors, strict=False):
        cache.put(key, row[None])
    size = cache.path.stat().st_size // 3
    os.truncate(cache.path, 3 * size - cut)
    again = FeatureCache(tmp_path, "space", DIM)
    again.put(keys[3], vectors[3:])
    last = FeatureCache(tmp_path, "space", DIM)
    kept = [last.get(key) is not None for key in keys]
    assert kept == [3 * size - cut >= size * place for place in (1, 2, 3)] + [True]


def test_damage_inside(tmp_path: Path) -> None:
    """A record that does not match its checksum is not there."""
    cache = FeatureCache(tmp_path, "space", DIM)
    one, two = cache.key("image", b"1"), cache.key("image", b"2")
    cache.put(one, unit_rows(RNG, 1, DIM))
    cache.put(two, unit_rows(RNG, 1, DIM))
    with cache.path.open("r+b") as file:
        file.seek(30)
        file.write(b"\xff")
    again = FeatureCache(tmp_path, "space", DIM)
    assert again.get(one) is None
    assert again.get(two) is not None


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would make the file too large begins it anew; of many spaces the oldest go."""
    monkeypatch.setattr(feature_cache, "LARGEST", 500)
    cache = FeatureCache(tmp_path, "space", DIM)
    for number in range(40):
        key = cache.key("image", bytes([number]))
        cache.put(key, unit_rows(RNG, 1, DIM))
        assert cache.get(key) is not None
        assert cache.path.stat().st_size <= 500
    assert cache.get(cache.key("image", b"\0")) is None
    for number in range(7):
        other = FeatureCache(tmp_path, f"space {number}", DIM)
        other.put(other.key("image", b""), unit_rows(RNG, 1, DIM))
        os.utime(other.path, ns=(number, number))
    assert len(list(tmp_path.glob("features-*.bin"))) == feature_cache.FILES


def test_without_a_place(tmp_path: Path) -> None:
    """Where nothing can be written, nothing is kept, and nobody is told."""
    (tmp_path / "file").write_bytes(b"")
    cache = FeatureCache(tmp_path / "file", "space", DIM)
    cache.put(cache.key("image", b""), unit_rows(RNG, 1, DIM))
    assert cache.get(cache.key("image", b"")) is None


def test_threads(tmp_path: Path) -> None:
    """Several may write at once."""
    cache = FeatureCache(tmp_path, "space", DIM)
    rows = unit_rows(RNG, 200, DIM)

    def write(first: int) -> None:
        for number in range(first, 200, 4):
            cache.put(cache.key("image", bytes([number])), rows[number : number + 1])

    threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = FeatureCache(tmp_path, "space", DIM)
    for number in range(200):
        found = again.get(again.key("image", bytes([number])))
        assert found is not None
        assert found[0].tolist() == rows[number].tolist()
