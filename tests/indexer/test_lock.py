"""Two runs on one index: the second waits, and no dead run stands in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.lock import exclusive, is_held
from retrieval.errors import StorageError
from tests.indexer import inside


def start(index: Path, root: Path, *options: str) -> subprocess.Popen[str]:
    """Starts a run in its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.indexer.slow_run", index, root, "0.01", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    """Reads the next line that a run says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def counts(process: subprocess.Popen[str]) -> dict[str, int]:
    """Reads on to the end of a run; gives the counts that it says last."""
    assert process.stdout is not None
    *_, last = process.stdout
    found: dict[str, int] = json.loads(last)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Gives a folder of a hundred pictures."""
    folder = tmp_path / "root"
    folder.mkdir()
    for number in range(100):
        inside.draw(folder / f"{number}.bmp", number)
    return folder


def test_second_run_waits(tmp_path: Path, root: Path) -> None:
    """The second run says that it waits, starts when the first is done, and finds no work left."""
    index = tmp_path / "index.db"
    with start(index, root, "hold") as first:
        assert said(first) == "ready"
        with start(index, root) as second:
            assert said(second) == "waiting"
            assert first.stdin is not None
            first.stdin.write("go\n")
            first.stdin.close()
            assert counts(first) == {"added": 100, "embedded": 100}
            assert said(second) == "ready"
            assert counts(second) == {"added": 0, "embedded": 0}
    assert (first.returncode, second.returncode) == (0, 0)
    inside.check(index)
    assert len(inside.items(index)) == 100


def test_killed_run_frees_the_index(tmp_path: Path, root: Path) -> None:
    """A run that waits goes on when the one that it waits for is killed."""
    index = tmp_path / "index.db"
    with start(index, root, "hold") as first:
        assert said(first) == "ready"
        with start(index, root) as second:
            assert said(second) == "waiting"
            first.kill()
            assert said(second) == "ready"
            assert counts(second) == {"added": 100, "embedded": 100}
    assert (first.returncode, second.returncode) == (-9, 0)
    inside.check(index)
    assert len(inside.items(index)) == 100


def test_free_index(tmp_path: Path) -> None:
    """A free index is had at once, its folder made; it is free again after an error."""
    index = tmp_path / "new" / "folder" / "index.db"
    waits: list[int] = []
    lock = exclusive(index, on_wait=lambda: waits.append(1))
    with pytest.raises(RuntimeError, match="inside"), lock:
        raise RuntimeError("inside")
    assert index.parent.is_dir()
    with exclusive(index, on_wait=lambda: waits.append(1)):
        pass
    assert waits == []
    assert not index.exists()


def test_who_looks_does_not_hold(tmp_path: Path) -> None:
    """Whether an index is being written is seen from outside, and looking leaves nothing."""
    index = tmp_path / "index.db"
    assert not is_held(index)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    with exclusive(index, on_wait=lambda: None):
        assert is_held(index)
        assert is_held(index)
    assert not is_held(index)
    assert not is_held(tmp_path / "no folder" / "index.db")


def test_other_indexes_are_not_held_up(tmp_path: Path) -> None:
    """Each index has a lock of its own, also beside another in one folder."""
    waits: list[int] = []
    with (
        exclusive(tmp_path / "a.db", on_wait=lambda: waits.append(1)),
        exclusive(tmp_path / "b.db", on_wait=lambda: waits.append(2)),
    ):
        assert waits == []


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    """The message names the index, the reason and the way out."""
    (tmp_path / "file").write_bytes(b"")
    index = tmp_path / "file" / "index.db"
    with pytest.raises(StorageError) as caught, exclusive(index, on_wait=lambda: None):
        pass
    assert str(caught.value).startswith(f"cannot write beside {index}: ")
    assert str(caught.value).endswith("choose another place with --index")


@pytest.mark.parametrize("place", ["/", "."])
def test_folder_in_place_of_an_index(place: str, tmp_path: Path) -> None:
    """A folder is no index, and no lock is left beside it."""
    before = set(os.listdir(tmp_path.parent))  # noqa: PTH208
    folder = Path(place) if place == "/" else tmp_path
    with pytest.raises(StorageError) as caught, exclusive(folder, on_wait=lambda: None):
        pass
    assert str(caught.value) == f"{folder} is a folder; --index takes the path of a file"
    assert set(os.listdir(tmp_path.parent)) == before  # noqa: PTH208
