"""Tip-Adapter's cache: examples beside the names of classes, without training.

Zhang et al. 2021, arXiv 2111.03930: an item's logits for classes are those of its names plus, for
every example, ``alpha * exp(-beta * (1 - cosine))`` for the class of the example. That classifies
an item, which is no vector that an index could hold. What a search can use is the same on the side
of the query: near the name of a class, the mean of its examples is added to the query's vector (see
``retrieval.towers.adapted``). Items stay where they are.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.learn.adapter.measures import recall, reciprocal
from retrieval.towers.adapted import Head, apply
from retrieval.types import Vectors

ALPHAS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
BETAS = (1.0, 3.0, 5.5, 10.0)
USUAL = (100.0, 5.5)
"""Of the classifier without a validation split. The paper's alpha of 1 is for CLIP, whose cosines
with names lie close together; here they spread five times as far, and 100 was best for one to 16
drawings of a class, on others of the half that ``tests/benchmarks/adapters.py`` learns from."""

FOLD_ALPHAS = (0.0, 0.25, 0.5, 1.0, 2.0)
FOLD_BETAS = (5.0, 10.0, 20.0, 40.0)
FOLD_USUAL = (1.0, 20.0)
"""Of the fold without a validation split."""

NAME_SCALE = 100.0  # of cosines with names, as in the paper


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Examples of classes.

    Attributes:
        names: ``(c, dim)`` float32, unit rows: the classes' names as they are asked.
        examples: ``(n, dim)`` float32, unit rows.
        classes: ``(n,)`` class of each example.
    """

    names: Vectors
    examples: Vectors
    classes: NDArray[np.int64]

    def logits(self, items: Vectors, alpha: float, beta: float) -> NDArray[np.float32]:
        """Gives the classifier's logits ``(m, c)``."""
        owner = np.eye(len(self.names), dtype=np.float32)[self.classes]
        near = np.exp(-beta * (1 - items @ self.examples.T))
        return np.asarray(NAME_SCALE * items @ self.names.T + alpha * near @ owner, np.float32)

    def folded(self, alpha: float, beta: float) -> Head:
        """Gives the head of texts that adds each class's mean near its name."""
        owner = np.eye(len(self.names), dtype=np.float32)[self.classes]
        means = owner.T @ self.examples
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.float32(1e-12))
        return {
            "keys": self.names.astype(np.float32),
            "values": means.astype(np.float32),
            "alpha": np.array(alpha, np.float32),
            "beta": np.array(beta, np.float32),
        }


def accuracy(logits: NDArray[np.float32], classes: NDArray[np.int64]) -> float:
    """Gives the share of items whose class has the largest logit, in percent."""
    return recall(_ranks(logits, classes), 1)


def tune(
    cache: Cache, items: Vectors, classes: NDArray[np.int64]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Chooses alpha and beta on validation items: of the classifier, and of the fold.

    Args:
        cache: Of the training split.
        items: ``(m, dim)`` unit rows; without any, the usual numbers are taken.
        classes: ``(m,)``.

    Returns:
        Two pairs; the smallest of those that do equally well.
    """
    if not len(items):
        return USUAL, FOLD_USUAL
    single = max(
        itertools.product(ALPHAS, BETAS),
        key=lambda one: reciprocal(_ranks(cache.logits(items, *one), classes)),
    )
    fold = max(
        itertools.product(FOLD_ALPHAS, FOLD_BETAS),
        key=lambda one: reciprocal(
            _ranks(items @ apply(cache.folded(*one), cache.names).T, classes)
        ),
    )
    return single, fold


def _ranks(logits: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    own = logits[np.arange(len(logits)), classes]
    return np.asarray((logits > own[:, None]).sum(axis=1), np.int64)
