"""The model that comes with the package: pictures, sounds and texts in one space, no download.

Pictures go through an EfficientNet-Lite in ONNX Runtime, sounds through a network of our own (see
``bundled_audio``), texts through Universal Sentence Encoder features in numpy; a trained head on
each side meets in the shared space. Nothing here needs torch. What the weights were
trained on, and what they reach, stands in ``retrieval/weights/README.md``.
"""

from __future__ import annotations

import functools
import threading
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.calibrate import CONFIDENT, Calibration
from retrieval.errors import ModelError
from retrieval.towers import bundled_text
from retrieval.towers.bundled_audio import AudioTower
from retrieval.towers.onnx_session import open_session
from retrieval.towers.use import Use
from retrieval.types import Encoder, Modality, Tower, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
FILES = ("image.onnx", "text.npz", "audio.onnx")


@dataclass(frozen=True, slots=True)
class Card:
    """What ``model.toml`` beside the weights says.

    Attributes:
        name: Name of the model.
        space: Identity of its vectors.
        dim: Length of a vector.
        side_px: Pictures are squeezed to a square of this many pixels.
        licence: Of the weights.
        calibrations: How cosines become relevances, by kind of query and of target.
        confident: Relevance from which on a hit counts as a good match.
    """

    name: str
    space: str
    dim: int
    side_px: int
    licence: str
    calibrations: dict[tuple[Modality, Modality], Calibration]
    confident: float


@functools.cache
def card(folder: Path = WEIGHTS) -> Card:
    """Reads the figures of a model: the bundled one, or one that `anyseek learn` made.

    Raises:
        ModelError: If they are missing or malformed.
    """
    try:
        with (folder / "model.toml").open("rb") as file:
            return _card(tomllib.load(file))
    except OSError as error:
        raise ModelError(
            f"there is no model in {folder} ({error.strerror}): `anyseek models` lists what is here"
        ) from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'model.toml'} is not a model's: {error}") from error


def _card(table: dict[str, Any]) -> Card:
    return Card(
        name=table["name"],
        space=table["space"],
        dim=table["dim"],
        side_px=table["image_size"],
        licence=table["licence"],
        calibrations={
            (Modality(query), Modality(target)): _rising(Calibration(**values))
            for query, targets in table["calibration"].items()
            for target, values in targets.items()
        },
        confident=float(table.get("confident", CONFIDENT)),
    )


def _rising(calibration: Calibration) -> Calibration:
    if min(calibration.a, calibration.z) < 0 or calibration.spread <= 0:
        raise ValueError("a calibration must rise with the cosine")
    return calibration


def size_bytes(folder: Path = WEIGHTS) -> int:
    """Adds up the weight files."""
    return sum((folder / name).stat().st_size for name in FILES if (folder / name).exists())


def modalities(folder: Path = WEIGHTS) -> tuple[Modality, ...]:
    """Tells what a model embeds: pictures and texts, and sounds if it was trained on some."""
    known = (Modality.IMAGE, Modality.TEXT, Modality.AUDIO)
    return known if (folder / FILES[2]).exists() else known[:2]


def load(folder: Path = WEIGHTS, *, cache: Path | None = None) -> Encoder:
    """Makes the encoder; weights are read when a tower is first used.

    Args:
        folder: With ``image.onnx``, ``text.npz``, ``model.toml`` and, if it knows sounds,
            ``audio.onnx``.
        cache: Folder for unpacked weights; the platform's cache folder by default.
    """
    here = card(folder)
    towers: dict[Modality, Tower] = {
        Modality.IMAGE: ImageTower(folder / FILES[0], here.side_px),
        Modality.TEXT: TextTower(folder / FILES[1], cache),
    }
    if Modality.AUDIO in modalities(folder):
        towers[Modality.AUDIO] = AudioTower(folder / FILES[2])
    return Encoder(
        model=here.name if folder == WEIGHTS else str(folder),
        space=here.space,
        dim=here.dim,
        towers=towers,
    )


def prepare_image(image: Image, side_px: int) -> NDArray[np.uint8]:
    """Squeezes an RGB picture to a square: ``(side_px, side_px, 3)`` uint8.

    The whole picture counts, so nothing is cropped; the model was trained on pictures squeezed in
    the same way. Indexing, searching and training all call this one function.
    """
    if image.size != (side_px, side_px):
        from PIL.Image import Resampling  # here, since a search in words needs no pictures

        image = image.resize((side_px, side_px), Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image, np.uint8)


class ImageTower:
    """Pictures into the space."""

    def __init__(self, weights: Path, side_px: int) -> None:
        """Names the weights; they are read at the first ``embed``."""
        self._weights = weights
        self._side_px = side_px
        self._session: Any = None
        self._lock = threading.Lock()

    @property
    def side_px(self) -> int:
        """Side of the square that the network sees."""
        return self._side_px

    @property
    def rate_hz(self) -> None:
        """Moot for pictures."""
        return None

    def prepare(self, content: Image) -> NDArray[np.uint8]:
        """Squeezes an RGB picture to the network's square."""
        return prepare_image(content, self._side_px)

    def embed(self, batch: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Embeds squares: ``(n, dim)`` float32, unit rows."""
        (vectors,) = self._opened().run(["embedding"], {"image": np.stack(batch)})
        return np.asarray(vectors, np.float32)

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = open_session(self._weights)
            return self._session


class TextTower:
    """Texts, in any of sixteen languages, into the space."""

    def __init__(self, weights: Path, cache: Path | None) -> None:
        """Names the weights; they are read at the first ``embed``."""
        self._path = weights
        self._cache = cache
        self._features: Use | None = None
        self._head: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    @property
    def side_px(self) -> None:
        """Moot for texts."""
        return None

    @property
    def rate_hz(self) -> None:
        """Moot for texts."""
        return None

    def prepare(self, content: str) -> str:
        """Takes a text as it is."""
        return content

    def embed(self, batch: Sequence[str]) -> Vectors:
        """Embeds texts: ``(n, dim)`` float32, unit rows."""
        with self._lock:
            if self._features is None:
                features = Use(self._cache)
                self._head = bundled_text.read(self._path)
                self._features = features
        return bundled_text.embed(self._features.hidden(batch), self._head)
