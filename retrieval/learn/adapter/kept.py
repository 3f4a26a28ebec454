"""Vectors of files and texts by a base model, computed once and kept by their content.

One file for a space, that only grows: records of a key, a vector and a checksum, all of one length.
What is not whole at its end, after a kill, is written over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from retrieval import media, sounds
from retrieval.errors import MediaError
from retrieval.learn.features import Report
from retrieval.types import Encoder, Modality, Tower, Vectors

KEY, CHECK = 16, 8  # bytes
TEXTS_AT_ONCE = 200
REPORT_EVERY = 50  # files


class Kept:
    """Vectors in one space, in memory and in a file. For one process at a time."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        """Reads what is kept already.

        Args:
            folder: For the file; made where it is missing.
            encoder: Asked for what is not kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(encoder.space.encode(), digest_size=8).hexdigest()
        self.path = folder / f"vectors-{name}.bin"
        self.encoder = encoder
        self._size = KEY + 4 * encoder.dim + CHECK
        self._rows: dict[bytes, NDArray[np.float32]] = {}
        self._end = 0
        self._load()

    def texts(self, texts: Sequence[str], *, report: Report) -> Vectors:
        """Gives the vector of each text: ``(n, dim)`` float32, unit rows, in order."""
        keys = [_key(b"text", text.encode("utf-8", "surrogatepass")) for text in texts]
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._rows}
        tower = self.encoder.towers[Modality.TEXT]
        todo = list(missing.items())
        with self._opened() as file:
            for start in range(0, len(todo), TEXTS_AT_ONCE):
                some = todo[start : start + TEXTS_AT_ONCE]
                rows = tower.embed([tower.prepare(text) for _, text in some])
                self._put(file, zip((key for key, _ in some), rows, strict=True))
                report("embedding texts", start + len(some), len(todo))
        return np.stack([self._rows[key] for key in keys])

    def files(
        self, paths: Sequence[tuple[Path, Modality]], digests: Mapping[Path, bytes], report: Report
    ) -> tuple[dict[Path, NDArray[np.float32]], dict[Path, str]]:
        """Gives the vector of each file, the mean of its parts at length 1.

        Args:
            paths: Files with what they are.
            digests: Of the files' contents.
            report: Told now and then.

        Returns:
            Vectors ``(dim,)`` of files that can be used, and reasons for those that cannot.
        """
        vectors: dict[Path, NDArray[np.float32]] = {}
        reasons: dict[Path, str] = {}
        with self._opened() as file:
            for done, (path, modality) in enumerate(paths, 1):
                key = _key(modality.value.encode(), digests[path])
                try:
                    if key not in self._rows:
                        tower = self.encoder.towers[modality]
                        self._put(file, [(key, _embedded(tower, path))])
                        if done % REPORT_EVERY == 0:
                            report("embedding files", done, len(paths))
                    vectors[path] = self._rows[key]
                except MediaError as error:
                    reasons[path] = str(error)
        return vectors, reasons

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        self.path.touch(0o600)
        with self.path.open("r+b") as file:
            file.seek(self._end)
            file.truncate()
            yield file

    def _put(self, file: BinaryIO, rows: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        for key, row in rows:
            content = key + np.asarray(row, "<f4").tobytes()
            file.write(content + _check(content))
            self._end += self._size
            self._rows[key] = np.asarray(row, np.float32)
        file.flush()

    def _load(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        for start in range(0, len(data) - self._size + 1, self._size):
            record = data[start : start + self._size]
            if _check(record[:-CHECK]) != record[-CHECK:]:
                return
            row = np.frombuffer(record[KEY:-CHECK], "<f4").astype(np.float32)
            self._rows[record[:KEY]] = row
            self._end += self._size


def digest(path: Path) -> bytes:
    """Gives 16 bytes that stand for a file's content.

    Raises:
        MediaError: If it cannot be read.
    """
    return media.read(path).content_hash


def _embedded(tower: Tower, path: Path) -> NDArray[np.float32]:
    if tower.rate_hz is not None:
        rows = sounds.embed(sounds.windows(path, tower.rate_hz), tower).vectors
    else:
        item = media.decode(media.read(path).data, os.fsencode(path), side_px=tower.side_px)
        rows = tower.embed([tower.prepare(part.content) for part in item.parts])
    mean = rows.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def _key(kind: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY, key=kind).digest()


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECK).digest()
