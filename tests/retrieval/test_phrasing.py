"""Renderings keep their vectors and weights; weights follow what stands out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import phrasing
from retrieval.phrasing import Phrased, contrasts, phrase, weigh
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


def reference(words: Vectors, pool: Vectors) -> list[float]:
    """The weights, number by number."""
    gains = []
    for template in words.tolist():
        cosines = [
            [sum(a * b for a, b in zip(word, item, strict=True)) for word in template]
            for item in pool.tolist()
        ]
        means = [sum(column) / len(pool) for column in zip(*cosines, strict=True)]
        best = [max(c - m for c, m in zip(row, means, strict=True)) for row in cosines]
        gains.append(sum(best) / len(best))
    powers = [math.exp((gain - max(gains)) / phrasing.TEMPERATURE) for gain in gains]
    return [power / sum(powers) for power in powers]


def made(rng: np.random.Generator, count: int, words: int) -> tuple[Phrased, Vectors]:
    """A query in ``count`` templates, and other words in templates that are nearly the same."""
    phrased = Phrased(
        tuple("abcdefghi"[:count]), unit_rows(rng, count, 8), np.full(count, 1 / count, np.float32)
    )
    first = unit_rows(rng, words, 8)
    others = first[None] + 0.1 * unit_rows(rng, count, 8)[:, None]
    others /= np.linalg.norm(others, axis=2, keepdims=True)
    return phrased, np.asarray(others, np.float32)


@pytest.mark.parametrize("size", [1, 7, 250])
def test_weights_are_those_of_the_formula(size: int) -> None:
    """The same numbers as a reference without arrays."""
    rng = np.random.default_rng(size)
    before, words = made(rng, 5, 6)
    pool = unit_rows(rng, size, 8)
    got = weigh(before, words, pool)
    np.testing.assert_allclose(got.weights, reference(words, pool), rtol=2e-3, atol=1e-5)
    assert got.weights.dtype == np.float32
    assert got.templates == before.templates
    assert got.vectors is before.vectors


def test_a_template_that_tells_things_apart_weighs_more() -> None:
    """The more white it adds to everything, the less it says which colour is meant."""
    tower = WordTower()
    names = list(COLOURS)
    pool = tower.embed(names)
    prompt = PromptSet("t", "", ("{query}", "white {query}", "white white white {query}"))
    rows = tower.embed([text for name in names for text in prompt.render(name)])
    words = rows.reshape(len(names), 3, -1).swapaxes(0, 1)
    weights = weigh(phrase("red", prompt, tower), words, pool).weights.tolist()
    assert all(more > less for more, less in pairwise(weights))


def test_without_a_pool_nothing_changes() -> None:
    """An empty index weighs nothing."""
    before, words = made(np.random.default_rng(0), 3, 4)
    assert weigh(before, words, np.empty((0, 8), np.float32)) is before


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 9), size=st.integers(1, 40))
def test_weights_are_shares(seed: int, count: int, size: int) -> None:
    """Nowhere negative, together 1, and the same if the pool comes in another order."""
    rng = np.random.default_rng(seed)
    before, words = made(rng, count, 5)
    pool = unit_rows(rng, size, 8)
    weights = weigh(before, words, pool).weights
    assert (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    backwards = weigh(before, words, pool[::-1]).weights
    np.testing.assert_allclose(backwards, weights, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("query", "first", "rendered"),
    [
        ("red", "dog", ["dog dog", "a dog dog"]),
        ("红", "狗", ["狗 狗!"]),
        ("красный", "dog", ["dog dog?"]),
        ("あか", "dog", ["dog dog", "a dog dog"]),
    ],
)
def test_plain_words_go_through_the_templates_of_the_query(
    query: str, first: str, rendered: list[str]
) -> None:
    """Words in its language where there are some, its templates in any case, as often repeated."""
    languages = {"zh": ("{query}!",), "ru": ("{query}?",)}
    prompt = PromptSet("t", "", ("{query}", "a {query}"), languages=languages, repeat=2)
    seen: list[str] = []

    class Seeing(WordTower):
        def embed(self, batch: Sequence[str]) -> Vectors:
            seen.extend(batch)
            rows = unit_rows(np.random.default_rng(0), len(batch), 8)
            return rows

    got = contrasts(query, prompt, Seeing())
    count = len(rendered)
    assert seen[:count] == rendered
    assert all(words.split()[0] == first for words in seen[:1])
    assert got.shape == (count, 40, 8)
    rows = unit_rows(np.random.default_rng(0), len(seen), 8)
    for at in range(count):
        np.testing.assert_array_equal(got[at], rows[at::count])


def test_plain_words_are_forty_each() -> None:
    """In every language, without repetition."""
    for words in phrasing.WORDS.values():
        assert len(words.split()) == len(set(words.split())) == 40
