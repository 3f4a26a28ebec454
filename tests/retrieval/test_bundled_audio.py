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
    return np.sin(2 * np.pi * hz * np.arange(SAMPLES) / 16_000).astype(np.float32)


def by_definition(samples: NDArray[np.float32], frame: int) -> list[float]:
    """Mel powers of one frame by a direct Fourier sum, with triangles written out in hertz."""
    start = 160 * frame - 120
    last = len(samples) - 1
    total = [0.0] * 257
    picked = []
    for offset in range(400):
        place = abs(start + offset)
        place = 2 * last - place if place > last else place
        window = math.sin(math.pi * offset / 400) ** 2
        picked.append(window * float(samples[place]))
    turns = np.arange(400) / 512
    for k in range(257):
        real = float(np.dot(picked, np.cos(2 * np.pi * k * turns)))
        imaginary = float(np.dot(picked, np.sin(2 * np.pi * k * turns)))
        total[k] = real**2 + imaginary**2

    def hertz(mel: float) -> float:
        # Slaney: 3 mel are 200 Hz up to 1 kHz; from there 27 mel are a factor of 6.4
        return 200 * mel / 3 if mel < 15 else float(1000 * 6.4 ** ((mel - 15) / 27))

    top = 15 + 27 * math.log(8) / math.log(6.4)
    bands = []
    for band in range(64):
        low, centre, high = (hertz(top * (band + corner) / 65) for corner in range(3))
        power = 0.0
        for k in range(257):
            hz = 31.25 * k
            if low < hz <= centre:
                power += total[k] * (hz - low) / (centre - low) * 2 / (high - low)
            elif centre < hz < high:
                power += total[k] * (high - hz) / (high - centre) * 2 / (high - low)
        bands.append(power)
    return bands


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
    assert got.shape == (1000, 64)
    assert got.dtype == np.float32
    assert got == pytest.approx(np.log(power / power.mean() + FLOOR), abs=1e-3)


@pytest.mark.parametrize("hz", [437.5, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_its_band(hz: float) -> None:
    """The loudest band of a tone is the one whose triangle weighs its frequency most."""
    loudest = log_mel(tone(hz))[100:900].mean(0).argmax()
    assert loudest == mel_bands()[round(hz / 31.25)].argmax()


def test_white_noise_is_flat() -> None:
    """Triangles have equal areas, so white noise has about the same power in all bands."""
    level = mel_power(noise(2)).mean(0)
    assert level.max() / level.min() < 1.5  # three bins make a coarse triangle


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
    expected = np.full((1000, 64), np.log(FLOOR), np.float32)
    assert log_mel(np.zeros(SAMPLES, np.float32)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(0,), (SAMPLES - 1,), (SAMPLES, 1), (2, SAMPLES)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Windows of other lengths or more channels are refused with the shape in the message."""
    with pytest.raises(ValueError, match="160000 samples"):
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
