"""An index's vectors, written to files that other programs read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ExchangeError, StorageError
from retrieval.exchange import npy, parquet
from retrieval.exchange.drafts import drafted, put
from retrieval.store import Space, Store
from retrieval.store.exchanging import START, PartRow

FORMATS = ("parquet", "npy")
DTYPES = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class Left:
    """What was written of one space.

    Attributes:
        space: Its identity.
        files: The files, one for Parquet and two for npy.
        count: How many vectors.
    """

    space: str
    files: tuple[Path, ...]
    count: int


def leave(
    store: Store,
    out: Path,
    *,
    format: str = "parquet",
    spaces: Sequence[str] = (),
    dtype: str = "float16",
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Left]:
    """Writes the vectors of an index with all that it knows of them; memory stays flat.

    Every file is written under a temporary name first. They get their names when all are whole, so
    what was there before is there until then.

    Args:
        store: An index, opened for reading.
        out: A folder, made if it is missing.
        format: One of ``FORMATS``.
        spaces: Identities of spaces; all by default.
        dtype: One of ``DTYPES``; the first is what the index holds, to the bit.
        force: Whether files of the same names are replaced.
        progress: Told how many vectors of how many are written.

    Raises:
        ExchangeError: If there is nothing to write, something is in the way, or another process
            writes there.
        StorageError: If the disk does not take it.
    """
    every_space = {space: _count(store, space) for space in _wanted(store, spaces)}
    counts = {space: count for space, count in every_space.items() if count}
    if not counts:
        raise ExchangeError(f"{store.path} holds no vectors yet; run `anyseek index FOLDER`")
    names = {
        space: [out / (_name(space.name) + suffix) for suffix in _suffixes(format)]
        for space in counts
    }
    if out.exists() and not out.is_dir():
        raise ExchangeError(f"{out} is a file; name a folder")
    every = [path for paths in names.values() for path in paths]
    for path in every:
        if path.is_dir() or (os.path.lexists(path) and not force):
            raise ExchangeError(f"{path} is there already; replace it with --force")
    total, done = sum(counts.values()), 0

    def told(space: Space) -> Iterator[tuple[list[PartRow], NDArray[np.float16]]]:
        nonlocal done
        for rows, matrix in _pages(store, space):
            yield rows, matrix
            done += len(rows)
            progress(done, total)

    left = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        with drafted(every) as drafts:
            for space, paths in names.items():
                files = [drafts[path] for path in paths]
                if format == "parquet":
                    count = parquet.write(files[0], space, told(space), dtype)
                else:
                    count = npy.write(files[0], files[1], space, told(space), dtype, counts[space])
                for file in files:
                    _sync(file)
                left.append(Left(space.name, tuple(paths), count))
            for paths in names.values():
                # an array must never meet the lines of an older one, not even if the power fails
                for path in paths[1:] if force else ():
                    path.unlink(missing_ok=True)
            put(drafts, replace=force)
    except OSError as error:
        raise StorageError(
            f"cannot write to {out} ({error.strerror or error}); choose another folder or free "
            "some space"
        ) from error
    return left


def _wanted(store: Store, names: Sequence[str]) -> list[Space]:
    spaces = {space.name: space for space in store.spaces()}
    for name in names:
        if name not in spaces:
            raise ExchangeError(f"the index has no space {name}; it has {', '.join(spaces)}")
    return [space for name, space in spaces.items() if not names or name in names]


def _count(store: Store, space: Space) -> int:
    return sum(store.count_vectors(space, modality) for modality in store.modalities(space))


def _pages(store: Store, space: Space) -> Iterator[tuple[list[PartRow], NDArray[np.float16]]]:
    after = START
    while True:
        rows, matrix, after = store.page(space, after, parquet.ROW_GROUP)
        if not rows:
            return
        yield rows, matrix


def _suffixes(format: str) -> tuple[str, ...]:
    return (".parquet",) if format == "parquet" else (".npy", ".jsonl")


def _name(space: str) -> str:
    """Gives a name of a file for a space, whose identity may hold what names of files may not."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", space).lstrip(".")[:100]
    if plain == space:
        return plain
    return f"{plain}-{hashlib.blake2b(space.encode(), digest_size=4).hexdigest()}"


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
