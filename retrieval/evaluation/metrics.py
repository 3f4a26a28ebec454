"""How good an answer is: the measures of retrieval, of classification and of stated confidence.

Measures of retrieval look at nothing but the places at which the right items stand, so that a
ranking of a million items is judged by the few that matter. They are given per query; what is
reported is their mean. All are between 0 and 1, higher is better, unless they say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BINS = 15  # as in Guo et al. 2017


# ---- rankings ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Where the right items of some queries stand; one entry per query and right item.

    Attributes:
        query: ``(m,)`` number of the query, ascending; each query has at least one entry.
        rank: ``(m,)`` place of the item, counted from 1, ascending within a query.
        grade: ``(m,)`` how right it is, above 0; 1 where grades are not given.
        queries: How many queries there are.
    """

    query: Ints
    rank: Ints
    grade: Floats
    queries: int

    @property
    def right(self) -> Ints:
        """How many right items each query has: ``(queries,)``."""
        return np.bincount(self.query, minlength=self.queries).astype(np.int64)


def placed(scores: NDArray[np.floating], query: Ints, item: Ints, grade: Floats) -> Placed:
    """Finds the places of right items among all items, equal scores in ascending order of item.

    Args:
        scores: ``(queries, items)``, higher is better.
        query: ``(m,)`` rows of right items.
        item: ``(m,)`` columns of right items; no pair comes twice.
        grade: ``(m,)`` above 0.
    """
    ranks = np.empty(len(query), np.int64)
    for at, (row, column) in enumerate(zip(query.tolist(), item.tolist(), strict=True)):
        own = scores[row, column]
        before = np.count_nonzero(scores[row] > own)
        ranks[at] = 1 + before + np.count_nonzero(scores[row, :column] == own)
    order = np.lexsort((ranks, query))
    return Placed(query[order], ranks[order], grade[order], len(scores))


def hit_rate(found: Placed, k: int) -> Floats:
    """Tells whether any right item is among the first ``k``: ``(queries,)`` of 0 and 1.

    ``hit@k = 1 if min(rank) <= k else 0``. Papers on CLIP call its mean "recall@k" or R@k (Radford
    et al. 2021, arXiv 2103.00020; Karpathy and Fei-Fei 2015, arXiv 1412.2306); with one right item
    to a query the two are the same.
    """
    return np.asarray(np.bincount(found.query, found.rank <= k, found.queries) > 0, np.float64)


def recall(found: Placed, k: int) -> Floats:
    """Gives the share of the right items that are among the first ``k``: ``(queries,)``.

    ``recall@k = |right in first k| / |right|`` (Manning et al. 2008, "Introduction to Information
    Retrieval", section 8.3).
    """
    return np.asarray(np.bincount(found.query, found.rank <= k, found.queries) / found.right)


def precision(found: Placed, k: int) -> Floats:
    """Gives the share of the first ``k`` that is right: ``(queries,)``.

    ``precision@k = |right in first k| / k``, also where fewer than ``k`` items are right at all
    (Manning et al. 2008, section 8.4; trec_eval's ``P_k``).
    """
    return np.asarray(np.bincount(found.query, found.rank <= k, found.queries) / k)


def reciprocal_rank(found: Placed) -> Floats:
    """Gives one over the place of the first right item: ``(queries,)``; its mean is the MRR.

    ``rr = 1 / min(rank)`` (Voorhees 1999, "The TREC-8 question answering track report").
    """
    first = np.full(found.queries, np.iinfo(np.int64).max)
    np.minimum.at(first, found.query, found.rank)
    return np.asarray(1.0 / first)


def average_precision(found: Placed) -> Floats:
    """Gives the mean of the precisions at each right item: ``(queries,)``; its mean is the mAP.

    ``ap = sum_i (i / rank_i) / |right|``, over the right items in the order found, ``i`` from 1
    (Manning et al. 2008, section 8.4).
    """
    starts = np.cumsum(found.right) - found.right
    position = np.arange(len(found.query)) - starts[found.query] + 1
    return np.asarray(np.bincount(found.query, position / found.rank, found.queries) / found.right)


def ndcg(found: Placed, k: int) -> Floats:
    """Gives the discounted gain of the first ``k`` as a share of the best: ``(queries,)``.

    ``dcg@k = sum_(rank <= k) grade / log2(1 + rank)``, and ``ndcg@k = dcg@k / ideal dcg@k``, where
    the ideal ranking has the right items first, by grade (Järvelin and Kekäläinen 2002, "Cumulated
    gain-based evaluation of IR techniques"; the grade itself is the gain, as in trec_eval).
    """
    gains = np.where(found.rank <= k, found.grade / np.log2(1.0 + found.rank), 0.0)
    order = np.lexsort((-found.grade, found.query))
    starts = np.cumsum(found.right) - found.right
    ideal_rank = np.arange(len(found.query)) - starts[found.query] + 1
    ideal = np.where(ideal_rank <= k, found.grade[order] / np.log2(1.0 + ideal_rank), 0.0)
    return np.asarray(
        np.bincount(found.query, gains, found.queries)
        / np.bincount(found.query, ideal, found.queries)
    )


