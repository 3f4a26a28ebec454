"""How well an item answers a query of several parts: from cosines to scores, and the best of them.

A query becomes a tree over the columns of a matrix of cosines. What is joined by ``+`` and ``-`` is
one direction in the space and so one column; ``AND`` takes the geometric mean of relevances, ``OR``
the best. ``tests/benchmarks/queries.py`` compares these choices with others.

``best`` finds the highest scores without scoring everything, by the threshold algorithm (Fagin,
Lotem and Naor 2003, "Optimal aggregation algorithms for middleware"): no unseen item can score
higher than the tree does on the lowest cosines seen so far in each column.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.calibrate import Calibration
from retrieval.feedback import adjusted
from retrieval.fusion import log_relevance_of, logit_of

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

AVOIDED = 0.5
"""Weight of what is looked away from, beside 1 for what is looked for.

On 160 pairs of nouns, pictures with one and without the other: nDCG@10 0.55 at 0.5, 0.53 at 0.3,
0.49 at 1, 0.48 if the second is ignored.
"""

FIRST_REACH = 64  # candidates of each column in the first round
LOWEST = -1.0  # a cosine


class Negatives(StrEnum):
    """What a negative term does.

    ``SUBTRACT`` moves the direction away from it, ``PENALTY`` takes half of its positive cosine off
    the score, ``DIFFERENCE`` drops items that stand out more for it than for what is looked for.
    """

    SUBTRACT = "subtract"
    PENALTY = "penalty"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True)
class Judged:
    """What a query's tree says of some items.

    Attributes:
        score: ``(n,)``: the cosine, as changed by penalties; of several parts, the lowest for
            ``AND`` and the highest for ``OR``. Minus infinity for items that are dropped.
        log_relevance: ``(n,)``: natural logarithm of the relevance, at most 0.
    """

    score: Doubles
    log_relevance: Doubles


@dataclass(frozen=True, slots=True)
class Avoided:
    """Something looked away from by a penalty or by dropping.

    Attributes:
        column: Of its cosines.
        weight: Above 0.
        mean: Of its cosines over the index.
        spread: Their standard deviation.
    """

    column: int
    weight: float
    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class Leaf:
    """One direction that is looked for.

    Attributes:
        column: Of its cosines.
        calibration: How they become relevances, for this query and index.
        mean: Of its cosines over the index.
        spread: Their standard deviation.
        avoided: What lowers the score or drops an item.
        drop: Whether ``avoided`` drops items instead of lowering scores.
    """

    column: int
    calibration: Calibration
    mean: float
    spread: float
    avoided: tuple[Avoided, ...] = ()
    drop: bool = False

    @property
    def slope(self) -> float:
        """Of its calibration."""
        return self.calibration.a

    def judge(self, cosines: Floats) -> Judged:
        """Judges items by their cosines ``(n, columns)``."""
        score = cosines[:, self.column].astype(np.float64)
        standing = (score - self.mean) / self.spread
        kept = np.ones(len(score), bool)
        if self.drop:
            for one in self.avoided:
                against = cosines[:, one.column].astype(np.float64)
                kept &= one.weight * (against - one.mean) / one.spread <= np.maximum(standing, 0)
        for taken in self.penalties(cosines):
            score = score - taken
        log_relevance = -np.logaddexp(0, -self.calibration.logit(score))
        return Judged(np.where(kept, score, -np.inf), np.where(kept, log_relevance, -np.inf))

    def penalties(self, cosines: Floats) -> list[Doubles]:
        """Gives what each thing that is avoided takes off the scores, each ``(n,)``."""
        if self.drop:
            return []
        return [
            AVOIDED * one.weight * np.maximum(cosines[:, one.column].astype(np.float64), 0)
            for one in self.avoided
        ]


@dataclass(frozen=True, slots=True)
class Both:
    """Parts that must all be answered: the geometric mean of relevances.

    It orders items as the product does, and stays comparable with the relevance of one part. An
    ``OR`` in parentheses counts as one part.
    """

    parts: tuple[Tree, ...]

    @property
    def slope(self) -> float:
        """The steepest part's."""
        return max(part.slope for part in self.parts)

    def judge(self, cosines: Floats) -> Judged:
        """Judges items by their cosines ``(n, columns)``."""
        judged = [part.judge(cosines) for part in self.parts]
        return Judged(
            np.min([one.score for one in judged], axis=0),
            np.mean([one.log_relevance for one in judged], axis=0),
        )


@dataclass(frozen=True, slots=True)
class Either:
    """Parts of which one must be answered: the best relevance counts."""

    parts: tuple[Tree, ...]

    @property
    def slope(self) -> float:
        """The steepest part's."""
        return max(part.slope for part in self.parts)

    def judge(self, cosines: Floats) -> Judged:
        """Judges items by their cosines ``(n, columns)``."""
        judged = [part.judge(cosines) for part in self.parts]
        return Judged(
            np.max([one.score for one in judged], axis=0),
            np.max([one.log_relevance for one in judged], axis=0),
        )


