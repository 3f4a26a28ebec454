"""Relevance of an adapter: fitted on the validation split where there is enough of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrieval.calibrate import Calibration
from retrieval.learn.adapter.measures import Pairs
from retrieval.learn.relevance import Shown, fit, shown, usual
from retrieval.types import Modality, Vectors

LEAST = 40  # validation items; a logistic map of fewer would be a guess
SHARES = (0.25, 0.5, 0.8)  # of them in an index; the others are asked for in vain
DRAWS = 2
QUERIES = 300

Kinds = tuple[Modality, Modality]


def fitted(dev: Pairs, texts: Vectors, items: Vectors, *, seed: int) -> Mapping[Kinds, Calibration]:
    """Fits how cosines between texts and items of one modality become relevances, both ways.

    Indexes of a part of the validation items are searched, with what is in them and what is not.

    Args:
        dev: Who belongs to whom.
        texts: Its texts in the new space.
        items: Its items in the new space.
        seed: Of what is drawn.

    Returns:
        Nothing where the split has fewer than ``LEAST`` items.
    """
    if len(items) < LEAST:
        return {}
    generator = np.random.default_rng(seed)
    first = np.searchsorted(dev.owner, np.arange(len(items)))
    base, back = usual(texts, items), usual(items, texts[first])
    asked: list[Shown] = []
    told: list[Shown] = []
    for share in SHARES:
        for _ in range(DRAWS):
            kept = np.sort(generator.permutation(len(items))[: int(share * len(items))])
            inside = np.isin(dev.owner, kept)
            for rows in (np.flatnonzero(inside), np.flatnonzero(~inside)):
                rows = np.sort(generator.permutation(rows)[:QUERIES])
                right = dev.groups[dev.owner[rows]][:, None] == dev.groups[kept][None]
                asked.append(shown(texts[rows], items[kept], right, base))
            others = np.setdiff1d(np.arange(len(items)), kept)
            for rows in (kept, others):
                right = dev.groups[rows][:, None] == dev.groups[kept][None]
                told.append(shown(items[rows], texts[first[kept]], right, back))
    return {
        (Modality.TEXT, dev.modality): fit(asked, base),
        (dev.modality, Modality.TEXT): fit(told, back),
    }
