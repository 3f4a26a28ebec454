"""A vector goes over words to another space, and lands where its words lie there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import vocabulary
from retrieval.bridge import HELD_BACK, TEMPERATURE, TOP, Shore, bridge, crossing, weigh
from retrieval.types import Modality, Vectors
from tests.conftest import unit_rows
from tests.fakes import COLOURS, colour_encoder, pitch_hz


def by_hand(
    vector: Vectors, here: Vectors, there: Vectors, mean: Vectors, top: int, temperature: float
) -> list[float]:
    """The same in plain Python: sums over lists, no matrices."""
    asked = [float(a) - HELD_BACK * float(b) for a, b in zip(vector, mean, strict=True)]
    length = math.sqrt(sum(a * a for a in asked))
    cosines = [sum(a * float(b) for a, b in zip(asked, row, strict=True)) / length for row in here]
    middle = sum(cosines) / len(cosines)
    spread = math.sqrt(sum((one - middle) ** 2 for one in cosines) / len(cosines))
    best = sorted(range(len(cosines)), key=lambda row: -cosines[row])[:top]
    raised = [math.exp(cosines[row] / (temperature * spread)) for row in best]
    result = [
        sum(weight * float(there[row][column]) for weight, row in zip(raised, best, strict=True))
        for column in range(there.shape[1])
    ]
    length = math.sqrt(sum(value * value for value in result))
    return [value / length for value in result]


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.2, 0.4, 2.0]))
def test_it_is_the_convex_combination(seed: int, top: int, temperature: float) -> None:
    """Dimensions may differ, and the answer is what a plain loop gives."""
    rng = np.random.default_rng(seed)
    here, there = unit_rows(rng, 9, 6), unit_rows(rng, 9, 4)
    vector, mean = unit_rows(rng, 1, 6)[0], 0.3 * unit_rows(rng, 1, 6)[0]
    got = bridge(vector, here, there, mean=mean, top=top, temperature=temperature)
    assert got.shape == (4,)
    assert got.dtype == np.float32
    assert float(np.linalg.norm(got)) == pytest.approx(1, abs=1e-6)
    expected = by_hand(vector, here, there, mean, top, temperature)
    assert got.tolist() == pytest.approx(expected, abs=2e-4)


def test_one_word_is_that_word() -> None:
    """With a single word, a vector lands on the word that it is nearest to."""
    rng = np.random.default_rng(3)
    here, there = unit_rows(rng, 40, 16), unit_rows(rng, 40, 8)
    for row in range(40):
        assert np.allclose(bridge(here[row], here, there, top=1), there[row], atol=1e-6)


@given(st.integers(0, 10_000), st.floats(0.05, 20.0))
def test_weights(seed: int, scale: float) -> None:
    """They add up to one, fall with the cosine, and do not depend on how wide cosines are spread.

    Words squeezed towards a common direction have all cosines scaled and moved alike.
    """
    rng = np.random.default_rng(seed)
    words = unit_rows(rng, 30, 7)
    vector = unit_rows(rng, 1, 7)[0]
    rows, weights = weigh(vector, words)
    assert len(rows) == TOP
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    assert (np.diff(weights) <= 0).all()
    assert (np.diff((words @ vector)[rows]) <= 1e-6).all()
    moved = np.asarray(scale * words + 0.5 * vector, np.float32)
    others, same = weigh(vector, moved)
    assert set(others.tolist()) == set(rows.tolist())
    assert np.allclose(np.sort(same), np.sort(weights), atol=1e-3)


def test_equal_words_keep_their_order() -> None:
    """Of words that are equally near, the first ones count."""
    words = np.tile(np.eye(2, dtype=np.float32)[:1], (8, 1))
    rows, weights = weigh(words[0], words, top=3)
    assert rows.tolist() == [0, 1, 2]
    assert weights.tolist() == pytest.approx([1 / 3] * 3)


def test_the_mean_is_held_back() -> None:
    """A word that is near to everything of a kind says nothing about one of it."""
    words = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    photo = np.array([0.8, 0.6, 0], np.float32)
    assert weigh(photo, words, top=1)[0].tolist() == [0]
    mean = np.array([0.7, 0.1, 0], np.float32)
    assert weigh(photo, words, mean=mean, top=1)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("vector", "here", "there", "settings"),
    [
        (np.ones(3), np.ones((2, 4)), np.ones((2, 4)), {}),
        (np.ones(4), np.ones((2, 4)), np.ones((3, 4)), {}),
        (np.ones(4), np.ones((0, 4)), np.ones((0, 4)), {}),
        (np.ones(4), np.ones((2, 4)), np.ones((2, 4)), {"top": 0}),
        (np.ones(4), np.ones((2, 4)), np.ones((2, 4)), {"temperature": 0.0}),
    ],
)
def test_what_does_not_fit(
    vector: Vectors, here: Vectors, there: Vectors, settings: dict[str, float]
) -> None:
    """Shapes and numbers out of range are refused."""
    with pytest.raises(ValueError, match="word"):
        bridge(vector, here, there, **settings)  # type: ignore[arg-type]


def test_a_colour_is_found_as_a_pitch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture crosses from one space to another whose axes are in another order.

    Both spaces read texts; the second has its colours backwards, so that a vector that was not
    carried over would find the wrong sound.
    """
    names = (*COLOURS, "a dog", "a red house", "green grass")
    monkeypatch.setattr(vocabulary, "words", lambda: tuple(sorted(names)))
    here, there = colour_encoder("colours-1"), _Backwards()
    from PIL import Image

    image = here.towers[Modality.IMAGE]
    for colour, rgb in COLOURS.items():
        picture = image.embed([image.prepare(Image.new("RGB", (8, 8), rgb))])
        crossed = crossing(
            picture,
            Shore("colours-1", here.towers[Modality.TEXT]),
            Shore("backwards-1", there),
            cache=tmp_path,
        )
        assert colour in crossed.words[0]
        assert float(crossed.weights.sum()) == pytest.approx(1, abs=1e-6)
        pitch = here.towers[Modality.AUDIO]
        seconds = np.arange(4_000) / 4_000
        tones = [
            pitch.prepare(np.sin(2 * np.pi * pitch_hz(one) * seconds).astype(np.float32))
            for one in COLOURS
        ]
        sounds = pitch.embed(tones)[:, ::-1]
        assert list(COLOURS)[int((sounds @ crossed.vector).argmax())] == colour
    assert len(list(tmp_path.glob("vocabulary-*.npy"))) == 2  # one for each space


class _Backwards:
    """The words of the colour encoder, with the axes in reverse."""

    side_px: int | None = None
    rate_hz: int | None = None

    def __init__(self) -> None:
        self._words = colour_encoder().towers[Modality.TEXT]

    def prepare(self, content: str) -> str:
        return content

    def embed(self, batch: Sequence[str]) -> Vectors:
        return np.ascontiguousarray(self._words.embed(batch)[:, ::-1])


def test_the_settings_are_those_measured() -> None:
    """What the results were made with is what the code does."""
    import json

    results = Path(__file__).parent.parent / "benchmarks" / "results" / "bridge.json"
    measured = json.loads(results.read_text("utf-8"))["pairs"]
    assert (measured["words"], measured["temperature"]) == (TOP, TEMPERATURE)
