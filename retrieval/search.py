"""From a query to hits: what is asked in, the best items out."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from retrieval.asking import USUAL, Asker, Manner, Piece
from retrieval.cache import cached
from retrieval.calibrate import CONFIDENT
from retrieval.errors import IndexMissingError, ModelError, QueryError
from retrieval.filters import NO_FILTERS, Filters
from retrieval.fusion import Fusion
from retrieval.index import VectorIndex
from retrieval.models import ModelSpec, asking, model
from retrieval.prompts import PromptSet
from retrieval.query import Blend, Kind, Query, Term, terms_of
from retrieval.scoring import Judged, Scorer, best
from retrieval.segments import Ids
from retrieval.sources import Fused, Side, nearest
from retrieval.store import NO_DETAILS, Details, Found, Space, Store
from retrieval.types import (
    Encoder,
    Kept,
    Modality,
    Place,
    Source,
    Vectors,
    Words,
    WordsOf,
    words_of,
)
from retrieval.unmatched import why

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
        score: Cosine in the space, higher is better; comparable within a modality only. Of several
            directions, the lowest for ``AND`` and the highest for ``OR``; feedback adds to it.
        relevance: 0..1, comparable across modalities; hits are ordered by it.
        place: Where in the item the best part lies.
        space: Identity of the space.
        spans: Where in a recording the query is answered, best first; the first holds ``place``.
        details: What is known of the item besides.
        sources: Relevances of the sources that it was found by, if words belong to it.
        words: Those that answer best, if any belong to it.
    """

    path: bytes
    modality: Modality
    score: float
    relevance: float
    place: Place
    space: str
    spans: tuple[Span, ...] = ()
    details: Details = NO_DETAILS
    sources: Mapping[Source, float] = field(default_factory=dict)
    words: Words | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search gives.

    Attributes:
        hits: Best first.
        confident: Whether any of them is a good match, and not only the nearest there is.
        meant: Whether the query means anything to the model.
    """

    hits: tuple[Hit, ...]
    confident: bool
    meant: bool

    @property
    def remark(self) -> str | None:
        """What a person should know of the answer as a whole, in one line."""
        if self.confident or not self.hits:
            return None
        reason = "" if self.meant else ", since it means nothing to the model"
        return f"no good match for this query{reason}; what follows is only the nearest there is"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What hits are asked for.

    Attributes:
        k: At most so many items, at least 1; of each modality where ``each`` is set.
        modalities: Of the items; all that the index has when empty.
        filters: What the items must be besides.
        min_relevance: Only hits with at least this relevance, 0..1.
        each: One ranking per modality, one after the other, instead of one of all.
    """

    k: int = 10
    modalities: tuple[Modality, ...] = ()
    filters: Filters = NO_FILTERS
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
    """Answers queries from one index, in one space; ``retrieval.spaces`` asks several."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder | None = None,
        *,
        cache: Path | None = None,
        spec: ModelSpec | None = None,
        exact: bool = False,
    ) -> None:
        """Looks up the index's model; its weights are read only when a query needs them.

        Args:
            store: An index, opened for reading.
            encoder: Used instead of the model that the index names, if it has the same space; its
                relevances are those of a model that nobody measured.
            cache: Folder where the vectors of texts are kept for the next time; none by default.
            spec: Of the space to search; the index's default space without it.
            exact: Whether all vectors of a large index are compared, see ``retrieval.index``.

        Raises:
            IndexMissingError: If nothing has been indexed yet, or nothing in that space.
            ModelError: If the model that made the index is not known here.
        """
        self.store = store
        self._exact = exact
        self._indexes: dict[Kept, VectorIndex] = {}
        self._passing: dict[tuple[Kept, Filters], Ids] = {}
        self._confident = CONFIDENT
        self._damaged: list[str] = []
        self.remarks: list[str] = []  # of the last answer
        if encoder is None:
            if spec is None:
                spec, self._space = usable_space(store)
            else:
                self._space = _space_named(store, spec.space)
            self._confident = spec.confident
            self.encoder = spec.load()
        else:
            self._space = _space_named(store, encoder.space)
            self.encoder = encoder
        asked = asking(self.encoder)
        if cache is not None and Modality.TEXT in self.encoder.towers:
            asked, plain = cached(asked, cache), asked
            if plain is self.encoder:
                self.encoder = asked
        self.asker = Asker(
            store,
            self._space,
            self.encoder,
            calibrations=spec.calibrations if spec else {},
            sense=spec.sense() if spec else None,
            rivals=spec.rivals() if spec else None,
            words=asked.towers.get(Modality.TEXT),
        )

    def by_text(
        self,
        query: str,
        wanted: Wanted,
        *,
        prompt: PromptSet | None = None,
        weighed: bool = False,
    ) -> list[Hit]:
        """Finds items by words, best first; see ``answer``.

        Args:
            query: In any language that the model knows; nothing in it is an operator.
            wanted: Which hits.
            prompt: Templates; see ``Manner``.
            weighed: Whether templates count by what they find in this index.
        """
        asked = Blend((Term(Kind.WORDS, query),))
        return list(self.answer(asked, wanted, Manner(prompt=prompt, weighed=weighed)).hits)

    def by_example(self, path: Path, wanted: Wanted) -> list[Hit]:
        """Finds items like a file, which need not be indexed; its own entry is left out.

        Args:
            path: A picture, a sound or a text.
            wanted: Which hits; without modalities, those of the file's own.

        Raises:
            QueryError: If the file cannot be used.
        """
        return list(self.answer(self.like(path), self.wanted_like(path, wanted)).hits)

    def like(self, path: Path) -> Blend:
        """Gives the query for items like a file."""
        return Blend((Term(Kind.FILE, str(path)),))

    def wanted_like(self, path: Path, wanted: Wanted) -> Wanted:
        """Takes a file's own modality where none is wanted in particular."""
        if wanted.modalities:
            return wanted
        return replace(wanted, modalities=(self.asker.example(str(path)).modality,))

    def answer(self, query: Query, wanted: Wanted, manner: Manner = USUAL) -> Answer:
        """Finds the items that answer a query.

        Args:
            query: See ``retrieval.query.parse``. Files in it are not among the hits.
            wanted: Which hits.
            manner: How the query is put.

        Raises:
            QueryError: If a term means nothing, the terms cancel out, or the prompt set is for
                none of the modalities wanted.
        """
        check_prompt(manner.prompt, wanted)
        self.remarks = list(self._damaged)
        targets = self._targets(wanted)
        scorers = {target: self.scorer(query, target, manner) for target in targets}
        self._remark_on_filters(wanted)
        words = self._words(query, targets, manner)
        hits = tuple(self._ranked(scorers, words, wanted, manner, self._examples_in(query)))
        meant = self.asker.meant(query)
        good = [hit for hit in hits if hit.relevance >= self._confident]
        # a text may hold the very letters that mean nothing elsewhere; a query without words claims
        # nothing that could be missing: it asks for what is nearest to its examples
        confident = any(meant or hit.modality is Modality.TEXT for hit in good) or not any(
            term.kind is Kind.WORDS and term.weight > 0 for term in terms_of(query)
        )
        return Answer(hits, confident, meant)

    def of(self, hit: Hit, manner: Manner) -> tuple[Searcher, Manner]:
        """Gives what found a hit, and how it was asked: itself, as ``Spaces.of`` may not."""
        return self, manner

    def _words(
        self, query: Query, targets: Sequence[Modality], manner: Manner
    ) -> dict[Modality, Scorer]:
        """Gives what judges the words that belong to items, by the items' modality.

        A query of examples alone asks for what is like them, not for what is said of them.
        """
        if manner.fuse.way is Fusion.CONTENT or not any(
            term.kind is not Kind.FILE and term.weight > 0 for term in terms_of(query)
        ):
            return {}
        kinds = {target: words_of(target) for target in targets}
        return {
            target: self.scorer(query, kind, manner)
            for target, kind in kinds.items()
            if kind is not None and self.store.has_words(self._space, kind)
        }

    def scorer(self, query: Query, target: Kept, manner: Manner = USUAL) -> Scorer:
        """Gives what judges the items of a modality for a query."""
        return self.asker.scorer(query, target, self._index(target).size, manner)

    def vector_of(self, term: Term) -> Vectors:
        """Gives the vector ``(dim,)`` of a file or a concept.

        Raises:
            QueryError: If the file cannot be used, or the space has no such concept.
            ModelError: If the file must be embedded, and the model cannot be loaded.
        """
        return self.asker.vector_of(term)

    def pieces(self, blend: Blend, target: Modality, manner: Manner = USUAL) -> list[Piece]:
        """Gives the terms of a blend as they are put to a modality."""
        return self.asker.pieces(blend, target, self._index(target).size, manner)

    def _examples_in(self, query: Query) -> frozenset[int]:
        """Gives the items that a query names as examples."""
        stored = [
            self.store.item(self.asker.example(term.value).path)
            for term in terms_of(query)
            if term.kind is Kind.FILE
        ]
        return frozenset(one[0] for one in stored if one is not None)

    def _targets(self, wanted: Wanted) -> Sequence[Modality]:
        return [
            modality
            for modality in self.store.modalities(self._space)
            if not wanted.modalities or modality in wanted.modalities
        ]

    def _ranked(
        self,
        scorers: dict[Modality, Scorer],
        words: dict[Modality, Scorer],
        wanted: Wanted,
        manner: Manner,
        without: frozenset[int],
    ) -> list[Hit]:
        """Searches every modality and merges by relevance, since cosines do not compare."""
        rankings: list[list[tuple[Hit, int]]] = []
        for target, scorer in scorers.items():
            ranking = []
            if target in words:
                for one, row in self._fused(target, scorer, words[target], wanted, manner, without):
                    relevance = math.exp(one.log_relevance)
                    if relevance >= wanted.min_relevance:
                        score = min(one.score, 1.0) if scorer.plain else one.score
                        hit = self._hit(row, score, relevance)
                        hit = replace(hit, sources=one.relevances, words=one.words)
                        ranking.append((hit, one.item_id))
                rankings.append(ranking)
                continue
            for row, score, log_relevance in self._nearest(target, scorer, wanted, without):
                relevance = math.exp(log_relevance)
                if relevance >= wanted.min_relevance:
                    if scorer.plain:
                        score = min(score, 1.0)  # float16 rows are of length 1 to within 0.0005
                    ranking.append((self._hit(row, score, relevance), row.item_id))
            rankings.append(ranking)
        if not wanted.each:
            rankings = [list(itertools.chain(*rankings))]
        return [
            replace(hit, spans=self._spans(item_id, scorers[hit.modality]))
            if hit.modality is Modality.AUDIO
            else hit
            for ranking in rankings
            for hit, item_id in sorted(ranking, key=lambda ranked: order(ranked[0]))[: wanted.k]
        ]

    def _hit(self, row: Found, score: float, relevance: float) -> Hit:
        name = self._space.name
        return Hit(row.path, row.modality, score, relevance, row.place, name, details=row.details)

    def _spans(self, item_id: int, scorer: Scorer) -> tuple[Span, ...]:
        """Merges the windows of a recording that answer at least half as well as its best."""
        judged = scorer.judge(self.store.item_vectors(item_id, self._space))
        places = self.store.item_places(item_id, self._space)
        relevances = np.exp(judged.log_relevance)
        enough = SPAN_SHARE * float(relevances.max())
        # with the best window's rank, as relevances end at 1 and their logarithms nearly so
        spans: list[tuple[tuple[float, float], Span]] = []
        ranks = zip(judged.log_relevance.tolist(), judged.score.tolist(), strict=True)
        for place, rank, relevance in zip(places, ranks, relevances.tolist(), strict=True):
            if relevance < enough or place.start_s is None or place.end_s is None:
                continue
            start_s = place.start_s
            if spans and start_s <= spans[-1][1].end_s:
                before, last = spans.pop()
                start_s = last.start_s
                rank, relevance = max(rank, before), max(relevance, last.relevance)
            spans.append((rank, Span(start_s, place.end_s, relevance)))
        spans.sort(key=lambda ranked: ranked[0], reverse=True)
        return tuple(span for _, span in spans[:MAX_SPANS])

    def _nearest(
        self, target: Modality, scorer: Scorer, wanted: Wanted, without: frozenset[int]
    ) -> list[tuple[Found, float, float]]:
        """Gives the best part of each of the ``k`` best items of a modality, best first.

        Returns:
            Rows with their score and the logarithm of their relevance.
        """
        index = self._index(target)
        only = self._qualifying(target, wanted.filters)
        available = index.size if only is None else len(only)
        # an item's parts may fill the first places, so look further until k items are found
        reach = wanted.k + len(without)
        while True:
            ids, judged = best(
                scorer,
                reach,
                available,
                search=lambda vector, count: index.search(vector, count, only=only),
                fetch=lambda some: self.store.vectors_of(some, self._space),
            )
            found = self._items(ids, judged, without)
            if len(found) >= wanted.k or len(ids) < reach or reach >= available:
                return found[: wanted.k]
            reach *= 4

    def _fused(
        self,
        target: Modality,
        content: Scorer,
        words: Scorer,
        wanted: Wanted,
        manner: Manner,
        without: frozenset[int],
    ) -> list[tuple[Fused, Found]]:
        """Gives the ``k`` best items of a modality by all of their sources, best first."""
        kind = words_of(target)
        assert kind is not None
        found = nearest(
            self._side(target, content, wanted.filters),
            self._side(kind, words, wanted.filters),
            wanted.k,
            how=manner.fuse,
            without=without,
            owners=self.store.owners,
            sourced=lambda item_ids: self.store.sourced(item_ids, self._space),
        )
        rows = self.store.found([one.vector_id for one in found])
        return [(one, rows[one.vector_id]) for one in found]

    def _side(self, kind: Kept, scorer: Scorer, filters: Filters) -> Side:
        index = self._index(kind)
        only = self._qualifying(kind, filters)
        available = index.size if only is None else len(only)

        def nearest_to(count: int) -> tuple[Ids, Judged]:
            return best(
                scorer,
                count,
                available,
                search=lambda vector, number: index.search(vector, number, only=only),
                fetch=lambda some: self.store.vectors_of(some, self._space),
            )

        return Side(scorer, nearest_to, available)

    def _items(
        self, ids: Ids, judged: Judged, without: frozenset[int]
    ) -> list[tuple[Found, float, float]]:
        rows = self.store.found(ids.tolist())
        found: dict[int, tuple[Found, float, float]] = {}
        for vector_id, score, log_relevance in zip(
            ids.tolist(), judged.score.tolist(), judged.log_relevance.tolist(), strict=True
        ):
            row = rows.get(vector_id)
            if row is not None and row.item_id not in without:
                found.setdefault(row.item_id, (row, score, log_relevance))
        return list(found.values())

    def _qualifying(self, target: Kept, filters: Filters) -> Ids | None:
        """Lists the vectors of a modality that pass, ascending; ``None`` if all do."""
        if not filters:
            return None
        if (target, filters) not in self._passing:
            modality = target.modality if isinstance(target, WordsOf) else target
            without = self.store.share(modality, filters) > 0.5
            # asking for the fewer saves most of the time; the index knows all
            ids = self.store.vector_ids(self._space, target, filters, without=without)
            if without:
                ids = np.setdiff1d(self._index(target).ids(), ids, assume_unique=True)
            self._passing[target, filters] = ids
        return self._passing[target, filters]

    def _remark_on_filters(self, wanted: Wanted) -> None:
        """Says why nothing was found, if it is for the filters."""
        targets = self._targets(wanted)
        passing = [self._qualifying(target, wanted.filters) for target in targets]
        if targets and all(ids is not None and not len(ids) for ids in passing):
            self.remarks.append(why(self.store, targets, wanted.filters))

    def _index(self, modality: Kept) -> VectorIndex:
        if modality not in self._indexes:
            index = VectorIndex(self.store, self._space, modality, exact=self._exact)
            self._indexes[modality] = index
            if index.rebuilt:
                self._damaged.append(
                    f"{len(index.rebuilt)} derived file(s) of the index are missing or damaged; "
                    "searched the vectors themselves, and `anyseek index` will make them anew"
                )
                self.remarks.append(self._damaged[-1])
        return self._indexes[modality]


