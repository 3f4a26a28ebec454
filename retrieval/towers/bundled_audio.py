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

RATE_HZ = 32_000
WINDOW_S = 10.0
SAMPLES = round(RATE_HZ * WINDOW_S)
"""What ``log_mel`` takes, exactly."""

HOP = 320  # samples from frame to frame: 10 ms
FRAME = 800  # samples of a frame: 25 ms
FFT = 1024  # the next power of two; 31.25 Hz between bins
MELS = 128
TOP_HZ = 15_000.0
FRAMES = SAMPLES // HOP
FLOOR = 1e-4  # of the mean power: what lies 40 dB below it counts as nothing

_PRE_EMPHASIS = 0.97

Floats = NDArray[np.float32]


def log_mel(samples: Floats) -> Floats:
    """Gives the log-mel spectrogram of a window; indexing, searching and training all call it.

    See ``mel_power`` for frames and bands. The result is divided by its mean over the whole window,
    so that a louder copy gives the same numbers.

    Args:
        samples: ``(320000,)`` float32, mono at 32 kHz. A shorter sound is repeated to that length
            by the caller.

    Returns:
        ``(1000, 128)`` float32: natural logarithms of power over mean power, at least -9.2; all
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
    return over_mean(mel_power(scaled))


def over_mean(power: Floats) -> Floats:
    """Gives natural logarithms of powers over their mean, with ``FLOOR`` added to the ratio."""
    mean = float(power.mean(dtype=np.float64)) or 1.0
    relative = np.multiply(power, 1.0 / mean, dtype=np.float32)
    return np.asarray(np.log(relative + np.float32(FLOOR)), np.float32)


def mel_power(samples: Floats) -> Floats:
    """Gives the power in each frame and mel band: ``(1 + (n - 2) // 320, 128)`` float32.

    High frequencies are raised (each sample less 0.97 of the one before). Frame t is centred on
    sample ``320 t`` of that; the ends are mirrored. Each frame is weighted by a symmetric Hann
    window, and its power spectrum is summed into mel bands, see ``mel_bands``: what the teacher of
    the bundled weights hears (Schmid et al. 2023, arXiv 2211.04772).

    Args:
        samples: ``(n,)`` float32 at 32 kHz, at least 402 of them.
    """
    raised = samples[1:] - np.float32(_PRE_EMPHASIS) * samples[:-1]
    padded = np.pad(np.asarray(raised, np.float32), FRAME // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    spectrum = np.fft.rfft(frames * _hann(), FFT, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(power.astype(np.float32) @ mel_bands(), np.float32)


@functools.cache
def mel_bands() -> Floats:
    """Gives the weight of each bin of the power spectrum in each band: ``(513, 128)`` float32.

    Triangles of height one from 0 to 15 kHz whose corners are evenly spaced on the mel scale of
    O'Shaughnessy (1987), ``1127 ln(1 + f / 700)``, and which are straight on that scale, as in
    Kaldi. The last bin, 16 kHz, belongs to no band.
    """
    mels = 1127.0 * np.log(1.0 + np.arange(FFT // 2 + 1) * (RATE_HZ / FFT) / 700.0)
    corners = np.linspace(0.0, 1127.0 * np.log(1.0 + TOP_HZ / 700.0), MELS + 2)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (mels[:, None] - low) / (centre - low)
    falling = (high - mels[:, None]) / (high - centre)
    bands: Floats = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    bands[-1] = 0.0
    bands.flags.writeable = False
    return bands


@functools.cache
def _hann() -> Floats:
    window = np.hanning(FRAME).astype(np.float32)
    window.flags.writeable = False
    return window


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
        """Embeds spectrograms ``(1000, 128)``: ``(n, dim)`` float32, unit rows, in order."""
        (vectors,) = self._opened().run(["embedding"], {"mel": np.stack(batch)})
        return np.asarray(vectors, np.float32)

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = open_session(self._weights)
            return self._session
