"""The index against an exact scan: a good one finds all, a bad one is found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import EvaluationError
from retrieval.evaluation import index_recall
from retrieval.evaluation.index_recall import measure, stored_queries
from retrieval.index import VectorIndex
from retrieval.segments import Ids, Scores
from retrieval.store import Batch, Space, Store
from retrieval.types import Modality, Vectors
from tests.conftest import make_record, unit_rows
from tests.fakes import DIM, colour_encoder

RNG = np.random.default_rng(8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An index of 60 pictures, ten of which are alike."""
    rows = unit_rows(RNG, 60, DIM)
    rows[50:] = rows[49]
    records = [make_record(b"/%d.png" % at, row[None]) for at, row in enumerate(rows)]
    with Store(tmp_path / "index.db", write=True) as writer:
        writer.write(Batch(records=records), writer.add_space(colour_encoder()))
    return Store(tmp_path / "index.db")


def space_of(store: Store) -> Space:
    """The only space."""
    return store.spaces()[0]


def test_the_exact_index_finds_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also among equals, whichever of them it gives, and page by page."""
    monkeypatch.setattr(index_recall, "READ_ROWS", 7)
    queries = np.concatenate([stored_queries(store, space_of(store), Modality.IMAGE, 60)])
    assert queries.shape == (60, DIM)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    found = measure(store, space_of(store), Modality.IMAGE, queries, 5)
    assert (found.vectors, found.queries, found.k) == (60, 60, 5)
    assert (found.recall.value, found.recall.low) == (1.0, 1.0)
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.per_s > 0
    assert measure(store, space_of(store), Modality.IMAGE, queries[:3], 100).k == 60


def test_a_bad_index_is_found_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gives the 2nd, 4th ... best of ten finds two of the best five, and three others."""
    exact = VectorIndex.search

    def every_second(
        self: VectorIndex, query: Scores, k: int, *, only: Ids | None = None
    ) -> tuple[Scores, Ids]:
        scores, ids = exact(self, query, 2 * k, only=only)
        return scores[1::2], ids[1::2]

    monkeypatch.setattr(VectorIndex, "search", every_second)
    alone: Vectors = unit_rows(RNG, 40, DIM)
    cosines = alone @ store.vectors(space_of(store), Modality.IMAGE)[1].astype(np.float32).T
    plain = np.array([len(np.unique(np.sort(row)[-11:])) == 11 for row in cosines])  # no equals
    found = measure(store, space_of(store), Modality.IMAGE, alone[plain], 5)
    assert found.recall.value == pytest.approx(2 / 5)


def test_nothing_to_ask(store: Store) -> None:
    """No vectors of a kind, or no queries."""
    none: Vectors = np.empty((0, DIM), np.float32)
    with pytest.raises(EvaluationError, match="nothing to ask the index for among its image"):
        measure(store, space_of(store), Modality.IMAGE, none, 5)
    with pytest.raises(EvaluationError, match="among its audio vectors"):
        measure(store, space_of(store), Modality.AUDIO, unit_rows(RNG, 1, DIM), 5)