def order(hit: Hit) -> tuple[float, float, bytes]:
    """Gives what hits are sorted by: the most relevant first."""
    return -hit.relevance, -hit.score, hit.path


def check_prompt(prompt: PromptSet | None, wanted: Wanted) -> None:
    """Checks that a prompt set is for something that is searched.

    Raises:
        QueryError: If it is for none of the modalities wanted.
    """
    if prompt and wanted.modalities and not {*wanted.modalities} & {*prompt.modalities}:
        kinds = ", ".join(prompt.modalities)
        raise QueryError(
            f"the prompt set {prompt.name!r} is for {kinds}; search there, or take another set"
        )


def usable_space(store: Store) -> tuple[ModelSpec, Space]:
    """Finds the oldest space of an index whose model is known here.

    Raises:
        IndexMissingError: If the index has no space yet.
        ModelError: If it has some, of models that this anyseek does not have.
    """
    spaces = store.spaces()
    if not spaces:
        no_space(store)
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


def _space_named(store: Store, name: str) -> Space:
    for space in store.spaces():
        if space.name == name:
            return space
    no_space(store)


def no_space(store: Store) -> NoReturn:
    """Says that nothing has been indexed yet.

    Raises:
        IndexMissingError: Always.
    """
    raise IndexMissingError(
        f"the index at {store.path} is empty; fill it with `anyseek index FOLDER`"
    )
