"""Renderings keep their vectors and weights; weights follow what stands out."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import phrasing
from retrieval.phrasing import Phrased, phrase, weigh
from retrieval.prompts import PromptSet
from retrieval.types import Vectors
from tests.conftest import unit_rows
from tests.fakes import COLOURS, WordTower


def test_renderings_vectors_and_weights() -> None:
    """In the order of the set, one unit row each, all weighing the same."""
    prompt = PromptSet("t", "", ("{query}", "blue {query}"), languages={"zh": ("{query}!",)})
    tower = WordTower()
    got = phrase("red", prompt, tower)
    assert got.templates == ("red", "blue red")
    np.testing.assert_array_equal(got.vectors, tower.embed(["red", "blue red"]))
    assert got.weights.tolist() == [0.5, 0.5]
    assert phrase("狗", prompt, tower).templates == ("狗!",)


def test_the_vector_is_the_weighted_mean() -> None:
    """Worked out by hand: 3/4 along one axis and 1/4 along another."""
    got = Phrased(("a", "b"), np.eye(2, dtype=np.float32), np.array([0.75, 0.25], np.float32))
    assert got.vector.dtype == np.float32
    length = math.hypot(3, 1)
    np.testing.assert_allclose(got.vector, [[3 / length, 1 / length]], rtol=0, atol=1e-7)


def test_opposite_vectors_give_no_nonsense() -> None:
    """They cancel to nothing, not to something that is no number."""
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    got = Phrased(("a", "b"), rows, np.array([0.5, 0.5], np.float32))
    assert got.vector.tolist() == [[0.0, 0.0]]


def reference(vectors: Vectors, pool: Vectors, background: Vectors | None) -> list[float]:
    """The weights, number by number."""
    gains = []
    for vector in vectors.tolist():
        cosines = sorted(
            sum(a * b for a, b in zip(vector, item, strict=True)) for item in pool.tolist()
        )
        bias = sum(cosines) / len(cosines)
        if background is not None:
            others = [
                sum(a * b for a, b in zip(vector, item, strict=True))
                for item in background.tolist()
            ]
            bias = (bias + sum(others) / len(others)) / 2
        count = max(1, round(len(cosines) * phrasing.TOP))
        gains.append(sum(cosines[-count:]) / count - bias)
    powers = [math.exp(gain / phrasing.TEMPERATURE) for gain in gains]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("size", [1, 7, 250, 400])
@pytest.mark.parametrize("others", [0, 30])
def test_weights_are_those_of_the_formula(size: int, others: int) -> None:
    """The same numbers as a reference without arrays, with and without a background."""
    rng = np.random.default_rng(size)
    vectors, pool = unit_rows(rng, 5, 8), unit_rows(rng, size, 8)
    background = unit_rows(rng, others, 8) if others else None
    before = Phrased(tuple("abcde"), vectors, np.full(5, 0.2, np.float32))
    got = weigh(before, pool, background=background)
    want = reference(vectors, pool, background)
    np.testing.assert_allclose(got.weights, want, rtol=1e-4, atol=1e-6)
    assert got.weights.dtype == np.float32
    assert (got.templates, got.vectors) == (before.templates, before.vectors)


def test_what_stands_out_weighs_more() -> None:
    """Among things of one colour, a template that adds what all have says less than the name."""
    tower = WordTower()
    names = list(COLOURS)
    pool = tower.embed([f"white {name}" for name in names for _ in range(10)])
    prompt = PromptSet("t", "", ("{query}", "white {query}", "white white white {query}"))
    weights = weigh(phrase("red", prompt, tower), pool).weights.tolist()
    assert all(more > less for more, less in pairwise(weights))


def test_without_a_pool_nothing_changes() -> None:
    """An empty index weighs nothing; an empty background is none."""
    vectors = unit_rows(np.random.default_rng(0), 3, 4)
    before = Phrased(("a", "b", "c"), vectors, np.array([0.5, 0.25, 0.25], np.float32))
    empty = np.empty((0, 4), np.float32)
    assert weigh(before, empty) is before
    got, want = weigh(before, vectors, background=empty), weigh(before, vectors)
    np.testing.assert_array_equal(got.weights, want.weights)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 9), size=st.integers(1, 40))
def test_weights_are_shares(seed: int, count: int, size: int) -> None:
    """Nowhere negative, together 1, and the same if the pool comes in another order."""
    rng = np.random.default_rng(seed)
    before = Phrased(
        tuple("abcdefghi"[:count]), unit_rows(rng, count, 6), np.full(count, 1 / count, np.float32)
    )
    pool = unit_rows(rng, size, 6)
    weights = weigh(before, pool).weights
    assert (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(weigh(before, pool[::-1]).weights, weights, rtol=1e-3, atol=1e-6)
