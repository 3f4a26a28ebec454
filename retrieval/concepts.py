"""Concepts: directions in the space, learned from a few examples and looked for by name.

Pictures, sounds and texts lie around means of their own (Liang et al. 2022, "Mind the gap", arXiv
2203.02053), so examples are first centred: the mean of their modality is subtracted. Otherwise a
concept of pictures would find pictures rather than its thing, and a mixed one neither.
"""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.examples import Example
from retrieval.store import Concept, Space, Store
from retrieval.types import Modality, Vectors

SHRINKAGE = 160.0
"""How much the background's covariance is smoothed for a single example, in mean variances.

It is divided by the number of examples, for the more there are, the better it is known in what they
differ from the background; the plain mean is the limit of large values. Mean average precision over
30 nouns on Flickr8k's split `dev`, from 1, 4 and 16 pictures of `train`: 25.6, 32.4, 41.1 %; at 40
it is 25.3, 32.3, 40.9, at 640 25.6, 31.9, 40.3, and by the mean 25.5, 31.5, 38.6. See
`tests/benchmarks/results/concepts.json`.
"""
AWAY = 0.25
"""Weight of what sets the counter-examples apart from the examples.

Counter-examples are mostly look-alikes, and what looks away from them looks away from the thing,
too. With four of each, precision among look-alikes rises from 61.8 without them to 63.7, 64.7 and
65.0 % at 0.25, 0.5 and 1, and among everything falls from 35.8 to 33.9, 30.3 and 22.6.
"""
FIRM = 16  # vectors at which a modality's mean is believed by half; few may all be of one kind
BACKGROUND = 4096  # vectors of each modality: eight to a dimension, and read in 0.2 s


def learn(
    positives: Vectors, negatives: Vectors | None = None, background: Vectors | None = None
) -> Vectors:
    """Learns the direction in which a few examples lie.

    A linear discriminant between the examples and the background, whose covariance is smoothed the
    more the fewer examples there are (Friedman 1989, "Regularized discriminant analysis").

    Args:
        positives: ``(n, dim)`` centred examples, see ``centred``; at least one.
        negatives: ``(m, dim)`` centred examples of what is not meant.
        background: ``(b, dim)`` centred vectors of anything; without, the plain mean is taken.

    Returns:
        ``(dim,)`` float32 of length 1.

    Raises:
        QueryError: If the examples cancel each other out.
    """
    direction = positives.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if length < 1e-6:
        raise QueryError("the examples cancel each other out; give some that have more in common")
    if negatives is not None and len(negatives):
        away = negatives.mean(axis=0, dtype=np.float64)
        own = direction / length
        direction = direction - AWAY * (away - (away @ own) * own)
    if background is not None and len(background):
        rows = background.astype(np.float64)
        covariance = rows.T @ rows / len(rows)
        dim = len(direction)
        smoothing = SHRINKAGE / len(positives) * float(np.trace(covariance)) / dim
        if smoothing > 0:
            direction = np.linalg.solve(covariance + smoothing * np.eye(dim), direction)
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def centred(vectors: Vectors, mean: NDArray[np.float32]) -> Vectors:
    """Subtracts a mean and gives the rows length 1 again.

    Args:
        vectors: ``(n, dim)``.
        mean: ``(dim,)``, of a modality.

    Returns:
        ``(n, dim)`` float32.
    """
    rows = vectors - mean
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def made(
    store: Store,
    space: Space,
    name: str,
    positives: Sequence[Example],
    negatives: Sequence[Example],
) -> Concept:
    """Learns a concept from files, against what the index holds; stores nothing.

    Args:
        store: An index; a sample of its vectors is the background.
        space: Of the examples' vectors.
        name: As ``query.concept_name`` gives it.
        positives: At least one; a file that is given twice counts once.
        negatives: What is not meant.

    Raises:
        QueryError: If there are no examples, one is on both sides, or they cancel out.
    """
    if not positives:
        raise QueryError(f"the concept {name} needs at least one example: give a file")
    positives = list({one.path: one for one in positives}.values())
    negatives = list({one.path: one for one in negatives}.values())
    if both := {one.path for one in positives} & {one.path for one in negatives}:
        path = min(both).decode("utf-8", "surrogateescape")
        raise QueryError(f"{path} cannot be an example and a counter-example; leave out one")
    samples = {
        modality: store.sample(space, modality, BACKGROUND).astype(np.float32)
        for modality in store.modalities(space)
    }
    means = {modality: _mean(rows) for modality, rows in samples.items()}
    background = [centred(rows, means[modality]) for modality, rows in samples.items()]
    return Concept(
        name=name,
        vector=learn(
            _rows(positives, means, space.dim),
            _rows(negatives, means, space.dim),
            np.concatenate(background) if background else None,
        ),
        positives=tuple(one.path for one in positives),
        negatives=tuple(one.path for one in negatives),
        created_s=int(time.time()),
    )


