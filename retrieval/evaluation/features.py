"""Files and words become vectors to measure on, through the same readers and towers as a search.

Everything is embedded by itself and not in batches: other batches give other last bits, and figures
must not depend on what the cache already knows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval import media, sounds
from retrieval.beside import Neighbours
from retrieval.errors import MediaError
from retrieval.evaluation.feature_cache import FeatureCache
from retrieval.evaluation.tasks import Thing
from retrieval.phrasing import Phrased
from retrieval.prompts import PromptSet, fitting
from retrieval.types import Encoder, Modality, Source, Vectors, Words, words_of

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that cannot be embedded.

    Attributes:
        thing: The file.
        reason: In words that follow its name: "is damaged".
    """

    thing: Thing
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Items with their vectors, as a search sees them.

    Attributes:
        vectors: ``(parts, dim)`` float32, unit rows, item by item.
        starts: ``(items,)`` number of each item's first part.
    """

    vectors: Vectors
    starts: np.ndarray[tuple[int], np.dtype[np.int64]]


class Features:
    """Vectors in one space; each thing is embedded once."""

    def __init__(self, encoder: Encoder, cache: Path | None, report: Report) -> None:
        """Takes a model.

        Args:
            encoder: Its weights are read when something must be embedded.
            cache: Folder that keeps vectors for the next time; ``None`` to keep nothing.
            report: Told how far the embedding is.
        """
        self.encoder = encoder
        self._cache = None if cache is None else FeatureCache(cache, encoder.space, encoder.dim)
        self._report = report
        self._files: dict[Path, Vectors | str] = {}
        self._words: dict[str, Vectors] = {}

    def embed(self, things: Sequence[Thing]) -> list[Unusable]:
        """Embeds files and words, and tells which files cannot be."""
        words = [thing.name for thing in things if thing.path is None]
        self._embed_words(list(dict.fromkeys(words)))
        files = {thing.path: thing.modality for thing in things if thing.path is not None}
        new = [(path, kind) for path, kind in files.items() if path not in self._files]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = pool.map(lambda one: self._file(*one), new)
            for done, ((path, _), found) in enumerate(zip(new, rows, strict=True), start=1):
                self._files[path] = found
                self._report(f"files, {self.encoder.model}", done, len(new))
        return [
            Unusable(thing, found)
            for thing in things
            if thing.path is not None and isinstance(found := self._files[thing.path], str)
        ]

    def gallery(self, items: Sequence[Thing]) -> Gallery:
        """Gives what is searched: all parts of every item."""
        rows = [self._rows(thing) for thing in items]
        sizes = np.array([len(one) for one in rows])
        return Gallery(np.concatenate(rows), np.cumsum(sizes) - sizes)

    def beside(self, items: Sequence[Thing]) -> list[list[tuple[Source, Vectors]]]:
        """Gives the words that belong to every item: where each stands, and its vector ``(dim,)``.

        They are found as the indexer finds them, in files of the same name, in the folder's list,
        and in the file itself.
        """
        folders: dict[Path, Neighbours] = {}
        found: list[list[tuple[Source, Vectors]]] = []
        for thing in items:
            words: list[Words] = []
            if thing.path is not None and words_of(thing.modality) is not None:
                folder = thing.path.parent
                if folder not in folders:
                    names = [os.fsencode(path.name) for path in folder.iterdir()]
                    folders[folder] = Neighbours(os.fsencode(folder), names)
                words = list(folders[folder].of(os.fsencode(thing.path.name)).words())
                own = media.inscribed_words(media.read(thing.path).data, os.fsencode(thing.path))
                words += [] if own is None else [own]
            self._embed_words([one.text for one in words])
            found.append([(one.source, self._words[one.text][0]) for one in words])
        return found

    def asked(
        self, queries: Sequence[Thing], target: Modality, prompt: PromptSet | None
    ) -> Vectors:
        """Gives the directions that queries search in: ``(queries, dim)``, as a search makes them.

        Words go through the templates that are for the kind of item, a file is the mean of its
        parts.

        Args:
            queries: Words and files.
            target: Kind of item that is searched.
            prompt: Set that was asked for; ``None`` for the choice by the query.
        """
        texts = {
            thing.name: tuple(
                fitting(thing.name, target, prompt, plain=self.encoder.plain).render(thing.name)
            )
            for thing in queries
            if thing.path is None
        }
        self._embed_words(list(dict.fromkeys(text for one in texts.values() for text in one)))
        rows = []
        for thing in queries:
            if thing.path is None:
                said = texts[thing.name]
                vectors = np.concatenate([self._words[text] for text in said])
                weights = np.full(len(said), 1 / len(said), np.float32)
            else:
                said, vectors = (), self._rows(thing)
                weights = np.full(len(vectors), 1 / len(vectors), np.float32)
            rows.append(Phrased(said, vectors, weights).vector)
        return np.concatenate(rows)

    def _rows(self, thing: Thing) -> Vectors:
        found = self._words[thing.name] if thing.path is None else self._files[thing.path]
        assert not isinstance(found, str)
        return found

    def _embed_words(self, texts: Sequence[str]) -> None:
        new = [text for text in texts if text not in self._words]
        tower = self.encoder.towers[Modality.TEXT] if new else None
        for done, text in enumerate(new, start=1):
            assert tower is not None
            self._words[text] = self._kept(
                "words",
                text.encode("utf-8", "surrogatepass"),
                lambda text=text: tower.embed([tower.prepare(text)]),  # type: ignore[misc]
            )
            self._report(f"words, {self.encoder.model}", done, len(new))

    def _file(self, path: Path, kind: Modality) -> Vectors | str:
        """Embeds a file; gives the reason if it cannot be."""
        try:
            content = media.read(path)
            return self._kept(kind, content.content_hash, lambda: self._embedded(path, content))
        except MediaError as error:
            return str(error)

    def _embedded(self, path: Path, content: media.FileContent) -> Vectors:
        kind = media.modality_of(path.name)
        assert kind is not None
        tower = self.encoder.towers[kind]
        if tower.rate_hz is not None:
            vectors = sounds.embed(sounds.windows(path, tower.rate_hz), tower).vectors
        else:
            item = media.decode(content.data, os.fsencode(path), side_px=tower.side_px)
            rows = [tower.embed([tower.prepare(part.content)]) for part in item.parts]
            vectors = np.concatenate(rows)
        if not np.isfinite(vectors).all():
            raise MediaError("gives no finite vector")
        return vectors

    def _kept(self, kind: str, content: bytes, make: Callable[[], Vectors]) -> Vectors:
        if self._cache is None:
            return make()
        key = self._cache.key(kind, content)
        found = self._cache.get(key)
        if found is None:
            found = make()
            self._cache.put(key, found)
        return found
