"""Words are told from keyboard noise, with the bundled model and by a plane of two clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval import sense
from retrieval.errors import ModelError
from retrieval.learn import sense as learn
from retrieval.models import model
from retrieval.sense import Sense
from retrieval.types import Modality
from tests.conftest import unit_rows

WORDS = (
    "a dog running on the beach",
    "thunder",
    "castle",
    "雪山",
    "怎样泡绿茶",
    "des enfants jouent au ballon",
    "ein Klavier",
    "собака на снегу",
    "how do I bake bread",
    "犬",
)
NOISE = ("qwkjdhqwd", "asdf jkl; qwer", "zxcvzxcv zx", "84729374 23847", "%$#@!^& *()_+", "ಠಡಢ ಪಫ")


def test_the_bundled_model_knows_words_from_noise() -> None:
    """In several languages and scripts."""
    spec = model()
    tower = spec.load().towers[Modality.TEXT]
    plane = spec.sense()
    assert plane is not None
    made = plane.made(tower.embed([tower.prepare(text) for text in (*WORDS, *NOISE)]))
    assert made.tolist() == [True] * len(WORDS) + [False] * len(NOISE)


def test_the_plane_parts_two_clouds(tmp_path: Path) -> None:
    """It stands half-way between their means, and survives being written."""
    rng = np.random.default_rng(0)
    words = unit_rows(rng, 400, 8) * np.float32(0.2) + np.float32(0.3)
    others = unit_rows(rng, 300, 8) * np.float32(0.2) - np.float32(0.1)
    fitted = learn.fit(words, others)
    middle = (words.mean(0) + others.mean(0)) / 2
    assert float(middle @ fitted.normal) + fitted.offset == pytest.approx(0, abs=1e-6)
    assert np.linalg.norm(fitted.normal) == pytest.approx(1, abs=1e-6)
    assert fitted.made(words).mean() > 0.99
    assert fitted.made(others).mean() < 0.01
    learn.write(fitted, tmp_path)
    back = sense.read(tmp_path / "sense.npz")
    assert isinstance(back, Sense)
    np.testing.assert_array_equal(back.normal, fitted.normal)
    assert back.offset == fitted.offset


def test_a_model_may_have_no_plane(tmp_path: Path) -> None:
    """And a damaged one is said to be so."""
    path = tmp_path / "sense.npz"
    assert sense.read(path) is None
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ModelError, match="damaged"):
        sense.read(path)


def test_noise_follows_from_the_seed() -> None:
    """A quarter in scripts that the tower does not know, none empty."""
    texts = learn.noise(400, 3)
    assert texts == learn.noise(400, 3) != learn.noise(400, 4)
    foreign = [text for text in texts if min(text.replace(" ", "")) > "\u0300"]
    assert len(foreign) == 100
    assert all(text.strip() for text in texts)
