"""What one folder holds, and which of its files describe others of it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from stat import S_ISREG

from retrieval import beside
from retrieval.beside import NOTHING, Beside
from retrieval.errors import MediaError
from retrieval.media import modality_of
from retrieval.types import Modality, Words

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
        if self._list_failure is not None and set(media.values()) & {*_DESCRIBED}:
            name = beside.LIST_NAME
            entries.append((name, Entry(self._full(name), failure=self._list_failure)))
        entries.sort(key=lambda entry: entry[0])
        return iter([entry for _, entry in entries])

    def beside(self, name: bytes, modality: Modality) -> Beside:
        """Gives what stands beside one of its pictures or sounds."""
        if modality not in _DESCRIBED:
            return NOTHING
        return beside.beside(self._path, name, self._captions, self._listed)

    def _full(self, name: bytes) -> bytes:
        return os.path.join(self._path, name)  # noqa: PTH118 (bytes)

    @functools.cached_property
    def _captions(self) -> Mapping[bytes, tuple[int, int]]:
        """Files that may describe others, with size and time; only those with a likely name."""
        possible = [name for name in self._files if name.endswith(beside.SUFFIXES)]
        if not possible:
            return {}
        described = set(self._files)
        stems = {os.path.splitext(name)[0] for name in described}  # noqa: PTH122 (bytes)
        found = {}
        for name in possible:
            stem = os.path.splitext(name)[0]  # noqa: PTH122 (bytes)
            if stem not in described and stem not in stems:
                continue
            try:
                stat = os.stat(self._full(name))  # noqa: PTH116 (bytes)
            except OSError:
                continue
            if S_ISREG(stat.st_mode):
                found[name] = (stat.st_size, stat.st_mtime_ns)
        return found

    @functools.cached_property
    def _list(self) -> tuple[Mapping[bytes, Words], str | None]:
        if beside.LIST_NAME not in self._files:
            return {}, None
        try:
            return beside.read_list(self._full(beside.LIST_NAME)), None
        except MediaError as error:
            return {}, str(error)

    @property
    def _listed(self) -> Mapping[bytes, Words]:
        return self._list[0]

    @property
    def _list_failure(self) -> str | None:
        return self._list[1]


_DESCRIBED = (Modality.IMAGE, Modality.AUDIO)
