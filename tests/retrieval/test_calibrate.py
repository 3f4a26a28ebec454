"""Relevance is the logistic function of the cosine: rising and bounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.calibrate import UNFITTED, Background, Calibration

CALIBRATIONS = st.builds(
    Calibration,
    a=st.floats(0.1, 200, allow_subnormal=False),
    b=st.floats(-100, 100, allow_subnormal=False),
)


@given(calibration=CALIBRATIONS, cosine=st.floats(-1, 1))
def test_relevance_is_the_logistic_function(calibration: Calibration, cosine: float) -> None:
    """Platt's formula, also where float32 would overflow, and never outside 0..1."""
    rounded = float(np.float32(cosine))
    (got,) = calibration.relevance(np.array([cosine], np.float32))
    want = 1 / (1 + math.exp(-(calibration.a * rounded + calibration.b)))
    assert got.dtype == np.float32
    assert got == pytest.approx(want, rel=1e-6, abs=1e-37)
    assert 0 <= got <= 1


@given(calibration=CALIBRATIONS, cosines=st.lists(st.floats(-1, 1, width=32), min_size=2))
def test_a_higher_cosine_is_never_less_relevant(
    calibration: Calibration, cosines: list[float]
) -> None:
    """The order of hits within a modality is that of their cosines."""
    ascending = np.sort(np.array(cosines, np.float32))
    assert (np.diff(calibration.relevance(ascending)) >= 0).all()


def test_without_figures_a_half_is_at_three_tenths() -> None:
    """What is said of models that nobody calibrated."""
    matrix = np.array([[0.3, 1.0], [0.0, -1.0]], np.float32)
    want = [[0.5, 1 / (1 + math.exp(-7))], [1 / (1 + math.exp(3)), 1 / (1 + math.exp(13))]]
    np.testing.assert_allclose(UNFITTED.relevance(matrix), want, rtol=1e-6)


@given(
    calibration=st.builds(
        Calibration,
        a=st.floats(0.1, 50),
        b=st.floats(-10, 10),
        z=st.floats(0, 5),
        n=st.floats(-1, 1),
        mean=st.floats(-0.2, 0.4),
        spread=st.floats(0.01, 0.5),
    ),
    background=st.builds(
        Background,
        mean=st.floats(-0.5, 0.5),
        spread=st.floats(0.001, 0.5),
        items=st.integers(0, 10**7),
    ),
    cosine=st.floats(-1, 1),
)
def test_against_a_background(
    calibration: Calibration, background: Background, cosine: float
) -> None:
    """The formula of the class's docstring, with the background mixed by numbers of items."""
    items = background.items
    mean = (items * background.mean + 32 * calibration.mean) / (items + 32)
    variance = (items * background.spread**2 + 32 * calibration.spread**2) / (items + 32)
    standing = (cosine - mean) / math.sqrt(variance)
    crowd = math.log(min(max(items, 50), 1000))
    want = calibration.a * cosine + calibration.z * standing + calibration.n * crowd + calibration.b
    plain = calibration.against(background)
    got = float(plain.logit(np.array([cosine], np.float64))[0])
    assert got == pytest.approx(want, rel=1e-9, abs=1e-9)
    assert (plain.z, plain.n) == (0, 0)
