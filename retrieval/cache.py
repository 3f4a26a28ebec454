"""Vectors of texts that were embedded before, on disk, so that a repeated query needs no model.

A file per space holds a hash table of ``BUCKETS`` times ``WAYS`` records of equal length: a keyed
hash of the text, the time it was written, the vector, and a checksum over all of it. The text
itself is not there. A record is written with one call at its place, and a full bucket gives up its
oldest, so the file never grows beyond its size (8.5 MB at 512 dimensions, less while it has holes),
needs no lock, and may be cut off anywhere: what does not match its checksum is not there. Whatever
else goes wrong with the file, too, means that there is no cache.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Encoder, Modality, Tower, Vectors

BUCKETS = 512
WAYS = 8  # of 2,000 texts, fewer than one in a hundred meets a full bucket
FILES = 8  # of spaces; the one that was written to longest ago goes
LAYOUT = b"1"  # of the records; another makes other files

KEY, STAMP, CHECK = 16, 8, 8  # bytes


class TextCache:
    """Vectors of texts in one space. May be used from threads and processes at once."""

    def __init__(self, folder: Path, space: str, dim: int) -> None:
        """Names the file; it is made when there is something to keep.

        Args:
            folder: Made where it is missing.
            space: Identity of the vectors.
            dim: Length of a vector.
        """
        salt = hashlib.blake2b(b"\0".join((LAYOUT, str(dim).encode(), space.encode())))
        self.path = folder / f"texts-{salt.hexdigest()[:16]}.bin"
        self._salt = salt.digest()
        self._dim = dim
        self._size = KEY + STAMP + 4 * dim + CHECK

    def get(self, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Gives the vector ``(dim,)`` of each text, or ``None`` where it is not known."""
        keys = [self._key(text) for text in texts]
        with suppress(OSError), _opened(self.path, os.O_RDONLY) as file:
            return [self._find(key, self._bucket(file, key)) for key in keys]
        return [None] * len(keys)

    def put(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Keeps vectors ``(len(texts), dim)``, if it can."""
        with suppress(OSError):
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._make_room()
            with _opened(self.path, os.O_RDWR | os.O_CREAT) as file:
                for text, vector in zip(texts, vectors, strict=True):
                    self._write(file, self._key(text), vector)

    def _key(self, text: str) -> bytes:
        """16 bytes that stand for a text in this space alone."""
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=KEY, key=self._salt).digest()

    def _place(self, key: bytes) -> int:
        return int.from_bytes(key[:4], "little") % BUCKETS * WAYS * self._size

    def _bucket(self, file: int, key: bytes) -> list[bytes]:
        """Reads the records among which a key would be; beyond the end they are short."""
        data = os.pread(file, WAYS * self._size, self._place(key))
        return [data[way * self._size : (way + 1) * self._size] for way in range(WAYS)]

    def _find(self, key: bytes, bucket: list[bytes]) -> NDArray[np.float32] | None:
        for record in bucket:
            if record.startswith(key) and self._is_whole(record):
                vector = np.frombuffer(record, "<f4", self._dim, KEY + STAMP).astype(np.float32)
                if abs(float(vector @ vector) - 1) < 1e-3:  # a checksum is no proof of an origin
                    return vector
        return None

    def _write(self, file: int, key: bytes, vector: NDArray[np.float32]) -> None:
        """Puts a record over its own, a broken or free one, or the oldest of its bucket."""
        bucket = self._bucket(file, key)
        way = min(range(WAYS), key=lambda way: self._age(bucket[way], key))
        stamp = time.time_ns().to_bytes(STAMP, "little")
        content = key + stamp + np.asarray(vector, "<f4").tobytes()
        os.pwrite(file, content + self._check(content), self._place(key) + way * self._size)

    def _age(self, record: bytes, key: bytes) -> int:
        """Orders the records of a bucket by how well they may be written over."""
        if record.startswith(key):
            return -1
        return int.from_bytes(record[KEY : KEY + STAMP], "little") if self._is_whole(record) else 0

    def _is_whole(self, record: bytes) -> bool:
        return len(record) == self._size and self._check(record[:-CHECK]) == record[-CHECK:]

    def _check(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, digest_size=CHECK, key=self._salt).digest()

    def _make_room(self) -> None:
        """Removes the files of other spaces that were written to longest ago."""
        files = self.path.parent.glob("texts-*.bin")
        for old in sorted(files, key=lambda file: -file.stat().st_mtime_ns)[FILES - 1 :]:
            old.unlink(missing_ok=True)


class CachedTower:
    """A text tower that embeds what its cache does not have."""

    def __init__(self, tower: Tower, cache: TextCache) -> None:
        """Wraps a tower.

        Args:
            tower: Asked for what is missing; until then it need not read its weights.
            cache: Of the same space.
        """
        self._tower = tower
        self._cache = cache
        self.identity = getattr(tower, "identity", None)

    @property
    def side_px(self) -> int | None:
        """As of the tower."""
        return self._tower.side_px

    @property
    def rate_hz(self) -> int | None:
        """As of the tower."""
        return self._tower.rate_hz

    def prepare(self, content: str) -> str:
        """Keeps the text, since the cache knows it by its words."""
        return content

    def embed(self, batch: Sequence[str]) -> Vectors:
        """Embeds texts: ``(n, dim)`` float32, unit rows, in order."""
        found = zip(batch, self._cache.get(batch), strict=True)
        rows = {text: row for text, row in found if row is not None}
        missing = [text for text in dict.fromkeys(batch) if text not in rows]
        if missing:
            made = self._tower.embed([self._tower.prepare(text) for text in missing])
            self._cache.put(missing, made)
            rows.update(zip(missing, made, strict=True))
        return np.stack([rows[text] for text in batch])


def cached(encoder: Encoder, folder: Path) -> Encoder:
    """Gives the encoder with a cache before its text tower.

    A tower that says what its vectors depend on beyond the space, such as a prompt, has a cache of
    its own.
    """
    own = encoder.towers[Modality.TEXT]
    tower = CachedTower(own, TextCache(folder, identity_of(own, encoder.space), encoder.dim))
    return replace(encoder, towers={**encoder.towers, Modality.TEXT: tower})


def identity_of(tower: Tower, space: str) -> str:
    """Tells the vectors of a text tower from others of its space.

    Towers of one space may read a text in several ways, as a question and as what answers it, or
    one may stand in for another; such have an attribute ``identity``. Others are told by the space.
    """
    return getattr(tower, "identity", None) or space


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Opens a file for its owner alone; a pipe in its place must not make us wait."""
    file = os.open(path, flags | os.O_NONBLOCK, 0o600)
    try:
        yield file
    finally:
        os.close(file)
