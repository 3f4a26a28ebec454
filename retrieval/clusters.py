"""Vectors in groups of their like: spherical k-means, and a name for each group."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.types import Vectors
from retrieval.vocabulary.nearest import nearest_words

SEED = 0
ROUNDS = 50  # at most; a few thousand pictures settle in about 15
STARTS = 4  # of which the best counts: k-means depends on where it begins
TRAINED_ON = 50_000  # vectors, evenly spread; centres of fifty groups hardly move with more
BLOCK = 16_384
MOST = 50  # groups that are made unasked: a person looks through no more
WORDS = 3

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """Vectors in groups.

    Attributes:
        of: ``(n,)``, the group of each vector; the largest group is 0.
        centres: ``(k, dim)`` float32 unit rows, in the space with the mean taken off.
        nearness: ``(n,)`` float32, cosine of each vector with its centre, both without the mean.
        mean: ``(dim,)`` float32, what was taken off.
    """

    of: Numbers
    centres: Vectors
    nearness: NDArray[np.float32]
    mean: NDArray[np.float32]


def suggested(count: int) -> int:
    """Gives a number of groups where none is asked for: the root of half the count, 2 to 50.

    A rule of thumb (Mardia, Kent, Bibby 1979, section 13.1.4), in which groups and their sizes grow
    alike.
    """
    return max(1, min(MOST, count, max(2, round(math.sqrt(count / 2)))))


def clustered(rows: NDArray[np.floating], k: int, *, seed: int = SEED) -> Clustering:
    """Groups vectors by direction (spherical k-means, Dhillon and Modha 2001).

    The mean of all is taken off before: vectors of one modality have much in common, which tells
    none apart. The same vectors give the same groups.

    Args:
        rows: ``(n, dim)``, unit length, of any floating type.
        k: Groups, 1..n.
        seed: Of the starts (k-means++, Arthur and Vassilvitskii 2007).

    Raises:
        QueryError: If there are fewer vectors than groups, or no groups.
    """
    if k < 1:
        raise QueryError(f"the number of groups must be at least 1, not {k}")
    if k > len(rows):
        raise QueryError(f"{len(rows)} files cannot make {k} groups; ask for fewer with -n")
    mean = rows.mean(axis=0, dtype=np.float32)
    step = -(-len(rows) // TRAINED_ON)
    sample = _centred(rows[::step] if len(rows) // step >= k else rows, mean)
    generator = np.random.default_rng(seed)
    tries = [_settled(sample, _spread(sample, k, generator)) for _ in range(STARTS)]
    centres = max(tries, key=lambda found: found[1])[0]
    of, nearness = _assigned(rows, mean, centres)
    sizes = np.bincount(of, minlength=k)
    order = np.argsort(-sizes, kind="stable")
    place = np.empty(k, np.int64)
    place[order] = np.arange(k)
    return Clustering(place[of], centres[order], nearness, mean)


def _centred(rows: NDArray[np.floating], mean: NDArray[np.float32]) -> Vectors:
    moved = rows.astype(np.float32) - mean
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6))


def _spread(rows: Vectors, k: int, generator: np.random.Generator) -> Vectors:
    """Chooses the first centres, each with a chance that grows with its distance from others."""
    chosen = [int(generator.integers(len(rows)))]
    far = np.maximum(1 - rows @ rows[chosen[0]], 0)
    far[chosen[0]] = 0
    while len(chosen) < k:
        total = float(far.sum())
        if total > 1e-9:
            at = int(np.searchsorted(np.cumsum(far), generator.random() * total, "right"))
            at = min(at, len(rows) - 1)
        else:  # all that is left is the same as something chosen
            at = int(np.setdiff1d(np.arange(len(rows)), chosen)[0])
        chosen.append(at)
        far = np.minimum(far, np.maximum(1 - rows @ rows[at], 0))
        far[chosen] = 0
    return rows[chosen].copy()


def _settled(rows: Vectors, centres: Vectors) -> tuple[Vectors, float]:
    """Moves centres to the middle of what is nearest to them, until nothing changes."""
    of = np.full(len(rows), -1)
    for _ in range(ROUNDS):
        cosines = rows @ centres.T
        now = cosines.argmax(axis=1)
        best = cosines[np.arange(len(rows)), now]
        # an empty group takes over the vector that its own group fits least
        for empty in np.flatnonzero(np.bincount(now, minlength=len(centres)) == 0):
            crowded = np.bincount(now, minlength=len(centres))[now] > 1
            lost = int(np.where(crowded, best, np.inf).argmin())
            now[lost], best[lost] = empty, 1.0
        if (now == of).all():
            break
        of = now
        sums = np.zeros_like(centres)
        np.add.at(sums, of, rows)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), centres)
    return np.asarray(centres, np.float32), float((rows * centres[of]).sum())


def _assigned(
    rows: NDArray[np.floating], mean: NDArray[np.float32], centres: Vectors
) -> tuple[Numbers, NDArray[np.float32]]:
    of = np.empty(len(rows), np.int64)
    nearness = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        some = slice(start, start + BLOCK)
        cosines = _centred(rows[some], mean) @ centres.T
        of[some] = cosines.argmax(axis=1)
        nearness[some] = cosines.max(axis=1)
    return of, nearness


def named(
    found: Clustering,
    words: Sequence[str],
    vectors: Vectors,
    *,
    without: Collection[str] = (),
) -> list[tuple[str, ...]]:
    """Names each group by plain words that it is near to, and the collection as a whole is not.

    Args:
        found: The groups.
        words: ``n`` of them.
        vectors: ``(n, dim)`` float32, the words'.
        without: Words that are not said.

    Returns:
        Up to three words for each group.
    """
    return [
        tuple(word.text for word in nearest_words(centre, words, vectors, without=without, k=WORDS))
        for centre in found.centres
    ]
