"""The one way in which anything is trained here: steps, schedule, moving average, early stop.

Heads of the bundled model, its backbone's last blocks and adapters over frozen towers all go
through ``run``. What differs is the model, the groups of parameters and the loss of a batch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.atomic import read_arrays, write_arrays
from retrieval.learn.features import Report

Model = TypeVar("Model", bound=nn.Module)

WARM_STEPS = 30  # until the rate is full
SAVE_EVERY_S = 5.0
"""Between two checkpoints: so much work is lost by a kill, while small epochs are not all disk."""
FLOOR = 0.02  # share of the rate at the end of the cosine, which falls from 1


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and in what portions to train.

    Attributes:
        epochs: Times that everything is seen, at most.
        batch: Rows of a step; what is left over of an epoch waits for another.
        average: Share that the moving average of the weights keeps at each step.
        warm: Steps until the rate is full.
    """

    epochs: int
    batch: int
    average: float
    warm: int = WARM_STEPS


@dataclass(frozen=True, slots=True)
class Watch:
    """What is looked at after each epoch.

    Attributes:
        score: Says how good averaged weights are on data that is not trained on; higher is better.
        patience: Epochs without a better score until training ends.
    """

    score: Callable[[nn.Module], float]
    patience: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Where a training goes on after a kill.

    Attributes:
        checkpoint: File that is written between epochs and taken up again, if it is of the same
            ``key``; ``None`` keeps nothing.
        key: Whatever the outcome depends on, in a few characters.
    """

    checkpoint: Path | None = None
    key: str = ""


NOTHING = Keep()


@dataclass(slots=True)
class Course:
    """How a training went.

    Attributes:
        scores: On the validation data, before the first epoch and after each.
        losses: Mean loss of each epoch.
        best: Epoch whose weights were kept; 0 is the start.
    """

    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: int = 0


def run(
    model: Model,
    groups: list[dict[str, object]],
    count: int,
    loss: Callable[[Tensor], Tensor],
    pace: Pace,
    *,
    report: Report,
    stage: str,
    watch: Watch | None = None,
    keep: Keep = NOTHING,
) -> tuple[Model, Course]:
    """Trains with AdamW, a warm start and a cosine, and averages the weights.

    Args:
        model: Changed in place; what comes back is a copy with averaged weights.
        groups: Of AdamW.
        count: Rows there are to train on.
        loss: Gives the loss of some rows, numbered from 0 and ascending.
        pace: How long.
        report: Told after each step; of what is watched, after each epoch, with loss and score.
        stage: What the report calls this.
        watch: Ends early and keeps the best epoch's weights, the start included; without it, the
            last ones are kept.
        keep: Where to go on from, and to what end: the same as without an interruption.

    Returns:
        The averaged weights, ready to be used, and how it went.
    """
    batch = min(pace.batch, count)
    steps = max(1, pace.epochs * (count // batch))
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    average = copy.deepcopy(model)
    state = _State(model, average, optimizer)
    if not state.restore(keep, watch) and watch is not None:
        state.course.scores.append(watch.score(average.eval()))
        state.keep_best()
    model.train()
    step = state.epoch * (count // batch)
    while state.epoch < pace.epochs and not state.is_over(watch):
        order = torch.randperm(count)
        total = 0.0
        for start in range(0, count - batch + 1, batch):
            value = loss(order[start : start + batch].sort().values)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _share(step, steps, pace.warm)
            optimizer.step()
            step += 1
            total += float(value.detach())
            with torch.no_grad():
                share = min(pace.average, (1 + step) / (10 + step))
                for kept, live in zip(average.parameters(), model.parameters(), strict=True):
                    kept.lerp_(live, 1 - share)
            if watch is None:
                report(stage, step, steps)
        state.epoch += 1
        state.course.losses.append(total / (count // batch))
        if watch is not None:
            state.course.scores.append(watch.score(average.eval()))
            if state.course.scores[-1] > state.course.scores[state.course.best]:
                state.keep_best()
        if state.epoch == pace.epochs or state.is_over(watch) or state.is_due():
            state.save(keep)
        if watch is not None:
            told = f"loss {state.course.losses[-1]:.3f}, score {state.course.scores[-1]:.3f}"
            report(f"{stage}, epoch {state.epoch}: {told}", step, steps)
    if watch is not None:
        state.load_best()
    return average.eval(), state.course


def temperatures(scales: Iterable[nn.Parameter], rate: float) -> dict[str, object]:
    """Gives AdamW's group of logarithms of inverse temperatures, for ``run``.

    They move five times as fast as what they are the temperature of, and nothing pulls them to 0.

    Args:
        scales: The parameters.
        rate: Of the maps whose cosines they multiply.
    """
    return {"params": list(scales), "lr": 5 * rate, "weight_decay": 0.0}


def _share(step: int, steps: int, warm: int) -> float:
    """Gives the share of the full rate at a step: a straight rise, then half a cosine."""
    turn = (1 - FLOOR) / 2 * (1 + math.cos(math.pi * min(step, steps) / steps))
    return min(1.0, (step + 1) / warm) * (FLOOR + turn)


class _State:
    """All that a training is made of between two epochs, as arrays."""

    def __init__(
        self,
        model: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.model, self.average, self.optimizer = model, average, optimizer
        self.course = Course()
        self.epoch = 0
        self._best: list[Tensor] = []
        self._saved_s = time.monotonic()

    def is_over(self, watch: Watch | None) -> bool:
        return watch is not None and self.epoch - self.course.best >= watch.patience

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_s >= SAVE_EVERY_S

    def keep_best(self) -> None:
        self.course.best = self.epoch
        self._best = [one.detach().clone() for one in self.average.parameters()]

    def load_best(self) -> None:
        with torch.no_grad():
            for one, kept in zip(self.average.parameters(), self._best, strict=True):
                one.copy_(kept)

    def save(self, keep: Keep) -> None:
        if keep.checkpoint is None:
            return
        arrays = {
            "key": np.array(keep.key),
            "epoch": np.array(self.epoch),
            "best": np.array(self.course.best),
            "scores": np.array(self.course.scores),
            "losses": np.array(self.course.losses),
            "random": torch.get_rng_state().numpy(),
        }
        for name, tensors in self._tensors().items():
            arrays |= {f"{name}{n}": one.detach().numpy() for n, one in enumerate(tensors)}
        write_arrays(keep.checkpoint, arrays)
        self._saved_s = time.monotonic()

    def restore(self, keep: Keep, watch: Watch | None) -> bool:
        """Takes up a checkpoint; ``False`` if there is none of this training."""
        arrays = read_arrays(keep.checkpoint) if keep.checkpoint is not None else {}
        if str(arrays.get("key")) != keep.key:
            return False
        if watch is not None:
            self._best = [torch.empty_like(one) for one in self.average.parameters()]
        wanted = {
            f"{name}{n}": one for name, of in self._tensors().items() for n, one in enumerate(of)
        }
        if any(arrays.get(name, np.empty(0)).shape != one.shape for name, one in wanted.items()):
            return False
        with torch.no_grad():
            for name, one in wanted.items():
                one.copy_(torch.from_numpy(arrays[name]))
        self.epoch = int(arrays["epoch"])
        self.course = Course(
            arrays["scores"].tolist(), arrays["losses"].tolist(), int(arrays["best"])
        )
        torch.set_rng_state(torch.from_numpy(arrays["random"]))
        return True

    def _parameters(self) -> list[nn.Parameter]:
        return [one for group in self.optimizer.param_groups for one in group["params"]]

    def _tensors(self) -> dict[str, list[Tensor]]:
        states = [self._moments(one) for one in self._parameters()]
        return {
            "live": list(self.model.parameters()),
            "average": list(self.average.parameters()),
            "kept": self._best,
            "step": [one["step"] for one in states],
            "first": [one["exp_avg"] for one in states],
            "second": [one["exp_avg_sq"] for one in states],
        }

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Gives AdamW's state of a parameter; it makes one like this with the first gradient."""
        state: dict[str, Tensor] = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state
