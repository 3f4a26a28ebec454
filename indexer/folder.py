"""What one folder holds, and which of its files describe others of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from retrieval.beside import LIST_NAME, NOTHING, Beside, Neighbours
from retrieval.media import modality_of
from retrieval.types import Modality

LEFT_OUT = frozenset((b"@eaDir", b"node_modules", b"__pycache__"))  # and all that is hidden


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder that counts.

    Attributes:
        path: Full path.
        is_folder: Whether it is a folder, and no link to one.
        beside: What stands beside a picture or a sound.
        failure: Why it cannot be used, if that is known already.
    """

    path: bytes
    is_folder: bool = False
    beside: Beside = NOTHING
    failure: str | None = None


class Folder:
    """A folder as it was when it was listed; hidden files and folders are passed over."""

    def __init__(self, path: bytes) -> None:
        """Lists it.

        Raises:
            OSError: If it cannot be opened.
        """
        self._path = path
        self._folders: list[bytes] = []
        self._files: list[bytes] = []
        with os.scandir(path) as scan:
            for entry in scan:
                name = entry.name
                if name.startswith(b".") or name in LEFT_OUT:
                    continue
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                except OSError:
                    continue
                (self._folders if is_folder else self._files).append(name)
        self._neighbours = Neighbours(path, self._files)

    def entries(self) -> Iterator[Entry]:
        """Gives what counts, in the order of the full paths that it leads to.

        Texts that are captions of other files are no entries of their own.
        """
        media = {name: kind for name in self._files if (kind := modality_of(name)) is not None}
        found = {name: self.beside(name, kind) for name, kind in media.items()}
        captions = {path for one in found.values() for path in one.paths}
        entries = [(name + b"/", Entry(self._full(name), is_folder=True)) for name in self._folders]
        entries += [
            (name, Entry(self._full(name), beside=one))
            for name, one in found.items()
            if self._full(name) not in captions
        ]
        failure = self._neighbours.list_failure
        if failure is not None and set(media.values()) & {*_DESCRIBED}:
            entries.append((LIST_NAME, Entry(self._full(LIST_NAME), failure=failure)))
        entries.sort(key=lambda entry: entry[0])
        return iter([entry for _, entry in entries])

    def beside(self, name: bytes, modality: Modality) -> Beside:
        """Gives what stands beside one of its pictures or sounds."""
        if modality not in _DESCRIBED:
            return NOTHING
        return self._neighbours.of(name)

    def _full(self, name: bytes) -> bytes:
        return os.path.join(self._path, name)  # noqa: PTH118 (bytes)


_DESCRIBED = (Modality.IMAGE, Modality.AUDIO)
