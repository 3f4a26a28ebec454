"""The bundled model's audio tower: ten seconds of sound into the shared space, without torch.

A window of sound becomes a log-mel spectrogram in numpy, and a convolutional network in ONNX
Runtime makes a vector of it. What the weights were trained on, and what they reach, stands in
``retrieval/weights/README.md``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.towers.onnx_session import open_session
from retrieval.types import Vectors

RATE_HZ = 16_000
WINDOW_S = 10.0
SAMPLES = round(RATE_HZ * WINDOW_S)
"""What ``log_mel`` takes, exactly."""

HOP = 160  # samples from frame to frame: 10 ms
FRAME = 400  # samples of a frame: 25 ms
FFT = 512  # the next power of two; 31.25 Hz between bins
MELS = 64
FRAMES = SAMPLES // HOP
FLOOR = 1e-7  # of the mean power: what lies 70 dB below it counts as nothing

Floats = NDArray[np.float32]


def log_mel(samples: Floats) -> Floats:
    """Gives the log-mel spectrogram of a window; indexing, searching and training all call it.

    Frame t is centred on sample ``160 t + 80``; the ends are mirrored. Each frame is weighted by a
    periodic Hann window, its power spectrum summed into mel bands (see ``mel_bands``), and the
    result is divided by its mean over the whole window, so that a louder copy gives the same
    numbers.

    Args:
        samples: ``(160000,)`` float32, mono at 16 kHz. A shorter sound is repeated to that length
            by the caller.

    Returns:
        ``(1000, 64)`` float32: natural logarithms of power over mean power, at least -16.1; all
        zeros power gives that floor everywhere.

    Raises:
        ValueError: If the shape is another, or a sample is not finite.
    """
    if samples.shape != (SAMPLES,):
        raise ValueError(f"a window has {SAMPLES} samples of one channel, not {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError("a window holds samples that are not finite")
    peak = float(np.abs(samples).max())
    # at level 1, powers of very soft or loud windows stay within float32
    scaled = np.multiply(samples, 1.0 / peak, dtype=np.float32) if peak > 0 else samples
    power = mel_power(scaled)
    mean = float(power.mean(dtype=np.float64)) or 1.0
    relative = np.multiply(power, 1.0 / mean, dtype=np.float32)
    return np.asarray(np.log(relative + np.float32(FLOOR)), np.float32)


def mel_power(samples: Floats) -> Floats:
    """Gives the power in each frame and mel band: ``(n // 160, 64)`` float32.

    Args:
        samples: ``(n,)`` float32 at 16 kHz, at least 200 of them.
    """
    margin = (FRAME - HOP) // 2
    padded = np.pad(np.asarray(samples, np.float32), margin, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    spectrum = np.fft.rfft(frames * _hann(), FFT, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(power.astype(np.float32) @ mel_bands(), np.float32)


@functools.cache
def mel_bands() -> Floats:
    """Gives the weight of each bin of the power spectrum in each band: ``(257, 64)`` float32.

    Triangles from 0 to 8 kHz whose corners are evenly spaced on Slaney's mel scale ("Auditory
    Toolbox", 1998): linear below 1 kHz, logarithmic above. Each has an area of one, so that white
    noise gives the same power in all bands. Every triangle holds at least two bins.
    """
    corners = _from_mel(np.linspace(0.0, _to_mel(RATE_HZ / 2), MELS + 2))
    bins = np.arange(FFT // 2 + 1) * (RATE_HZ / FFT)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
    bands = triangles.astype(np.float32)
    bands.flags.writeable = False
    return bands


_LINEAR_HZ = 200.0 / 3.0  # a mel below 1 kHz
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0  # a mel above it


def _to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return float(_BREAK_HZ / _LINEAR_HZ + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _from_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = _BREAK_HZ / _LINEAR_HZ
    above = _BREAK_HZ * np.exp(_LOG_STEP * np.maximum(mel - knee, 0.0))
    return np.where(mel < knee, mel * _LINEAR_HZ, above)


@functools.cache
def _hann() -> Floats:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    window = window.astype(np.float32)
    window.flags.writeable = False
    return np.asarray(window, np.float32)


class AudioTower:
    """Sounds into the space."""

    def __init__(self, weights: Path) -> None:
        """Names the weights; they are read at the first ``embed``."""
        self._weights = weights
        self._session: Any = None
        self._lock = threading.Lock()

    @property
    def side_px(self) -> None:
        """Moot for sounds."""
        return None

    @property
    def rate_hz(self) -> int:
        """Samples a second that the network was trained on."""
        return RATE_HZ

    def prepare(self, content: Floats) -> Floats:
        """Makes the spectrogram of a window; see ``log_mel`` for shapes and errors."""
        return log_mel(content)

    def embed(self, batch: Sequence[Floats]) -> Vectors:
        """Embeds spectrograms ``(1000, 64)``: ``(n, dim)`` float32, unit rows, in order."""
        (vectors,) = self._opened().run(["embedding"], {"mel": np.stack(batch)})
        return np.asarray(vectors, np.float32)

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = open_session(self._weights)
            return self._session
