"""Tells words from keyboard noise by where the text tower puts them.

What no text tower was trained on lands in a corner of its space: letters at random, and scripts
that its tokenizer does not know. A plane cuts that corner off (a linear classifier, fitted by
``retrieval.learn.sense``), so that a search for such a thing can say that it has no answer, however
near some picture lies by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.shipped import read_arrays
from retrieval.types import Vectors

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sense:
    """The plane.

    Attributes:
        normal: ``(dim,)`` float32, pointing to where words lie.
        offset: Added to the product; words are above 0.
    """

    normal: Floats
    offset: float

    def made(self, texts: Vectors) -> NDArray[np.bool_]:
        """Tells which texts ``(n, dim)``, embedded as they are, are words that a tower knows."""
        return np.asarray(texts @ self.normal + self.offset > 0)


def read(path: Path) -> Sense | None:
    """Reads the plane of a model; ``None`` if the model has none.

    Raises:
        ModelError: If the file is damaged.
    """
    arrays = read_arrays(path, ("normal", "offset"))
    if arrays is None:
        return None
    normal, offset = arrays
    return Sense(normal.astype(np.float32), float(offset))
