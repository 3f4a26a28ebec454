"""The vectors of many files, of which some are in an index and others are not."""

from __future__ import annotations

import collections
import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from indexer.scan import File, Skipped, walk
from retrieval import examples
from retrieval.errors import QueryError
from retrieval.store import Space, Store
from retrieval.types import Encoder, Modality, Vectors

AHEAD = 8  # files for each thread that are read before they are asked for


@dataclass(frozen=True, slots=True)
class Seen:
    """A file with its vector.

    Attributes:
        file: As it is now.
        vector: ``(1, dim)`` float32, the mean of its parts at length 1.
        item_id: Of the item whose stored vectors were taken; ``None`` where it was embedded.
    """

    file: File
    vector: Vectors
    item_id: int | None


def vectors_of(
    roots: Iterable[bytes],
    encoder: Encoder,
    *,
    store: Store | None = None,
    space: Space | None = None,
    modalities: Collection[Modality] = tuple(Modality),
    workers: int | None = None,
) -> Iterator[Seen | Skipped]:
    """Gives the files at or below some paths, in order, with their vectors.

    Files that an index has as they are now are not read. Others are read and embedded in threads,
    a few ahead, so memory does not grow with their number.

    Args:
        roots: As ``indexer.scan.roots_of`` gives them.
        encoder: Of the index's space, where there is one.
        store: An index, opened for reading.
        space: Whose vectors are taken from it.
        modalities: Files of other kinds are passed over.
        workers: Threads; one per core by default.
    """
    workers = workers or os.cpu_count() or 1
    waiting: collections.deque[Seen | Skipped | tuple[File, Future[Vectors]]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for found in (found for root in roots for found in walk(root)):
                if isinstance(found, Skipped):
                    waiting.append(found)
                elif found.modality not in modalities:
                    continue
                elif found.modality not in encoder.towers:
                    waiting.append(Skipped(found.path, "is of a kind that the model does not know"))
                else:
                    kept = _stored(store, space, found)
                    if kept is None:
                        path = Path(os.fsdecode(found.path))
                        job = pool.submit(examples.embedded, encoder, found.modality, path)
                        waiting.append((found, job))
                    else:
                        waiting.append(kept)
                while len(waiting) > AHEAD * workers:
                    yield _done(waiting.popleft())
            while waiting:
                yield _done(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _stored(store: Store | None, space: Space | None, file: File) -> Seen | None:
    if store is None or space is None:
        return None
    vector = examples.stored(store, space, file.path)
    item = store.item(file.path)
    return None if vector is None or item is None else Seen(file, vector, item[0])


def _done(one: Seen | Skipped | tuple[File, Future[Vectors]]) -> Seen | Skipped:
    if not isinstance(one, tuple):
        return one
    file, job = one
    try:
        return Seen(file, job.result(), None)
    except QueryError as error:
        reason = str(error).removeprefix(f"{os.fsdecode(file.path)} ")
        return Skipped(file.path, reason)
