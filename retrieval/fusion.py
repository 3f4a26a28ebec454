"""Several sources of one item: what it shows or sounds like, and the words that belong to it.

Each source is compared with the query on its own and has a relevance of its own; fusing them gives
the item's. Sources that an item lacks take no part. ``tests/benchmarks/fusion.py`` compares the
ways on pictures with one of their captions beside them, on a half of them with and a half without,
and with captions that were swapped among pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Source

Doubles = NDArray[np.float64]

SOURCES = tuple(Source)
"""The order of columns."""

TEMPERATURE = 4.0
"""Of attention, in units of a relevance's logit. R@1 on Flickr8k's split ``dev``, all with captions
/ a half / 30 % of them swapped: 44.5 / 34.4 / 29.4 at 0.5, 47.0 / 35.8 / 30.9 at 2, 49.0 / 36.5 /
36.2 at 4."""

FLOOR = -700.0  # of a logit: exp stays a number


class Fusion(StrEnum):
    """How the relevances of an item's sources become one.

    ``ANY``
        The chance that at least one source is right, were they independent: ``1 - prod(1 - p)``.
        Weights are exponents. The default: good where captions are, unharmed where they are not.
    ``MAX``
        That of the best source.
    ``MEAN``
        The mean of the logits.
    ``WEIGHTED``
        The mean of the logits by the sources' weights.
    ``CONCAT``
        The weighted sum of the logits, as for vectors laid end to end: a source that is missing
        says nothing, so items with more sources lie apart from those with fewer.
    ``ATTENTION``
        The mean of the logits, weighed by the softmax of the logits themselves over
        ``TEMPERATURE``: the query looks where it is answered (Bahdanau et al. 2015,
        arXiv 1409.0473, with similarity in place of a learned score).
    ``CONTENT``
        Only what is seen or heard; words beside it are left out.
    """

    ANY = "any"
    MAX = "max"
    MEAN = "mean"
    WEIGHTED = "weighted"
    CONCAT = "concat"
    ATTENTION = "attention"
    CONTENT = "content"


WEIGHTS: Mapping[Source, float] = {
    Source.CONTENT: 0.3,
    Source.SIDECAR: 0.7,
    Source.MANIFEST: 0.7,
    Source.METADATA: 0.7,
}
"""Of ``WEIGHTED``: R@1 as above 48.6 / 34.9 / 35.6; equal weights give 48.7 / 34.7 / 36.2."""


@dataclass(frozen=True, slots=True)
class Fuse:
    """A way of fusing, and what each source counts.

    Attributes:
        way: The formula.
        weights: By source, at least 0; those that are not named have the way's own.
    """

    way: Fusion = Fusion.ANY
    weights: Mapping[Source, float] = field(default_factory=dict)

    def columns(self) -> Doubles:
        """Gives the weights ``(len(SOURCES),)``."""
        usual = WEIGHTS if self.way is Fusion.WEIGHTED else dict.fromkeys(SOURCES, 1.0)
        if self.way is Fusion.CONTENT:
            usual = {**dict.fromkeys(SOURCES, 0.0), Source.CONTENT: 1.0}
        return np.array([self.weights.get(source, usual[source]) for source in SOURCES])


USUAL = Fuse()


def fused(logits: Doubles, how: Fuse = USUAL) -> Doubles:
    """Fuses relevances.

    Args:
        logits: ``(n, len(SOURCES))``: of each item's relevance by each source, ``nan`` where it
            lacks the source.
        how: The way.

    Returns:
        ``(n,)``: logits of the items' relevances; minus infinity for items of no source that
        counts.
    """
    weights = np.broadcast_to(how.columns(), logits.shape)
    there = ~np.isnan(logits) & (weights > 0)
    weights = np.where(there, weights, 0.0)
    values = np.where(there, np.clip(np.nan_to_num(logits), FLOOR, -FLOOR), 0.0)
    some = there.any(axis=1)
    match how.way:
        case Fusion.ANY:
            result = _logit_of_miss(-(weights * np.logaddexp(0, values)).sum(axis=1))
        case Fusion.MAX:
            result = np.where(there, values, -np.inf).max(axis=1)
        case Fusion.CONCAT:
            result = (weights * values).sum(axis=1)
        case Fusion.ATTENTION:
            keys = np.where(there, values, -np.inf) / TEMPERATURE
            highest = np.where(some, keys.max(axis=1), 0.0)
            result = _mean(values, weights * np.exp(keys - highest[:, None]))
        case _:
            result = _mean(values, weights)
    return np.where(some, result, -np.inf)


def _mean(values: Doubles, weights: Doubles) -> Doubles:
    total = weights.sum(axis=1)
    return np.asarray((weights * values).sum(axis=1) / np.where(total > 0, total, 1.0))


def _logit_of_miss(log_miss: Doubles) -> Doubles:
    """Turns the logarithm of the chance that nothing is right into the logit of the rest."""
    log_miss = np.minimum(log_miss, -1e-300)
    return np.asarray(np.log(-np.expm1(log_miss)) - log_miss)


def logit_of(log_relevance: Doubles) -> Doubles:
    """Turns logarithms of relevances, at most 0, into logits."""
    chance = np.minimum(log_relevance, -1e-15)
    return np.asarray(chance - np.log(-np.expm1(chance)))


def log_relevance_of(logit: Doubles) -> Doubles:
    """Turns logits into logarithms of relevances."""
    return np.asarray(-np.logaddexp(0, -logit))
