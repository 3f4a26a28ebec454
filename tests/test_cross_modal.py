"""The measures of the cross-modal benchmark, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.benchmarks import cross_modal


def test_ndcg_by_hand() -> None:
    """Gains of 0 and 1, discounts log2(rank + 1), over the ideal ranking of what is relevant."""
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]], np.float32)
    relevant = np.array([[True, False, True, False], [True, False, False, False]])
    first = (1 + 1 / 2) / (1 + 1 / math.log2(3))  # found at 1 and 3; best were 1 and 2
    second = 1 / math.log2(5)  # found at 4; best were 1
    assert cross_modal.ndcg(scores, relevant) == pytest.approx((first + second) / 2)
    assert cross_modal.ndcg(scores, relevant, k=3) == pytest.approx(first / 2)


def test_ndcg_with_more_relevant_than_places() -> None:
    """Twelve relevant items cannot all be among ten: ten of them are the best there is."""
    scores = np.arange(20, 0, -1, dtype=np.float32)[None]
    assert cross_modal.ndcg(scores, scores > 8) == pytest.approx(1.0)


def test_directions_by_hand() -> None:
    """The place of the partner decides, each way on its own."""
    pictures = np.eye(3, dtype=np.float32)
    recordings = pictures[[0, 2, 1]]  # the second and third are each other's
    figures = cross_modal.directions(pictures, recordings)
    assert figures["pairs"] == 3
    assert figures["picture to sound, raw"] == {"r1": 33.3, "r5": 100.0, "r10": 100.0}
    assert figures["sound to picture, raw"]["r1"] == 33.3


def test_means_are_removed() -> None:
    """What all rows share is gone, and rows have length one again."""
    rows = np.array([[3, 1], [3, -1]], np.float32)
    assert cross_modal.removed(rows, rows.mean(0)).tolist() == [[0, 1], [0, -1]]


def test_ranks_start_at_one() -> None:
    """The best item of each row has rank 1."""
    assert cross_modal.ranks(np.array([[0.1, 0.9, 0.5]], np.float32)).tolist() == [[3, 1, 2]]


def test_standard_scores() -> None:
    """Each row has mean 0 and deviation 1."""
    scores = np.array([[1, 3, 5], [0, 0, 6]], np.float32)
    found = cross_modal.standard(scores)
    assert found.mean(axis=1) == pytest.approx([0, 0], abs=1e-6)
    assert found.std(axis=1) == pytest.approx([1, 1])
    assert found[0].tolist() == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])


def test_names_in_a_list_of_classes() -> None:
    """A row of AudioSet's list may hold several names, and things may stand in the plural."""
    told = cross_modal.heard_in('0,/m/0ch8v,"Bee, wasp, etc."\n1,/m/x,Duck\n2,/m/y,Church bells\n')
    assert {"bee", "wasp", "duck"} <= told
    assert told & cross_modal.forms("Bees")
    assert told & cross_modal.forms("church bell")
    assert not told & cross_modal.forms("koala")
