"""Teaches the trunk stage by stage: each makes of what it is given what the teacher's stage makes.

A stage learns from every place of every spectrogram at once, and what it has to do is local, so it
learns from few sounds and does the same with sounds that it never heard: this is what lets the
student hear what no label named. First each stage is given what the teacher's stages before it make
("alone"), then what the student's make ("chained"). Stages that match hints of a teacher are from
Romero et al. (2015, arXiv 1412.6550); trained apart, from Li et al. (2020, arXiv 1911.13053).
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn import loop
from retrieval.learn.features import Report
from retrieval.learn.sound.mixes import Mixer
from retrieval.learn.sound.recipe import Stage, Weights
from retrieval.learn.sound.student import Trunk
from retrieval.learn.sound.teacher import Teacher, scaled

FOLLOW = 0.02  # of a batch's variances, in the running ones that losses are divided by
LEAST = 0.05  # of the mean variance, added to each: channels that hardly vary matter little
FASTER = 4.0  # rate of biases and scales: a channel that is silent in the teacher is far from zero


def distil(
    trunk: Trunk,
    teacher: Teacher,
    mixer: Mixer,
    stage: Stage,
    losses: Weights,
    *,
    first_number: int,
    work: Path,
    report: Report,
    name: str,
) -> Trunk:
    """Trains some stages of a trunk; those before them stay as they are.

    Args:
        trunk: Where to start; a copy of it comes back.
        teacher: Whose stages they shall be like.
        mixer: Gives sounds.
        stage: Which stages, how long and how fast.
        losses: Weights.
        first_number: Of the mixtures that are heard, so that another training hears others.
        work: Folder for what stages that stay make of mixtures that are heard several times.
        report: Told after each step.
        name: Of this training, for ``report``.
    """
    trunk = copy.deepcopy(trunk).to(memory_format=torch.channels_last)
    given = _Given(trunk, teacher, mixer, stage, first_number, work, report)
    part = _Part(trunk, stage)
    varied = _Variances()

    def loss(rows: Tensor) -> Tensor:
        made, hint = given.batch(rows.numpy())
        total = torch.zeros(())
        for place, (one, other) in enumerate(
            zip(part.stages, teacher.stages[stage.first : stage.last], strict=True)
        ):
            made = one(made if stage.chained or not place else hint)
            with torch.no_grad():
                hint = other(hint)
            total = total + losses.hints * varied.distance(f"stage {place}", made, hint)
        if not part.ends:
            return total
        with torch.no_grad():
            wanted = hint.mean((2, 3))
            logits = teacher.classes(wanted)
        features = made.mean((2, 3))
        answers = part.classes(features if stage.chained else wanted)
        return (
            total
            + losses.features * varied.distance("features", features, wanted)
            + losses.classes * divergence(answers, logits)
            + losses.logits * F.mse_loss(answers, logits)
        )

    count = stage.steps * stage.batch
    groups = _groups(part, stage)
    pace = loop.Pace(1, stage.batch, average=0.0, warm=min(50, stage.steps))

    def told(stage: str, done: int, total: int) -> None:
        report(f"{stage}, {varied}", done, total)

    loop.run(part, groups, count, loss, pace, report=told, stage=name)
    return trunk.eval()


class _Given:
    """What the stages before the trained ones make of mixtures: the student's and the teacher's."""

    def __init__(
        self,
        trunk: Trunk,
        teacher: Teacher,
        mixer: Mixer,
        stage: Stage,
        first_number: int,
        work: Path,
        report: Report,
    ) -> None:
        self._stage, self._mixer, self._first_number = stage, mixer, first_number
        self._before = trunk.stages[: stage.first].eval(), teacher.stages[: stage.first]
        self._kept: list[NDArray[np.float16]] = []
        if stage.mixtures:
            self._keep(work, report)

    def batch(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Gives what the student's and what the teacher's first trained stage is given."""
        if self._kept:
            rows = numbers % self._stage.mixtures
            student, teacher = (torch.from_numpy(one[rows]).float() for one in self._kept)
            return _last_axis(student), _last_axis(teacher)
        return self._make(numbers + self._first_number)

    @torch.no_grad()
    def _make(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        mel = self._mixer.batch(numbers, frames=self._stage.frames)
        x = _last_axis(scaled(torch.from_numpy(mel)))
        return self._before[0](x), self._before[1](x)

    def _keep(self, work: Path, report: Report) -> None:
        """Makes all mixtures once, or takes up those that are there."""
        count, batch = self._stage.mixtures, self._stage.batch
        key = hashlib.sha256(f"{count} {self._stage.frames} {self._first_number}".encode())
        for one in self._before[0].state_dict().values():
            key.update(one.numpy().tobytes())
        paths = [work / f"given-{key.hexdigest()[:16]}-{who}.npy" for who in ("one", "two", "done")]
        if not paths[2].exists():
            made: list[np.memmap[Any, np.dtype[np.float16]]] = []
            for start in range(0, count, batch):
                rows = np.arange(start, min(start + batch, count))
                both = self._make(rows + self._first_number)
                if not made:
                    made = [
                        open_memmap(path, "w+", np.float16, (count, *one.shape[1:]))
                        for path, one in zip(paths, both, strict=False)
                    ]
                for kept, one in zip(made, both, strict=True):
                    kept[rows] = one.numpy()
                report("what the stages before make", int(rows[-1]) + 1, count)
            for kept in made:
                kept.flush()
            np.save(paths[2], count)
        self._kept = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths[:2]]


