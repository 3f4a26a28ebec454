"""Every measure by hand, and against ranx and scikit-learn on rankings and scores with ties."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from retrieval.evaluation import metrics
from retrieval.evaluation.metrics import Placed, placed

numba.config.DISABLE_JIT = True  # type: ignore[attr-defined] # compiling takes minutes
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn about each other
    import ranx


def judged(*queries: dict[int, float]) -> Placed:
    """Places of right items as ``{rank: grade}`` for every query."""
    entries = [(q, rank, grade) for q, one in enumerate(queries) for rank, grade in one.items()]
    query, rank, grade = zip(*sorted(entries), strict=True)
    return Placed(np.array(query), np.array(rank), np.array(grade, np.float64), len(queries))


FIRST = judged({1: 1.0, 4: 1.0}, {3: 2.0}, {2: 1.0, 3: 3.0, 7: 2.0})


def test_by_hand() -> None:
    """Three small rankings, worked out on paper."""
    assert metrics.hit_rate(FIRST, 1).tolist() == [1, 0, 0]
    assert metrics.hit_rate(FIRST, 2).tolist() == [1, 0, 1]
    assert metrics.recall(FIRST, 3).tolist() == [1 / 2, 1, 2 / 3]
    assert metrics.precision(FIRST, 4).tolist() == [2 / 4, 1 / 4, 2 / 4]
    assert metrics.reciprocal_rank(FIRST).tolist() == [1, 1 / 3, 1 / 2]
    want = [(1 + 2 / 4) / 2, 1 / 3, (1 / 2 + 2 / 3 + 3 / 7) / 3]
    np.testing.assert_allclose(metrics.average_precision(FIRST), want, rtol=1e-12)
    ideal = 3 + 2 / math.log2(3)
    gain = 1 / math.log2(3) + 3 / math.log2(4)
    want = [1 / (1 + 1 / math.log2(3)), 1 / 2, gain / (ideal + 1 / math.log2(4))]
    np.testing.assert_allclose(metrics.ndcg(FIRST, 3), want, rtol=1e-12)
    assert metrics.ndcg(FIRST, 1).tolist() == [1, 0, 0]


def test_equal_scores_stand_in_the_order_of_the_items() -> None:
    """A right item among equals is neither favoured nor wronged: its number decides."""
    scores = np.array([[0.5, 0.9, 0.5, 0.5, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0]], np.float32)
    found = placed(scores, np.array([1, 0, 0]), np.array([4, 3, 0]), np.array([1.0, 1.0, 2.0]))
    assert found.query.tolist() == [0, 0, 1]
    assert found.rank.tolist() == [2, 4, 5]
    assert found.grade.tolist() == [2, 1, 1]
    assert found.right.tolist() == [2, 1]


@st.composite
def rankings(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores with many ties, and a grade from 0 to 3 for every item; each query has a right one."""
    queries, items = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    grades = rng.integers(0, 4, (queries, items))
    grades[:, rng.integers(items)] = rng.integers(1, 4)
    return rng.integers(0, 4, (queries, items)).astype(np.float32), grades


@given(rankings(), st.integers(1, 14))
@settings(max_examples=40)
def test_as_ranx_has_it(made: tuple[NDArray[np.float32], NDArray[np.int64]], k: int) -> None:
    """Every measure of a ranking, to the last digits; ranx is given the order, ties broken."""
    scores, grades = made
    query, item = np.nonzero(grades)
    found = placed(scores, query, item, grades[query, item].astype(np.float64))
    orders = np.argsort(-scores, axis=1, kind="stable")
    qrels = ranx.Qrels(
        {
            f"q{q}": {f"d{d}": int(row[d]) for d in np.nonzero(row)[0]}
            for q, row in enumerate(grades)
        }
    )
    run = ranx.Run(
        {
            f"q{q}": {f"d{d}": float(len(row) - place) for place, d in enumerate(row)}
            for q, row in enumerate(orders.tolist())
        }
    )
    ours = {
        f"hit_rate@{k}": metrics.hit_rate(found, k),
        f"recall@{k}": metrics.recall(found, k),
        f"precision@{k}": metrics.precision(found, k),
        "mrr": metrics.reciprocal_rank(found),
        "map": metrics.average_precision(found),
        f"ndcg@{k}": metrics.ndcg(found, k),
    }
    theirs = ranx.evaluate(qrels, run, list(ours), return_mean=False)
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], atol=1e-6, err_msg=name)


