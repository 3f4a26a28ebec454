"""Every number of the audio tower's training."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError


@dataclass(frozen=True, slots=True)
class Network:
    """The student's shape; see ``student.Trunk`` and ``student.Head``."""

    wide: float
    hidden: int


@dataclass(frozen=True, slots=True)
class Sounds:
    """What is heard.

    Attributes:
        most: Sounds of one package.
        speeds: Other speeds at which each labelled clip is heard.
        dull: Share of unlabelled sounds whose high frequencies are taken away.
        synthetic: Sounds of each synthetic kind.
        near: A sound whose teacher gives a left-out category's AudioSet class at least this
            probability counts as one of it.
        views: How often the head hears each labelled sound.
    """

    most: int
    speeds: int
    dull: float
    synthetic: int
    near: float
    views: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of some stages of the trunk.

    Attributes:
        first: The first stage that is trained; those before stay as they are.
        last: The first stage after it that is not.
        chained: Whether a stage is given what the student makes, or what the teacher makes.
        steps: How many.
        batch: Mixtures a step.
        frames: Length of the mixtures.
        rate: Highest learning rate of AdamW; that of biases and scales is higher.
        decay: Weight decay.
        mixtures: So many different mixtures are heard again and again, and what the stages before
            make of them is kept; 0 for new ones at every step.
        still: Whether batch norms keep their statistics, so that a sound is heard as it will be in
            use, whatever others are in the batch.
    """

    first: int
    last: int
    chained: bool
    steps: int
    batch: int
    frames: int
    rate: float
    decay: float
    mixtures: int = 0
    still: bool = False


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the trunk's losses; see ``distil``."""

    hints: float
    features: float
    classes: float
    logits: float


@dataclass(frozen=True, slots=True)
class Place:
    """The head's training, on sounds alone.

    Attributes:
        steps: How many.
        batch: Sounds a step.
        rate: Highest learning rate of AdamW.
        decay: Weight decay.
        dropout: Of features.
        noise: Standard deviation of what is added to standardised features.
        scale: Inverse temperature among names of kinds.
        keep: Weight of staying where the classes that are heard place a sound.
    """

    steps: int
    batch: int
    rate: float
    decay: float
    dropout: float
    noise: float
    scale: float
    keep: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole recipe."""

    network: Network
    sounds: Sounds
    stages: tuple[Stage, ...]
    losses: Weights
    place: Place


def read_recipe(path: Path | None = None) -> Recipe:
    """Reads a recipe, ``recipe_sound.toml`` of the package by default.

    Raises:
        ModelError: If the file is unreadable, or a number is missing or unknown.
    """
    path = path or Path(__file__).parent.parent / "recipe_sound.toml"
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Recipe(
            network=Network(**content["network"]),
            sounds=Sounds(**content["sounds"]),
            stages=tuple(Stage(**stage) for stage in content["stages"]),
            losses=Weights(**content["losses"]),
            place=Place(**content["place"]),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a recipe ({error})") from error
