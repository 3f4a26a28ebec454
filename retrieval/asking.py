"""From a query's terms to what is compared: directions in the space, balanced and calibrated.

Cosines of words with pictures are spread over a tenth of the range that those of pictures with
pictures take, and a sum of plain vectors would follow the pictures alone. So every term is divided
by the spread of its cosines over the index: each has the same say, and its weight on top.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from retrieval import concepts, fusion
from retrieval.calibrate import Background, Calibration, settled, unfitted
from retrieval.errors import QueryError
from retrieval.examples import Example, example
from retrieval.fusion import Fuse
from retrieval.phrasing import POOL, Phrased, contrasts, phrase, weigh
from retrieval.prompts import PromptSet, fitting
from retrieval.query import AllOf, Blend, Kind, Query, Term, terms_of
from retrieval.rivals import Rivals
from retrieval.scoring import AVOIDED, Avoided, Both, Either, Fed, Leaf, Negatives, Scorer, Tree
from retrieval.sense import Sense
from retrieval.store import Space, Store
from retrieval.types import Encoder, Kept, Modality, Tower, Vectors, WordsOf

SAMPLE = 512  # vectors that stand for an index; the spread is then off by 3 %

MOST_EXAMPLES = 32  # each is one more search

Calibrations = Mapping[tuple[Modality, Modality], Calibration]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a query is put.

    Attributes:
        prompt: Templates for the modalities that they are meant for; elsewhere, and by default,
            they are chosen from the words and the modality.
        weighed: Whether templates count by what they find in this index.
        negatives: What negative terms do.
        liked: Files whose like shall rise.
        unliked: Files whose like shall sink.
        fuse: How words that belong to an item count beside its content.
    """

    prompt: PromptSet | None = None
    weighed: bool = False
    negatives: Negatives = Negatives.SUBTRACT
    liked: tuple[Path, ...] = ()
    unliked: tuple[Path, ...] = ()
    fuse: Fuse = fusion.USUAL


