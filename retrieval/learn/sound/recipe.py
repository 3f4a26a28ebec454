"""Every number of the audio tower's training."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError


@dataclass(frozen=True, slots=True)
class Network:
    """The student's shape; see ``student.Trunk`` and ``retrieval.learn.train.Head``."""

    widths: tuple[int, int, int, int, int]
    hidden: int
    dropout: float


@dataclass(frozen=True, slots=True)
class Sounds:
    """What is heard.

    Attributes:
        most: Sounds of one package.
        speeds: Other speeds at which each labelled clip is heard.
        synthetic: Sounds of each synthetic kind.
        mixes: Mixtures in each batch that is made.
        batches: How many batches of mixtures.
        near: A sound whose teacher gives a left-out category's AudioSet class at least this
            probability counts as one of it.
    """

    most: int
    speeds: int
    synthetic: int
    mixes: int
    batches: int
    near: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One training.

    Attributes:
        steps: How many.
        batch: Mixtures a step.
        rate: Highest learning rate of AdamW.
        decay: Weight decay of AdamW.
        muon_rate: Highest learning rate of Muon, which then trains the hidden weights; 0 for none.
        every: Of mixtures without a labelled sound, one in so many is heard.
    """

    steps: int
    batch: int
    rate: float
    decay: float
    muon_rate: float
    every: int


@dataclass(frozen=True, slots=True)
class Polish:
    """The head's last training, on sounds alone.

    Attributes:
        labelled: How many sounds of ESC-50.
        unknown: How many of which nothing is known.
        synthetic: How many that were made by formula.
        steps: How many.
        batch: Sounds a step.
        rate: Highest learning rate of AdamW.
        decay: Weight decay.
        dropout: Of features.
        noise: Standard deviation of what is added to standardised features.
        scale: Inverse temperature among names of kinds.
        posterior: Weight of agreement with the teacher's classes.
        posterior_scale: Inverse temperature among those.
    """

    labelled: int
    unknown: int
    synthetic: int
    steps: int
    batch: int
    rate: float
    decay: float
    dropout: float
    noise: float
    scale: float
    posterior: float
    posterior_scale: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the losses; ``average`` is the decay of the moving average."""

    features: float
    classes: float
    posterior: float
    names: float
    average: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole recipe."""

    network: Network
    sounds: Sounds
    first: Stage
    second: Stage
    polish: Polish
    losses: Weights


def read_recipe(path: Path | None = None) -> Recipe:
    """Reads a recipe, ``recipe_sound.toml`` of the package by default.

    Raises:
        ModelError: If the file is unreadable, or a number is missing or unknown.
    """
    path = path or Path(__file__).parent.parent / "recipe_sound.toml"
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        network = content["network"]
        return Recipe(
            network=Network(**{**network, "widths": tuple(network["widths"])}),
            sounds=Sounds(**content["sounds"]),
            first=Stage(**content["first"]),
            second=Stage(**content["second"]),
            polish=Polish(**content["polish"]),
            losses=Weights(**content["losses"]),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a recipe ({error})") from error
