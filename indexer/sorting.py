"""Files moved, copied or linked into folders by class: first a plan, then the deed.

Nothing is ever written over, and nothing is lost if the process dies half-way: a file is at its new
place whole before it goes from its old one, and what was left behind is a second copy at most, or
a hidden file of an unfinished copy.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from indexer.sidecars import Kind, path_of
from retrieval.beside import sidecars
from retrieval.errors import StorageError
from retrieval.media import modality_of
from retrieval.types import Modality

COMPANIONS = (".xmp", ".anyseek.json")  # sidecars that go along when their file is moved
LONGEST_NAME = 200  # bytes of a folder's name; file systems take 255
RESERVED = frozenset(  # names that Windows, or a drive shared with it, keeps for devices
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)


class Way(StrEnum):
    """What happens to a file."""

    MOVE = "move"
    COPY = "copy"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class Step:
    """One file's way.

    Attributes:
        way: What happens.
        source: Absolute path.
        target: Absolute path at which nothing was when the plan was made.
    """

    way: Way
    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that stays where it is, and why, in words that follow its path."""

    source: Path
    reason: str


def folder_name(label: str) -> str:
    """Makes a folder's name of a label: nothing in it can leave the folder above, or be hidden.

    Slashes, control characters and what Windows does not take become ``_``, dots and spaces at the
    ends go, and long names are cut between characters.
    """
    name = unicodedata.normalize("NFC", label)
    name = re.sub(r'[/\\:*?"<>|\x00-\x1f\x7f]', "_", name)
    name = "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "_" for c in name)
    name = name.encode("utf-8")[:LONGEST_NAME].decode("utf-8", "ignore").strip(" .")
    if not name:
        return "_"
    return f"_{name}" if name.partition(".")[0].casefold() in RESERVED else name


def plan(
    files: Iterable[tuple[Path, str]], folder: Path, way: Way
) -> Iterator[Step | Refused | None]:
    """Says for each file where it would go: ``folder/label/name``, numbered where that is taken.

    Args:
        files: Absolute path and label of each.
        folder: Need not be there.
        way: What is to happen.

    Yields:
        One for each file, in order; ``None`` for what is in its place already.
    """
    base = Path(os.path.realpath(folder))
    taken: set[str] = set()
    for source, label in files:
        home = base / folder_name(label)
        if source.parent == home:
            yield None
            continue
        if way is Way.MOVE and source.is_symlink():
            yield Refused(source, "is a link, which could lead nowhere from another place")
            continue
        target = _free(home, source, taken)
        taken.add(_folded(target))
        yield Step(way, source, target)


def _free(home: Path, source: Path, taken: set[str]) -> Path:
    """Finds a name that is free, its sidecars' too: ``a.jpg``, ``a-2.jpg``, ``a-3.jpg``."""
    for number in itertools.count(1):
        mark = "" if number == 1 else f"-{number}"
        target = home / f"{source.stem}{mark}{source.suffix}"
        names = [target, *(_beside(target, companion) for companion in COMPANIONS)]
        if _folded(target) not in taken and not any(map(os.path.lexists, names)):
            return target
    raise AssertionError("numbers do not end")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _folded(path: Path) -> str:
    """Takes upper for lower case, since some file systems do."""
    return str(path).casefold()


def carry_out(step: Step) -> None:
    """Does one step of a plan.

    Raises:
        StorageError: If it cannot be done; the source is where it was.
    """
    try:
        step.target.parent.mkdir(parents=True, exist_ok=True)
        match step.way:
            case Way.SYMLINK:
                step.target.symlink_to(step.source)
            case Way.COPY:
                _copy(step.source, step.target)
            case Way.MOVE:
                _move(step.source, step.target)
                for old, new in _companions(step):
                    if not os.path.lexists(new):
                        _move(old, new)
    except OSError as error:
        raise StorageError(
            f"cannot {step.way} {step.source} to {step.target}: {error.strerror or error}; "
            "what was done before is kept, and the same command goes on"
        ) from error


def _companions(step: Step) -> Iterator[tuple[Path, Path]]:
    """Lists the sidecars of a file with their new places; what others share stays."""
    source, target = step.source, step.target
    old = path_of(source, Kind.JSON)
    if old.is_file():
        yield old, path_of(target, Kind.JSON)
    names = [os.fsencode(path.name) for path in source.parent.iterdir()] + [_name(source)]
    for name in sidecars(_name(source), names):
        whole = name.startswith(_name(source) + b".")
        shared = not whole and any(
            name in sidecars(other, names)
            for other in names
            if other != _name(source) and modality_of(other) in (Modality.IMAGE, Modality.AUDIO)
        )
        if not shared:
            ending = name[len(_name(source) if whole else os.fsencode(source.stem)) :]
            base = _name(target) if whole else os.fsencode(target.stem)
            yield source.with_name(os.fsdecode(name)), target.with_name(os.fsdecode(base + ending))


def _name(path: Path) -> bytes:
    return os.fsencode(path.name)


def _move(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)  # fails where something is
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without links
        _copy(source, target)
    _settle(target.parent)
    try:
        source.unlink()
    except FileNotFoundError:  # another process was first
        target.unlink()
        raise


def _copy(source: Path, target: Path) -> None:
    """Copies content and times under a hidden name, then gives it its own, if that is free."""
    hidden = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with source.open("rb") as old, hidden.open("xb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())
        shutil.copystat(source, hidden)
        try:
            os.link(hidden, target)
        except FileExistsError:
            raise
        except OSError:  # no links here: an empty file of our own keeps the place
            target.touch(exist_ok=False)
            hidden.replace(target)
    finally:
        hidden.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Makes sure that a folder's new entry outlives a failing machine."""
    with contextlib.suppress(OSError):  # not every system lets folders be synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
