"""Contents that the index already has: of which item, and whether its file is still there."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass

from retrieval.media import modality_of
from retrieval.store import Known, Space, Store, Twin
from retrieval.types import Fingerprint, Modality


@dataclass(slots=True)
class _Content:
    """The items of one content that are read as a file's name would have it read.

    Attributes:
        ids: Of all of them.
        unseen: Those whose files nobody has looked at yet, oldest first.
        standing: One whose file is there with this content.
    """

    ids: frozenset[int]
    unseen: deque[Twin]
    standing: Twin | None = None


class Twins:
    """Finds items by content; what is found holds until the next write to the store.

    Every item is looked at once, however many files have the same content.
    """

    def __init__(self, store: Store, space: Space) -> None:
        """Remembers where to ask; only items with vectors in the space count."""
        self._store = store
        self._space = space
        self._contents: dict[tuple[bytes, bytes], _Content] = {}

    def find(self, path: bytes, content_hash: bytes, known: Known | None) -> Twin | None:
        """Finds an item that has the content of the file at ``path``.

        Args:
            path: Of the file.
            content_hash: Of the file.
            known: The item that the index has at this path.

        Returns:
            ``known`` itself if it has this content; else an item whose file is gone, which
            is given once; else one whose file is provably still the same.
        """
        content = self._content(path, content_hash)
        if known is not None and known.id in content.ids:
            return Twin(known.id, known.path, known.fingerprint)
        while content.unseen:
            twin = content.unseen.popleft()
            if is_gone(twin.path):
                return twin  # a rename, which is better than a copy
            if content.standing is None and _is_same(twin):
                content.standing = twin
        if content.standing is not None and not _is_same(content.standing):
            content.standing = None
        return content.standing

    def moved(self, twin: Twin, path: bytes, content_hash: bytes, now: Fingerprint) -> None:
        """Notes that an item's file was found at another path."""
        content = self._content(path, content_hash)
        if content.standing is None:
            content.standing = Twin(twin.id, path, now)

    def clear(self) -> None:
        """Forgets everything, since the store was written to."""
        self._contents.clear()

    def _content(self, path: bytes, content_hash: bytes) -> _Content:
        reading = _reading(path)
        content = self._contents.get((content_hash, reading))
        if content is None:
            twins = [
                twin
                for twin in self._store.twins(content_hash, self._space)
                if _reading(twin.path) == reading
            ]
            content = _Content(frozenset(twin.id for twin in twins), deque(twins))
            self._contents[content_hash, reading] = content
        return content


def is_gone(path: bytes) -> bool:
    """Tells whether nothing is at a path; where we may not look, something may be."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_same(twin: Twin) -> bool:
    try:
        stat = os.stat(twin.path)  # noqa: PTH116 (bytes)
    except OSError:
        return False
    return Fingerprint(stat.st_size, stat.st_mtime_ns) == twin.fingerprint


def _reading(path: bytes) -> bytes:
    """Names how a file is read: a picture by its content, a text by its suffix."""
    if modality_of(path) is Modality.IMAGE:
        return b"image"
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (bytes)