def find(store: Store, space: Space, name: str) -> Concept:
    """Looks up a concept by name.

    Raises:
        QueryError: If there is none in this space; names near ones, or the model that has it.
    """
    concepts = {concept.name: concept for concept in store.concepts(space)}
    if name in concepts:
        return concepts[name]
    for other in store.spaces():
        if any(concept.name == name for concept in store.concepts(other)):
            raise QueryError(
                f"the concept {name} was made with another model, {other.model} ({other.name}); "
                f"make it again with `anyseek concept add {name} FILE...`"
            )
    near = difflib.get_close_matches(name, concepts, n=3)
    advice = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "`anyseek concept list` shows those that there are"
    )
    raise QueryError(f"there is no concept {name}; {advice}")


def read_as(concept: Concept, target: Modality) -> Modality:
    """Says as which kind of query a concept is judged among items of a modality.

    Among things of its examples' kind it stands out as words do. What it finds among others lies as
    far from it as from the examples themselves, and by the words' map nothing there would be
    relevant; `tests/benchmarks/concept_relevance.py` compares the two.
    """
    from retrieval.media import modality_of

    kinds = Counter(kind for path in concept.positives if (kind := modality_of(path)) is not None)
    if not kinds or target in kinds:
        return Modality.TEXT
    return kinds.most_common(1)[0][0]


def nearest(
    store: Store, space: Space, vector: Vectors, *, k: int, without: Collection[bytes] = ()
) -> dict[Modality, list[tuple[bytes, float]]]:
    """Gives the items nearest to a direction, by modality, since cosines do not compare across.

    Args:
        store: An index.
        space: Of the vector.
        vector: ``(dim,)`` of length 1.
        k: At most so many items of each modality.
        without: Paths of items that are passed over, as the examples are.

    Returns:
        Paths with the cosine of their best part, best first.
    """
    from retrieval.index import VectorIndex

    found: dict[Modality, list[tuple[bytes, float]]] = {}
    for modality in store.modalities(space):
        index = VectorIndex(store, space, modality)
        reach = k
        while True:  # an item's parts may fill the first places
            scores, ids = index.search(vector, reach)
            rows = store.found(ids.tolist())
            best: dict[bytes, float] = {}
            for score, vector_id in zip(scores.tolist(), ids.tolist(), strict=True):
                if rows[vector_id].path not in without:
                    best.setdefault(rows[vector_id].path, score)
            if len(best) >= k or reach >= index.size:
                break
            reach *= 4
        found[modality] = list(best.items())[:k]
    return found


def _mean(rows: Vectors) -> NDArray[np.float32]:
    """Gives the mean of a modality, drawn to 0 where there are few vectors to tell it from."""
    return np.asarray(rows.sum(axis=0) / (len(rows) + FIRM), np.float32)


def _rows(
    examples: Sequence[Example], means: Mapping[Modality, NDArray[np.float32]], dim: int
) -> Vectors:
    nothing = np.zeros(dim, np.float32)  # the index has nothing of that modality
    rows = [centred(one.vector, means.get(one.modality, nothing)) for one in examples]
    return np.concatenate(rows) if rows else np.empty((0, dim), np.float32)