def _last_axis(x: Tensor) -> Tensor:
    """Lays channels out last, as convolutions here are fastest."""
    return x.contiguous(memory_format=torch.channels_last)


def _groups(part: nn.Module, stage: Stage) -> list[dict[str, object]]:
    learned = [one for one in part.parameters() if one.requires_grad]
    matrices = [one for one in learned if one.ndim > 1]
    vectors = [one for one in learned if one.ndim == 1]
    adam = {"betas": (0.9, 0.99)}
    return [
        {"params": matrices, "lr": stage.rate, "weight_decay": stage.decay, **adam},
        {"params": vectors, "lr": FASTER * stage.rate, "weight_decay": 0.0, **adam},
    ]


def divergence(answers: Tensor, logits: Tensor) -> Tensor:
    """Gives the Kullback-Leibler divergence of yes-or-no answers, summed over classes.

    Args:
        answers: ``(n, classes)`` logits.
        logits: Those of the teacher; the result is 0 where both are equal.
    """
    opinion = logits.sigmoid()
    cross = F.binary_cross_entropy_with_logits(answers, opinion, reduction="sum")
    own = F.binary_cross_entropy_with_logits(logits, opinion, reduction="sum")
    return (cross - own) / len(logits)


class _Part(nn.Module):
    """The stages that are trained, and the classes if the last stage is among them."""

    def __init__(self, trunk: Trunk, stage: Stage) -> None:
        super().__init__()
        self.stages = trunk.stages[stage.first : stage.last]
        self.ends = stage.last >= len(trunk.stages)
        if self.ends:
            self.hidden, self.out = trunk.hidden, trunk.out
        self._still = stage.still

    def train(self, mode: bool = True) -> _Part:
        super().train(mode)
        if self._still:
            for one in self.modules():
                if isinstance(one, nn.BatchNorm2d):
                    one.eval()
        return self

    def classes(self, features: Tensor) -> Tensor:
        logits: Tensor = self.out(F.hardswish(self.hidden(features)))
        return logits


class _Variances:
    """Running variances of each channel of what the teacher makes."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._last: dict[str, float] = {}

    def __str__(self) -> str:
        """Says how far from the teacher things were lately."""
        return "errors " + " ".join(f"{one:.3f}" for one in self._last.values())

    def distance(self, name: str, made: Tensor, wanted: Tensor) -> Tensor:
        """Gives the squared error of ``(n, channels, ...)`` over the variance, averaged."""
        axes = [axis for axis in range(made.ndim) if axis != 1]
        now = wanted.var(axes)
        kept = self._kept[name] = self._kept.get(name, now).lerp(now, FOLLOW)
        error = (made - wanted).square().mean(axes)
        distance = (error / (kept + LEAST * kept.mean())).mean()
        self._last[name] = float(distance.detach())
        return distance
