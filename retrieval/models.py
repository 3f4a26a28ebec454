"""The models that can be loaded, as rows of a table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from retrieval import sense
from retrieval.calibrate import CONFIDENT, Calibration
from retrieval.errors import ModelError
from retrieval.sense import Sense
from retrieval.towers import adapted, bundled
from retrieval.types import Encoder, Modality


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model.

    Attributes:
        name: What ``--model`` takes.
        space: Identity of its vectors; known without loading it.
        dim: Length of a vector.
        modalities: What it embeds.
        size_bytes: Weights on disk.
        licence: Of the weights, in a few words.
        here: Whether it can be loaded without a download.
        calibrations: How its cosines become relevances, by kind of query and of target.
        load: Makes the encoder.
        confident: Relevance from which on a hit counts as a good match.
        sense: Gives what tells words from noise, if the model has it.
    """

    name: str
    space: str
    dim: int
    modalities: tuple[Modality, ...]
    size_bytes: int
    licence: str
    here: bool
    calibrations: Mapping[tuple[Modality, Modality], Calibration]
    load: Callable[[], Encoder]
    confident: float = CONFIDENT
    sense: Callable[[], Sense | None] = lambda: None


@functools.cache
def models() -> tuple[ModelSpec, ...]:
    """Lists every model, the default first."""
    return (_towers(bundled.WEIGHTS),)


def model(name: str | None = None) -> ModelSpec:
    """Finds a model by name, or in a folder that ``anyseek learn`` wrote; the default without one.

    Raises:
        ModelError: If there is none of that name.
    """
    for spec in models():
        if name in (None, spec.name):
            return spec
    assert name is not None
    folder = Path(name).expanduser()
    if adapted.is_adapter(folder):
        return _adapter(folder.resolve())
    if folder.is_dir():
        return _towers(folder.resolve())
    names = ", ".join(spec.name for spec in models())
    raise ModelError(f"there is no model named {name!r}; `anyseek models` lists them: {names}")


def _towers(folder: Path) -> ModelSpec:
    """Makes the row of a model of the bundled kind."""
    card = bundled.card(folder)
    return ModelSpec(
        name=card.name,
        space=card.space,
        dim=card.dim,
        modalities=bundled.modalities(folder),
        size_bytes=bundled.size_bytes(folder),
        licence=card.licence,
        here=True,
        calibrations=card.calibrations,
        confident=card.confident,
        sense=functools.partial(sense.read, folder / "sense.npz"),
        load=functools.partial(bundled.load, folder),
    )


def _adapter(folder: Path) -> ModelSpec:
    """Makes the row of an adapter over another model."""
    card, described = adapted.card(folder), adapted.describe(folder)
    return ModelSpec(
        name=card.name,
        space=described.space,
        dim=described.dim,
        modalities=described.modalities,
        size_bytes=described.size_bytes,
        licence=described.licence,
        here=True,
        calibrations=card.calibrations,
        confident=card.confident,
        sense=functools.partial(sense.read, folder / "sense.npz"),
        load=functools.partial(adapted.load, folder),
    )
