"""The audio tower's spectrogram against direct sums, and its behaviour at the edges."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers.bundled_audio import (
    FLOOR,
    SAMPLES,
    AudioTower,
    log_mel,
    mel_bands,
    mel_power,
)


def noise(seed: int) -> NDArray[np.float32]:
    """White noise of one window."""
    return np.random.default_rng(seed).normal(0, 0.1, SAMPLES).astype(np.float32)


def tone(hz: float) -> NDArray[np.float32]:
    """A sine of one window."""
    return np.sin(2 * np.pi * hz * np.arange(SAMPLES) / 32_000).astype(np.float32)


def by_definition(samples: NDArray[np.float32], frame: int) -> list[float]:
    """Mel powers of one frame by a direct Fourier sum, with triangles written out in mel."""
    raised = samples[1:].astype(np.float64) - 0.97 * samples[:-1]
    start = 320 * frame - 400
    last = len(raised) - 1
    picked = []
    for offset in range(800):
        place = abs(start + offset)
        place = 2 * last - place if place > last else place
        window = math.sin(math.pi * offset / 799) ** 2
        picked.append(window * float(raised[place]))
    turns = np.arange(800) / 1024
    total = []
    for k in range(512):  # the last bin belongs to no band
        real = float(np.dot(picked, np.cos(2 * np.pi * k * turns)))
        imaginary = float(np.dot(picked, np.sin(2 * np.pi * k * turns)))
        total.append(real**2 + imaginary**2)

    def mel(hz: float) -> float:
        return 1127 * math.log(1 + hz / 700)

    step = mel(15_000) / 129
    return [
        sum(
            power * max(0.0, 1 - abs(mel(31.25 * k) / step - (band + 1)))
            for k, power in enumerate(total)
        )
        for band in range(128)
    ]


@pytest.mark.parametrize("frame", [0, 1, 500, 999])
def test_powers_equal_direct_sums(frame: int) -> None:
    """Powers of inner and of mirrored frames equal Fourier sums that were written out."""
    samples = noise(0)
    assert mel_power(samples)[frame] == pytest.approx(by_definition(samples, frame), rel=1e-3)


def test_the_spectrogram_is_the_logarithm_over_the_mean() -> None:
    """The spectrogram is the logarithm of power over its mean."""
    samples = noise(1)
    got = log_mel(samples)
    power = mel_power(samples).astype(np.float64)
    assert got.shape == (1000, 128)
    assert got.dtype == np.float32
    assert got == pytest.approx(np.log(power / power.mean() + FLOOR), abs=1e-3)


@pytest.mark.parametrize("hz", [437.5, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_its_band(hz: float) -> None:
    """The loudest band of a tone is the one whose triangle weighs its frequency most."""
    loudest = log_mel(tone(hz))[100:900].mean(0).argmax()
    assert loudest == mel_bands()[round(hz / 31.25)].argmax()


def test_white_noise_rises_as_the_bands_widen() -> None:
    """A band's power is its triangle's sum times the raised noise, within the chance of it."""
    hz = np.arange(513) * 31.25
    raising = np.abs(1 - 0.97 * np.exp(-2j * np.pi * hz / 32_000)) ** 2
    expected = raising @ mel_bands()
    level = mel_power(noise(2)).mean(0)
    kept = expected > 0  # the lowest bands lie between two bins
    ratio = level[kept] / expected[kept]
    assert kept.sum() >= 115
    assert ratio[8:].max() / ratio[8:].min() < 1.25


@pytest.mark.parametrize("gain", [1e-3, 0.5, 100.0])
def test_level_does_not_matter(gain: float) -> None:
    """A louder or softer copy gives the same spectrogram."""
    samples = noise(3)
    assert log_mel(samples * np.float32(gain)) == pytest.approx(log_mel(samples), abs=1e-3)


def test_the_same_window_gives_the_same_numbers() -> None:
    """Repeated calls, and calls from threads, agree to the last bit."""
    samples = noise(4)
    expected = log_mel(samples)
    got: list[NDArray[np.float32]] = []
    threads = [threading.Thread(target=lambda: got.append(log_mel(samples))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, expected) for one in [log_mel(samples), *got])


def test_silence_is_the_floor() -> None:
    """Digital silence gives the floor everywhere, and no warning."""
    expected = np.full((1000, 128), np.log(FLOOR), np.float32)
    assert log_mel(np.zeros(SAMPLES, np.float32)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(0,), (SAMPLES - 1,), (SAMPLES, 1), (2, SAMPLES)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Windows of other lengths or more channels are refused with the shape in the message."""
    with pytest.raises(ValueError, match="320000 samples"):
        log_mel(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    """Samples that are not finite are refused."""
    samples = noise(5)
    samples[1234] = value
    with pytest.raises(ValueError, match="not finite"):
        log_mel(samples)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """Missing weights are named."""
    tower = AudioTower(tmp_path / "audio.onnx")
    assert tower.side_px is None
    with pytest.raises(ModelError, match=r"audio\.onnx cannot be read"):
        tower.embed([tower.prepare(noise(6))])
