"""A query put into the words of several templates: their vectors, their weights, their mean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.prompts import PromptSet
from retrieval.types import Tower, Vectors

Weights = NDArray[np.float32]
"""A vector ``(t,)`` of float32 that is nowhere negative and adds up to 1."""

POOL = 2_000  # vectors of an index by which templates are weighed
TOP = 0.01  # part of the pool that is taken to answer the query
TEMPERATURE = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Phrased:
    """The renderings of one query, ready to be compared and to be explained.

    Attributes:
        templates: The renderings, that is what the text tower read, in the order of the set.
        vectors: ``(t, dim)`` float32, unit rows; row ``i`` belongs to ``templates[i]``.
        weights: ``(t,)`` float32, adding up to 1.
    """

    templates: tuple[str, ...]
    vectors: Vectors
    weights: Weights

    @property
    def vector(self) -> Vectors:
        """``(1, dim)`` float32: the weighted mean of the rows, brought to length 1.

        Equal weights give the ensemble of Radford et al. 2021, arXiv 2103.00020, section 3.1.4.
        """
        mean = self.weights[None] @ self.vectors
        length = max(float(np.linalg.norm(mean)), 1e-12)  # opposite vectors cancel to nothing
        return np.asarray(mean / length, np.float32)


def phrase(query: str, prompts: PromptSet, tower: Tower) -> Phrased:
    """Embeds a query through every template of a set, all weighing the same.

    Args:
        query: Put in literally.
        prompts: Whose templates; those for the query's script.
        tower: Of texts.
    """
    renderings = prompts.render(query)
    vectors = tower.embed([tower.prepare(text) for text in renderings])
    count = len(renderings)
    return Phrased(tuple(renderings), vectors, np.full(count, 1 / count, np.float32))


def weigh(phrased: Phrased, pool: Vectors, *, background: Vectors | None = None) -> Phrased:
    """Weighs the renderings of a query by what they find, without any labels.

    After Allingham et al. 2023 (zero-shot prompt ensembling, ZPE, arXiv 2302.06235): a template
    counts for more if the items that answer it stand out. A template's score is the mean cosine of
    the ``TOP`` part of the pool that is nearest to it, less its bias, that is what it scores with
    anything: its mean cosine with the pool, averaged with that of the background if there is one.
    The weights are the softmax of the scores. The paper takes the best of many classes for each
    picture where this takes the best pictures for the one query that there is.

    Args:
        phrased: Its weights are replaced.
        pool: ``(n, dim)``, vectors of items of the modality that is searched; some hundreds do.
        background: ``(m, dim)``, vectors of items from elsewhere.

    Returns:
        The same renderings, weighed; as they were if the pool is empty.
    """
    if not len(pool):
        return phrased
    scores = pool @ phrased.vectors.T
    bias = scores.mean(axis=0)
    if background is not None and len(background):
        bias = (bias + (background @ phrased.vectors.T).mean(axis=0)) / 2
    count = max(1, round(TOP * len(pool)))
    best = np.partition(scores, len(pool) - count, axis=0)[len(pool) - count :].mean(axis=0)
    gain = (best - bias) / TEMPERATURE
    weights = np.exp(gain - gain.max())
    return replace(phrased, weights=np.asarray(weights / weights.sum(), np.float32))
