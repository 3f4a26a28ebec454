"""How well texts find what they are said of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Modality, Vectors

AT_ONCE = 1_000  # queries


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Items of one modality with texts, as vectors of the base.

    Attributes:
        modality: Of the items.
        items: ``(n, dim)`` float32, unit rows.
        texts: ``(m, dim)`` float32, unit rows.
        owner: ``(m,)``: text j is said of item ``owner[j]``, ascending; every item has one.
        groups: ``(n,)``: items of one group are answers to each other's texts.
        kinds: ``(m,)``: numbers of the texts; equal words have one number.
        said: The ``m`` texts themselves, or nothing where only their vectors are needed.
    """

    modality: Modality
    items: Vectors
    texts: Vectors
    owner: NDArray[np.int64]
    groups: NDArray[np.int64]
    kinds: NDArray[np.int64]
    said: tuple[str, ...] = ()


def places(texts: Vectors, items: Vectors, pairs: Pairs) -> NDArray[np.int64]:
    """Gives the place of each text's best answer among all items, from 0; ties count for it.

    Args:
        texts: ``(m, dim)``, the texts of ``pairs`` in some space.
        items: ``(n, dim)``, its items in the same space.
        pairs: Who belongs to whom.
    """
    found = []
    for start in range(0, len(texts), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        cosines = texts[rows] @ items.T
        right = pairs.groups[pairs.owner[rows]][:, None] == pairs.groups[None]
        best = np.where(right, cosines, -2.0).max(axis=1)
        found.append(((cosines > best[:, None]) & ~right).sum(axis=1))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def named(texts: Vectors, items: Vectors, pairs: Pairs) -> NDArray[np.int64]:
    """Gives the place of each item's own text among all different texts, from 0.

    For classes, a place of 0 means that the item is told right.
    """
    kinds, first = np.unique(pairs.kinds, return_index=True)
    cosines = items @ texts[first].T
    own = np.zeros(cosines.shape, bool)
    own[pairs.owner, np.searchsorted(kinds, pairs.kinds)] = True
    best = np.where(own, cosines, -2.0).max(axis=1)
    return np.asarray(((cosines > best[:, None]) & ~own).sum(axis=1), np.int64)


def recall(places: NDArray[np.int64], k: int) -> float:
    """Gives the share of places below ``k``, in percent; 0 of nothing."""
    return 100 * float((places < k).mean()) if len(places) else 0.0


def reciprocal(places: NDArray[np.int64]) -> float:
    """Gives the mean reciprocal rank, 0..1: smoother than recall, for what chooses."""
    return float((1 / (1 + places)).mean()) if len(places) else 0.0
