"""How well and how fast the live index finds what an exact scan of the stored vectors finds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.evaluation.metrics import Floats, Ints
from retrieval.evaluation.significance import Interval, intervals
from retrieval.index import READ_ROWS, VectorIndex
from retrieval.store import Space, Store
from retrieval.types import Modality, Vectors

TIE = 1e-6  # cosines that differ less are equal: float32 sums in another order


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """One kind of item.

    Attributes:
        modality: Of the items.
        vectors: How many are searched.
        queries: How many were asked.
        k: How many hits each wanted.
        recall: Share of the exact best ``k`` that the index found, with its interval.
        p50_ms: Half of the searches took no longer.
        p95_ms: 95 of 100 took no longer.
        p99_ms: 99 of 100 took no longer.
        per_s: Searches a second, one after the other.
    """

    modality: Modality
    vectors: int
    queries: int
    k: int
    recall: Interval
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_s: float


def stored_queries(store: Store, space: Space, modality: Modality, count: int) -> Vectors:
    """Takes stored vectors from all over an index to ask with: ``(n, dim)``, always the same."""
    rows = store.sample(space, modality, count).astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def measure(
    store: Store, space: Space, modality: Modality, queries: Vectors, k: int
) -> IndexRecall:
    """Asks the index and scans the store, and compares.

    A hit counts as found if its exact cosine is as high as that of the ``k``-th best, so that equal
    ones may stand for one another. The scan reads the store page by page and keeps the best.

    Args:
        store: Opened for reading.
        space: Whose vectors.
        modality: Of the items.
        queries: ``(n, dim)`` unit rows.
        k: How many hits each wants; fewer if the index is smaller.

    Raises:
        EvaluationError: If there is nothing to ask, or nothing to find.
    """
    index = VectorIndex(store, space, modality)
    if not index.size or not len(queries):
        raise EvaluationError(f"there is nothing to ask the index for among its {modality} vectors")
    k = min(k, index.size)
    index.search(queries[0], k)  # maps the files; who asks once does not feel that either
    took: list[float] = []
    found: list[Ints] = []
    for query in queries:
        began = time.perf_counter()
        found.append(index.search(query, k)[1])
        took.append(time.perf_counter() - began)
    share = _share(store, space, modality, queries, found, k)
    (recall,) = intervals(share[:, None], np.arange(len(share)))
    p50, p95, p99 = (1e3 * np.percentile(took, [50, 95, 99])).tolist()
    return IndexRecall(
        modality, index.size, len(queries), k, recall, p50, p95, p99, len(took) / sum(took)
    )


def _share(
    store: Store,
    space: Space,
    modality: Modality,
    queries: Vectors,
    found: Sequence[Ints],
    k: int,
) -> Floats:
    """Gives the share of the exact best that was found, per query."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    own = [dict.fromkeys(one.tolist(), -np.inf) for one in found]
    next_id = 1
    while True:
        ids, rows = store.vectors(space, modality, first=next_id, limit=READ_ROWS)
        if not len(ids):
            break
        cosines = queries @ rows.astype(np.float32).T
        both = np.concatenate([best, cosines], axis=1)
        best = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
        place = {vector_id: at for at, vector_id in enumerate(ids.tolist())}
        for row, hits in enumerate(own):
            for vector_id in hits.keys() & place.keys():
                hits[vector_id] = float(cosines[row, place[vector_id]])
        next_id = int(ids[-1]) + 1
    least = best.min(axis=1)
    right = [
        sum(cosine >= edge - TIE for cosine in hits.values())
        for hits, edge in zip(own, least.tolist(), strict=True)
    ]
    return np.array(right, np.float64) / k
