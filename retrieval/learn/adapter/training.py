"""What the trainings of all adapters have in common: how long, when to stop, which rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn  # noqa: TID253 - this module is only imported to train

from retrieval.learn.adapter.request import Request
from retrieval.learn.features import Report
from retrieval.learn.loop import Course, Keep, Pace, Watch, run

Model = TypeVar("Model", bound=nn.Module)
Made = TypeVar("Made")

EPOCHS = 20
AVERAGE = 0.95  # some epochs of ten steps
LEAST_STEPS = 150  # of a training, however little there is: fewer do not leave the start
RATES = (3e-4, 1e-3, 3e-3)
"""Tried one after the other, if there is a validation split to choose by."""
USUAL_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of a training.

    Attributes:
        rate: Of AdamW.
        epochs: At most; ``None`` for 20, and more where those are less than ``LEAST_STEPS`` steps.
        batch: Items of a step.
        seed: Of everything random.
    """

    rate: float
    epochs: int | None
    batch: int
    seed: int


def trained(
    model: Model,
    groups: list[dict[str, object]],
    count: int,
    loss: Callable[[Tensor], Tensor],
    numbers: Numbers,
    *,
    score: Callable[[Any], float] | None,
    keep: Keep,
    report: Report,
) -> tuple[Model, Course]:
    """Trains by the one loop, and stops when validation data is met no better for a while.

    Args:
        model: See ``loop.run``, as for the next three.
        groups: Of AdamW.
        count: Items there are.
        loss: Of some of them.
        numbers: The numbers.
        score: Says how good a model is on validation data; without it, all epochs are trained.
        keep: Where to go on.
        report: Told about progress.
    """
    steps = max(1, count // min(numbers.batch, count))
    epochs = numbers.epochs or max(EPOCHS, math.ceil(LEAST_STEPS / steps))
    watch = None if score is None else Watch(score, max(4, epochs // 5))
    pace = Pace(epochs, numbers.batch, AVERAGE, warm=max(1, min(30, epochs * steps // 10)))
    stage = f"rate {numbers.rate:g}"
    return run(model, groups, count, loss, pace, report=report, stage=stage, watch=watch, keep=keep)


def best_of(
    request: Request,
    fit: Callable[[Numbers], tuple[Made, Course]],
    *,
    batch: int,
    measured: bool,
) -> tuple[Made, dict[str, Any]]:
    """Trains with every rate, and keeps what does best on the validation split.

    Args:
        request: What numbers it names are taken.
        fit: Trains with some numbers.
        batch: Items of a step, if the request names no other number.
        measured: Whether there is a validation split; without, one rate is trained with.

    Returns:
        The best, and figures for the card.
    """
    rates = RATES if measured else (USUAL_RATE,)
    if request.rate is not None:
        rates = (request.rate,)
    tried: list[tuple[float, float, int, Made]] = []
    for rate in rates:
        made, course = fit(Numbers(rate, request.epochs, request.batch or batch, request.seed))
        reached = course.scores[course.best] if course.scores else 0.0
        tried.append((reached, rate, course.best, made))
    reached, rate, epoch, best = max(tried, key=lambda one: one[0])
    return best, {
        "rate": rate,
        "epoch": epoch,
        "rates": [one[1] for one in tried],
        "mrr": [round(one[0], 4) for one in tried],
    }