USUAL = Manner()


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One term against one kind of item.

    Attributes:
        term: As it was written.
        source: What kind of thing it is; of a concept, see ``concepts.read_as``.
        vector: ``(dim,)`` float32 of length 1.
        phrased: Its renderings, if it is words.
        background: Of its cosines.
    """

    term: Term
    source: Modality
    vector: Vectors
    phrased: Phrased | None
    background: Background


@dataclass(slots=True)
class _Columns:
    vectors: list[Vectors] = field(default_factory=list)
    rising: list[bool] = field(default_factory=list)

    def add(self, vector: Vectors, *, rising: bool) -> int:
        self.vectors.append(vector)
        self.rising.append(rising)
        return len(self.vectors) - 1


class Asker:
    """Turns queries into scorers, in one space of one index."""

    def __init__(
        self,
        store: Store,
        space: Space,
        encoder: Encoder,
        *,
        calibrations: Calibrations,
        sense: Sense | None = None,
        rivals: Rivals | None = None,
        words: Tower | None = None,
    ) -> None:
        """Takes what queries need.

        Args:
            store: An index; a sample of its vectors is the background.
            space: Of its vectors.
            encoder: Of that space; weights are read only if something must be embedded.
            calibrations: How cosines become relevances.
            sense: What tells words from noise; without, everything counts as words.
            rivals: Tells how near wrong pictures come to words; without, as near as usual.
            words: Reads the words of queries; the encoder's text tower by default, which reads
                files.
        """
        self._reader = words or encoder.towers.get(Modality.TEXT)
        self._store = store
        self._space = space
        self._encoder = encoder
        self._calibrations = calibrations
        self._sense = sense
        self._rivals = rivals
        self._made: dict[tuple[str, ...], bool] = {}
        self._phrased: dict[tuple[Kept, tuple[str, ...], bool], Phrased] = {}
        self._examples: dict[tuple[str, tuple[int, int] | None], Example] = {}
        self.sample = functools.cache(self._sampled)

    def scorer(self, query: Query, target: Kept, size: int, manner: Manner = USUAL) -> Scorer:
        """Makes what judges the items of a modality.

        Args:
            query: The terms.
            target: Modality of the items, or the words that belong to them.
            size: How many vectors the index has of it.
            manner: How the query is put.

        Raises:
            QueryError: If a term means nothing, or the terms cancel each other out.
        """
        if len(manner.liked) + len(manner.unliked) > MOST_EXAMPLES:
            raise QueryError(f"at most {MOST_EXAMPLES} hits can be liked or not; name fewer")
        columns = _Columns()
        tree = self._tree(query, target, size, manner, columns)
        if manner.liked or manner.unliked:
            liked = [self.example(str(path)).vector[0] for path in manner.liked]
            unliked = [self.example(str(path)).vector[0] for path in manner.unliked]
            tree = Fed(
                tree,
                tuple(columns.add(vector, rising=True) for vector in liked),
                tuple(columns.add(vector, rising=False) for vector in unliked),
            )
        return Scorer(np.stack(columns.vectors), np.array(columns.rising), tree)

    def pieces(self, blend: Blend, target: Kept, size: int, manner: Manner = USUAL) -> list[Piece]:
        """Gives the terms of a blend as they are compared, in the order written."""
        return [self._piece(term, target, size, manner) for term in blend.terms]

    def meant(self, query: Query) -> bool:
        """Tells whether anything in a query means something: words, a file or a concept."""
        if self._sense is None:
            return True
        wanted = [term for term in terms_of(query) if term.weight > 0]
        if any(term.kind is not Kind.WORDS for term in wanted):
            return True
        texts = tuple(_words(term) for term in wanted)
        if texts not in self._made:
            tower = self._words_tower()
            vectors = tower.embed([tower.prepare(text) for text in texts])
            self._made[texts] = bool(self._sense.made(vectors).any())
        return self._made[texts]

    def calibration(self, source: Modality, target: Kept) -> Calibration:
        """Gives the map for a kind of query and a kind of item."""
        target = _read_as(target)
        return self._calibrations.get((source, target)) or unfitted(source, target)

    def phrased(self, words: str, target: Kept, manner: Manner) -> Phrased:
        """Gives words in the templates for a modality."""
        plain = self._encoder.plain
        chosen = fitting(words, _read_as(target), manner.prompt, plain=plain)
        key = (target, tuple(chosen.render(words)), manner.weighed)
        if key not in self._phrased:
            tower = self._words_tower()
            made = phrase(words, chosen, tower)
            if manner.weighed and len(made.templates) > 1:
                pool = self._store.sample(self._space, target, POOL).astype(np.float32)
                made = weigh(made, contrasts(words, chosen, tower), pool)
            self._phrased[key] = made
        return self._phrased[key]

    def _words_tower(self) -> Tower:
        if self._reader is None:
            raise QueryError(f"{self._encoder.model} reads no words; search by example instead")
        return self._reader

    def _tree(
        self, query: Query, target: Kept, size: int, manner: Manner, columns: _Columns
    ) -> Tree:
        if isinstance(query, Blend):
            return self._leaf(self.pieces(query, target, size, manner), target, manner, columns)
        parts = tuple(self._tree(one, target, size, manner, columns) for one in query.parts)
        return Both(parts) if isinstance(query, AllOf) else Either(parts)

    def _leaf(
        self, pieces: Sequence[Piece], target: Kept, manner: Manner, columns: _Columns
    ) -> Leaf:
        subtract = manner.negatives is Negatives.SUBTRACT
        summed = [one for one in pieces if one.term.weight > 0 or subtract]
        vector = blended(summed)
        wanted = [one for one in pieces if one.term.weight > 0]
        total = sum(one.term.weight for one in wanted)
        mixed = _mixed(
            [(one.term.weight / total, self.calibration(one.source, target)) for one in wanted]
        )
        size = pieces[0].background.items
        background = self._background(vector, target, size, mixed)
        seen = self._raw_background(vector, target, size)
        column = columns.add(vector, rising=True)
        return Leaf(
            column,
            mixed.against(replace(seen, rivals=self._rivals_of(wanted, vector, target))),
            background.mean,
            background.spread,
            tuple(
                Avoided(
                    columns.add(one.vector, rising=False),
                    -one.term.weight,
                    one.background.mean,
                    one.background.spread,
                )
                for one in pieces
                if one not in summed
            ),
            drop=manner.negatives is Negatives.DIFFERENCE,
        )

    def _rivals_of(self, wanted: Sequence[Piece], vector: Vectors, target: Kept) -> float:
        """Tells how near wrong pictures come to words; to anything else, as near as usual."""
        worded = all(one.term.kind is Kind.WORDS for one in wanted)
        if self._rivals is None or target is not Modality.IMAGE or not worded:
            return 0.0
        return float(self._rivals.above(vector[None])[0])

    def _piece(self, term: Term, target: Kept, size: int, manner: Manner) -> Piece:
        phrased = None
        source = Modality.TEXT
        if term.kind is Kind.WORDS:
            phrased = self.phrased(_words(term), target, manner)
            vector = phrased.vector[0]
        elif term.kind is Kind.FILE:
            found = self.example(term.value)
            source, vector = found.modality, found.vector[0]
        else:
            concept = concepts.find(self._store, self._space, term.value)
            source, vector = concepts.read_as(concept, _read_as(target)), concept.vector
        usual = self.calibration(source, target)
        return Piece(term, source, vector, phrased, self._background(vector, target, size, usual))

    def vector_of(self, term: Term) -> Vectors:
        """Gives the vector ``(dim,)`` of a file or a concept.

        Raises:
            QueryError: If the file cannot be used, or there is no such concept here.
        """
        if term.kind is Kind.FILE:
            return np.asarray(self.example(term.value).vector[0], np.float32)
        return concepts.find(self._store, self._space, term.value).vector

    def lend(self, path: str, lent: Example) -> None:
        """Takes an example whose vector was made elsewhere, in place of reading the file."""
        self._examples[path, _stamp(path)] = lent

    def example(self, path: str) -> Example:
        """Gives a file with its vector; read once.

        Raises:
            QueryError: If the file cannot be used.
        """
        key = (path, _stamp(path))
        if key not in self._examples:
            self._examples[key] = example(self._store, self._space, self._encoder, Path(path))
        return self._examples[key]

    def _sampled(self, target: Kept) -> Vectors:
        return self._store.sample(self._space, target, SAMPLE).astype(np.float32)

    def _raw_background(self, vector: Vectors, target: Kept, size: int) -> Background:
        cosines = self.sample(target) @ vector
        if not len(cosines):
            return Background(0.0, 1.0, 0)
        return Background(float(cosines.mean()), float(cosines.std()), size)

    def _background(
        self, vector: Vectors, target: Kept, size: int, usual: Calibration
    ) -> Background:
        return settled(self._raw_background(vector, target, size), usual)


def _read_as(target: Kept) -> Modality:
    """Gives the modality by which a kind of item is asked for: words are words, whosever."""
    return Modality.TEXT if isinstance(target, WordsOf) else target


@dataclass(frozen=True, slots=True)
class Decision:
    """What decided on an item.

    Attributes:
        blend: The part of the query.
        penalties: What each of its negative terms took off the cosine, in the order written;
            empty where negative terms are part of the direction, or drop items.
        gain: What feedback added, below 0 where it took; ``None`` without feedback.
    """

    blend: Blend
    penalties: tuple[float, ...]
    gain: float | None


def deciding(query: Query, scorer: Scorer, item: Vectors) -> Decision:
    """Tells what decides on an item: of ``AND`` the worst part, of ``OR`` the best.

    The cosine with the part's direction, less the penalties, is the item's score before feedback;
    of several parts that of one that is as relevant, not always the lowest or highest score.

    Args:
        query: The terms.
        scorer: What ``Asker.scorer`` made of it.
        item: ``(dim,)``.
    """
    cosines = (scorer.vectors @ item)[None]
    tree, gain = scorer.tree, None
    if isinstance(scorer.tree, Fed):
        tree, gain = scorer.tree.base, float(scorer.tree.gain(cosines)[0])
    while not isinstance(query, Blend):
        assert isinstance(tree, Both | Either)
        values = [float(part.judge(cosines).log_relevance[0]) for part in tree.parts]
        at = values.index(min(values) if isinstance(query, AllOf) else max(values))
        query, tree = query.parts[at], tree.parts[at]
    assert isinstance(tree, Leaf)
    return Decision(query, tuple(float(one[0]) for one in tree.penalties(cosines)), gain)


def blended(pieces: Sequence[Piece]) -> Vectors:
    """Sums terms, each divided by its spread and with its weight: ``(dim,)`` of length 1.

    Raises:
        QueryError: If nothing is left of the sum.
    """
    if len(pieces) == 1:
        return pieces[0].vector
    total = np.zeros_like(pieces[0].vector, np.float64)
    for one in pieces:
        weight = one.term.weight if one.term.weight > 0 else AVOIDED * one.term.weight
        total += weight / one.background.spread * one.vector
    length = float(np.linalg.norm(total))
    largest = max(abs(one.term.weight) / one.background.spread for one in pieces)
    if length < 1e-4 * largest:
        raise QueryError("the terms of the query cancel each other out; leave out one of them")
    return np.asarray(total / length, np.float32)


def _mixed(weighted: Sequence[tuple[float, Calibration]]) -> Calibration:
    """Averages calibrations: terms of several kinds in one direction."""
    names = ("a", "b", "z", "n", "mean", "spread", "r")
    return Calibration(
        *(sum(weight * getattr(one, name) for weight, one in weighted) for name in names)
    )


def _stamp(path: str) -> tuple[int, int] | None:
    """Tells a file from what it was before; ``None`` if it is not there."""
    try:
        stat = os.stat(path)  # noqa: PTH116 (as the index does it)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _words(term: Term) -> str:
    words = " ".join(term.value.split())
    if not any(character.isprintable() and not character.isspace() for character in words):
        raise QueryError("the query is empty; say in words what you are looking for")
    return words
