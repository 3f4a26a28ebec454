"""Hashes of pictures are computed once, kept by content, and made anew where that is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.hashing import FILE, hashes
from retrieval.index import folder_of
from retrieval.media import read
from retrieval.phash import phash
from retrieval.store import Entry


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """Two pictures, one even, one damaged, one that is gone, one changed since."""
    rng = np.random.default_rng(0)
    found = []
    for name in ("a.png", "b.png", "even.png", "damaged.png", "gone.png", "changed.png"):
        path = tmp_path / name
        pixels = rng.integers(0, 256, (40, 50), dtype=np.uint8)
        Image.fromarray(pixels if name != "even.png" else pixels * 0).save(path)
        if name == "damaged.png":
            path.write_bytes(path.read_bytes()[:100])
        content = read(path)
        found.append(Entry(1, bytes(path), content.fingerprint, content.content_hash))
    (tmp_path / "gone.png").unlink()
    (tmp_path / "changed.png").write_bytes((tmp_path / "a.png").read_bytes())
    return found


def test_hashes_are_made_once(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run reads no picture, apart from those that had no hash."""
    index = tmp_path / "i.db"
    counted: list[int] = []
    found = hashes(index, entries, workers=2, advance=counted.append)
    assert sum(counted) == 3
    wanted = {
        one.content_hash: phash(Image.open(one.path.decode()).convert("RGB")) for one in entries[:3]
    }
    assert found == wanted
    assert wanted[entries[2].content_hash] is None
    monkeypatch.setattr("indexer.hashing.phash.phash", None)
    assert hashes(index, entries[:3]) == wanted


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_damaged_file_is_made_anew(
    entries: list[Entry], tmp_path: Path, content: bytes | None
) -> None:
    """Whatever stands there, an array of another kind too; nothing is unpickled."""
    index = tmp_path / "i.db"
    first = hashes(index, entries[:3])
    path = folder_of(index) / FILE
    if content is None:
        np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    else:
        path.write_bytes(content)
    assert hashes(index, entries[:3]) == first
    assert [one.name for one in folder_of(index).iterdir()] == [FILE]


def test_what_was_done_is_kept_when_a_run_is_stopped(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one goes on from there."""
    index = tmp_path / "i.db"

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hashes(index, entries[:3], workers=1, advance=stop)
    counted: list[int] = []
    hashes(index, entries[:3], workers=1, advance=counted.append)
    assert sum(counted) == 2


def test_without_a_place_for_the_file(entries: list[Entry], tmp_path: Path) -> None:
    """Hashes are given all the same."""
    index = tmp_path / "i.db"
    folder_of(index).write_bytes(b"a file, not a folder")
    assert len(hashes(index, entries[:3])) == 3
