"""Cosines become relevances: the one number between 0 and 1 that people see.

A raw cosine means nothing to a person: a perfect match of words and picture may have 0.3, and a
passage of text with little to do with a query 0.5. A logistic map per kind of query and kind of
target (Platt 1999, "Probabilistic outputs for support vector machines"), fitted once per model,
makes them comparable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Calibration:
    """The map ``relevance = 1 / (1 + exp(-(a * cosine + b)))``, rising with the cosine.

    Attributes:
        a: Slope, above 0.
        b: Offset.
    """

    a: float
    b: float

    def relevance(self, cosine: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps cosines to relevances in 0..1, element by element."""
        logit = self.a * cosine.astype(np.float64) + self.b  # float32 would overflow at -88
        return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float32)


UNFITTED = Calibration(a=10.0, b=-3.0)
"""For kinds of query and target that a model has no figures for: 0.5 at a cosine of 0.3."""
