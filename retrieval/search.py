"""From a query to hits: words or an example in, the best items out."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from retrieval import prompts
from retrieval.calibrate import UNFITTED, Calibration
from retrieval.errors import IndexMissingError, MediaError, ModelError, QueryError
from retrieval.index import VectorIndex
from retrieval.models import ModelSpec, model
from retrieval.store import Found, Space, Store
from retrieval.types import Encoder, Modality, Place, Vectors

SPAN_SHARE = 0.5  # of the best window's relevance
MAX_SPANS = 10


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a recording that answers a query.

    Attributes:
        start_s: Seconds from the beginning.
        end_s: Seconds from the beginning, exclusive.
        relevance: Of its best window, 0..1.
    """

    start_s: float
    end_s: float
    relevance: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that answers a query, with the part of it that does so best.

    Attributes:
        path: As the file system has it.
        modality: Of the item.
        score: Cosine in the space, -1..1, higher is better; comparable within a modality only.
        relevance: 0..1, comparable across modalities; hits are ordered by it.
        place: Where in the item the best part lies.
        space: Identity of the space.
        spans: Where in a recording the query is answered, best first; the first holds ``place``.
    """

    path: bytes
    modality: Modality
    score: float
    relevance: float
    place: Place
    space: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What hits are asked for.

    Attributes:
        k: At most so many items, at least 1; of each modality where ``each`` is set.
        modalities: Of the items; all that the index has when empty.
        under: Only items at or under this path, absolute.
        min_relevance: Only hits with at least this relevance, 0..1.
        each: One ranking per modality, one after the other, instead of one of all.
    """

    k: int = 10
    modalities: tuple[Modality, ...] = ()
    under: bytes | None = None
    min_relevance: float = 0.0
    each: bool = False

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            QueryError: If one means nothing.
        """
        if self.k < 1:
            raise QueryError(f"the number of hits must be at least 1, not {self.k}")
        if not 0.0 <= self.min_relevance <= 1.0:
            raise QueryError(f"a relevance lies between 0 and 1, not at {self.min_relevance}")


class Searcher:
    """Answers queries from one index, in its default space."""

    def __init__(self, store: Store, encoder: Encoder | None = None) -> None:
        """Looks up the index's model; its weights are read only when a query needs them.

        Args:
            store: An index, opened for reading.
            encoder: Used instead of the model that the index names, if it has the same space.

        Raises:
            IndexMissingError: If nothing has been indexed yet.
            ModelError: If the model that made the index is not known here.
        """
        self._store = store
        self._indexes: dict[Modality, VectorIndex] = {}
        self._calibrations: Mapping[tuple[Modality, Modality], Calibration] = {}
        self.remarks: list[str] = []
        if encoder is None:
            spec, self._space = usable_space(store)
            self._calibrations = spec.calibrations
            self.encoder = spec.load()
        else:
            self._space = next(
                (space for space in store.spaces() if space.name == encoder.space), None
            ) or _no_space(store)
            self.encoder = encoder

    def by_text(
        self, query: str, wanted: Wanted, *, prompt: prompts.PromptSet | None = None
    ) -> list[Hit]:
        """Finds items by words.

        Args:
            query: In any language that the model knows.
            wanted: Which hits.
            prompt: Templates; by default they are chosen from the query and the modality.

        Returns:
            Hits, best first.

        Raises:
            QueryError: If there is nothing to look for in the query.
        """
        words = " ".join(query.split())
        if not any(character.isprintable() and not character.isspace() for character in words):
            raise QueryError("the query is empty; say in words what you are looking for")
        tower = self.encoder.towers[Modality.TEXT]
        vectors = {
            target: prompts.embed(words, prompt or prompts.choose(words, target), tower)
            for target in self._targets(wanted)
        }
        return self._ranked(vectors, Modality.TEXT, wanted)

    def by_example(self, path: Path, wanted: Wanted) -> list[Hit]:
        """Finds items like a file, which need not be indexed; its own entry is left out.

        Args:
            path: A picture, a sound or a text.
            wanted: Which hits; without modalities, those of the file's own.

        Raises:
            QueryError: If the file cannot be used.
        """
        modality, vector = self.example(path)
        stored = self._store.item(self._own_path(path))
        if not wanted.modalities:
            wanted = replace(wanted, modalities=(modality,))
        vectors = dict.fromkeys(self._targets(wanted), vector)
        return self._ranked(vectors, modality, wanted, without=stored[0] if stored else None)

    def example(self, path: Path) -> tuple[Modality, Vectors]:
        """Gives the kind of a file, and the vector ``(1, dim)`` that stands for it in a query.

        Args:
            path: A picture, a sound or a text; if the index has it unchanged, its own vectors.

        Raises:
            QueryError: If the file cannot be used.
        """
        from retrieval import media  # a search in words needs no decoder

        own = self._own_path(path)
        modality = media.modality_of(own)
        if modality is None or modality not in self.encoder.towers:
            raise QueryError(f"{path} is no kind of file that this index can be searched with")
        vector = self._stored_vector(own)
        return modality, self._embedded(path, own) if vector is None else vector

    def _own_path(self, path: Path) -> bytes:
        """Gives the path by which the index knows a file: links to files keep their names."""
        linked = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 (no loops)
        real = os.path.realpath(path)
        if self._store.item(os.fsencode(linked)) is None and self._store.item(os.fsencode(real)):
            return os.fsencode(real)
        return os.fsencode(linked)

    def _stored_vector(self, own: bytes) -> Vectors | None:
        """Gives an indexed file's vector, if the file is still what was indexed."""
        stored = self._store.item(own)
        if stored is None:
            return None
        try:
            stat = os.stat(own)  # noqa: PTH116 (bytes)
        except OSError:
            return None
        if (stat.st_size, stat.st_mtime_ns) != (stored[1].size, stored[1].mtime_ns):
            return None
        vectors = self._store.item_vectors(stored[0], self._space)
        return _mean(vectors.astype(np.float32)) if len(vectors) else None

    def _embedded(self, path: Path, own: bytes) -> Vectors:
        from retrieval import media, sounds

        modality = media.modality_of(own)
        assert modality is not None
        tower = self.encoder.towers[modality]
        try:
            if tower.rate_hz is not None:
                return _mean(sounds.embed(sounds.windows(own, tower.rate_hz), tower).vectors)
            content = media.read(own)
            item = media.decode(content.data, own, side_px=tower.side_px)
        except MediaError as error:
            raise QueryError(f"{path} {error}") from error
        return _mean(tower.embed([tower.prepare(part.content) for part in item.parts]))

    def _targets(self, wanted: Wanted) -> Sequence[Modality]:
        return [
            modality
            for modality in self._store.modalities(self._space)
            if not wanted.modalities or modality in wanted.modalities
        ]

    def _ranked(
        self,
        vectors: Mapping[Modality, Vectors],
        source: Modality,
        wanted: Wanted,
        *,
        without: int | None = None,
    ) -> list[Hit]:
        """Searches every modality and merges by relevance, since cosines do not compare."""
        rankings: list[list[tuple[Hit, int]]] = []
        for target, vector in vectors.items():
            found = self._nearest(target, vector, wanted, without)
            scores = np.array([score for score, _ in found], np.float32)
            relevances = self._calibration(source, target).relevance(scores)
            rankings.append(
                [
                    (self._hit(row, score, relevance), row.item_id)
                    for (score, row), relevance in zip(found, relevances.tolist(), strict=True)
                    if relevance >= wanted.min_relevance
                ]
            )
        if not wanted.each:
            rankings = [sorted(itertools.chain(*rankings), key=lambda ranked: _order(ranked[0]))]
        return [
            replace(hit, spans=self._spans(item_id, vectors[hit.modality], source))
            if hit.modality is Modality.AUDIO
            else hit
            for ranking in rankings
            for hit, item_id in sorted(ranking, key=lambda ranked: _order(ranked[0]))[: wanted.k]
        ]

    def _calibration(self, source: Modality, target: Modality) -> Calibration:
        return self._calibrations.get((source, target), UNFITTED)

    def _hit(self, row: Found, score: float, relevance: float) -> Hit:
        # float16 rows are of length 1 to within 0.0005
        score = min(score, 1.0)
        return Hit(row.path, row.modality, score, relevance, row.place, self._space.name)

    def _spans(self, item_id: int, vector: Vectors, source: Modality) -> tuple[Span, ...]:
        """Merges the windows of a recording that answer at least half as well as its best."""
        rows = self._store.item_vectors(item_id, self._space).astype(np.float32)
        places = self._store.item_places(item_id, self._space)
        scores = rows @ vector[0]
        relevances = self._calibration(source, Modality.AUDIO).relevance(scores)
        enough = SPAN_SHARE * float(relevances.max())
        spans: list[tuple[float, Span]] = []  # with the best score, as relevances end at 1
        for place, score, relevance in zip(
            places, scores.tolist(), relevances.tolist(), strict=True
        ):
            if relevance < enough or place.start_s is None or place.end_s is None:
                continue
            start_s = place.start_s
            if spans and start_s <= spans[-1][1].end_s:
                best, last = spans.pop()
                start_s = last.start_s
                score, relevance = max(score, best), max(relevance, last.relevance)
            spans.append((score, Span(start_s, place.end_s, relevance)))
        spans.sort(key=lambda scored: -scored[0])
        return tuple(span for _, span in spans[:MAX_SPANS])

    def _nearest(
        self, target: Modality, vector: Vectors, wanted: Wanted, without: int | None
    ) -> list[tuple[float, Found]]:
        """Gives the best part of each of the ``k`` best items of a modality, best first."""
        index = self._index(target)
        only = None
        if wanted.under is not None:
            only = self._store.vector_ids_under(self._space, target, wanted.under)
        available = index.size if only is None else len(only)
        # an item's parts may fill the first places, so look further until k items are found
        reach = wanted.k + (without is not None)
        while True:
            scores, ids = index.search(vector[0], min(reach, available), only=only)
            rows = self._store.found(ids.tolist())
            best: dict[int, tuple[float, Found]] = {}
            for score, vector_id in zip(scores.tolist(), ids.tolist(), strict=True):
                row = rows.get(vector_id)
                if row is not None and row.item_id != without:
                    best.setdefault(row.item_id, (score, row))
            if len(best) >= wanted.k or reach >= available:
                return list(best.values())[: wanted.k]
            reach *= 4

    def _index(self, modality: Modality) -> VectorIndex:
        if modality not in self._indexes:
            index = VectorIndex(self._store, self._space, modality)
            self._indexes[modality] = index
            if index.rebuilt:
                self.remarks.append(
                    f"{len(index.rebuilt)} derived file(s) of the index are missing or damaged; "
                    "searched the vectors themselves, and `anyseek index` will make them anew"
                )
        return self._indexes[modality]


def _order(hit: Hit) -> tuple[float, float, bytes]:
    return -hit.relevance, -hit.score, hit.path


def _mean(vectors: Vectors) -> Vectors:
    """Averages unit rows to one unit row ``(1, dim)``."""
    mean = vectors.mean(axis=0, keepdims=True)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def usable_space(store: Store) -> tuple[ModelSpec, Space]:
    """Finds the oldest space of an index whose model is known here.

    Raises:
        IndexMissingError: If the index has no space yet.
        ModelError: If it has some, of models that this anyseek does not have.
    """
    spaces = store.spaces()
    if not spaces:
        _no_space(store)
    for space in spaces:
        for name in (None, space.model):
            with contextlib.suppress(ModelError):
                spec = model(name)
                if spec.space == space.name:
                    return spec, space
    raise ModelError(
        f"the index was made with {spaces[0].model} ({spaces[0].name}), which this anyseek does "
        "not have; run `anyseek index FOLDER` again to add the present model's vectors"
    )


def _no_space(store: Store) -> NoReturn:
    raise IndexMissingError(
        f"the index at {store.path} is empty; fill it with `anyseek index FOLDER`"
    )
