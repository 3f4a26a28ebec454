"""Cosines become relevances: the one number between 0 and 1 that people see.

A raw cosine means nothing to a person: a perfect match of words and picture may have 0.3, and a
passage of text with little to do with a query 0.5. A logistic map per kind of query and kind of
target (Platt 1999, "Probabilistic outputs for support vector machines"), fitted once per model,
makes them comparable. It looks at the cosine, since queries differ also at how far it stands out
from the cosines that the same query has with the index as a whole, or at how near wrong items
usually come to such a query, and at the index's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Modality

Floats = NDArray[np.float32]

FEWEST, MOST = 50, 1_000
"""Sizes of the indexes that maps are fitted on; others count as the nearer of the two."""

LEAST_SPREAD = 0.005  # of cosines that are all but equal, as in an index of one item

PRIOR_ITEMS = 32
"""How many items' worth of evidence the model's usual background is: a small index has none."""


@dataclass(frozen=True, slots=True)
class Background:
    """How a query's cosines are spread over an index.

    Attributes:
        mean: Of the cosines.
        spread: Their standard deviation, above 0.
        items: How many vectors the index has.
        rivals: By how much nearer than usual wrong items come to such a query, a difference of
            cosines; see ``retrieval.rivals``.
    """

    mean: float
    spread: float
    items: int
    rivals: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic map from cosines to relevances, rising with the cosine.

    ``relevance = 1 / (1 + exp(-(a * cosine + z * standing + n * log(items) + r * rivals + b)))``,
    where ``standing`` is by how many standard deviations a cosine lies above the query's mean over
    the index, ``items`` the number of vectors there, as among more a chance likeness is likelier,
    and ``rivals`` how near wrong items come to such a query.

    Attributes:
        a: Slope of the cosine.
        b: Offset.
        z: Slope of the standing.
        n: Slope of the logarithm of the number of vectors, which is kept within 50 to 1,000.
        mean: Usual mean of a query's cosines, for indexes too small to tell.
        spread: Usual standard deviation of them; 0 where nothing is usual, and the index alone
            tells.
        r: Slope of the rivals, 0 or below.
    """

    a: float
    b: float
    z: float = 0.0
    n: float = 0.0
    mean: float = 0.0
    spread: float = 0.1
    r: float = 0.0

    def against(self, background: Background) -> Calibration:
        """Gives the plain map of cosines that this is for one query and index."""
        seen = settled(background, self)
        crowd = math.log(min(max(background.items, FEWEST), MOST))
        return Calibration(
            a=self.a + self.z / seen.spread,
            b=self.b
            - self.z * seen.mean / seen.spread
            + self.n * crowd
            + self.r * background.rivals,
        )

    def logit(self, cosine: NDArray[np.floating]) -> NDArray[np.float64]:
        """Gives ``a * cosine + b``, element by element; what needs a background is left out."""
        return np.asarray(self.a * cosine.astype(np.float64) + self.b)  # float32 overflows at -88

    def relevance(self, cosine: NDArray[np.floating]) -> Floats:
        """Maps cosines to relevances in 0..1, element by element, without a background."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.logit(cosine))), np.float32)


def settled(background: Background, usual: Calibration) -> Background:
    """Mixes what an index shows with what is usual, which counts as much as 32 items."""
    if usual.spread == 0:
        return replace(background, spread=max(background.spread, LEAST_SPREAD))
    total = background.items + PRIOR_ITEMS
    mean = (background.items * background.mean + PRIOR_ITEMS * usual.mean) / total
    variance = (background.items * background.spread**2 + PRIOR_ITEMS * usual.spread**2) / total
    return Background(mean, math.sqrt(variance), background.items)


CONFIDENT = 0.07
"""Relevance from which on a hit counts as a good match, for models that nobody measured.

Of captions with a picture in the index 1 to 2 % stay below it, see ``unfitted`` below.
"""

WORDED = Calibration(a=0.0, b=-4.391, z=1.748, n=-0.366, spread=0.0)
ALIKE = Calibration(a=0.0, b=-6.674, z=1.353, n=0.051, spread=0.0)


def unfitted(source: Modality, target: Modality) -> Calibration:
    """Gives the map for a kind of query and of target that a model has no figures for.

    A match has a cosine of 0.3 in one model, 0.1 or 0.8 in another, so cosines do not count: only
    by how many standard deviations one stands above the query's mean over the index, and the
    index's size. Moving or stretching all cosines changes nothing. Fitted on searches of the
    bundled model, captions to pictures and pictures to pictures that people describe alike;
    ``tests/benchmarks/unfitted.py`` measures how far it can be trusted. Of ``n`` items none stands
    higher than the root of ``n - 1``, so in an index of a handful no relevance is high.
    """
    return ALIKE if source is target is not Modality.TEXT else WORDED
