"""What is in the folders, and how it differs from the index: pure comparison, no model.

Both sides come in bytewise order of their paths and are merged like two sorted files, so memory
does not grow with the number of files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from indexer.folder import LEFT_OUT, Entry, Folder
from retrieval.beside import NOTHING, Beside
from retrieval.media import modality_of
from retrieval.store import Known
from retrieval.types import Fingerprint, Modality


@dataclass(frozen=True, slots=True)
class File:
    """A file that may be indexed.

    Attributes:
        path: Absolute path, as the bytes that the file system has.
        fingerprint: As it is now.
        modality: By its suffix.
        beside: What stands beside a picture or a sound.
    """

    path: bytes
    fingerprint: Fingerprint
    modality: Modality
    beside: Beside = NOTHING


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could not be used, and why.

    Attributes:
        path: A file, or a folder that could not be opened.
        reason: In words that follow the path: "is empty".
        folder: Whether it is a folder; what the index has below it is kept.
    """

    path: bytes
    reason: str
    folder: bool = False


@dataclass(frozen=True, slots=True)
class New:
    """A file that the index does not have."""

    file: File


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that the index has otherwise, or without vectors in the space or its metadata."""

    file: File
    known: Known


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A file that the index has as it is."""

    known: Known


@dataclass(frozen=True, slots=True)
class Vanished:
    """An item whose file is gone."""

    known: Known


Difference = New | Changed | Unchanged | Vanished | Skipped


def path_of(difference: Difference) -> bytes:
    """Gives the path that a difference is about."""
    match difference:
        case New(file):
            return file.path
        case Changed(_, known) | Unchanged(known) | Vanished(known):
            return known.path
        case Skipped(path):
            return path


def roots_of(paths: Iterable[Path]) -> list[bytes]:
    """Resolves paths to absolute ones, sorted, without those that another one's walk reaches."""
    roots: list[bytes] = []
    # Path.resolve would raise on a link to itself, which walk reports like any broken link
    for path in sorted({os.fsencode(os.path.realpath(path)) for path in paths}, key=_order):
        if not any(_is_below(path, root) and not _is_passed_over(path, root) for root in roots):
            roots.append(path)
    return roots


def _is_below(path: bytes, root: bytes) -> bool:
    return path.startswith(root.rstrip(b"/") + b"/")


def _is_passed_over(path: bytes, root: bytes) -> bool:
    """Tells whether a walk from ``root`` leaves out ``path``, which lies below it."""
    names = path[len(root) :].strip(b"/").split(b"/")
    return any(name.startswith(b".") or name in LEFT_OUT for name in names)


def walk(root: bytes) -> Iterator[File | Skipped]:
    """Lists the files at or below a path, in bytewise order of their paths.

    Hidden files and folders and those of ``LEFT_OUT`` are passed over. Links to files count as
    files; links to folders are not followed, so loops end. A root that is named counts, whatever
    its name.
    """
    if not os.path.isdir(root):  # noqa: PTH112 (bytes)
        modality = modality_of(root)
        if modality is None:
            yield Skipped(root, "is no kind of file that anyseek reads")
        else:
            yield from _file(Entry(root, beside=_beside(root, modality)), modality)
        return
    try:
        stack = [_listed(root)]
    except OSError as error:
        yield _unreadable(root, error)
        return
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        if entry.is_folder:
            try:
                stack.append(_listed(entry.path))
            except OSError as error:
                yield _unreadable(entry.path, error)
        elif entry.failure is not None:
            yield Skipped(entry.path, entry.failure)
        else:
            modality = modality_of(entry.path)
            assert modality is not None
            yield from _file(entry, modality)


def compare(
    root: bytes, found: Iterable[File | Skipped], known: Iterable[Known]
) -> Iterator[Difference]:
    """Merges what is there with what is known.

    Args:
        root: The path that was walked.
        found: As ``walk`` gives it.
        known: Items at or below the root, in bytewise order of their paths.

    Yields:
        One difference per file and per item, and everything skipped. Items below a folder that
        could not be opened are ``Unchanged``: nothing is known about them. Items that the walk
        passes over, since they were indexed from a hidden folder by name, are not mentioned.
    """
    items = (item for item in known if not _is_passed_over(item.path, root))
    item = next(items, None)
    closed: bytes | None = None

    def missing(item: Known) -> Difference:
        if closed is not None and item.path.startswith(closed):
            return Unchanged(item)
        return Vanished(item)

    for file in found:
        start = file.path + b"/" if isinstance(file, Skipped) and file.folder else file.path
        while item is not None and item.path < start:
            yield missing(item)
            item = next(items, None)
        if isinstance(file, Skipped):
            if file.folder:
                closed = start
            elif item is not None and item.path == file.path:
                yield Unchanged(item)
                item = next(items, None)
            yield file
        elif item is None or item.path != file.path:
            yield New(file)
        else:
            same = item.complete and item.read and item.fingerprint == file.fingerprint
            same = same and item.beside == file.beside.digest
            yield Unchanged(item) if same else Changed(file, item)
            item = next(items, None)
    while item is not None:
        yield missing(item)
        item = next(items, None)


def _order(path: bytes) -> bytes:
    """Sorts a folder where its contents stand in a list of full paths."""
    return path.rstrip(b"/") + b"/"


def _listed(folder: bytes) -> Iterator[Entry]:
    """Lists what counts in a folder, in the order of the full paths that it leads to."""
    return Folder(folder).entries()


def _beside(path: bytes, modality: Modality) -> Beside:
    """Gives what stands beside a file that is named by itself."""
    folder, name = os.path.split(path)
    try:
        return Folder(folder).beside(name, modality)
    except OSError:  # a folder may be closed to us and the file in it open
        return NOTHING


def _file(entry: Entry, modality: Modality) -> Iterator[File | Skipped]:
    path = entry.path
    try:
        stat = os.stat(path)  # noqa: PTH116 (bytes)
    except OSError as error:
        yield _unreadable(path, error, folder=False)
        return
    if S_ISREG(stat.st_mode):  # not links to folders, pipes, devices
        yield File(path, Fingerprint(stat.st_size, stat.st_mtime_ns), modality, entry.beside)


def _unreadable(path: bytes, error: OSError, *, folder: bool = True) -> Skipped:
    if isinstance(error, PermissionError):
        reason = "no permission to open this folder" if folder else "no permission to read it"
    elif isinstance(error, FileNotFoundError):
        reason = "is a broken link" if os.path.islink(path) else "vanished"  # noqa: PTH114
    else:
        reason = f"cannot be opened: {error.strerror or error}"
    return Skipped(path, reason, folder)
