"""The words that a picture, a sound or a text is near to.

Some words are near to everything of a modality: the cosines of pictures with "brown dog" differ
less than their mean lies above zero. So a word is held back by what it has in common with the
modality as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers import bundled
from retrieval.types import Modality, Vectors

if TYPE_CHECKING:
    from retrieval.store import Space, Store

K = 5
HELD_BACK = 0.75
"""How much of its cosine with the modality's mean a word loses.

Measured against 0, 0.5 and 1, z-scores, CSLS and inverted softmax: see
``tests/benchmarks/explain.py``. They differ little; this one needs a mean and nothing else.
"""
SAME = 0.9  # words with this cosine say the same: skier and skiing
SAMPLE = 1_000  # vectors of an index that stand for its modality
FEWEST = 50  # of them: fewer would hold back what a small collection is about


@dataclass(frozen=True, slots=True)
class Word:
    """A word or short phrase near to something.

    Attributes:
        text: In lower case.
        score: The cosine, less ``HELD_BACK`` of the word's cosine with the modality's mean.
    """

    text: str
    score: float


def nearest_words(
    item: NDArray[np.floating],
    words: Sequence[str],
    vectors: Vectors,
    *,
    mean: NDArray[np.float32] | None = None,
    without: Collection[str] = (),
    k: int = K,
) -> tuple[Word, ...]:
    """Names what an item is near to, nearest first.

    A word that says the same as one before it, or holds the same words and more, is left out.

    Args:
        item: ``(dim,)``, unit length.
        words: ``n`` of them.
        vectors: ``(n, dim)`` float32, the words'.
        mean: ``(dim,)``, of vectors of the item's modality; nothing is held back without it.
        without: Words that are not named.
        k: At most so many.
    """
    query = item if mean is None else item - HELD_BACK * mean
    scores = vectors @ query.astype(np.float32)
    chosen: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if len(chosen) == k:
            break
        if words[index] not in without and not any(
            float(vectors[index] @ vectors[other]) >= SAME or _nested(words[index], words[other])
            for other in chosen
        ):
            chosen.append(index)
    return tuple(Word(words[index], float(scores[index])) for index in chosen)


def _nested(one: str, other: str) -> bool:
    first, second = set(one.split()), set(other.split())
    return first <= second or second <= first


def mean_of(modality: Modality, store: Store, space: Space) -> NDArray[np.float32] | None:
    """Gives the mean vector of a modality: the bundled model's own, else that of the index.

    The bundled model's means come with it, so that its words do not depend on the collection.

    Returns:
        ``(dim,)`` float32, shorter than 1; ``None`` if the index has under ``FEWEST`` vectors.
    """
    known = _shipped(modality, space.name)
    if known is not None:
        return known
    _, rows = store.vectors(space, modality, limit=SAMPLE)
    return rows.mean(axis=0, dtype=np.float32) if len(rows) >= FEWEST else None


def _shipped(modality: Modality, space: str) -> NDArray[np.float32] | None:
    try:
        if bundled.card().space != space:
            return None
        path = bundled.WEIGHTS / "means.npz"
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive[modality.value], np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, ModelError):
        return None