@st.composite
def guesses(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Classes and guesses; some classes are never guessed, and some have no item."""
    classes, count = draw(st.integers(2, 6)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(0, classes, count), rng.integers(0, classes, count), classes


@given(guesses())
@settings(max_examples=60)
def test_classes_as_scikit_learn_has_them(
    made: tuple[NDArray[np.int64], NDArray[np.int64], int],
) -> None:
    """Accuracy, confusion matrix, and precision, recall and F1 in three ways."""
    truth, guess, classes = made
    labels = list(range(classes))
    matrix = metrics.confusion(truth, guess, classes)
    assert matrix.tolist() == reference.confusion_matrix(truth, guess, labels=labels).tolist()
    assert metrics.accuracy(truth, guess) == pytest.approx(reference.accuracy_score(truth, guess))

    def theirs(average: str | None) -> Any:
        return reference.precision_recall_fscore_support(
            truth, guess, labels=labels, average=average, zero_division=0
        )[:3]

    ours = metrics.by_class(matrix)
    for mine, other in zip((ours.precision, ours.recall, ours.f1), theirs(None), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)
    assert metrics.macro(ours) == pytest.approx(theirs("macro"))
    assert metrics.micro(matrix) == pytest.approx(theirs("micro"))


def test_a_class_that_is_never_guessed_counts_as_zero() -> None:
    """Two of class 0, one of class 1, all taken for 0: F1 of 4/5 and 0, mean 2/5."""
    figures = metrics.by_class(metrics.confusion(np.array([0, 0, 1]), np.array([0, 0, 0]), 2))
    assert figures.precision.tolist() == [2 / 3, 0]
    assert figures.recall.tolist() == [1, 0]
    assert metrics.macro(figures) == pytest.approx((1 / 3, 1 / 2, 2 / 5))


@given(st.integers(0, 2**32), st.integers(1, 60))
@settings(max_examples=60)
def test_auroc_as_scikit_learn_has_it(seed: int, count: int) -> None:
    """With ties; there is none if nothing is wrong, or nothing right."""
    rng = np.random.default_rng(seed)
    confidence, right = rng.integers(0, 6, count) / 5, rng.integers(0, 2, count).astype(bool)
    ours = metrics.auroc(confidence, right)
    if right.all() or not right.any():
        assert ours is None
    else:
        assert ours == pytest.approx(reference.roc_auc_score(right, confidence))


@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(1, 15))
@settings(max_examples=60)
def test_calibration_error_as_written(seed: int, count: int, bins: int) -> None:
    """The formula read off the paper, claim by claim; the bins as scikit-learn has them."""
    rng = np.random.default_rng(seed)
    confidence, right = rng.integers(0, 201, count) / 200, rng.integers(0, 2, count).astype(bool)
    want = 0.0
    edges = np.linspace(0, 1, bins + 1).tolist()
    for at in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence.tolist(), right.tolist(), strict=True)
            if edges[at] < c <= edges[at + 1] or (at == 0 and c == 0)
        ]
        if inside:
            gap = np.mean([r for _, r in inside]) - np.mean([c for c, _ in inside])
            want += len(inside) / count * abs(float(gap))
    assert metrics.calibration_error(confidence, right, bins=bins) == pytest.approx(want)
    shares, means = calibration_curve(right, confidence, n_bins=bins, pos_label=True)
    ours = metrics.reliability(confidence, right, bins=bins)
    np.testing.assert_allclose([one.right for one in ours], shares)
    np.testing.assert_allclose([one.confidence for one in ours], means)
    assert sum(one.count for one in ours) == count


def test_calibration_by_hand() -> None:
    """Two bins: 0.2 twice, once right, and 0.9 right: 2/3 of 0.3 and 1/3 of 0.1."""
    error = metrics.calibration_error(
        np.array([0.2, 0.2, 0.9]), np.array([True, False, True]), bins=2
    )
    assert error == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.1)