@dataclass(frozen=True, slots=True)
class Fed:
    """A query after feedback on some of its hits; see ``retrieval.feedback``.

    Attributes:
        base: The query.
        liked: Columns of cosines with what was liked.
        unliked: Columns of cosines with what was not.
    """

    base: Tree
    liked: tuple[int, ...]
    unliked: tuple[int, ...]

    @property
    def slope(self) -> float:
        """As of the query."""
        return self.base.slope

    def judge(self, cosines: Floats) -> Judged:
        """Judges items by their cosines ``(n, columns)``."""
        before = self.base.judge(cosines)
        gain = self.gain(cosines)
        logit = logit_of(before.log_relevance) + self.slope * gain
        kept = before.score > -np.inf
        return Judged(before.score + gain, np.where(kept, log_relevance_of(logit), -np.inf))

    def gain(self, cosines: Floats) -> Doubles:
        """Gives what feedback adds to the scores, ``(n,)``."""
        return adjusted(
            np.zeros(len(cosines), np.float32),
            cosines[:, list(self.liked)],
            cosines[:, list(self.unliked)],
        ).astype(np.float64)


class Tree(Protocol):
    """A node: never lower where rising columns rise, never higher where the others do."""

    @property
    def slope(self) -> float:
        """By how much the logit of the relevance rises with the score."""

    def judge(self, cosines: Floats) -> Judged:
        """Judges items by their cosines ``(n, columns)``."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A query against one kind of item.

    Attributes:
        vectors: ``(columns, dim)`` float32, unit rows.
        rising: ``(columns,)``: whether a higher cosine is better.
        tree: What the cosines mean.
    """

    vectors: Floats
    rising: NDArray[np.bool_]
    tree: Tree

    @property
    def plain(self) -> bool:
        """Whether one column alone orders the items."""
        return len(self.vectors) == 1 and isinstance(self.tree, Leaf)

    def judge(self, items: NDArray[np.floating]) -> Judged:
        """Judges items by their vectors ``(n, dim)``."""
        return self.tree.judge(items.astype(np.float32) @ self.vectors.T)


Search: TypeAlias = Callable[[Floats, int], tuple[Floats, Ids]]
"""From a direction and a number to that many highest cosines, descending, and their ids."""

Fetch: TypeAlias = Callable[[Ids], NDArray[np.float16]]
"""From ids to their vectors, row by row."""


def best(
    scorer: Scorer, count: int, available: int, *, search: Search, fetch: Fetch
) -> tuple[Ids, Judged]:
    """Finds the items that a query's tree ranks highest; exact where ``search`` is.

    A search that misses some of the nearest, as one over inverted lists may, can only leave items
    out: what is found is judged exactly, and the bound stays that of the lowest found.

    Args:
        scorer: The query.
        count: How many; fewer come back only if fewer qualify.
        available: How many there are.
        search: The nearest to one direction.
        fetch: Vectors by id.

    Returns:
        Ids, and what the tree says of them; highest relevance first, then highest score, then
        lowest id. Items that are dropped are left out.
    """
    count = min(count, available)
    if count < 1:
        return np.empty(0, np.int64), Judged(np.empty(0), np.empty(0))
    if scorer.plain:
        cosines, ids = search(scorer.vectors[0], count)
        return ids, scorer.tree.judge(cosines[:, None])
    reach = min(max(FIRST_REACH, 4 * count), available)
    known: Ids = np.empty(0, np.int64)
    cosines = np.empty((0, len(scorer.vectors)), np.float32)
    while True:
        lowest = np.full(len(scorer.vectors), LOWEST, np.float32)
        results = _searched(search, scorer.vectors[scorer.rising], reach)
        lowest[scorer.rising] = [found[-1] for found, _ in results]
        new = np.setdiff1d(np.concatenate([ids for _, ids in results]), known)
        if len(new):
            known = np.concatenate([known, new])
            more = fetch(new).astype(np.float32) @ scorer.vectors.T
            cosines = np.concatenate([cosines, more])
        judged = scorer.tree.judge(cosines)
        kept = np.flatnonzero(judged.score > -np.inf)
        order = kept[np.lexsort((known[kept], -judged.score[kept], -judged.log_relevance[kept]))][
            :count
        ]
        if reach >= available or _settled(judged, order, count, scorer.tree, lowest):
            return known[order], Judged(judged.score[order], judged.log_relevance[order])
        reach = min(4 * reach, available)


def _searched(search: Search, vectors: Floats, count: int) -> list[tuple[Floats, Ids]]:
    """Searches for several directions at once, a thread each; the first alone.

    What a search works out for all that follow, such as who passes a filter, is then there.
    """
    first = search(vectors[0], count)
    if len(vectors) == 1:
        return [first]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [first, *pool.map(lambda vector: search(vector, count), vectors[1:])]


def _settled(
    judged: Judged, order: Sequence[int] | Ids, count: int, tree: Tree, lowest: Floats
) -> bool:
    """Tells whether nothing unseen can come before the last of those found."""
    if len(order) < count:
        return False
    bound = tree.judge(lowest[None])
    return bool(judged.log_relevance[order[-1]] > bound.log_relevance[0])
