"""The spectrogram that a CLAP checkpoint was trained on, in numpy: the same numbers, every time.

The feature extractor that comes with these checkpoints crops longer sounds at random, and calls a
random sound of a batch the longer one. Here a window has exactly the samples that it takes, so
nothing is left to chance.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError

Floats = NDArray[np.float32]
FLOOR = 1e-10  # power: -100 dB
_TOLD_BY = 2_400  # samples at the start by which a repeat is found: 50 ms, the shortest sound
_CHECKED = 64  # places at which a repeat may begin


@dataclass(frozen=True, slots=True)
class Recipe:
    """How samples become a spectrogram: the keys of ``preprocessor_config.json`` that matter.

    Attributes:
        rate_hz: Samples a second.
        samples: What the model hears at once.
        hop: Samples from frame to frame.
        fft: Samples of a frame.
        mels: Bands.
        low_hz: Lowest frequency of a band.
        high_hz: Highest.
        fused: Whether the model was trained with a shrunk copy beside three crops of long sounds.
        padding: What follows a shorter sound: ``repeatpad`` whole repeats and then silence,
            ``repeat`` repeats alone, ``pad`` silence alone.
    """

    rate_hz: int
    samples: int
    hop: int
    fft: int
    mels: int
    low_hz: float
    high_hz: float
    fused: bool
    padding: str


def recipe(table: dict[str, Any], path: Path) -> Recipe:
    """Reads a recipe.

    Args:
        table: The content of ``preprocessor_config.json``.
        path: Where it stood, for the error.

    Raises:
        ModelError: If it is not the feature extractor's of CLAP, or asks for what is not known.
    """
    try:
        found = Recipe(
            rate_hz=int(table.get("sampling_rate", 48_000)),
            samples=int(table.get("max_length_s", 10)) * int(table.get("sampling_rate", 48_000)),
            hop=int(table.get("hop_length", 480)),
            fft=int(table.get("fft_window_size", 1024)),
            mels=int(table.get("feature_size", 64)),
            low_hz=float(table.get("frequency_min", 0)),
            high_hz=float(table.get("frequency_max", 14_000)),
            fused=table.get("truncation", "fusion") == "fusion",
            padding=str(table.get("padding", "repeatpad")),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}): pull the model again") from None
    kind = table.get("feature_extractor_type", "ClapFeatureExtractor")
    known = (
        kind == "ClapFeatureExtractor"
        and table.get("truncation", "fusion") in ("fusion", "rand_trunc")
        and found.padding in ("repeatpad", "repeat", "pad")
        and 8_000 <= found.rate_hz <= 192_000
        and 0 < found.hop <= found.fft <= found.samples <= 60 * found.rate_hz
        and 0 < found.mels <= 1024
        and 0 <= found.low_hz < found.high_hz
    )
    if not known:
        raise ModelError(f"{path} asks for a preparation of sounds that anyseek does not know")
    return found


def filled(window: Floats, made: Recipe) -> Floats:
    """Gives exactly the samples that the model takes, as it was trained to see short sounds.

    Windows of short sounds come repeated to their full length already. Where whole repeats are
    followed by silence in training, the last repeat that is not whole becomes silence again: a
    repeat is told by its samples, bit for bit.

    Args:
        window: ``(n,)`` float32; what lies beyond the model's length is cut off.
        made: The recipe.
    """
    sound = np.asarray(window, np.float32)[: made.samples]
    if made.padding != "repeat" and len(sound) == made.samples:
        sound = sound[: _period(sound)]
    if not 0 < len(sound) < made.samples:
        return sound
    if made.padding != "pad":
        times = made.samples // len(sound) if made.padding == "repeatpad" else made.samples
        sound = np.tile(sound, min(times, math.ceil(made.samples / len(sound))))[: made.samples]
    return np.pad(sound, (0, made.samples - len(sound)))


def _period(sound: Floats) -> int:
    """Gives the length of what is repeated to fill a window; the whole where nothing is."""
    data, start = sound.tobytes(), sound[:_TOLD_BY].tobytes()
    at = 0
    for _ in range(_CHECKED):
        at = data.find(start, at + 1)
        if at < 0:
            break
        if at % 4 == 0 and np.array_equal(sound[at // 4 :], sound[: len(sound) - at // 4]):
            return at // 4
    return len(sound)


def log_mel(sound: Floats, made: Recipe) -> Floats:
    """Gives the spectrogram in decibels: ``(samples // hop + 1, mels)`` float32, at least -100.

    Frames are centred on every ``hop``-th sample, the ends mirrored, weighted by a periodic Hann
    window; powers are summed into bands.

    Args:
        sound: ``(samples,)`` float32.
        made: The recipe.
    """
    padded = np.pad(sound.astype(np.float64), made.fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, made.fft)[:: made.hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(made.fft) / made.fft)
    spectrum = np.fft.rfft(frames * hann, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    mel = np.maximum(power @ bands(made), FLOOR)
    return np.asarray(10 * np.log10(mel), np.float32)


@functools.cache
def bands(made: Recipe) -> NDArray[np.float64]:
    """Gives the weight of each bin of the spectrum in each band: ``(fft // 2 + 1, mels)``.

    Triangles evenly spaced on a mel scale. Checkpoints with fusion were trained on torchaudio's,
    with HTK's scale and height one; those without on librosa's, with Slaney's scale and area one.
    """
    scale = _Htk if made.fused else _Slaney
    corners = scale.hz(
        np.linspace(
            float(scale.mel(np.array(made.low_hz))),
            float(scale.mel(np.array(made.high_hz))),
            made.mels + 2,
        )
    )
    bins = np.linspace(0, made.rate_hz // 2, made.fft // 2 + 1)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return triangles if made.fused else triangles * (2.0 / (high - low))


class _Htk:
    """The mel scale of the Hidden Markov Model Toolkit."""

    @staticmethod
    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0), np.float64)

    @staticmethod
    def hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0), np.float64)


class _Slaney:
    """Slaney's mel scale ("Auditory Toolbox", 1998): linear below 1 kHz, logarithmic above."""

    @staticmethod
    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        above = 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) * (27.0 / np.log(6.4))
        return np.where(hz < 1000.0, 3.0 * hz / 200.0, above)

    @staticmethod
    def hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        above = 1000.0 * np.exp(np.log(6.4) / 27.0 * (np.maximum(mel, 15.0) - 15.0))
        return np.where(mel < 15.0, 200.0 * mel / 3.0, above)
