"""Why a hit is a hit: what each piece of the query gave, and what the hit is near to in words.

A query vector is a weighted sum of unit vectors brought to length 1, so a cosine with it splits
without rest into one number for each of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.cache import identity_of
from retrieval.errors import QueryError
from retrieval.scoring import Judged
from retrieval.types import Encoder, Modality, Place, Tower, Vectors
from retrieval.vocabulary import heard, vocabulary
from retrieval.vocabulary.nearest import Word, mean_of, nearest_words

if TYPE_CHECKING:
    from retrieval.search import Hit
    from retrieval.store import Space, Store

Row = NDArray[np.floating]
Judge = Callable[[NDArray[np.float32]], Judged]

TOP = 5  # words of a passage that are named
MOST_WORDS = 300  # of a passage that are left out in turn: each is one text to embed

# Scripts without spaces are taken in pairs of characters, which is about a word.
_DENSE = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_DENSE}]{{1,2}}|[^\W{_DENSE}]+(?:['’]\w+)*")


class Phrasing(Protocol):
    """A piece of a query in several renderings.

    Attributes:
        templates: What the text tower read.
        vectors: ``(t, dim)``, unit rows.
        weights: ``(t,)``.
    """

    @property
    def templates(self) -> tuple[str, ...]:
        """What the text tower read."""

    @property
    def vectors(self) -> Vectors:
        """``(t, dim)``, unit rows."""

    @property
    def weights(self) -> NDArray[np.float32]:
        """``(t,)``."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One weighted piece of a query.

    Attributes:
        label: As the user wrote it.
        vectors: ``(t, dim)`` float32, unit rows: one for each rendering, or one of an example.
        weights: ``(t,)`` of the renderings; the piece's vector is their weighted sum at length 1.
        renderings: ``t`` texts, or none for an example.
        weight: Of the piece in the query; negative for what is looked away from.
    """

    label: str
    vectors: Vectors
    weights: NDArray[np.float32]
    renderings: tuple[str, ...] = ()
    weight: float = 1.0

    @classmethod
    def phrased(cls, label: str, phrasing: Phrasing, *, weight: float = 1.0) -> Piece:
        """Makes the piece of words that were put into templates."""
        return cls(label, phrasing.vectors, phrasing.weights, phrasing.templates, weight)

    @classmethod
    def example(cls, label: str, vector: Vectors, *, weight: float = 1.0) -> Piece:
        """Makes the piece of a file or a concept, from its vector ``(1, dim)``."""
        return cls(label, vector, np.ones(1, np.float32), (), weight)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a cosine, or of a loss of it.

    Attributes:
        label: What it belongs to.
        share: How much it gives; below 0 where it takes.
    """

    label: str
    share: float


@dataclass(frozen=True, slots=True)
class Term:
    """What a piece of the query gave.

    Attributes:
        label: As the user wrote it.
        weight: In the query.
        share: Of the cosine; all terms' shares add up to it.
        templates: Its renderings; their shares add up to ``share``. Empty for an example.
    """

    label: str
    weight: float
    share: float
    templates: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """How a stretch of a recording answers the query.

    Attributes:
        start_s: Seconds from the beginning.
        end_s: Seconds from the beginning, exclusive.
        score: Cosine.
        relevance: 0..1.
    """

    start_s: float
    end_s: float
    score: float
    relevance: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a hit is a hit.

    Attributes:
        terms: What each piece of the query gave, in the query's order.
        words: What the hit is near to, nearest first.
        windows: Of a recording, in order of time; silent ones are left out.
        passage: The words of a passage that the cosine loses most without, the largest loss first.
    """

    terms: tuple[Term, ...]
    words: tuple[Word, ...]
    windows: tuple[Window, ...] = ()
    passage: tuple[Share, ...] = ()


def blend(pieces: Sequence[Piece]) -> Vectors:
    """Gives the query vector of pieces: ``(1, dim)`` float32, the weighted sum at length 1.

    Raises:
        QueryError: If the pieces cancel each other out.
    """
    _, rows = _weighed(pieces)
    return np.asarray(rows.sum(axis=0, keepdims=True), np.float32)


def shares(pieces: Sequence[Piece], item: Row) -> tuple[Term, ...]:
    """Splits the cosine of a query and an item among the query's pieces and their renderings.

    Args:
        pieces: Of the query.
        item: ``(dim,)``, unit length.

    Returns:
        A term for each piece; shares add up to ``blend(pieces) @ item``, in float64.

    Raises:
        QueryError: If the pieces cancel each other out.
    """
    counts, rows = _weighed(pieces)
    each = rows @ item.astype(np.float64)
    terms = []
    for piece, own in zip(pieces, np.split(each, np.cumsum(counts)[:-1]), strict=True):
        templates = tuple(map(Share, piece.renderings, own.tolist()))
        terms.append(Term(piece.label, piece.weight, float(own.sum()), templates))
    return tuple(terms)


def _weighed(pieces: Sequence[Piece]) -> tuple[list[int], NDArray[np.float64]]:
    """Gives every rendering's vector with the weight that it has in the query vector."""
    blocks = []
    for piece in pieces:
        rows = piece.weights[:, None].astype(np.float64) * piece.vectors
        blocks.append(piece.weight * rows / _length(rows, piece.label))
    rows = np.concatenate(blocks)
    return [len(block) for block in blocks], rows / _length(rows, "the query")


