"""Fits the map from cosines to the probability that an item is a match."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def fit_logistic(
    matches: Floats, others: Floats, *, share: float = 0.5, steps: int = 100
) -> tuple[float, float]:
    """Fits ``relevance = 1 / (1 + exp(-(a * cosine + b)))`` (Platt 1999) by Newton's method.

    Args:
        matches: Cosines of pairs that belong together.
        others: Cosines of pairs that do not.
        share: How much of the evidence the matches make up, whatever their number: the prior
            probability of a match among the pairs that a person looks at.
        steps: At most so many Newton steps.

    Returns:
        ``a`` and ``b``.
    """
    x = np.concatenate([matches, others]).astype(np.float64)
    truth = np.concatenate([np.ones(len(matches)), np.zeros(len(others))])
    weight = np.concatenate(
        [
            np.full(len(matches), share / len(matches)),
            np.full(len(others), (1 - share) / len(others)),
        ]
    )
    centre, spread = float(x.mean()), float(x.std()) + 1e-9
    design = np.stack([(x - centre) / spread, np.ones_like(x)], axis=1)
    solution = np.zeros(2)
    for _ in range(steps):
        guess = 1.0 / (1.0 + np.exp(-np.clip(design @ solution, -60, 60)))
        gradient = design.T @ (weight * (guess - truth)) + 1e-6 * solution
        curvature = (design * (weight * guess * (1 - guess))[:, None]).T @ design
        change = np.linalg.solve(curvature + 1e-6 * np.eye(2), gradient)
        solution -= np.clip(change, -2, 2)
        if np.abs(change).max() < 1e-9:
            break
    a = float(solution[0] / spread)
    return a, float(solution[1] - a * centre)


def ranked_pairs(
    queries: Floats, targets: Floats, owner: NDArray[np.int64], *, among: int = 20
) -> tuple[Floats, Floats]:
    """Gives the cosines that a person meets: a query's match, and the best of what does not match.

    Random pairs would be far too easy: a search shows only the nearest. So the others are the
    ``among`` nearest targets that do not belong to the query.

    Args:
        queries: ``(n, dim)`` unit rows.
        targets: ``(m, dim)`` unit rows.
        owner: ``(n,)``: query i matches target ``owner[i]``.
        among: Others a query.

    Returns:
        ``(n,)`` cosines of matches and ``(n * among,)`` of others.
    """
    matches = np.einsum("ij,ij->i", queries, targets[owner])
    others: list[Floats] = []
    among = min(among, len(targets) - 1)
    for start in range(0, len(queries), 500):
        rows = slice(start, start + 500)
        cosines = queries[rows] @ targets.T
        cosines[np.arange(len(cosines)), owner[rows]] = -2.0
        others.append(-np.partition(-cosines, among - 1, axis=1)[:, :among].ravel())
    return matches, np.concatenate(others)


def alike_pairs(
    pictures: Floats, sentences: Floats, owner: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Gives cosines of pictures that people describe alike, and of pictures at random.

    Two views of one picture would be far too alike: who asks for similar pictures wants others of
    the same kind. The match of a picture is the other one whose captions, averaged as sentence
    features, are nearest to its own.

    Args:
        pictures: ``(n, dim)`` unit rows.
        sentences: ``(m, k)`` unit rows: features of the captions, made without any picture.
        owner: ``(m,)``: caption i describes picture ``owner[i]``.

    Returns:
        ``(n,)`` cosines of matches and ``(n * (n - 2),)`` of all other pairs.
    """
    described = np.zeros((len(pictures), sentences.shape[1]), np.float32)
    np.add.at(described, owner, sentences)
    described /= np.linalg.norm(described, axis=1, keepdims=True)
    likeness = described @ described.T
    np.fill_diagonal(likeness, -2.0)
    nearest = likeness.argmax(axis=1)
    cosines = pictures @ pictures.T
    rows = np.arange(len(pictures))
    others = np.ones_like(cosines, dtype=bool)
    others[rows, rows] = others[rows, nearest] = False
    return cosines[rows, nearest], cosines[others]


def places(queries: Floats, targets: Floats, owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives the place of each query's match among all targets, counted from 0.

    Args:
        queries: ``(n, dim)`` unit rows.
        targets: ``(m, dim)`` unit rows.
        owner: ``(n,)``: query i matches target ``owner[i]``.
    """
    cosines = queries @ targets.T  # one product: the match must not lose to itself by rounding
    own = cosines[np.arange(len(queries)), owner]
    return np.asarray((cosines > own[:, None]).sum(axis=1), np.int64)
