"""Items as a list: everything about each, and one vector for it, for what looks at all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.filters import Filters
from retrieval.store.records import Entry
from retrieval.store.schema import WORDS_FROM
from retrieval.store.selecting import condition
from retrieval.types import Fingerprint, Modality

Rows = Callable[[str, dict[str, Any]], Any]
PAGE = 8_192  # items whose vectors are in memory at full length at once: some 30 MB


def entries(rows: Rows, modality: Modality, filters: Filters) -> list[Entry]:
    """Lists the items of a modality that pass a filter, by id; of a place, its whole box."""
    passes, values = condition(rows, filters)
    found = rows(
        "SELECT id, path, size, mtime_ns, content_hash, width, height, duration_s, taken_at "
        f"FROM items WHERE +modality = :modality AND {passes} ORDER BY id",
        values | {"modality": str(modality)},
    )
    return [
        Entry(row[0], row[1], Fingerprint(row[2], row[3]), row[4], row[5], row[6], row[7], row[8])
        for row in found
    ]


def means(
    rows: Rows, ids: Sequence[int], space: int, dim: int
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Gives one vector for each item: the mean of its parts, brought to length 1.

    Args:
        rows: Runs a statement.
        ids: Of items, ascending.
        space: Whose vectors.
        dim: Length of a vector.

    Returns:
        Ids ``(n,)`` of the items that have vectors, ascending, and ``(n, dim)`` float16.
    """
    wanted = np.asarray(ids, np.int64)
    found: list[NDArray[np.int64]] = []
    made: list[NDArray[np.float16]] = []
    for start in range(0, len(wanted), PAGE):
        some = wanted[start : start + PAGE]
        page = rows(
            "SELECT parts.item_id, vectors.vector FROM parts "
            "JOIN vectors ON vectors.part_id = parts.id AND vectors.space_id = :space "
            f"AND parts.ordinal < {WORDS_FROM} "
            "WHERE parts.item_id BETWEEN :first AND :last ORDER BY parts.item_id, parts.ordinal",
            {"space": space, "first": int(some[0]), "last": int(some[-1])},
        )
        owners = np.fromiter((row[0] for row in page), np.int64, len(page))
        keep = np.isin(owners, some)
        if not keep.any():
            continue
        joined = b"".join(row[1] for row, kept in zip(page, keep.tolist(), strict=True) if kept)
        matrix = np.frombuffer(joined, "<f2").reshape(-1, dim).astype(np.float32)
        own, starts = np.unique(owners[keep], return_index=True)
        sums = np.add.reduceat(matrix, starts, axis=0)
        lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        found.append(own)
        made.append((sums / lengths).astype(np.float16))
    if not found:
        return np.empty(0, np.int64), np.empty((0, dim), np.float16)
    return np.concatenate(found), np.concatenate(made)
