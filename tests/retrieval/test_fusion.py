"""Relevances of several sources become one, by formulas that are written out here once more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fusion import SOURCES, TEMPERATURE, Fuse, Fusion, fused, log_relevance_of, logit_of
from retrieval.types import Source

NAN = float("nan")


def chance(logit: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-logit))


def logit(p: float) -> float:
    """Its inverse."""
    return math.log(p / (1 - p))


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (Fusion.ANY, logit(1 - (1 - chance(-1.0)) * (1 - chance(0.5)) * (1 - chance(-3.0)))),
        (Fusion.MAX, 0.5),
        (Fusion.MEAN, (-1.0 + 0.5 - 3.0) / 3),
        (Fusion.WEIGHTED, (0.3 * -1.0 + 0.7 * 0.5 + 0.7 * -3.0) / 1.7),
        (Fusion.CONCAT, -3.5),
        (Fusion.CONTENT, -1.0),
        (
            Fusion.ATTENTION,
            (
                -1.0 * math.exp(-1.0 / TEMPERATURE)
                + 0.5 * math.exp(0.5 / TEMPERATURE)
                - 3.0 * math.exp(-3.0 / TEMPERATURE)
            )
            / sum(math.exp(value / TEMPERATURE) for value in (-1.0, 0.5, -3.0)),
        ),
    ],
)
def test_formulas(way: Fusion, expected: float) -> None:
    """Content, a sidecar and metadata; the manifest does not name the item."""
    assert SOURCES == (Source.CONTENT, Source.SIDECAR, Source.MANIFEST, Source.METADATA)
    (result,) = fused(np.array([[-1.0, 0.5, NAN, -3.0]]), Fuse(way))
    assert result == pytest.approx(expected, rel=1e-12)


def test_weights_of_sources() -> None:
    """A weight of 0 leaves a source out, whatever the way; a weight of ANY is an exponent."""
    row = np.array([[-1.0, 2.0, NAN, NAN]])
    for way in Fusion:
        (alone,) = fused(row, Fuse(way, {Source.SIDECAR: 0.0, Source.CONTENT: 1.0}))
        assert alone == pytest.approx(-1.0, rel=1e-12), way
    (result,) = fused(row, Fuse(Fusion.ANY, {Source.SIDECAR: 0.5}))
    miss = (1 - chance(-1.0)) * math.sqrt(1 - chance(2.0))
    assert result == pytest.approx(logit(1 - miss), rel=1e-12)


def test_an_item_of_no_source_is_last() -> None:
    """It never comes up, and gives no warning of numpy's."""
    nothing = np.full((1, 4), NAN)
    for way in Fusion:
        assert fused(nothing, Fuse(way))[0] == -np.inf


numbers = st.one_of(st.just(NAN), st.floats(-40, 40))


@given(st.lists(st.tuples(st.floats(-40, 40), numbers, numbers, numbers), min_size=1, max_size=20))
def test_bounds(rows: list[tuple[float, float, float, float]]) -> None:
    """Means lie between the sources; ANY is at least the best, which is what searches rely on."""
    logits = np.array(rows)
    low, high = np.nanmin(logits, axis=1), np.nanmax(logits, axis=1)
    for way in (Fusion.MAX, Fusion.MEAN, Fusion.WEIGHTED, Fusion.ATTENTION):
        result = fused(logits, Fuse(way))
        assert (result >= low - 1e-9).all()
        assert (result <= high + 1e-9).all()
    assert (fused(logits, Fuse(Fusion.ANY)) >= high - 1e-9).all()


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=20))
def test_a_single_source_stays_as_it_is(values: list[float]) -> None:
    """Without words every way gives the content's own relevance."""
    logits = np.full((len(values), 4), NAN)
    logits[:, 0] = values
    for way in Fusion:
        one = Fuse(way, {Source.CONTENT: 1.0})
        assert fused(logits, one) == pytest.approx(np.array(values), abs=1e-9)


def test_extremes_stay_numbers() -> None:
    """Logits far beyond what float64 can exponentiate."""
    rows = np.array([[1e6, -1e6, NAN, NAN], [-1e6, -1e6, NAN, NAN]])
    for way in Fusion:
        assert np.isfinite(fused(rows, Fuse(way))).all(), way


@given(st.floats(-30, 30))
def test_logits_and_relevances(value: float) -> None:
    """The two turns undo each other."""
    there = log_relevance_of(np.array([value]))
    assert math.exp(there[0]) == pytest.approx(chance(value), rel=1e-12)
    if value < 20:
        assert logit_of(there)[0] == pytest.approx(value, rel=1e-6, abs=1e-9)
