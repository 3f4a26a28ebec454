"""Vectors of things that were embedded before, on disk, so that trying another prompt is quick.

A file per space holds records one after the other: a keyed hash of a file's content or of words, a
number of rows, the rows as float32, and a checksum. Records are appended with one call each. What
breaks off or does not match its checksum is not there, and whatever goes wrong with the file means
that there is no cache. It may be deleted at any time. What would make it larger than
``LARGEST`` begins it anew.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

from retrieval.types import Vectors

LARGEST = 256 << 20  # bytes of a file: 120,000 vectors of 512 numbers
FILES = 4  # of spaces; the one that was written to longest ago goes
LAYOUT = b"1"  # of the records; another makes other files

KEY, COUNT, CHECK = 16, 4, 8  # bytes
MOST_ROWS = 1 << 17  # of one recording; what claims more is damage


class FeatureCache:
    """Rows of vectors by content, in one space. May be used from several threads."""

    def __init__(self, folder: Path, space: str, dim: int) -> None:
        """Reads which records there are.

        Args:
            folder: Made when there is something to keep.
            space: Identity of the vectors.
            dim: Length of a vector.
        """
        salt = hashlib.blake2b(b"\0".join((LAYOUT, str(dim).encode(), space.encode())))
        self.path = folder / f"features-{salt.hexdigest()[:16]}.bin"
        self._salt = salt.digest()
        self._dim = dim
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int]] = {}  # of a record: its start, its rows
        with suppress(OSError):
            self._scan()

    def key(self, kind: str, content: bytes) -> bytes:
        """Gives what stands for a content in this space alone: 16 bytes.

        Args:
            kind: What the content is: ``words``, or the modality of a file.
            content: The words, or the hash of a file.
        """
        data = kind.encode() + b"\0" + content
        return hashlib.blake2b(data, digest_size=KEY, key=self._salt).digest()

    def get(self, key: bytes) -> Vectors | None:
        """Gives the rows ``(n, dim)`` float32 that were kept, bit for bit, or ``None``."""
        with self._lock, suppress(OSError):
            if key in self._places:
                start, rows = self._places[key]
                file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    record = os.pread(file, self._size(rows), start)
                finally:
                    os.close(file)
                if record.startswith(key) and self._check(record[:-CHECK]) == record[-CHECK:]:
                    found = np.frombuffer(record, "<f4", rows * self._dim, KEY + COUNT)
                    return found.reshape(rows, self._dim).astype(np.float32)
        return None

    def put(self, key: bytes, vectors: Vectors) -> None:
        """Keeps rows ``(n, dim)``, if it can."""
        content = key + len(vectors).to_bytes(COUNT, "little")
        content += np.asarray(vectors, "<f4").tobytes()
        record = content + self._check(content)
        with self._lock, suppress(OSError):
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._make_room()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
            file = os.open(self.path, flags, 0o600)
            try:
                size = os.fstat(file).st_size
                if size + len(record) > LARGEST:
                    os.ftruncate(file, 0)
                    self._places.clear()
                    size = 0
                os.write(file, record)
            finally:
                os.close(file)
            self._places[key] = (size, len(vectors))

    def _scan(self) -> None:
        """Lists the records; a tail that broke off is cut away, so that others can follow."""
        file = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        try:
            size, start = os.fstat(file).st_size, 0
            while start + self._size(0) <= size:
                head = os.pread(file, KEY + COUNT, start)
                rows = int.from_bytes(head[KEY:], "little")
                if not 0 < rows <= MOST_ROWS or start + self._size(rows) > size:
                    break
                self._places[head[:KEY]] = (start, rows)
                start += self._size(rows)
            if start != size:
                os.ftruncate(file, start)
        finally:
            os.close(file)

    def _size(self, rows: int) -> int:
        return KEY + COUNT + 4 * self._dim * rows + CHECK

    def _check(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, digest_size=CHECK, key=self._salt).digest()

    def _make_room(self) -> None:
        """Removes the files of other spaces that were written to longest ago."""
        files = self.path.parent.glob("features-*.bin")
        for old in sorted(files, key=lambda file: -file.stat().st_mtime_ns)[FILES - 1 :]:
            old.unlink(missing_ok=True)
