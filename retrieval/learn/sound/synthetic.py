"""Noises and tones made by formula: what must not be found when something else is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 32_000

Floats = NDArray[np.float32]
Generator = np.random.Generator

WORDS: dict[str, tuple[str, ...]] = {
    "white noise": ("white noise", "static", "hiss"),
    "pink noise": ("pink noise", "noise"),
    "brown noise": ("brown noise", "low rumbling noise"),
    "band noise": ("filtered noise", "noise in a narrow band"),
    "hum": ("mains hum", "an electric hum", "a buzz at 50 hertz"),
    "sine": ("a pure tone", "a sine wave", "a test tone"),
    "chord": ("synthetic chord", "several pure tones at once", "an electronic tone"),
    "sweep": ("a frequency sweep", "a rising tone", "a chirp signal"),
    "beep": ("electronic beeps", "a beep", "repeated beeping"),
    "click": ("a click track", "electronic clicks", "regular clicks"),
    "near silence": ("silence", "nothing", "faint background noise"),
}
"""What a person may call each kind."""


def synthetic(kind: str, seed: int, samples: int) -> Floats:
    """Makes one sound: ``(samples,)`` float32 at 32 kHz, at a level between -40 and -3 dBFS.

    Args:
        kind: One of ``WORDS``.
        seed: The same kind and seed give the same sound.
        samples: Its length.
    """
    generator = np.random.default_rng((sorted(WORDS).index(kind), seed))
    values = _MAKERS[kind](generator, samples)
    peak = float(np.abs(values).max()) or 1.0
    level = 10 ** (generator.uniform(-40, -3) / 20)
    return np.asarray(values * (level / peak), np.float32)


def _time(samples: int) -> NDArray[np.float64]:
    return np.arange(samples) / RATE_HZ


def _shaped(generator: Generator, samples: int, slope: float) -> NDArray[np.float64]:
    """Noise whose power falls by the frequency to the power of ``slope``."""
    spectrum = np.fft.rfft(generator.normal(size=samples))
    hz = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    spectrum /= np.maximum(hz, 20.0) ** (slope / 2)
    return np.asarray(np.fft.irfft(spectrum, samples), np.float64)


def _band(generator: Generator, samples: int) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(generator.normal(size=samples))
    hz = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    centre = np.exp(generator.uniform(np.log(150), np.log(6000)))
    width = generator.uniform(0.1, 0.7)
    spectrum *= np.exp(-0.5 * (np.log(np.maximum(hz, 1) / centre) / width) ** 2)
    return np.asarray(np.fft.irfft(spectrum, samples), np.float64)


def _hum(generator: Generator, samples: int) -> NDArray[np.float64]:
    base = generator.choice([50.0, 60.0]) * generator.choice([1.0, 2.0])
    time = _time(samples)
    total = np.zeros(samples)
    for harmonic in range(1, generator.integers(3, 20)):
        total += np.sin(2 * np.pi * (base * harmonic * time + generator.random())) / harmonic
    return np.asarray(total + 0.02 * generator.normal(size=samples), np.float64)


def _pitch(generator: Generator) -> float:
    return float(np.exp(generator.uniform(np.log(80), np.log(6000))))


def _sine(generator: Generator, samples: int) -> NDArray[np.float64]:
    wave = np.sin(2 * np.pi * _pitch(generator) * _time(samples))
    if generator.random() < 0.3:  # a square wave, softened
        wave = np.tanh(5 * wave)
    return np.asarray(wave * _fade(samples), np.float64)


def _chord(generator: Generator, samples: int) -> NDArray[np.float64]:
    root = np.exp(generator.uniform(np.log(100), np.log(1500)))
    steps = generator.choice([0, 3, 4, 5, 7, 9, 10, 12, 14, 16], generator.integers(2, 5), False)
    waves = [np.sin(2 * np.pi * root * 2 ** (step / 12) * _time(samples)) for step in steps]
    return np.asarray(np.sum(waves, axis=0) * _fade(samples), np.float64)


def _sweep(generator: Generator, samples: int) -> NDArray[np.float64]:
    period_s = generator.uniform(0.3, 5.0)
    low, high = sorted((_pitch(generator), _pitch(generator)))
    share = (_time(samples) / period_s) % 1.0
    share = share if generator.random() < 0.5 else 1 - share
    hz = low * (high / low) ** share
    return np.asarray(np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ), np.float64)


def _beep(generator: Generator, samples: int) -> NDArray[np.float64]:
    period_s = generator.uniform(0.15, 2.0)
    on = (_time(samples) % period_s) < period_s * generator.uniform(0.15, 0.6)
    wave = np.sin(2 * np.pi * np.exp(generator.uniform(np.log(300), np.log(4000))) * _time(samples))
    return np.asarray(wave * np.convolve(on, np.ones(160) / 160, "same"), np.float64)


def _click(generator: Generator, samples: int) -> NDArray[np.float64]:
    period = round(generator.uniform(0.05, 1.0) * RATE_HZ)
    values = np.zeros(samples)
    values[generator.integers(period) :: period] = 1.0
    pulse = np.exp(-np.arange(200) / generator.uniform(2, 60))
    pulse *= np.cos(np.arange(200) * generator.uniform(0, 2.5))
    return np.convolve(values, pulse)[:samples]


def _faint(generator: Generator, samples: int) -> NDArray[np.float64]:
    wave = _shaped(generator, samples, generator.uniform(0, 2.5))
    steps = np.round(wave * 50) / 50  # as in a recording of few bits
    return steps if steps.any() else wave


def _fade(samples: int) -> NDArray[np.float64]:
    ramp = np.minimum(1.0, np.arange(samples) / 320)
    return np.asarray(ramp * ramp[::-1], np.float64)


_MAKERS: dict[str, Callable[[Generator, int], NDArray[np.float64]]] = {
    "white noise": lambda generator, samples: _shaped(generator, samples, 0.0),
    "pink noise": lambda generator, samples: _shaped(generator, samples, 1.0),
    "brown noise": lambda generator, samples: _shaped(generator, samples, 2.0),
    "band noise": _band,
    "hum": _hum,
    "sine": _sine,
    "chord": _chord,
    "sweep": _sweep,
    "beep": _beep,
    "click": _click,
    "near silence": _faint,
}
