"""Relevance is the logistic function of the cosine: rising and bounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.calibrate import Background, Calibration, unfitted
from retrieval.types import Modality

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


@given(
    source=st.sampled_from(Modality),
    target=st.sampled_from(Modality),
    cosines=st.lists(st.floats(-1, 1), min_size=4, max_size=30),
    shift=st.floats(-0.5, 0.5),
    stretch=st.floats(0.2, 3),
)
def test_without_figures_no_scale_counts(
    source: Modality, target: Modality, cosines: list[float], shift: float, stretch: float
) -> None:
    """Another model's cosines, moved and stretched, give the same relevances."""
    rows = np.array(cosines)
    assume(rows.std() * min(stretch, 1) > 0.02)

    def relevances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        background = Background(float(rows.mean()), float(rows.std()), 200)
        return unfitted(source, target).against(background).logit(rows)

    np.testing.assert_allclose(
        relevances(rows), relevances(stretch * rows + shift), rtol=1e-6, atol=1e-6
    )


def test_without_figures_standing_counts() -> None:
    """What stands four deviations above 500 others, by the formula; and equals all alike."""
    worded = unfitted(Modality.TEXT, Modality.AUDIO).against(Background(0.1, 0.02, 500))
    (got,) = worded.relevance(np.array([0.18], np.float32))
    want = 1 / (1 + math.exp(-(1.748 * 4 - 0.366 * math.log(500) - 4.391)))
    assert got == pytest.approx(want, rel=1e-4)
    alike = unfitted(Modality.IMAGE, Modality.IMAGE).against(Background(0.1, 0.02, 500))
    want = 1 / (1 + math.exp(-(1.353 * 4 + 0.051 * math.log(500) - 6.674)))
    assert alike.relevance(np.array([0.18], np.float32))[0] == pytest.approx(want, rel=1e-4)
    one = unfitted(Modality.TEXT, Modality.TEXT).against(Background(0.7, 0.0, 1))
    assert one.relevance(np.array([0.7], np.float32))[0] == pytest.approx(
        1 / (1 + math.exp(0.366 * math.log(50) + 4.391)), rel=1e-4
    )


@given(
    calibration=st.builds(
        Calibration,
        a=st.floats(0.1, 50),
        b=st.floats(-10, 10),
        z=st.floats(0, 5),
        n=st.floats(-1, 1),
        mean=st.floats(-0.2, 0.4),
        spread=st.floats(0.01, 0.5),
        r=st.floats(-20, 0),
    ),
    background=st.builds(
        Background,
        mean=st.floats(-0.5, 0.5),
        spread=st.floats(0.001, 0.5),
        items=st.integers(0, 10**7),
        rivals=st.floats(-0.2, 0.5),
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
    want += calibration.r * background.rivals
    plain = calibration.against(background)
    got = float(plain.logit(np.array([cosine], np.float64))[0])
    assert got == pytest.approx(want, rel=1e-9, abs=1e-9)
    assert (plain.z, plain.n, plain.r) == (0, 0, 0)
