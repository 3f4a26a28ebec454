"""Relevance and cosine are each other's inverse, rising and bounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.calibrate import UNFITTED, Calibration

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


@given(calibration=CALIBRATIONS, relevance=st.floats(0.001, 0.999))
def test_the_cosine_of_a_relevance_leads_back_to_it(
    calibration: Calibration, relevance: float
) -> None:
    """A threshold in one scale is the same threshold in the other."""
    cosine = calibration.cosine(relevance)
    exact = 1 / (1 + math.exp(-(calibration.a * cosine + calibration.b)))
    assert exact == pytest.approx(relevance, rel=1e-9)
    if abs(cosine) <= 1:
        (back,) = calibration.relevance(np.array([cosine], np.float32))
        # float32 keeps the cosine to 6e-8, which the slope makes at most 1.2e-5 of a logit
        assert back == pytest.approx(relevance, rel=2e-5)


@given(calibration=CALIBRATIONS, cosines=st.lists(st.floats(-1, 1, width=32), min_size=2))
def test_a_higher_cosine_is_never_less_relevant(
    calibration: Calibration, cosines: list[float]
) -> None:
    """The order of hits within a modality is that of their cosines."""
    ascending = np.sort(np.array(cosines, np.float32))
    assert (np.diff(calibration.relevance(ascending)) >= 0).all()
    assert calibration.cosine(0.2) < calibration.cosine(0.3)


def test_without_figures_a_half_is_at_three_tenths() -> None:
    """What is said of models that nobody calibrated."""
    assert UNFITTED.cosine(0.5) == pytest.approx(0.3)
    matrix = np.array([[0.3, 1.0], [0.0, -1.0]], np.float32)
    want = [[0.5, 1 / (1 + math.exp(-7))], [1 / (1 + math.exp(3)), 1 / (1 + math.exp(13))]]
    np.testing.assert_allclose(UNFITTED.relevance(matrix), want, rtol=1e-6)
