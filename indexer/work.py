"""What the threads of the pool do: read, decode and embed one file, or embed some files' parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.scan import File, Skipped
from retrieval import media, sounds
from retrieval.errors import MediaError
from retrieval.store import Captions, Known
from retrieval.types import (
    Encoder,
    Facts,
    Media,
    Modality,
    Part,
    Place,
    Tower,
    Vectors,
    words_of,
)


@dataclass(frozen=True, slots=True)
class Job:
    """One file on its way through the pool; each stage makes a new one."""

    file: File
    known: Known | None  # the item that the index has at this path
    content: media.FileContent | None = None
    checked: bool = False  # whether the index was asked for items of the same content
    item: Media | None = None  # without the parts' contents
    facts: Facts | None = None  # read again, for an item whose content is known
    captions: Captions | None = None  # words that belong to it, if the model reads any
    places: tuple[Place, ...] = ()
    inputs: tuple[Any, ...] = ()
    vectors: Vectors | None = None
    duration_s: float | None = None
    silent: tuple[Place, ...] = ()  # windows of a sound without a vector
    failure: str | None = None  # why nothing can be made of the content


class Worker:
    """The tasks; they share nothing that changes, but for the wish to stop."""

    def __init__(self, encoder: Encoder, sizes: NDArray[np.int64], batch_size: int) -> None:
        """Takes what the tasks need.

        Args:
            encoder: Its towers may be used from several threads at once.
            sizes: Sizes in bytes of all items of the index, ascending.
            batch_size: Parts embedded at once.
        """
        self._encoder = encoder
        self._sizes = sizes
        self._batch_size = batch_size
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Lets no task listen to a long recording until its end."""
        self._stopping.set()

    def prepare(self, job: Job) -> Job | Skipped:
        """Reads, decodes and prepares a file; stops after reading if the content may be known."""
        tower = self._encoder.towers.get(job.file.modality)
        if tower is None:
            kind = job.file.modality
            return Skipped(job.file.path, f"is {kind}, which {self._encoder.model} cannot read")
        try:
            content = job.content or media.read(job.file.path, stopped=self._stopping.is_set)
        except MediaError as error:
            return Skipped(job.file.path, str(error))
        if job.captions is None:
            job = replace(job, captions=self._captions(job, content))
        if not job.checked and self._may_be_known(content.fingerprint.size):
            return replace(job, content=content, facts=self._reread(job, content))
        slim = media.FileContent(b"", content.fingerprint, content.content_hash)
        if tower.rate_hz is not None:
            return self._listen(replace(job, content=slim), tower, tower.rate_hz)
        try:
            item = media.decode(content.data, job.file.path, side_px=tower.side_px)
        except MediaError as error:
            return replace(job, content=slim, failure=str(error))
        return replace(
            job,
            content=slim,
            checked=True,
            item=replace(item, parts=()),
            places=tuple(part.place for part in item.parts),
            inputs=tuple(tower.prepare(part.content) for part in item.parts),
        )

    def _captions(self, job: Job, content: media.FileContent) -> Captions | None:
        """Reads and embeds the words that belong to a picture or a sound."""
        tower = self._encoder.towers.get(Modality.TEXT)
        if tower is None or words_of(job.file.modality) is None:
            return None
        words = list(job.file.beside.words())
        if (own := media.inscribed_words(content.data, job.file.path)) is not None:
            words.append(own)
        vectors = np.empty((0, self._encoder.dim), np.float32)
        if words:
            vectors = tower.embed([tower.prepare(one.text) for one in words])
            good = np.flatnonzero(np.isfinite(vectors).all(axis=1))
            words = [words[at] for at in good]
            vectors = vectors[good]
        return Captions(tuple(words), vectors, job.file.beside.digest)

    def _reread(self, job: Job, content: media.FileContent) -> Facts | None:
        """Reads the metadata of an item that an older anyseek indexed without them."""
        if job.known is None or job.known.read:
            return None
        return media.facts(content.data, job.file.path)

    def _listen(self, job: Job, tower: Tower, rate_hz: int) -> Job | Skipped:
        """Decodes and embeds a sound; memory does not depend on its length."""
        assert job.content is not None
        heard, failure = None, None
        try:
            heard = sounds.embed(self._until_stopped(job.file.path, rate_hz), tower)
        except MediaError as error:
            failure = str(error)
        try:
            media.check_unchanged(job.file.path, job.content.fingerprint)
        except MediaError as error:
            return Skipped(job.file.path, str(error))
        if heard is None:
            return replace(job, failure=failure)
        if not np.isfinite(heard.vectors).all():
            failure = "gives no finite vector"
        return replace(
            job,
            checked=True,
            item=Media(Modality.AUDIO, ()),
            places=heard.places,
            vectors=heard.vectors,
            duration_s=heard.duration_s,
            silent=heard.silent,
            failure=failure,
        )

    def _until_stopped(self, path: bytes, rate_hz: int) -> Iterator[Part]:
        for part in sounds.windows(path, rate_hz):
            if self._stopping.is_set():
                raise CancelledError
            yield part

    def _may_be_known(self, size: int) -> bool:
        at = int(np.searchsorted(self._sizes, size))
        return at < len(self._sizes) and int(self._sizes[at]) == size

    def embed(self, jobs: list[Job]) -> list[Job]:
        """Embeds the parts of some files in batches, across the borders of files."""
        tower = self._encoder.towers[jobs[0].file.modality]
        inputs = [part for job in jobs for part in job.inputs]
        vectors = np.concatenate(
            [
                tower.embed(inputs[start : start + self._batch_size])
                for start in range(0, len(inputs), self._batch_size)
            ]
        )
        done: list[Job] = []
        start = 0
        for job in jobs:
            own = vectors[start : start + len(job.inputs)]
            start += len(job.inputs)
            if np.isfinite(own).all():
                done.append(replace(job, inputs=(), vectors=own))
            else:
                done.append(replace(job, inputs=(), failure="gives no finite vector"))
        return done
