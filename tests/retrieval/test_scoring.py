"""The best of composed queries, against scoring every item; negatives worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.calibrate import Calibration
from retrieval.feedback import adjusted
from retrieval.scoring import AVOIDED, Avoided, Both, Either, Fed, Leaf, Scorer, Tree, best
from tests.conftest import unit_rows

DIM = 6
STEEP = Calibration(a=7.0, b=-2.0)
FLAT = Calibration(a=2.0, b=0.5)


def leaf(column: int, calibration: Calibration = STEEP, **more: Any) -> Leaf:
    """A direction with the usual background."""
    return Leaf(column, calibration, 0.1, 0.2, **more)


def away(column: int, weight: float = 1.0) -> Avoided:
    """Something looked away from."""
    return Avoided(column, weight, 0.1, 0.2)


TREES: dict[str, tuple[Tree, list[bool]]] = {
    "one": (leaf(0), [True]),
    "penalty": (leaf(0, avoided=(away(1), away(2, 0.5))), [True, False, False]),
    "difference": (leaf(0, avoided=(away(1),), drop=True), [True, False]),
    "both": (Both((leaf(0), leaf(1, FLAT))), [True, True]),
    "either": (Either((leaf(0), leaf(1, FLAT))), [True, True]),
    "nested": (
        Either((Both((leaf(0), leaf(1, avoided=(away(3),)))), leaf(2, FLAT))),
        [True, True, True, False],
    ),
    "fed": (Fed(Both((leaf(0), leaf(1))), (2,), (3,)), [True, True, True, False]),
}


class Items:
    """Vectors that are searched as an index would, and are counted when fetched."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows.astype(np.float16)
        self.fetched = 0

    def search(self, vector: NDArray[np.float32], count: int) -> tuple[Any, Any]:
        """The nearest, ties by id; ids begin at 100."""
        cosines = self.rows.astype(np.float32) @ vector
        order = np.lexsort((np.arange(len(cosines)), -cosines))[:count]
        return cosines[order], order + 100

    def fetch(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """Rows by id."""
        self.fetched += len(ids)
        return np.asarray(self.rows[ids - 100])


@given(
    name=st.sampled_from(sorted(TREES)),
    seed=st.integers(0, 10_000),
    items=st.integers(0, 900),
    count=st.integers(1, 30),
)
def test_best_is_what_scoring_everything_gives(
    name: str, seed: int, items: int, count: int
) -> None:
    """The same ids in the same order, fewer only where fewer qualify."""
    tree, rising = TREES[name]
    rng = np.random.default_rng(seed)
    scorer = Scorer(unit_rows(rng, len(rising), DIM), np.array(rising), tree)
    pool = Items(unit_rows(rng, items, DIM) if items else np.empty((0, DIM), np.float32))
    ids, judged = best(scorer, count, items, search=pool.search, fetch=pool.fetch)
    every = scorer.judge(pool.rows)
    order = np.lexsort((np.arange(items), -every.score, -every.log_relevance))
    want = [row for row in order if every.score[row] > -np.inf][:count]
    np.testing.assert_allclose(judged.log_relevance, every.log_relevance[want], atol=1e-5)
    np.testing.assert_allclose(judged.score, every.score[want], atol=1e-5)
    # float32 rounds differently for one row and for many, so near ties may change places
    if len(np.unique(np.round(every.log_relevance, 5))) == items:
        assert [int(one) - 100 for one in ids] == [int(row) for row in want]


def test_it_does_not_look_at_everything() -> None:
    """Of fifty thousand items that leave no doubt, under a tenth is fetched."""
    rng = np.random.default_rng(0)
    tree, rising = TREES["either"]
    scorer = Scorer(unit_rows(rng, 2, DIM), np.array(rising), tree)
    pool = Items(unit_rows(rng, 50_000, DIM))
    best(scorer, 10, 50_000, search=pool.search, fetch=pool.fetch)
    assert 0 < pool.fetched < 5_000


def sigmoid(x: float) -> float:
    """Plain mathematics."""
    return 1 / (1 + math.exp(-x))


def test_a_leaf_is_its_calibration() -> None:
    """Score the cosine, relevance the logistic map of it."""
    judged = leaf(1).judge(np.array([[0.9, 0.25]], np.float32))
    assert judged.score.tolist() == [0.25]
    assert math.exp(judged.log_relevance[0]) == pytest.approx(sigmoid(7 * 0.25 - 2))


def test_a_penalty_is_half_of_the_positive_cosine() -> None:
    """Weighted; a negative cosine takes nothing and gives nothing."""
    tree = leaf(0, avoided=(away(1, 2.0), away(2)))
    judged = tree.judge(np.array([[0.5, 0.1, -0.9]], np.float32))
    assert judged.score[0] == pytest.approx(0.5 - AVOIDED * 2.0 * 0.1)
    assert math.exp(judged.log_relevance[0]) == pytest.approx(sigmoid(7 * 0.4 - 2))


def test_a_difference_drops_what_stands_out_more_for_the_other() -> None:
    """By deviations above the mean, so that means and spreads count."""
    tree = Leaf(0, STEEP, 0.0, 0.1, (Avoided(1, 1.0, 0.2, 0.05),), drop=True)
    judged = tree.judge(np.array([[0.3, 0.34], [0.3, 0.36]], np.float32))
    assert judged.score.tolist() == [pytest.approx(0.3), -np.inf]
    assert judged.log_relevance[1] == -np.inf


def test_and_or() -> None:
    """The geometric mean of relevances and the lowest score; the best of both."""
    cosines = np.array([[0.4, 0.1]], np.float32)
    one, other = sigmoid(7 * 0.4 - 2), sigmoid(2 * 0.1 + 0.5)
    both, either = (kind((leaf(0), leaf(1, FLAT))).judge(cosines) for kind in (Both, Either))
    assert math.exp(both.log_relevance[0]) == pytest.approx((one * other) ** 0.5)
    assert both.score[0] == pytest.approx(0.1)
    assert math.exp(either.log_relevance[0]) == pytest.approx(max(one, other))
    assert either.score[0] == pytest.approx(0.4)


def test_feedback_moves_score_and_relevance_together() -> None:
    """The gain of `feedback.adjusted` on the score, times the slope on the logit."""
    cosines = np.array([[0.3, 0.8, 0.1]], np.float32)
    judged = Fed(leaf(0), (1,), (2,)).judge(cosines)
    after = float(adjusted(cosines[:, 0], cosines[:, 1:2], cosines[:, 2:3])[0])
    assert judged.score[0] == pytest.approx(after, abs=1e-6)
    assert math.exp(judged.log_relevance[0]) == pytest.approx(sigmoid(7 * after - 2), abs=1e-6)
