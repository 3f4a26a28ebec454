"""The last result: remembered per index, and forgiving of everything but a wrong number."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.recent import MAX_PATHS, picked, recall, remember
from retrieval.errors import QueryError

PATHS = [b"/a b.jpg", b"/\xff\n.jpg", "/雪.jpg".encode()]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    folder = tmp_path / "state"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """The file of an index, whose content does not matter."""
    path = tmp_path / "i.db"
    path.write_bytes(b"")
    return path


def files(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def test_hits_by_number(index: Path, state: Path) -> None:
    """In the order asked for, bytes as they were, and beside the index nothing changes."""
    beside = set(index.parent.iterdir())
    remember(index, PATHS)
    assert recall(index, [3, 1, 2, 1]) == [PATHS[2], PATHS[0], PATHS[1], PATHS[0]]
    assert recall(index, []) == []
    assert set(index.parent.iterdir()) - beside == {state}
    remember(index, PATHS[:1])
    assert recall(index, [1]) == PATHS[:1]
    assert len(files(state)) == 1


def test_only_the_owner_can_read_it(index: Path, state: Path) -> None:
    """Whatever the umask is, and whatever was there before."""
    before = os.umask(0)
    try:
        remember(index, PATHS)
    finally:
        os.umask(before)
    (file,) = files(state)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [0, 4, -1])
def test_numbers_that_were_not_there(index: Path, number: int) -> None:
    """The message says how many there were, and how to name a file like a number."""
    remember(index, PATHS)
    with pytest.raises(QueryError, match=rf"had 3 hit\(s\), and none of number {number}; .*\./"):
        recall(index, [1, number])


def test_each_index_has_its_own(index: Path, tmp_path: Path) -> None:
    """Numbers of another index are refused; a link to the index is the index."""
    other = tmp_path / "other.db"
    other.write_bytes(b"")
    remember(index, PATHS)
    with pytest.raises(QueryError, match=r"no last result of this index .*; search it first"):
        recall(other, [1])
    remember(other, PATHS[1:])
    assert recall(other, [1]) == PATHS[1:2]
    assert recall(index, [1]) == PATHS[:1]
    link = tmp_path / "link.db"
    link.symlink_to(index)
    assert recall(link, [1]) == PATHS[:1]


def test_an_index_made_anew_is_another(index: Path, tmp_path: Path) -> None:
    """What stood at its place before does not count."""
    remember(index, PATHS)
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"")
    fresh.replace(index)
    with pytest.raises(QueryError, match="the index is another one than at the last search"):
        recall(index, [1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"version": 1, "index": [], "paths": 5}',
        b'{"version": 1, "index": [], "paths": [5]}',
        b'{"version": 2, "index": [], "paths": []}',
    ],
)
def test_a_damaged_file_counts_as_none(index: Path, state: Path, content: bytes) -> None:
    """It is replaced by the next search."""
    remember(index, PATHS)
    (file,) = files(state)
    file.write_bytes(content)
    with pytest.raises(QueryError, match="there is no last result"):
        recall(index, [1])
    remember(index, PATHS)
    assert recall(index, [1]) == PATHS[:1]


def test_what_cannot_be_written_is_silent(index: Path, state: Path) -> None:
    """A search must not fail for it, and leaves nothing behind."""
    state.write_text("a file where the folder should be")
    remember(index, PATHS)
    assert state.read_text() == "a file where the folder should be"
    state.unlink()
    remember(index, PATHS)
    (file,) = files(state)
    file.unlink()
    file.mkdir()  # a file cannot replace a folder
    remember(index, PATHS)
    assert files(state) == []
    remember(index.with_name("gone.db"), PATHS)
    assert files(state) == []


def test_no_more_than_a_thousand(index: Path) -> None:
    """The rest could not be counted by anyone."""
    remember(index, [b"/%d" % number for number in range(MAX_PATHS + 5)])
    assert recall(index, [MAX_PATHS]) == [b"/999"]
    with pytest.raises(QueryError, match=r"had 1000 hit"):
        recall(index, [MAX_PATHS + 1])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2"], [PATHS[1]]),
        (["2-3", "1"], [PATHS[1], PATHS[2], PATHS[0]]),
        (["1-3", "2", "3-3"], PATHS),
        (["3,1-2"], [PATHS[2], PATHS[0], PATHS[1]]),
        (["/x/3", "1"], [b"/x/3", PATHS[0]]),
        ([], []),
    ],
)
def test_picked(index: Path, values: Sequence[str], expected: list[bytes]) -> None:
    """Numbers, ranges and paths, each file once."""
    remember(index, PATHS)
    assert picked(index, values) == expected


def test_picked_paths(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here and from home, and no result is needed for them."""
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(tmp_path)
    assert picked(index, ["./3", "~/3", "../\udcff", "~/3"]) == [
        here + b"/3",
        here + b"/../\xff",
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a.jpg", r"'a\.jpg' is no hit; give the number of one in the last result, as 3 or 1-4"),
        ("", "'' is no hit"),
        ("1-", "'1-' is no hit"),
        ("-1", "'-1' is no hit"),
        ("１", "is no hit"),
        ("1" * 400, "is no hit"),
        ("3-1", "3-1 runs backwards; write 1-3"),
        ("0-2", "none of number 0"),
        ("1-999999999", "none of number 999999999"),
    ],
)
def test_picked_refuses(index: Path, value: str, message: str) -> None:
    """In one line, before anything is counted out."""
    remember(index, PATHS)
    with pytest.raises(QueryError, match=message):
        picked(index, [value])
