"""How near wrong pictures usually come to a query: what a right one has to stand out from.

Many pictures are nearly right for "a man in a red shirt", few for "a lighthouse in a storm", and so
the same cosine means less for the former. How far the pictures of an index come near tells little
of that, since the right one is among them, or few of any kind. So the model brings some typical
pictures along, made by ``retrieval.learn.rivals`` of those that it was trained on. This is what
inverted softmax (Smith et al. 2017, arXiv 1702.03859) does with a bank of targets, except that it
changes how much is thought of a query's hits, and not their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.shipped import read_arrays
from retrieval.types import Vectors

Floats = NDArray[np.float32]

FILE = "rivals.npz"

SHARPNESS = 30.0
"""Of the mean of cosines: at 0 all pictures count alike, at infinity only the nearest does.

Answerable captions against others are told apart best at 30; 20 and 50 lose 0.002 to 0.005
of AUROC.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """Typical pictures.

    Attributes:
        pictures: ``(k, dim)`` float32, of any length: the shorter, the more unlike each other are
            those that it stands for.
        shares: ``(k,)`` float32: natural logarithms of how many each stands for.
        least: Queries that nothing here comes near to count as if it came so near: what the
            pictures do not show may lie in others by the thousand.
        usual: What captions have in the mean.
    """

    pictures: Floats
    shares: Floats
    least: float
    usual: float

    def above(self, queries: Vectors) -> Floats:
        """Tells by how much nearer than usual wrong pictures come to queries ``(n, dim)``.

        Returns:
            ``(n,)`` differences of cosines; 0 is usual.
        """
        exponents = SHARPNESS * (queries @ self.pictures.T) + self.shares
        highest = exponents.max(axis=1, keepdims=True)
        summed = np.log(np.exp(exponents - highest).sum(axis=1)) + highest[:, 0]
        near = np.maximum(summed / SHARPNESS, self.least)
        return np.asarray(near - self.usual, np.float32)


def read(path: Path) -> Rivals | None:
    """Reads a model's typical pictures; ``None`` if it has none.

    Raises:
        ModelError: If the file is damaged.
    """
    arrays = read_arrays(path, ("pictures", "shares", "least", "usual"))
    if arrays is None:
        return None
    pictures, shares, least, usual = arrays
    return Rivals(
        pictures.astype(np.float32), shares.astype(np.float32), float(least), float(usual)
    )
