"""A small encoder that really works: pictures, tones and words meet in a space of colours."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retrieval import models
from retrieval.errors import ModelMissingError
from retrieval.models import ModelSpec
from retrieval.towers.described import Described, Progress
from retrieval.types import Encoder, Modality, Tower, Vectors

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
PALETTE = np.array(list(COLOURS.values()), np.float32)
DIM = len(COLOURS)


def _unit(rows: NDArray[np.float32]) -> Vectors:
    rows = rows + np.float32(1e-3)  # grey things and words without a colour still have a direction
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


class _Counting:
    """Counts what was embedded, so that tests can tell reuse from work."""

    side_px: int | None = None
    rate_hz: int | None = None

    def __init__(self) -> None:
        self.embedded = 0
        self._lock = threading.Lock()

    def count(self, number: int) -> None:
        with self._lock:
            self.embedded += number


class ColourTower(_Counting):
    """A picture's share of each colour."""

    side_px = 16

    def prepare(self, content: Image.Image) -> NDArray[np.float32]:
        """Shrinks to 16 x 16 and keeps the pixels."""
        return np.asarray(content.resize((16, 16)), np.float32).reshape(-1, 3)

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        """Counts the nearest colour of every pixel."""
        self.count(len(batch))
        rows = []
        for pixels in batch:
            distances = ((pixels[:, None] - PALETTE) ** 2).sum(axis=2)
            rows.append(np.bincount(distances.argmin(axis=1), minlength=DIM) / len(pixels))
        return _unit(np.array(rows, np.float32))


class WordTower(_Counting):
    """Which colours are named."""

    def prepare(self, content: str) -> str:
        """Takes the text as it is."""
        return content

    def embed(self, batch: Sequence[str]) -> Vectors:
        """Counts the names of colours, in lowest terms: what is said twice means the same."""
        self.count(len(batch))
        rows = np.array([[text.lower().count(name) for name in COLOURS] for text in batch])
        divisors = np.maximum(np.gcd.reduce(rows, axis=1, keepdims=True), 1)
        return _unit(np.asarray(rows / divisors, np.float32))


RATE_HZ = 4_000
BAND_HZ = RATE_HZ / 2 / DIM


def pitch_hz(colour: str) -> float:
    """Gives the pitch that stands for a colour: the middle of its band."""
    return (list(COLOURS).index(colour) + 0.5) * BAND_HZ


class PitchTower(_Counting):
    """A sound's share of each band of frequencies; every colour has a band."""

    rate_hz = RATE_HZ

    def prepare(self, content: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes the samples as they are."""
        return content

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        """Adds up the power in each band."""
        self.count(len(batch))
        rows = []
        for samples in batch:
            power = np.abs(np.fft.rfft(samples)) ** 2
            band = np.fft.rfftfreq(len(samples), 1 / RATE_HZ) // BAND_HZ
            sums = np.bincount(band.astype(int).clip(0, DIM - 1), power, DIM)
            rows.append(sums / max(sums.sum(), 1e-9))
        return _unit(np.array(rows, np.float32))


def only(monkeypatch: pytest.MonkeyPatch, spec: ModelSpec) -> None:
    """Makes a model the default, and the only one that is known by a name."""
    real = models.model

    def model(name: str | None = None) -> ModelSpec:
        return spec if name in (None, spec.name) else real(name)

    monkeypatch.setattr(models, "model", model)


def colour_encoder(space: str = "colours-1") -> Encoder:
    """Makes the encoder; its towers count what they embed."""
    towers: dict[Modality, Tower] = {
        Modality.IMAGE: ColourTower(),
        Modality.AUDIO: PitchTower(),
        Modality.TEXT: WordTower(),
    }
    return Encoder("colours", space, DIM, towers)


class BlueTower(WordTower):
    """Reads every text as one word, and tells its vectors from those of other towers."""

    def __init__(self, identity: str) -> None:
        super().__init__()
        self.identity = identity

    def prepare(self, content: str) -> str:
        """Hears nothing but blue."""
        return "blue"


class ColourFamily:
    """A family of models, see ``retrieval.towers.described``: files of 100 bytes in a folder."""

    def __init__(self, cache: Path, modalities: Mapping[str, Sequence[Modality]]) -> None:
        self.cache = cache
        self.modalities = modalities  # by source; all where there is none
        self.loaded: list[str] = []
        self.devices: list[str | None] = []

    def place(self, source: str) -> Path:
        """Names the file."""
        return self.cache / source.replace("/", "--")

    def describe(self, source: str) -> Described:
        """Looks for the file."""
        if not self.place(source).exists():
            raise ModelMissingError(f"{source} is not there")
        known = tuple(self.modalities.get(source, tuple(Modality)))
        return Described(f"colours of {source}", DIM, known, 100, "CC0")

    def load(self, source: str, device: str | None = None) -> Encoder:
        """Makes an encoder that names itself otherwise than ``--model`` does."""
        self.loaded.append(source)
        self.devices.append(device)
        told = self.describe(source)
        towers = colour_encoder().towers
        return Encoder(
            "colours",
            told.space,
            DIM,
            {kind: towers[kind] for kind in told.modalities},
        )

    def over(self, encoder: Encoder, text_source: str) -> Encoder:
        """Gives the encoder a text tower that reads every text as "blue"."""
        self.loaded.append(f"{text_source} over {encoder.model}")
        towers = {**encoder.towers, Modality.TEXT: BlueTower(f"{encoder.space} in blue")}
        return replace(encoder, towers=towers)

    def pull(self, source: str, progress: Progress) -> None:
        """Writes the file."""
        self.cache.mkdir(exist_ok=True)
        progress(0, 0)
        self.place(source).write_bytes(bytes(100))
        progress(100, 100)
