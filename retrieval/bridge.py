"""Carries a vector from one space to another over words that both know.

A picture in the space of a CLIP model has no place in the space of a CLAP model, so it finds no
sounds there. But both models embed words: what the picture is near to in its own space says which
words, and those words' vectors in the other space say where to look. This is the convex
combination of Norouzi et al. 2013, arXiv 1312.5650, with a plain vocabulary in place of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Tower, Vectors
from retrieval.vocabulary import vocabulary

if TYPE_CHECKING:
    from pathlib import Path

Vector = NDArray[np.float32]

TOP = 5
"""Words that a vector is carried over by.

Chosen with ``TEMPERATURE`` and ``HELD_BACK`` on photographs of Flickr8k and clips of ESC-50 by
``tests/benchmarks/bridge.py``, not on the pairs that it measures.
"""
TEMPERATURE = 0.4
"""Of the softmax, in standard deviations of the cosines between a vector and all the words.

Some models' cosines with words lie within 0.1 of each other, others' within 1: the spread makes one
temperature fit both.
"""
HELD_BACK = 1.0
"""How much of the mean of its modality a vector loses before it is compared with words."""


@dataclass(frozen=True, slots=True, eq=False)
class Crossed:
    """A vector carried to another space.

    Attributes:
        vector: ``(dim there,)`` float32, unit length.
        words: Over which it went, the weightiest first.
        weights: ``(len(words),)`` float32, adding up to 1.
    """

    vector: Vector
    words: tuple[str, ...]
    weights: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Shore:
    """A space as seen by the bridge.

    Attributes:
        space: Name of the space.
        texts: Its text tower; used only if the words' vectors are not there yet.
        mean: ``(dim,)``, the mean vector of the example's modality in an index, see
            ``retrieval.vocabulary.nearest.mean_of``; ``None`` where it is not known. Only the
            space that is left needs it.
    """

    space: str
    texts: Tower
    mean: NDArray[np.floating] | None = None


def crossing(
    example: NDArray[np.floating], here: Shore, there: Shore, *, cache: Path | None = None
) -> Crossed:
    """Carries an example's vector to another space, over the words of ``retrieval.vocabulary``.

    Args:
        example: ``(dim here,)`` or ``(1, dim here)``, a unit vector of the first space.
        here: The space it lies in.
        there: The space it is to be searched in.
        cache: Folder of the words' vectors; the platform's cache folder by default.

    Raises:
        ValueError: If the shapes do not fit.
    """
    words, vectors_here = vocabulary(here.space, here.texts, cache=cache)
    _, vectors_there = vocabulary(there.space, there.texts, cache=cache)
    rows, weights = weigh(np.asarray(example).reshape(-1), vectors_here, mean=here.mean)
    return Crossed(
        vector=_carried(rows, weights, vectors_there),
        words=tuple(words[row] for row in rows.tolist()),
        weights=weights,
    )


def bridge(
    vector: NDArray[np.floating],
    words_here: Vectors,
    words_there: Vectors,
    *,
    mean: NDArray[np.floating] | None = None,
    top: int = TOP,
    temperature: float = TEMPERATURE,
) -> Vector:
    """Gives a vector's place in another space: ``(dim there,)`` float32, unit length.

    Args:
        vector: ``(dim here,)``, unit length.
        words_here: ``(n, dim here)`` unit rows: words in the vector's own space.
        words_there: ``(n, dim there)`` unit rows: the same words in the other space.
        mean: ``(dim here,)``, the mean of vectors of the same modality in an index; none is held
            back without it.
        top: Words that count.
        temperature: Of their softmax, see ``TEMPERATURE``.

    Raises:
        ValueError: If the shapes do not fit, or a number is out of its range.
    """
    if len(words_here) != len(words_there):
        raise ValueError(f"{len(words_here)} words here are {len(words_there)} words there")
    rows, weights = weigh(vector, words_here, mean=mean, top=top, temperature=temperature)
    return _carried(rows, weights, words_there)


def weigh(
    vector: NDArray[np.floating],
    words: Vectors,
    *,
    mean: NDArray[np.floating] | None = None,
    top: int = TOP,
    temperature: float = TEMPERATURE,
) -> tuple[NDArray[np.int64], Vector]:
    """Says over which words a vector goes: their rows, the nearest first, and their weights.

    Equally near words come in the order of their rows, so the answer is the same on every machine.

    Returns:
        ``(k,)`` int64 and ``(k,)`` float32 that add up to 1, where k is ``top`` or all words.
    """
    if vector.shape != words.shape[1:] or not len(words):
        raise ValueError(f"a vector {vector.shape} has no place among words {words.shape}")
    if top < 1 or not temperature > 0:
        raise ValueError("a bridge needs one word and a temperature above zero")
    query = np.asarray(vector, np.float64)
    if mean is not None:
        query = query - HELD_BACK * np.asarray(mean, np.float64)
    query /= max(float(np.linalg.norm(query)), 1e-12)
    cosines = (words @ query.astype(np.float32)).astype(np.float64)
    rows = np.argsort(-cosines, kind="stable")[:top]
    scale = temperature * max(float(cosines.std()), 1e-6)
    raised = np.exp((cosines[rows] - cosines[rows[0]]) / scale)
    return rows, np.asarray(raised / raised.sum(), np.float32)


def _carried(rows: NDArray[np.int64], weights: Vector, words: Vectors) -> Vector:
    combined = weights.astype(np.float64) @ words[rows].astype(np.float64)
    return np.asarray(combined / max(float(np.linalg.norm(combined)), 1e-12), np.float32)
