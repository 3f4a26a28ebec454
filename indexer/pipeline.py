"""Brings an index in step with folders.

Reading, decoding and embedding are tasks of one pool with a thread per core, so no core waits for a
stage; the calling thread hands out tasks, compares contents and is alone in talking to the store.
Everything in flight is bounded: memory depends on the number of threads, not of files. Pictures and
texts are decoded whole and embedded in batches across files; a sound, which may last for hours, is
decoded and embedded as a stream within one task.
"""

from __future__ import annotations

import os
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TypeVar

from indexer.report import Progress, Report, Silence
from indexer.scan import (
    Changed,
    Difference,
    New,
    Skipped,
    Unchanged,
    Vanished,
    compare,
    path_of,
    walk,
)
from indexer.twins import Twins, is_gone
from indexer.work import Job, Worker
from retrieval.errors import StorageError
from retrieval.index import seal
from retrieval.media import modality_of
from retrieval.store import Batch, ItemRecord, Known, Relocation, Space, Store
from retrieval.types import Encoder, Modality, WordsOf

BATCH_SIZE = 4  # parts embedded at once: 210 pictures a second, 8 give 180, 16 give 155
COMMIT_ITEMS = 512  # a transaction costs about 10 ms, whatever is in it
COMMIT_S = 2.0  # at most so much work is lost when the process is killed
REMOVE_ITEMS = 5_000

Result = TypeVar("Result")


