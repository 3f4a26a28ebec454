"""The fit of relevances recovers what made the data; hits are those of an exact search."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.calibrate import Calibration
from retrieval.learn.data import Captioned
from retrieval.learn.relevance import Captions, Shown, alike, fit, halves, shown, usual
from retrieval.rivals import Rivals
from tests.conftest import unit_rows


def test_fit_recovers_a_logistic_map() -> None:
    """Sixty thousand hits of a known map: every slope within a twentieth of its size or so."""
    rng = np.random.default_rng(0)
    true = Calibration(a=6.0, b=-4.0, z=0.8, n=-0.5)
    evidence = []
    for size in (60, 200, 500):
        cosine = rng.uniform(0.1, 0.9, (2_000, 10)).astype(np.float32)
        standing = rng.uniform(0, 4, (2_000, 10)).astype(np.float32)
        crowd = np.full_like(cosine, np.log(size))
        logit = true.a * cosine + true.z * standing + true.n * crowd + true.b
        right = rng.random(cosine.shape) < 1 / (1 + np.exp(-logit))
        evidence.append(Shown(cosine, standing, crowd, right))
    got = fit(evidence, Calibration(1, 0, mean=0.1, spread=0.2))
    assert got.a == pytest.approx(true.a, rel=0.07)
    assert got.z == pytest.approx(true.z, rel=0.07)
    assert got.n == pytest.approx(true.n, abs=0.1)
    assert got.b == pytest.approx(true.b, abs=0.5)
    assert (got.mean, got.spread) == (0.1, 0.2)


def test_fit_recovers_the_slope_of_rivals() -> None:
    """And leaves the standing out where it is told to."""
    rng = np.random.default_rng(5)
    cosine = rng.uniform(0.1, 0.9, (6_000, 10)).astype(np.float32)
    rivals = np.zeros_like(cosine) + rng.uniform(-0.1, 0.3, (6_000, 1)).astype(np.float32)
    right = rng.random(cosine.shape) < 1 / (1 + np.exp(4.0 - 6.0 * cosine + 7.0 * rivals))
    crowd = np.full_like(cosine, np.log(100))
    got = fit([Shown(cosine, cosine * 3, crowd, right, rivals)], Calibration(1, 0), standing=False)
    assert got.a == pytest.approx(6.0, rel=0.05)
    assert got.r == pytest.approx(-7.0, rel=0.1)
    assert (got.z, got.n) == (0, 0)
    rising = Shown(cosine, cosine, crowd, right, -rivals)
    assert fit([rising], Calibration(1, 0), standing=False).r == 0


def test_one_size_says_nothing_of_others() -> None:
    """The slope of the size is then exactly 0."""
    rng = np.random.default_rng(1)
    cosine = rng.uniform(0, 1, (500, 10)).astype(np.float32)
    right = rng.random(cosine.shape) < cosine
    one = Shown(cosine, cosine * 3, np.full_like(cosine, 4.0), right)
    assert fit([one, one], Calibration(1, 0)).n == 0


def test_shown_are_the_ten_nearest() -> None:
    """In descending order, with what is known of each, and standings shrunk as in use."""
    rng = np.random.default_rng(2)
    queries, items = unit_rows(rng, 3, 16), unit_rows(rng, 70, 16)
    right = rng.random((3, 70)) < 0.3
    base = Calibration(1, 0, mean=0.05, spread=0.3)
    got = shown(queries, items, right, base)
    for row in range(3):
        cosines = queries[row] @ items.T
        order = np.argsort(-cosines)[:10]
        np.testing.assert_allclose(got.cosine[row], cosines[order], atol=1e-6)
        assert got.right[row].tolist() == right[row, order].tolist()
        mean = (70 * cosines.mean() + 32 * 0.05) / 102
        spread = ((70 * cosines.var() + 32 * 0.09) / 102) ** 0.5
        np.testing.assert_allclose(
            got.standing[row], (cosines[order] - mean) / spread, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(got.crowd, np.log(70))
    assert got.rivals is None
    typical = Rivals(items[:2], np.zeros(2, np.float32), -1.0, 0.1)
    rivals = shown(queries, items, right, base, rivals=typical).rivals
    assert rivals is not None
    assert rivals.shape == (3, 10)
    np.testing.assert_array_equal(rivals, np.repeat(typical.above(queries)[:, None], 10, axis=1))


def test_usual_is_the_mean_and_mean_spread() -> None:
    """Rounded to three digits, as the card has them."""
    rng = np.random.default_rng(3)
    queries, items = unit_rows(rng, 5, 8), unit_rows(rng, 40, 8)
    cosines = queries @ items.T
    got = usual(queries, items)
    assert got.mean == pytest.approx(float(cosines.mean()), abs=5e-4)
    assert got.spread == pytest.approx(float(cosines.std(axis=1).mean()), abs=5e-4)


def captions(count: int) -> Captions:
    """Pictures of numbers."""
    rng = np.random.default_rng(4)
    said = [
        Captioned(f"{at}.jpg", (f"a dog and number {at}", "two dogs", "a hotdog", "x", "y"))
        for at in range(count)
    ]
    vectors = unit_rows(rng, count * 5, 6).reshape(count, 5, 6)
    return Captions(said, unit_rows(rng, count, 6), vectors, vectors)


def test_halves_share_nothing() -> None:
    """Every other picture, with its own captions."""
    whole = captions(7)
    one, other = halves(whole)
    assert [row.image for row in one.said] == ["0.jpg", "2.jpg", "4.jpg", "6.jpg"]
    assert [row.image for row in other.said] == ["1.jpg", "3.jpg", "5.jpg"]
    np.testing.assert_array_equal(other.captions, whole.captions[1::2])


def test_a_noun_is_held_by_two_captions() -> None:
    """As a word of its own, in the plural too: a hotdog is no dog."""
    assert captions(2).holds(["dog", "number", "hotdog"]).tolist() == [
        [True, True],
        [False, False],
        [False, False],
    ]


def test_alike_is_by_the_nearest_caption() -> None:
    """A cosine of 0.7 with any one of them is enough."""
    asked = np.array([[1, 0]], np.float32)
    near, far = [0.71, (1 - 0.71**2) ** 0.5], [0.69, (1 - 0.69**2) ** 0.5]
    said = np.array([[[0, 1], near], [[0, 1], far]], np.float32)
    assert alike(asked, said).tolist() == [[True, False]]
