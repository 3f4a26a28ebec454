"""Mixtures of sounds, made as they are needed: no two steps of a training hear the same.

The powers of independent sounds add, so mixing happens on mel powers: no Fourier transform is
needed after ``clips.listen``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from retrieval.learn.sound.clips import FRAMES, Bank, Floats
from retrieval.towers.bundled_audio import FLOOR, MELS

COUNT_SHARES = (0.35, 0.45, 0.2)
"""Of mixtures with one, two and three sounds."""

THREADS = 2


class Mixer:
    """Makes mixtures of some units of a bank."""

    def __init__(self, bank: Bank, rows: NDArray[np.int64], *, seed: int) -> None:
        """Remembers what to draw from.

        Args:
            bank: The sounds.
            rows: Units that may be heard.
            seed: A mixture depends on it and on its own number alone.
        """
        self._bank, self._rows, self._seed = bank, rows, seed

    def batch(self, numbers: NDArray[np.int64], *, frames: int) -> Floats:
        """Makes mixtures: ``(n, frames, 128)`` float32 log-mels over the whole mixture's mean.

        Args:
            numbers: Of the mixtures.
            frames: How much of each is given, from a random place on.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            return np.stack(list(pool.map(lambda one: self._one(int(one), frames), numbers)))

    def _one(self, number: int, frames: int) -> Floats:
        generator = np.random.default_rng((self._seed, number))
        count = int(generator.choice(len(COUNT_SHARES), p=COUNT_SHARES)) + 1
        power = mix(self._bank, generator.choice(self._rows, count), generator)
        power = distort(power, generator)
        mean = float(power.mean(dtype=np.float64)) or 1.0
        start = int(generator.integers(FRAMES - frames + 1))
        piece = power[start : start + frames] * np.float32(1.0 / mean)
        return np.asarray(np.log(piece + np.float32(FLOOR)), np.float32)


def mix(bank: Bank, units: NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """Adds units at random times and levels: mel powers ``(500, 128)`` float32.

    The first has a mean power of one; others are from 14 dB softer to 8 dB louder. What is shorter
    than five seconds is heard once in half of the cases, else again and again.
    """
    total = np.zeros((FRAMES, MELS), np.float32)
    for place, unit in enumerate(units):
        power = np.exp(bank.power[unit].astype(np.float32))
        lasts = int(bank.frames[unit])
        if lasts < 0.9 * FRAMES and generator.random() < 0.5:
            power[lasts:] = 0.0
        gain = 1.0 if place == 0 else 10 ** (generator.uniform(-14, 8) / 10)
        gain /= float(power.mean()) + 1e-9
        total += np.float32(gain) * np.roll(power, int(generator.integers(FRAMES)), 0)
    return total


def distort(power: Floats, generator: np.random.Generator) -> Floats:
    """Bends the spectrum of half of the mixtures and puts noise under a quarter of them.

    Args:
        power: ``(frames, 128)`` mel powers.
        generator: Source of everything random.

    Returns:
        Another array of the same shape.
    """
    if generator.random() < 0.5:
        bend = np.interp(np.linspace(0, 4, MELS), range(5), 0.5 * generator.normal(size=5))
        power = power * np.exp(bend).astype(np.float32)
    if generator.random() < 0.25:
        power = power + np.float32(10 ** generator.uniform(-5, -1.5)) * power.mean()
    return power
