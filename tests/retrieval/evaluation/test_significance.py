"""Intervals and p-values against theory and against every possible exchange."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from retrieval.evaluation import significance
from retrieval.evaluation.significance import differ, holm, interval_of, intervals


def alone(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Every query its own group."""
    return np.arange(count)


def test_interval_of_a_mean_is_what_theory_says() -> None:
    """400 of 1,000 hits: 0.4 plus and minus 1.96 times the standard error, both columns alike."""
    hits = np.repeat([1.0, 0.0], [400, 600])
    one, two = intervals(np.stack([hits, 1 - hits], axis=1), alone(1_000))
    half = 1.96 * np.sqrt(0.4 * 0.6 / 1_000)
    assert one.value == pytest.approx(0.4)
    assert (one.low, one.high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.003)
    assert (two.low, two.high) == pytest.approx((1 - one.high, 1 - one.low), abs=1e-12)


def test_groups_are_drawn_together() -> None:
    """Five queries that always agree are as good as one: the interval is that of 200, not 1,000."""
    hits = np.repeat([1.0, 0.0], [80, 120])
    (plain,) = intervals(hits[:, None], alone(200))
    (five,) = intervals(np.repeat(hits, 5)[:, None], np.repeat(alone(200), 5))
    assert five == plain
    (blind,) = intervals(np.repeat(hits, 5)[:, None], alone(1_000))
    assert (plain.high - plain.low) / (blind.high - blind.low) == pytest.approx(5**0.5, rel=0.05)


def test_groups_of_several_sizes() -> None:
    """The mean is over queries, so a large group weighs more; the draws keep that."""
    values, groups = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1])
    (found,) = intervals(values[:, None], groups)
    assert found.value == 0.75
    assert (found.low, found.high) == (0.0, 1.0)  # a quarter of the draws has one group alone


def test_memory_does_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size give the same figures, and another seed others."""
    values = np.random.default_rng(1).random((50, 1))
    whole = intervals(values, alone(50)), differ(values[:, 0], values[::-1, 0], alone(50))
    assert intervals(values, alone(50), seed=1) != whole[0]
    monkeypatch.setattr(significance, "AT_ONCE", 700)
    assert intervals(values, alone(50)) == whole[0]
    assert interval_of(lambda rows: float(values[rows].mean()), 50) == whole[0][0]


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=9))
@settings(max_examples=25)
def test_p_value_against_all_exchanges(differences: list[float]) -> None:
    """Among all 2^n exchanges so many have a difference at least as large."""
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    sums = np.abs(signs @ np.array(differences))
    exact = float(np.mean(sums >= abs(sum(differences)) - 1e-12))
    one = np.array(differences)
    found = differ(one, np.zeros(len(one)), alone(len(one)), resamples=4_000)
    assert found == pytest.approx(exact, abs=0.035)  # over four standard errors of 4,000 draws


def test_exchanges_are_of_groups() -> None:
    """Ten queries of one group are one exchange: no difference of one group is significant."""
    one, group = np.ones(10), np.zeros(10, np.int64)
    assert differ(one, np.zeros(10), group) == 1.0
    assert differ(one, np.zeros(10), alone(10)) < 0.01
    assert differ(one, one, alone(10)) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(values: list[float]) -> None:
    """Corrected values fall below a level exactly where Holm's step-down procedure rejects."""
    corrected = holm(values)
    for level in (0.01, 0.05, 0.5):
        rejected = set()
        for place, at in enumerate(sorted(range(len(values)), key=lambda at: values[at])):
            if (len(values) - place) * values[at] > level:
                break
            rejected.add(at)
        assert {at for at, value in enumerate(corrected) if value <= level} == rejected


def test_holm_by_hand() -> None:
    """0.01, 0.02, 0.03 and 0.04 times 4, 3, 2 and 1, none below the one before."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_power_is_that_of_a_t_test() -> None:
    """On a middling difference of 200 queries the p-value is near that of the paired t-test."""
    rng = np.random.default_rng(3)
    one = rng.normal(0.12, 1.0, 200)
    want = float(stats.ttest_1samp(one, 0.0).pvalue)
    assert differ(one, np.zeros(200), alone(200), resamples=20_000) == pytest.approx(want, abs=0.01)