# ---- classes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class ByClass:
    """Figures of each class, all ``(classes,)``; 0 where there is nothing to divide by.

    Attributes:
        precision: Share of what was taken for the class that is of it.
        recall: Share of what is of the class that was taken for it.
        f1: Their harmonic mean, ``2 p r / (p + r)`` (van Rijsbergen 1979, "Information Retrieval").
    """

    precision: Floats
    recall: Floats
    f1: Floats


def accuracy(truth: Ints, guess: Ints) -> float:
    """Gives the share of items ``(n,)`` whose class was guessed."""
    return float(np.mean(truth == guess))


def confusion(truth: Ints, guess: Ints, classes: int) -> Ints:
    """Counts items by their class (rows) and by what they were taken for (columns).

    Returns:
        ``(classes, classes)``; the diagonal is right.
    """
    counts = np.bincount(truth * classes + guess, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def by_class(matrix: Ints) -> ByClass:
    """Gives precision, recall and F1 of every class of a confusion matrix."""
    right = np.diag(matrix).astype(np.float64)
    found = _share(right, matrix.sum(axis=0))
    kept = _share(right, matrix.sum(axis=1))
    return ByClass(found, kept, _share(2 * found * kept, found + kept))


def macro(figures: ByClass) -> tuple[float, float, float]:
    """Gives mean precision, recall and F1 of all classes, each class counting the same.

    F1 is the mean of the classes' F1, not the F1 of the means (Opitz and Burst 2019, "Macro F1 and
    macro F1", arXiv 1911.03347, compare the two).
    """
    return (
        float(figures.precision.mean()),
        float(figures.recall.mean()),
        float(figures.f1.mean()),
    )


def micro(matrix: Ints) -> tuple[float, float, float]:
    """Gives precision, recall and F1 over all items at once, each item counting the same.

    Where every item has one class and gets one, all three are the accuracy (Manning et al. 2008,
    section 13.6).
    """
    share = float(np.trace(matrix) / max(matrix.sum(), 1))
    return share, share, share


def _share(part: NDArray[np.float64], whole: NDArray[np.generic]) -> Floats:
    total = np.asarray(whole, np.float64)
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


# ---- confidence ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bin:
    """Claims of about the same confidence.

    Attributes:
        low: Confidence above this (in the first bin from it on) ...
        high: ... and up to this.
        count: How many claims.
        confidence: Mean of what was claimed.
        right: Share that was right.
    """

    low: float
    high: float
    count: int
    confidence: float
    right: float


def reliability(confidence: Floats, right: Bools, *, bins: int = BINS) -> list[Bin]:
    """Sorts claims into bins of equal width, and gives those that are not empty, ascending.

    What a reliability diagram shows (DeGroot and Fienberg 1983; Guo et al. 2017, arXiv 1706.04599).

    Args:
        confidence: ``(n,)`` 0..1.
        right: ``(n,)`` whether the claim was right.
        bins: How many.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    return [
        Bin(
            float(edges[at]),
            float(edges[at + 1]),
            int((place == at).sum()),
            float(confidence[place == at].mean()),
            float(right[place == at].mean()),
        )
        for at in np.unique(place).tolist()
    ]


def calibration_error(confidence: Floats, right: Bools, *, bins: int = BINS) -> float:
    """Gives the expected calibration error: how far stated confidence is from the truth; 0 is best.

    ``ece = sum_bins count / n * |right - confidence|`` (Guo et al. 2017, arXiv 1706.04599,
    equation 3).
    """
    found = reliability(confidence, right, bins=bins)
    return sum(one.count / len(confidence) * abs(one.right - one.confidence) for one in found)


def auroc(confidence: Floats, right: Bools) -> float | None:
    """Gives the chance that a right claim has more confidence than a wrong one; ties count half.

    The area under the ROC curve, as the Mann-Whitney statistic: ``(sum of the ranks of the right -
    r (r + 1) / 2) / (r w)`` with ``r`` right and ``w`` wrong claims, equal confidences sharing
    their mean rank (Hanley and McNeil 1982). 0.5 is chance.

    Returns:
        ``None`` if all are right or all are wrong.
    """
    positive = int(right.sum())
    negative = len(right) - positive
    if not positive or not negative:
        return None
    _, which, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    above = float(ranks[right].sum()) - positive * (positive + 1) / 2
    return above / (positive * negative)