def index(
    store: Store,
    encoder: Encoder,
    roots: Sequence[bytes],
    *,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Report:
    """Indexes what is new or changed under the roots and forgets what is gone.

    Files of kinds that the encoder has no tower for are left as they are, gone or not: the index
    may have them in another space.

    Args:
        store: Opened for writing; nobody else may write meanwhile, see ``indexer.lock``.
        encoder: Its towers are used only if there is something to embed.
        roots: Absolute paths without overlap, see ``indexer.scan.roots_of``.
        workers: Threads; one per core by default.
        batch_size: Parts embedded at once.
        progress: Told how far it is.

    Returns:
        The counts. After an interrupt what was committed is kept, and the next run goes on there.
    """
    return _Run(store, encoder, workers or cores(), batch_size, progress or Progress()).run(roots)


def cores() -> int:
    """Counts the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Run:
    def __init__(
        self, store: Store, encoder: Encoder, workers: int, batch_size: int, progress: Progress
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._space: Space = store.add_space(encoder)
        self._workers = workers
        self._batch_size = batch_size
        self._progress = progress
        self._report = Report()
        self._batch = Batch()
        self._committed_at = time.monotonic()
        self._known = frozenset(encoder.towers)
        self._worker = Worker(encoder, store.sizes(), batch_size)
        self._twins = Twins(store, self._space)
        self._jobs: deque[Future[Job | Skipped]] = deque()
        self._waiting: dict[Modality, list[Job]] = {}
        self._embedding: deque[Future[list[Job]]] = deque()
        self._vanished = array("q")
        self._moved: set[int] = set()
        self._silent = Silence()

    def run(self, roots: Sequence[bytes]) -> Report:
        started = time.monotonic()
        try:
            if self._anything_to_do(roots):
                self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="anyseek")
                try:
                    self._work(roots)
                finally:
                    self._worker.stop()  # a long recording is not listened to until its end
                    self._pool.shutdown(wait=True, cancel_futures=True)
                    self._commit()
            self._seal()
        except KeyboardInterrupt:
            self._report.interrupted = True
        self._report.remarks.extend(self._silent.remarks())
        self._report.seconds = time.monotonic() - started
        return self._report

    def _anything_to_do(self, roots: Sequence[bytes]) -> bool:
        """Goes over the folders once to count, so that the work itself can be told in parts."""
        to_read = unchanged = others = 0
        for difference in self._differences(roots):
            to_read += isinstance(difference, New | Changed)
            unchanged += isinstance(difference, Unchanged)
            others += isinstance(difference, Vanished | Skipped)
        if to_read or others:
            self._progress.total(to_read)
            return True
        self._report.unchanged = unchanged
        return False

    def _seal(self) -> None:
        """Prepares fast searches; everything is stored by now, so a failure is only a remark."""
        try:
            for modality in (*Modality, *WordsOf):
                seal(self._store, self._space, modality, tell=self._progress.sealing)
        except StorageError as error:
            self._report.remarks.append(str(error))

    def _differences(self, roots: Sequence[bytes]) -> Iterator[Difference]:
        """Compares folders and index; what the model does not embed is left to others that do."""
        self._report.left_out = 0
        for root in roots:
            for one in compare(root, walk(root), self._stored(root)):
                kind = modality_of(path_of(one))
                if kind is None or kind in self._known:
                    yield one
                else:
                    self._report.left_out += isinstance(one, New | Changed)

    def _stored(self, root: bytes) -> Iterator[Known]:
        return self._store.known(root, self._space, words=Modality.TEXT in self._known)

    def _work(self, roots: Sequence[bytes]) -> None:
        ahead = 4 * self._workers + self._batch_size
        for difference in self._differences(roots):
            match difference:
                case New(file):
                    self._submit(Job(file, None))
                case Changed(file, known):
                    self._submit(Job(file, known))
                case Vanished(known):
                    self._vanished.append(known.id)
                case Unchanged():
                    self._report.unchanged += 1
                case Skipped():
                    self._report.failed.append(difference)
            while len(self._jobs) > ahead:
                self._collect()
        while self._jobs:
            self._collect()
        for modality in list(self._waiting):
            self._embed(modality)
        while self._embedding:
            self._store_embedded()
        self._commit()
        self._forget()

    # ---- tasks of the pool ---------------------------------------------------------------

    def _submit(self, job: Job) -> None:
        self._jobs.append(self._pool.submit(self._worker.prepare, job))

    # ---- the calling thread --------------------------------------------------------------

    def _result(self, future: Future[Result]) -> Result:
        """Waits for a task; what came before does not wait for a long recording to be stored."""
        while not wait((future,), COMMIT_S).done:
            self._commit_if_due()
        return future.result()

    def _collect(self) -> None:
        """Takes the oldest prepared file on to its next stage."""
        job = self._result(self._jobs.popleft())
        if isinstance(job, Skipped):
            self._fail(job)
        elif job.failure is not None:
            self._give_up(job, job.failure)
        elif not job.checked:
            if not self._reused(job):
                self._submit(replace(job, checked=True))
        elif job.vectors is not None:
            self._store_job(job)
            self._commit_if_due()
        else:
            waiting = self._waiting.setdefault(job.file.modality, [])
            waiting.append(job)
            if sum(len(one.inputs) for one in waiting) >= self._batch_size:
                self._embed(job.file.modality)
        while len(self._embedding) > self._workers:
            self._store_embedded()

    def _embed(self, modality: Modality) -> None:
        if jobs := self._waiting.pop(modality, []):
            self._embedding.append(self._pool.submit(self._worker.embed, jobs))

    def _store_embedded(self) -> None:
        for job in self._result(self._embedding.popleft()):
            if job.failure is not None:
                self._give_up(job, job.failure)
            else:
                self._store_job(job)
        self._commit_if_due()

    def _store_job(self, job: Job) -> None:
        assert job.content is not None
        assert job.item is not None
        assert job.vectors is not None
        self._batch.records.append(
            ItemRecord(
                path=job.file.path,
                fingerprint=job.content.fingerprint,
                content_hash=job.content.content_hash,
                modality=job.item.modality,
                places=job.places,
                vectors=job.vectors,
                width=job.item.width,
                height=job.item.height,
                duration_s=job.duration_s,
                facts=job.item.facts,
                captions=job.captions,
            )
        )
        self._silent.add(job.file.path, job.silent)
        self._count(job)

    def _reused(self, job: Job) -> bool:
        """Takes over the vectors of an item with the same content, if there is one."""
        assert job.content is not None
        path, content = job.file.path, job.content
        twin = self._twins.find(path, content.content_hash, job.known)
        if twin is None:
            return False
        change = Relocation(twin.id, path, content.fingerprint, captions=job.captions)
        if job.known is not None and twin.id == job.known.id:
            self._batch.touched.append(replace(change, facts=job.facts))
            if job.known.beside != job.file.beside.digest:  # the words beside it are others
                self._report.updated += 1
            else:
                self._report.unchanged += 1
            self._progress.advance(1)
        elif is_gone(twin.path):
            self._batch.moves.append(change)
            self._moved.add(twin.id)
            self._twins.moved(twin, path, content.content_hash, content.fingerprint)
            self._report.renamed += 1
            self._progress.advance(1)
        else:
            self._batch.copies.append(change)
            self._count(job)
        self._commit_if_due()
        return True

    def _count(self, job: Job) -> None:
        if job.known is None:
            self._report.added += 1
        else:
            self._report.updated += 1
        self._progress.advance(1)

    def _give_up(self, job: Job, reason: str) -> None:
        """Lists a file that was read in vain, and forgets what was there before."""
        assert job.content is not None
        if job.known is not None and job.known.fingerprint != job.content.fingerprint:
            self._batch.removed.append(job.known.id)
        self._fail(Skipped(job.file.path, reason))

    def _fail(self, skipped: Skipped) -> None:
        self._report.failed.append(skipped)
        self._progress.advance(1)

    def _commit_if_due(self) -> None:
        late = time.monotonic() - self._committed_at > COMMIT_S
        if len(self._batch) >= COMMIT_ITEMS or late:
            self._commit()

    def _commit(self) -> None:
        batch, self._batch = self._batch, Batch()
        self._store.write(batch, self._space)
        self._twins.clear()
        self._committed_at = time.monotonic()

    def _forget(self) -> None:
        """Removes the items whose files are gone and were not found under another name."""
        gone = [item_id for item_id in self._vanished if item_id not in self._moved]
        for start in range(0, len(gone), REMOVE_ITEMS):
            some = gone[start : start + REMOVE_ITEMS]
            self._store.write(Batch(removed=some), self._space)
            self._report.removed += len(some)
