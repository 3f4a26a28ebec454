"""Groups of vectors: known ones are found, numbers and names follow."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from retrieval import clusters
from retrieval.clusters import clustered, named, suggested
from retrieval.errors import QueryError
from tests.conftest import unit_rows


def blobs(
    sizes: tuple[int, ...], dim: int = 16, noise: float = 0.1
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], list[int]]:
    """Unit rows about some directions, and about one that all share."""
    rng = np.random.default_rng(5)
    centres = unit_rows(rng, len(sizes), dim)
    shared = 2 * unit_rows(rng, 1, dim)
    of = [number for number, size in enumerate(sizes) for _ in range(size)]
    rows = centres[of] + shared + noise * rng.normal(size=(len(of), dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), of


def test_groups_are_found_largest_first() -> None:
    """Whatever all vectors share; the same each time, and for what is stored as float16."""
    rows, of = blobs((40, 10, 25, 5))
    found = clustered(rows, 4)
    assert adjusted_rand_score(of, found.of) == 1.0
    assert np.bincount(found.of).tolist() == [40, 25, 10, 5]
    again = clustered(rows.astype(np.float16), 4)
    assert again.of.tolist() == found.of.tolist()
    np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1, atol=1e-5)
    centred = rows - rows.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(
        found.nearness, (centred * found.centres[found.of]).sum(axis=1), atol=1e-5
    )


def test_every_group_is_at_its_optimum() -> None:
    """Each vector lies with its nearest centre, each centre is the mean of its own."""
    rows, _ = blobs((30, 30, 30), noise=0.5)
    found = clustered(rows, 6)
    centred = rows - found.mean
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert (centred @ found.centres.T).argmax(axis=1).tolist() == found.of.tolist()
    for number in range(6):
        mean = centred[found.of == number].sum(axis=0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), found.centres[number], atol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_same_vector_many_times(k: int) -> None:
    """Nothing to tell apart is no reason to fail."""
    rows = np.repeat(unit_rows(np.random.default_rng(0), 1, 8), 5, axis=0)
    found = clustered(rows, k)
    assert len(found.of) == 5
    assert np.isfinite(found.centres).all()


def test_numbers_that_mean_nothing() -> None:
    """More groups than files, or none."""
    rows, _ = blobs((3,))
    with pytest.raises(QueryError, match="3 files cannot make 4 groups"):
        clustered(rows, 4)
    with pytest.raises(QueryError, match="at least 1"):
        clustered(rows, 0)


def test_a_sample_does_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Centres come from every n-th vector, yet all are assigned."""
    rows, of = blobs((40, 20, 30))
    rng = np.random.default_rng(1).permutation(len(rows))
    monkeypatch.setattr(clusters, "TRAINED_ON", 30)
    monkeypatch.setattr(clusters, "BLOCK", 7)
    found = clustered(rows[rng], 3)
    assert adjusted_rand_score(np.array(of)[rng], found.of) == 1.0


def test_suggested_numbers() -> None:
    """The root of half, from 2 to 50, never more than there are."""
    assert [suggested(n) for n in (1, 2, 3, 8, 65, 5000, 10**6)] == [1, 2, 2, 2, 6, 50, 50]


def test_names_are_what_a_group_is_near_to() -> None:
    """And the words that are not to be said are not."""
    rows, _ = blobs((20, 10))
    found = clustered(rows, 2)
    words = ["one", "other", "heard"]
    vectors = np.stack([found.centres[0], found.centres[1], found.centres[0]])
    assert named(found, words, vectors, without={"heard"})[0][0] == "one"
    assert named(found, words, vectors)[1][0] == "other"
