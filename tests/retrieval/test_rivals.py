"""How near wrong pictures come to a query: by the formula, and as many pictures would say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import rivals
from retrieval.errors import ModelError
from retrieval.learn import rivals as learn
from retrieval.models import model
from retrieval.rivals import SHARPNESS, Rivals
from retrieval.types import Modality
from tests.conftest import unit_rows


@given(seed=st.integers(0, 100), least=st.floats(-0.5, 0.5), usual=st.floats(-0.5, 0.5))
def test_the_formula(seed: int, least: float, usual: float) -> None:
    """The logarithm of a weighted sum of exponentials, at least so much, less what is usual."""
    rng = np.random.default_rng(seed)
    pictures, queries = unit_rows(rng, 3, 5), unit_rows(rng, 4, 5)
    shares = np.log(rng.dirichlet(np.ones(3))).astype(np.float32)
    got = Rivals(pictures, shares, least, usual).above(queries)
    assert got.dtype == np.float32
    for row, query in enumerate(queries.astype(np.float64)):
        total = sum(
            math.exp(share) * math.exp(SHARPNESS * float(query @ picture))
            for share, picture in zip(shares.astype(np.float64), pictures, strict=True)
        )
        want = max(math.log(total) / SHARPNESS, least) - usual
        assert got[row] == pytest.approx(want, abs=1e-5)


def test_the_bundled_model_knows_what_is_common() -> None:
    """What its photographs show often has more rivals than what they hardly do."""
    spec = model()
    typical = spec.rivals()
    assert typical is not None
    assert spec.calibrations[Modality.TEXT, Modality.IMAGE].r < 0
    tower = spec.load().towers[Modality.TEXT]
    texts = ("a man in a red shirt stands on a street", "a dog runs across the grass", "a tax form")
    common, dog, rare = typical.above(tower.embed([tower.prepare(text) for text in texts]))
    assert min(common, dog) > rare == pytest.approx(typical.least - typical.usual, abs=1e-6)


def test_a_model_may_have_no_typical_pictures(tmp_path: Path) -> None:
    """And damaged ones are said to be so."""
    path = tmp_path / rivals.FILE
    assert rivals.read(path) is None
    for content in (b"PK\x03\x04 and nothing more", b""):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="damaged"):
            rivals.read(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """In half precision, as it was made."""
    rng = np.random.default_rng(1)
    half = unit_rows(rng, 4, 6).astype(np.float16).astype(np.float32)
    made = Rivals(half, rng.normal(size=4).astype(np.float32), 0.25, 0.5)
    learn.write(made, tmp_path)
    back = rivals.read(tmp_path / rivals.FILE)
    assert back is not None
    np.testing.assert_array_equal(back.pictures, made.pictures)
    np.testing.assert_array_equal(back.shares, made.shares)
    assert (back.least, back.usual) == (0.25, 0.5)


def test_its_own_picture_is_no_rival() -> None:
    """It is left out, as if its cosine were the lowest there is."""
    rng = np.random.default_rng(2)
    queries, pictures = unit_rows(rng, 1_200, 8), unit_rows(rng, 30, 8)
    own = rng.integers(0, 30, 1_200)
    got = learn.nearness(queries, pictures, own)
    for row in (0, 999, 1_000, 1_199):
        cosines = queries[row].astype(np.float64) @ pictures.T
        cosines[own[row]] = -1
        want = math.log(np.exp(SHARPNESS * cosines).mean()) / SHARPNESS
        assert got[row] == pytest.approx(want, abs=1e-5)
    assert (learn.nearness(queries, pictures) >= got - 1e-6).all()


def test_clusters_are_found() -> None:
    """Three clouds of known sizes, wherever it begins."""
    rng = np.random.default_rng(3)
    centres = np.eye(3, 6, dtype=np.float32)
    rows = np.repeat(centres, (50, 30, 20), axis=0)
    rows += rng.normal(scale=0.01, size=rows.shape).astype(np.float32)
    sizes: set[int] = set()
    for seed in range(20):
        means, counts = learn.clusters(rows, 3, seed=seed)
        assert counts.sum() == 100
        if len({int(one) for one in (means @ centres.T).argmax(axis=1)}) == 3:
            order = np.argsort(-counts)
            np.testing.assert_allclose(means[order], centres, atol=0.01)
            sizes |= {int(one) for one in counts}
    assert sizes == {50, 30, 20}
    assert len(learn.clusters(rows[:2], 5, seed=0)[0]) == 2


def test_few_pictures_say_what_many_do() -> None:
    """Better than the means of clusters that it begins with; and with what is usual at 0."""
    rng = np.random.default_rng(4)
    centres, queries = unit_rows(rng, 12, 16), unit_rows(rng, 2_000, 16)
    pictures = np.repeat(centres, rng.integers(5, 60, 12), axis=0)
    pictures += rng.normal(scale=0.05, size=pictures.shape).astype(np.float32)
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    near = learn.nearness(queries, pictures)
    means, sizes = learn.clusters(pictures, 12, seed=0)
    start = Rivals(means, np.log(sizes / sizes.sum()).astype(np.float32), -1.0, 0.0)
    made = learn.fit(queries, near, pictures, kinds=12, seed=0)
    assert made.pictures.shape == means.shape
    got = made.above(queries)
    assert np.corrcoef(got, near)[0, 1] > 0.9
    assert np.abs(got - near).mean() < 0.7 * np.abs(start.above(queries) - near).mean()
    same = learn.fit(queries, near, pictures, kinds=12, seed=0)
    np.testing.assert_array_equal(same.pictures, made.pictures)
    settled = learn.settle(made, queries)
    assert (got < settled.least).mean() == pytest.approx(learn.LEAST, abs=0.001)
    assert settled.above(queries).mean() == pytest.approx(0, abs=1e-5)
