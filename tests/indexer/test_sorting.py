"""Files moved, copied and linked by class: nothing written over, nothing lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.sorting import Refused, Step, Way, carry_out, folder_name, plan
from retrieval.errors import StorageError


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two files of one name, one with sidecars."""
    for name, content in (
        ("in/a/x.jpg", b"first"),
        ("in/b/x.jpg", b"second"),
        ("in/a/x.jpg.xmp", b"about the first"),
        ("in/a/x.jpg.anyseek.json", b"{}"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path.resolve()


def both(home: Path) -> list[tuple[Path, str]]:
    """The two files, both cats."""
    return [(home / "in" / one / "x.jpg", "cat") for one in "ab"]


def done(home: Path, way: Way) -> None:
    """Plans and does."""
    for step in plan(both(home), home / "out", way):
        assert isinstance(step, Step)
        carry_out(step)


def test_move(home: Path) -> None:
    """Two of one name get different ones, sidecars go along; a second run has nothing to do."""
    done(home, Way.MOVE)
    assert tree(home) == {
        "out/cat/x.jpg": b"first",
        "out/cat/x.jpg.xmp": b"about the first",
        "out/cat/x.jpg.anyseek.json": b"{}",
        "out/cat/x-2.jpg": b"second",
    }
    again = [(home / "out" / "cat" / "x.jpg", "cat")]
    assert list(plan(again, home / "out", Way.MOVE)) == [None]


@pytest.mark.parametrize("way", [Way.COPY, Way.SYMLINK])
def test_copy_and_link(home: Path, way: Way) -> None:
    """Sources stay, and times are kept."""
    before = tree(home)
    os.utime(home / "in/a/x.jpg", ns=(10**18, 10**18))
    done(home, way)
    after = tree(home)
    assert after == before | {"out/cat/x.jpg": b"first", "out/cat/x-2.jpg": b"second"}
    assert (home / "out/cat/x.jpg").stat().st_mtime_ns == 10**18
    assert (home / "out/cat/x.jpg").is_symlink() == (way is Way.SYMLINK)


@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("links", [True, False])
def test_nothing_is_written_over(
    home: Path, way: Way, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what came to the place after the plan was made; with and without hard links."""
    if not links:
        without_links(monkeypatch)
    step = next(iter(plan(both(home), home / "out", way)))
    assert isinstance(step, Step)
    step.target.parent.mkdir(parents=True)
    step.target.write_bytes(b"foreign")
    before = tree(home)
    with pytest.raises(StorageError, match="cannot"):
        carry_out(step)
    assert tree(home) == before


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no hard links, or another one than the source's."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("indexer.sorting.os.link", refuse)


def test_what_describes_a_file_goes_along(tmp_path: Path) -> None:
    """Under its new name, too; what another file shares stays where both can be told."""
    for name in ("a.jpg", "a.txt", "a.jpg.txt", "b.jpg", "b.wav", "b.txt", "b.jpg.xmp"):
        (tmp_path / name).write_text(name)
    (tmp_path / "out").mkdir()
    for source, target in (("a.jpg", "a-2.jpg"), ("b.jpg", "b.jpg")):
        carry_out(Step(Way.MOVE, tmp_path / source, tmp_path / "out" / target))
    moved = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert moved == {
        "a-2.jpg": "a.jpg",
        "a-2.txt": "a.txt",
        "a-2.jpg.txt": "a.jpg.txt",
        "b.jpg": "b.jpg",
        "b.jpg.xmp": "b.jpg.xmp",
    }
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out", "b.wav", "b.txt"}


def test_a_file_that_another_process_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no second copy of it."""
    source, target = tmp_path / "a.jpg", tmp_path / "out" / "a.jpg"
    source.write_text("x")
    link = os.link

    def taken(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        source.rename(tmp_path / "elsewhere.jpg")

    monkeypatch.setattr(os, "link", taken)
    with pytest.raises(StorageError, match="cannot move"):
        carry_out(Step(Way.MOVE, source, target))
    assert not target.exists()


def test_move_without_links(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By copying first."""
    without_links(monkeypatch)
    done(home, Way.MOVE)
    assert tree(home)["out/cat/x.jpg"] == b"first"
    assert not (home / "in/a/x.jpg").exists()


@pytest.mark.parametrize("call", ["copyfileobj", "copystat"])
@pytest.mark.parametrize("way", [Way.MOVE, Way.COPY])
def test_a_failure_half_way_loses_nothing(
    home: Path, way: Way, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source stands, and no half of a file is left."""
    without_links(monkeypatch)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"indexer.sorting.shutil.{call}", full)
    before = tree(home)
    with pytest.raises(StorageError, match="No space left"):
        done(home, way)
    assert tree(home) == before


def test_links_are_not_moved(home: Path) -> None:
    """A relative link would lead nowhere."""
    link = home / "in" / "link.jpg"
    link.symlink_to("a/x.jpg")
    (refused,) = plan([(link, "cat")], home / "out", Way.MOVE)
    assert isinstance(refused, Refused)
    assert "is a link" in refused.reason


def test_names_that_differ_in_case_alone(home: Path) -> None:
    """Would be one file on some disks."""
    files = [(home / "in" / "X.JPG", "cat"), (home / "in" / "x.jpg", "Cat")]
    targets = [step.target.name for step in plan(files, home, Way.COPY) if isinstance(step, Step)]
    assert targets == ["X.JPG", "x-2.jpg"]


@given(st.text(max_size=300))
def test_labels_stay_within_their_folder(label: str) -> None:
    """Whatever a label is, it makes one name that is neither hidden nor leads elsewhere."""
    name = folder_name(label)
    assert name
    assert not set(name) & set('/\\:*?"<>|\0')
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert len(name.encode()) <= 201
    assert Path("/base", name).parent == Path("/base")


@pytest.mark.parametrize(
    ("label", "name"),
    [("../../etc", "_.._etc"), ("a/b", "a_b"), ("..", "_"), ("con", "_con"), ("猫", "猫")],
)
def test_names_of_folders(label: str, name: str) -> None:
    """Some that have been tried on others."""
    assert folder_name(label) == name
