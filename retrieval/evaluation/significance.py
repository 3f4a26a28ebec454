"""How sure a mean over queries is, and whether two runs over the same queries differ.

Queries that ask for the same thing, such as the five captions of one picture, fail and succeed
together. They form a group and are drawn together (the cluster bootstrap, Field and Welsh 2007,
"Bootstrapping clustered data"); drawn one by one they would make intervals too narrow.

Everything is drawn from a fixed seed: the same values give the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 2_000  # the ends of an interval are then off by 1.5 % of its width
LEVEL = 0.95
SEED = 0
AT_ONCE = 1 << 22  # numbers drawn at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and between which bounds it would lie if other such queries were asked.

    Attributes:
        value: Measured.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def intervals(
    values: Floats, groups: Ints, *, resamples: int = RESAMPLES, seed: int = SEED
) -> list[Interval]:
    """Gives the mean of each column with its 95 % percentile bootstrap interval.

    Groups are drawn with replacement as many times as there are groups, and the mean over all
    their queries is taken; the interval holds the middle 95 % of these means (Efron and Tibshirani
    1993, "An Introduction to the Bootstrap", section 13.3).

    Args:
        values: ``(queries, columns)``; every column is judged on the same draws.
        groups: ``(queries,)`` number of each query's group, from 0 on, none left out.
        resamples: How many draws.
        seed: Of the draws.
    """
    count = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(groups, column, count) for column in values.T], axis=1)
    means = []
    for drawn in _draws(count, resamples, seed):
        counts = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
        means.append(counts @ sums / (counts @ sizes)[:, None])
    low, high = _ends(np.concatenate(means))
    return [
        Interval(float(mean), float(lower), float(upper))
        for mean, lower, upper in zip(values.mean(axis=0), low, high, strict=True)
    ]


def interval_of(
    figure: Callable[[Ints], float], count: int, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Gives any figure of ``count`` items with its 95 % percentile bootstrap interval.

    Args:
        figure: Computes it from the numbers of the items that count, some of them repeated.
        count: How many items there are.
        resamples: How many draws.
        seed: Of the draws.
    """
    found = [figure(row) for drawn in _draws(count, resamples, seed) for row in drawn]
    low, high = _ends(np.array(found)[:, None])
    return Interval(figure(np.arange(count)), float(low[0]), float(high[0]))


def differ(
    one: Floats, other: Floats, groups: Ints, *, resamples: int = RESAMPLES, seed: int = SEED
) -> float:
    """Gives the p-value of two runs having the same mean over the same queries.

    A paired permutation test (Fisher 1935; Smucker et al. 2007, "A comparison of statistical
    significance tests for information retrieval evaluation"): were there no difference, the values
    of a group might as well have been exchanged. ``p = (1 + draws with a difference at least as
    large) / (1 + draws)``, two-sided, so it is never 0.

    Args:
        one: ``(queries,)``.
        other: ``(queries,)`` of the same queries.
        groups: As for ``intervals``; exchanged as a whole.
        resamples: How many draws.
        seed: Of the draws.
    """
    differences = np.bincount(groups, one - other)
    seen = abs(float(differences.sum()))
    near = 1e-9 * max(float(np.abs(differences).sum()), 1e-300)  # sums in another order
    extreme = 0
    rng = np.random.default_rng(seed)
    for size in _sizes(len(differences), resamples):
        signs = rng.integers(0, 2, (size, len(differences)), np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ differences) >= seen - near).sum())
    return (1 + extreme) / (1 + resamples)


def holm(values: Sequence[float]) -> list[float]:
    """Corrects p-values for being several, so that all together err in 5 of 100 cases.

    The step-down procedure of Holm 1979, "A simple sequentially rejective multiple test procedure":
    the smallest is multiplied by their number, the next by one less, and so on; none falls below
    the one before it, and none exceeds 1.

    Returns:
        Corrected values in the order given.
    """
    corrected = [0.0] * len(values)
    highest = 0.0
    for place, at in enumerate(sorted(range(len(values)), key=lambda at: values[at])):
        highest = max(highest, min(1.0, (len(values) - place) * values[at]))
        corrected[at] = highest
    return corrected


def _draws(count: int, resamples: int, seed: int) -> Iterator[Ints]:
    """Draws ``count`` numbers with replacement, so many times: blocks ``(some, count)``."""
    rng = np.random.default_rng(seed)
    for size in _sizes(count, resamples):
        yield rng.integers(0, count, (size, count))


def _sizes(count: int, resamples: int) -> Iterator[int]:
    """Cuts draws into blocks that fit into memory."""
    block = max(1, AT_ONCE // count)
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _ends(means: Floats) -> tuple[Floats, Floats]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high
