"""The training's numbers, checked when they are read."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError


@dataclass(frozen=True, slots=True)
class Space:
    """Length of the vectors and width of the heads' residual branch."""

    dim: int
    hidden: int


@dataclass(frozen=True, slots=True)
class Pictures:
    """Views of each picture, the first of which is the picture itself; the teacher's variant."""

    views: int
    teacher_variant: int


@dataclass(frozen=True, slots=True)
class Heads:
    """Training of two heads on fixed features."""

    epochs: int
    batch: int
    rate: float
    decay: float
    dropout: float
    hidden: int = 1024


@dataclass(frozen=True, slots=True)
class TailTraining:
    """Training of the backbone's last blocks with the heads; no epochs leave the blocks alone."""

    epochs: int
    batch: int
    rate: float
    head_rate: float
    decay: float
    head_decay: float
    dropout: float


@dataclass(frozen=True, slots=True)
class Losses:
    """Weights of the losses beside the contrastive one; 0 leaves a loss out."""

    posterior: float
    imagined: float
    alignment: float
    teacher: float
    teacher_scale: float
    average: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """All numbers of a training, section by section as in ``recipe.toml``."""

    space: Space
    pictures: Pictures
    heads: Heads
    teacher: Heads
    tail: TailTraining
    losses: Losses


def read_recipe(path: Path | None = None) -> Recipe:
    """Reads a recipe; the bundled model's by default.

    Raises:
        ModelError: If the file is unreadable, or a number is missing or unknown.
    """
    path = path or Path(__file__).with_name("recipe.toml")
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Recipe(
            space=Space(**content["space"]),
            pictures=Pictures(**content["pictures"]),
            heads=Heads(hidden=content["space"]["hidden"], **content["heads"]),
            teacher=Heads(**content["teacher"]),
            tail=TailTraining(**content["tail"]),
            losses=Losses(**content["losses"]),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a recipe ({error})") from error
