"""Perceptual hashes against their definition, near pairs against comparing all with all."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrieval.phash import distance, near_pairs, phash

GENERATOR = np.random.default_rng(0)


def noise(side: int = 32) -> Image.Image:
    """A picture of random greys."""
    return Image.fromarray(GENERATOR.integers(0, 256, (side, side), dtype=np.uint8))


def test_the_hash_is_the_published_one() -> None:
    """The signs of the lowest frequencies about their median, without the first row and column."""
    picture = noise()
    values = np.asarray(picture, np.float64).tolist()
    waves = [[math.cos(math.pi * f * (2 * x + 1) / 64) for x in range(32)] for f in range(9)]
    low = [
        sum(values[y][x] * waves[v][y] * waves[u][x] for y in range(32) for x in range(32))
        for v in range(1, 9)
        for u in range(1, 9)
    ]
    bits = "".join("1" if value > statistics.median(low) else "0" for value in low)
    assert phash(picture) == int(bits, 2)
    assert bits.count("1") == 32


def test_larger_smaller_brighter_and_coloured() -> None:
    """What does not change the picture hardly changes the hash; another picture does."""
    spots = Image.fromarray(GENERATOR.integers(0, 200, (12, 12), dtype=np.uint8))
    grey = np.asarray(spots.resize((64, 64)), np.uint8).clip(max=210)
    picture = Image.fromarray(grey)
    own = phash(picture)
    assert own is not None
    for other in (
        picture.resize((640, 480)),
        Image.fromarray(grey + 40),
        picture.convert("RGB"),
        picture.convert("RGBA"),
    ):
        found = phash(other)
        assert found is not None
        assert (own ^ found).bit_count() <= 4
    mirrored = phash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert mirrored is not None
    assert (own ^ mirrored).bit_count() > 16


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_even_picture_has_no_hash(level: int) -> None:
    """Else all white pages would be one picture."""
    even = np.full((40, 40), level, np.uint8)
    assert phash(Image.fromarray(even)) is None
    even[0, 0] ^= 32  # a speck of dust
    assert phash(Image.fromarray(even)) is None


@given(
    seeds=st.lists(st.integers(0, 2**64 - 1), max_size=12),
    flips=st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=10))),
    most=st.integers(0, 12),
)
def test_near_pairs_are_all_and_each_once(
    seeds: list[int], flips: list[tuple[int, set[int]]], most: int
) -> None:
    """Exactly the pairs that counting every bit of every pair finds."""
    hashes = list(seeds)
    for at, bits in flips:
        if at < len(seeds):
            hashes.append(seeds[at] ^ sum(1 << bit for bit in bits))
    values = np.array(hashes, np.uint64)
    found = [tuple(pair) for some in near_pairs(values, most) for pair in some.tolist()]
    wanted = [
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if (hashes[one] ^ hashes[other]).bit_count() <= most
    ]
    assert sorted(found) == wanted
    assert distance(values, values).tolist() == [0] * len(hashes)
