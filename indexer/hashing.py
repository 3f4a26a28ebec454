"""Perceptual hashes of an index's pictures, each computed once and kept beside the index.

They are derived: the file may be deleted at any time. They are kept by content, so a renamed or
copied picture keeps its hash, and a changed one gets its own.
"""

from __future__ import annotations

import collections
import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from retrieval import media, phash
from retrieval.errors import MediaError
from retrieval.index import folder_of
from retrieval.store import Entry

FILE = "phash-1.npy"
RECORD = np.dtype([("content", "V16"), ("hash", "<u8"), ("even", "?")])
AHEAD = 4  # pictures for each thread that are decoded before they are asked for
SAVE_EVERY = 5_000  # pictures; a run that is stopped loses no more


def hashes(
    index: Path,
    entries: Sequence[Entry],
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[bytes, int | None]:
    """Gives the perceptual hashes of pictures by content; ``None`` where one means nothing.

    Args:
        index: The index file.
        entries: Pictures; those that changed or cannot be read get no hash.
        workers: Threads; one per core by default.
        advance: Told how many pictures were hashed anew.
    """
    path = folder_of(index) / FILE
    known = _read(path)
    missing = {entry.content_hash: entry.path for entry in entries}
    for content in known.keys() & missing.keys():
        del missing[content]
    fresh = 0
    try:
        for content, value in _hashed(missing.items(), workers or os.cpu_count() or 1):
            known[content] = value
            fresh += 1
            advance(1)
            if fresh % SAVE_EVERY == 0:
                _write(path, known)
    finally:
        if fresh % SAVE_EVERY:
            _write(path, known)
    return known


def _hashed(
    files: Iterable[tuple[bytes, bytes]], workers: int
) -> Iterator[tuple[bytes, int | None]]:
    waiting: collections.deque[Future[tuple[bytes, int | None]]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for content, path in files:
                waiting.append(pool.submit(_hash, content, path))
                if len(waiting) > AHEAD * workers:
                    yield from _result(waiting.popleft())
            while waiting:
                yield from _result(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(job: Future[tuple[bytes, int | None]]) -> Iterator[tuple[bytes, int | None]]:
    with contextlib.suppress(MediaError):
        yield job.result()


def _hash(content: bytes, path: bytes) -> tuple[bytes, int | None]:
    read = media.read(path)
    if read.content_hash != content:
        raise MediaError(media.CHANGED)
    (part,) = media.decode(read.data, path, side_px=phash.SIDE).parts
    return content, phash.phash(part.content)


def _read(path: Path) -> dict[bytes, int | None]:
    try:
        with path.open("rb") as file:
            rows = np.load(file, allow_pickle=False)
        if rows.dtype != RECORD or rows.ndim != 1:
            return {}
    except (OSError, ValueError, EOFError):
        return {}  # none yet, or not whole: it is written anew
    return {
        content.tobytes(): None if even else value
        for content, value, even in zip(
            rows["content"], rows["hash"].tolist(), rows["even"].tolist(), strict=True
        )
    }


def _write(path: Path, known: Mapping[bytes, int | None]) -> None:
    """Writes the file so that it is there whole or not at all; without it, all is hashed again."""
    rows = np.array(
        [(content, value or 0, value is None) for content, value in known.items()], RECORD
    )
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                np.save(file, rows, allow_pickle=False)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
