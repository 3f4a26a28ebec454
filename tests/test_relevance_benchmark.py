"""The measures of the benchmarks of relevance and of composed queries, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.queries import ndcg
from tests.benchmarks.relevance import ABSENT, EACH, auroc, calibration_error, noise


def test_auroc_counts_pairs() -> None:
    """Seven of nine pairs in order, one tied: 7.5 of 9."""
    positive = np.array([0.9, 0.6, 0.5])
    negative = np.array([0.7, 0.5, 0.1])
    # 0.9 beats all three; 0.6 beats two; 0.5 beats one and ties with one
    assert auroc(positive, negative) == pytest.approx((3 + 2 + 1 + 0.5) / 9)
    assert auroc(negative, positive) == pytest.approx(1 - 6.5 / 9)


def test_calibration_error_weighs_bins_by_size() -> None:
    """Three answers of 0.9 of which two are right, one of 0.1 that is right."""
    relevance = np.array([0.9, 0.9, 0.9, 0.1])
    right = np.array([True, True, False, True])
    want = 3 / 4 * abs(0.9 - 2 / 3) + 1 / 4 * abs(0.1 - 1)
    assert calibration_error(relevance, right) == pytest.approx(want)
    assert calibration_error(np.ones(5), np.ones(5, bool)) == 0


def test_ndcg_by_hand() -> None:
    """Hits at ranks 1 and 3 of two relevant items."""
    hits = np.array([True, False, True] + [False] * 7)
    want = (1 + 0.5) / (1 + 1 / np.log2(3))
    assert ndcg(hits, 2) == pytest.approx(want)


def test_what_is_asked_without_an_answer() -> None:
    """A hundred of each, all different; noise differs from what was fitted on."""
    from retrieval.learn import sense

    made = noise(60)
    assert {name: len(texts) for name, texts in made.items()} == {"keys": EACH, "scripts": EACH}
    assert len(set(ABSENT)) == len(ABSENT) >= EACH
    fitted = set(sense.noise(sense.NOISE, 0))
    assert not [text for text in made["keys"] if text in fitted and len(text) > 4]