def _length(rows: NDArray[np.float64], label: str) -> float:
    length = float(np.linalg.norm(rows.sum(axis=0)))
    if length < 1e-9:
        raise QueryError(f"the pieces of {label} cancel each other out; leave one of them out")
    return length


def without_each(text: str, tower: Tower, query: Row, *, k: int = TOP) -> tuple[Share, ...]:
    """Finds the words of a passage that matter, by leaving out each in turn wherever it stands.

    Args:
        text: The passage.
        tower: Of texts.
        query: ``(dim,)``, unit length.
        k: At most so many words.

    Returns:
        Words in lower case with the loss of the cosine without them, above 0, largest first.
    """
    found = list(dict.fromkeys(match.group().lower() for match in _WORD.finditer(text)))
    if len(found) < 2:
        return ()
    found = found[:MOST_WORDS]
    texts = [text, *(_without(word, text) for word in found)]
    scores = tower.embed([tower.prepare(one) for one in texts]) @ query.astype(np.float32)
    losses = (scores[0] - scores[1:]).tolist()
    order = sorted(range(len(found)), key=lambda index: -losses[index])[:k]
    return tuple(Share(found[index], losses[index]) for index in order if losses[index] > 0)


def _without(word: str, text: str) -> str:
    def kept(match: re.Match[str]) -> str:
        return "" if match.group().lower() == word else match.group()

    return _WORD.sub(kept, text)


class Explainer:
    """Explains hits of one index."""

    def __init__(self, store: Store, encoder: Encoder, *, cache: Path | None = None) -> None:
        """Keeps what it needs; words are read with the first hit.

        Args:
            store: The index that the hits come from.
            encoder: Of the hits' space.
            cache: Folder for words in the space of other models than the bundled one.

        Raises:
            QueryError: If the index does not have the encoder's space.
        """
        self._store = store
        self._encoder = encoder
        self._cache = cache
        self._means: dict[Modality, NDArray[np.float32] | None] = {}
        self._words: tuple[tuple[str, ...], Vectors] | None = None
        self._last: tuple[bytes, tuple[Vectors, list[Place]]] | None = None  # hits ask twice
        for space in store.spaces():
            if space.name == encoder.space:
                self._space: Space = space
                return
        raise QueryError(f"the index has nothing of {encoder.space}; run `anyseek index FOLDER`")

    def explain(
        self, hit: Hit, pieces: Sequence[Piece], *, judge: Judge | None = None
    ) -> Explanation:
        """Explains a hit.

        Args:
            hit: Of this index.
            pieces: Of the query, as they were put to the hit's modality.
            judge: Says what the whole query gives vectors ``(n, dim)``; without it, a recording
                gets no windows.

        Raises:
            QueryError: If the hit is not in the index, or the pieces cancel each other out.
        """
        rows, places = self._parts(hit.path)
        query = blend(pieces)[0]
        best = places.index(hit.place) if hit.place in places else int((rows @ query).argmax())
        tower = self._encoder.towers[Modality.TEXT]
        if self._words is None:
            own = identity_of(tower, self._space.name)
            self._words = vocabulary(own, tower, cache=self._cache)
        words, vectors = self._words
        return Explanation(
            terms=shares(pieces, rows[best]),
            words=nearest_words(
                rows[best],
                words,
                vectors,
                mean=self._mean(hit.modality),
                without=heard() if hit.modality is Modality.IMAGE else (),
            ),
            windows=_windows(places, judge(rows)) if judge else (),
            passage=without_each(hit.place.text, tower, query) if hit.place.text else (),
        )

    def vector(self, hit: Hit) -> Vectors:
        """Gives the vector ``(dim,)`` of a hit's best part.

        Raises:
            QueryError: If the hit is not in the index.
        """
        rows, places = self._parts(hit.path)
        return np.asarray(rows[places.index(hit.place) if hit.place in places else 0], np.float32)

    def _parts(self, path: bytes) -> tuple[Vectors, list[Place]]:
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        item = self._store.item(path)
        if item is None:
            shown = os.fsdecode(path)
            raise QueryError(f"{shown} is not in the index; run `anyseek index FOLDER` again")
        rows = self._store.item_vectors(item[0], self._space).astype(np.float32)
        self._last = (path, (rows, self._store.item_places(item[0], self._space)))
        return self._last[1]

    def _mean(self, modality: Modality) -> NDArray[np.float32] | None:
        if modality not in self._means:
            self._means[modality] = mean_of(modality, self._store, self._space)
        return self._means[modality]


def _windows(places: Sequence[Place], judged: Judged) -> tuple[Window, ...]:
    relevances = np.exp(judged.log_relevance)
    rows = zip(places, judged.score.tolist(), relevances.tolist(), strict=True)
    return tuple(
        Window(place.start_s, place.end_s, score, relevance)
        for place, score, relevance in rows
        if place.start_s is not None and place.end_s is not None and score > -np.inf
    )
