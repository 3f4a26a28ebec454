"""What Ctrl-C leaves of commands that write, and what they say of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from indexer import sidecars, sorting
from retrieval.exchange import bringing, merging
from retrieval.store import Store, joining
from tests.cli.test_cli import SAMPLES, Anyseek
from tests.conftest import rows_of

COMMITTED = "what is committed is kept: run the same command to go on"
NAMES = ("grazing-cow.jpg", "wild-horses.jpg", "wall-clock.jpg")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an index of three photographs, and what it exports."""
    home = tmp_path_factory.mktemp("made").resolve()
    (home / "photos").mkdir()
    for name in NAMES:
        shutil.copy(SAMPLES / "photos" / name, home / "photos")
    command = Anyseek(home)
    assert command.here("index", "photos").code == 0
    assert command.here("export", "out").code == 0
    return home


@pytest.fixture
def anyseek(made: Path, tmp_path: Path) -> Iterator[Anyseek]:
    """The command in that home, which is put back afterwards."""
    kept = made.with_name(made.name + "-kept")
    shutil.copytree(made, kept)
    yield Anyseek(made)
    shutil.rmtree(made)
    kept.rename(made)


def after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets some calls through, and is interrupted at the next."""
    left = calls

    def called(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return function(*arguments, **options)

    return called


def stopped(anyseek: Anyseek, *command: str | Path) -> str:
    """Gives what an interrupted command says."""
    done = anyseek.here(*command)
    assert done.code == 130
    assert done.err.startswith("anyseek: interrupted; ")
    assert done.err.count("\n") == 1
    return done.err.removeprefix("anyseek: interrupted; ").strip()


def test_index(anyseek: Anyseek, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first file, too, as while it waits for another run."""
    with monkeypatch.context() as patched:
        patched.setattr("indexer.lock.FileLock", after(0, FileLock))
        assert stopped(anyseek, "index", "photos") == COMMITTED
    assert anyseek.here("index", "photos").err == ""


def test_import(anyseek: Anyseek, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that were committed stay, and the same command completes them."""
    monkeypatch.setattr(bringing, "COMMIT_ITEMS", 1)
    command = ("import", "out", "--index", "b.db")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", after(2, Store.write))
        assert stopped(anyseek, *command) == COMMITTED
    assert len(rows_of(anyseek.home / "b.db")["items"]) == 2
    assert b"1 added, 0 updated, 2 unchanged" in anyseek.here(*command).out


def test_merge(anyseek: Anyseek, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new index is whole or not there; one that takes another in has all of it or nothing."""
    shutil.copy(anyseek.index, anyseek.home / "a.db")
    shutil.copy(anyseek.index, anyseek.home / "b.db")
    before = rows_of(anyseek.home / "a.db")
    new, into = ("merge", "a.db", "b.db", "-o", "c.db"), ("merge", "a.db", "b.db", "--into")
    with monkeypatch.context() as patched:
        patched.setattr(merging, "join", after(0, joining.join))
        assert stopped(anyseek, *new) == "c.db was not made: run the same command again"
        assert not list(anyseek.home.glob("*c.db*.tmp*"))
        assert not (anyseek.home / "c.db").exists()
        assert stopped(anyseek, *into) == (
            "a.db has taken in all of b.db or nothing of it: run the same command to be sure"
        )
    assert rows_of(anyseek.home / "a.db") == before
    with monkeypatch.context() as patched:
        patched.setattr(merging, "_seal", after(0, merging._seal))
        assert stopped(anyseek, *new) == "c.db is whole; `anyseek index` makes searches in it fast"
    assert anyseek.here("check", "--index", "c.db").code == 0
    assert anyseek.here(*into).code == 0


def test_classify(anyseek: Anyseek, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written or moved stays, and the same command goes on, if it can."""
    command = ("classify", "photos", "--labels", "cow,horse,clock")
    before = rows_of(anyseek.index)
    again = "nothing was written: run the same command again"
    with monkeypatch.context() as patched:
        patched.setattr(sidecars, "write", after(1, sidecars.write))
        assert stopped(anyseek, *command, "--sidecar", "json") == (
            "sidecars that are written are whole: run the same command for the others"
        )
        assert len(list(anyseek.photos.glob("*.json"))) == 1
        patched.setattr(Store, "put_tags", after(0, Store.put_tags))
        assert stopped(anyseek, *command, "--write-tags") == (
            "all tags are kept, or none: run the same command again"
        )
        patched.setattr(Store, "item_vectors", after(1, Store.item_vectors))
        assert stopped(anyseek, *command, "--write-tags") == again
    assert rows_of(anyseek.index) == before
    for way in ("copy", "move"):
        with monkeypatch.context() as patched:
            patched.setattr(sorting, "carry_out", after(1, sorting.carry_out))
            said = stopped(anyseek, *command, f"--{way}", way, "--yes")
        assert len(list((anyseek.home / way).rglob("*.jpg"))) == 1
    assert said == "what was moved stays so: run the same command for the others"
    assert anyseek.here(*command, "--move", "move", "--yes").code == 0
    assert len(list((anyseek.home / "move").rglob("*.jpg"))) == len(NAMES)
