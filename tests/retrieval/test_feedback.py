"""Feedback against its formula, and what can be relied on whatever the cosines."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.feedback import ALPHA, BETA, adjusted

Floats = NDArray[np.float32]


def cosines(rng: np.random.Generator, *shape: int) -> Floats:
    """Random cosines."""
    return rng.uniform(-1, 1, shape).astype(np.float32)


SIZES = st.tuples(st.integers(0, 2**32), st.integers(0, 5), st.integers(0, 4), st.integers(0, 4))


@given(SIZES, st.floats(0, 2), st.floats(0, 20))
def test_formula(sizes: tuple[int, int, int, int], alpha: float, beta: float) -> None:
    """Every score, worked out one by one."""
    seed, n, likes, dislikes = sizes
    rng = np.random.default_rng(seed)
    query, liked, unliked = cosines(rng, n), cosines(rng, n, likes), cosines(rng, n, dislikes)
    found = adjusted(query, liked, unliked, alpha=alpha, beta=beta)
    assert found.dtype == np.float32
    assert found.shape == (n,)
    for row in range(n):
        gain = 0.0
        for sign, some in ((1, liked[row]), (-1, unliked[row])):
            if len(some):
                gain += sign * sum(math.exp(-beta * (1 - float(c))) for c in some) / len(some)
        assert math.isclose(found[row], float(query[row]) + alpha * gain, abs_tol=1e-5)


@given(SIZES, st.integers(0, 2**32))
def test_monotone(sizes: tuple[int, int, int, int], seed: int) -> None:
    """Higher with the query and the liked, lower with the others, and bounded."""
    first, n, likes, dislikes = sizes
    rng, more = np.random.default_rng(first), np.random.default_rng(seed)
    query, liked, unliked = cosines(rng, n), cosines(rng, n, likes), cosines(rng, n, dislikes)
    before = adjusted(query, liked, unliked)
    assert np.all(np.abs(before - query) <= ALPHA + 1e-6)
    nearer = [np.minimum(one + more.uniform(0, 1, one.shape), 1.001).astype(np.float32)
              for one in (query, liked, unliked)]  # fmt: skip
    assert np.all(adjusted(nearer[0], liked, unliked) >= before)
    assert np.all(adjusted(query, nearer[1], unliked) >= before)
    assert np.all(adjusted(query, liked, nearer[2]) <= before)


def test_without_feedback_nothing_changes() -> None:
    """Bit for bit."""
    query = cosines(np.random.default_rng(0), 9)
    nothing = np.empty((9, 0), np.float32)
    np.testing.assert_array_equal(adjusted(query, nothing, nothing), query)


def test_constants() -> None:
    """An item that is the liked one gains alpha, no more where a cosine is rounded up."""
    query = np.zeros(3, np.float32)
    liked = np.array([[1.0], [1.001], [0.0]], np.float32)
    found = adjusted(query, liked, np.empty((3, 0), np.float32))
    np.testing.assert_allclose(found, [ALPHA, ALPHA, ALPHA * math.exp(-BETA)], atol=1e-6)
    assert (ALPHA, BETA) == (0.4, 4.0)
