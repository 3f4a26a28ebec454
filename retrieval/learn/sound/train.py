"""Trains the student on mixtures: the teacher's opinions, and places among texts."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.losses import posterior_match
from retrieval.learn.sound.clips import FRAMES, Halves, Report
from retrieval.learn.sound.muon import Muon
from retrieval.learn.sound.recipe import Stage, Weights
from retrieval.learn.sound.student import Student
from retrieval.learn.sound.words import Texts
from retrieval.towers.bundled_audio import MELS

START_SCALE = 20.0  # inverse temperatures start near where they end
WARM_UP = 50  # steps


@dataclass(frozen=True, slots=True)
class Lessons:
    """Everything that the student is taught about the mixtures.

    Attributes:
        mel: Arrays ``(n, 500, 64)`` float16; a mixture is a row of one of them.
        place: ``(m, 2)``: which array and row.
        features: ``(m, 384)`` float32 of the teacher, standardised.
        logits: ``(m, 527)`` float32 of the teacher.
        kinds: ``(m, kinds)`` float32: share of each kind's amplitude; a row sums to less than one
            if a mixture holds sounds of which nobody said what they are.
    """

    mel: Sequence[Halves]
    place: NDArray[np.int64]
    features: Tensor
    logits: Tensor
    kinds: Tensor


def train(
    student: Student,
    lessons: Lessons,
    rows: NDArray[np.int64],
    texts: Texts,
    known: Sequence[int],
    stage: Stage,
    losses: Weights,
    *,
    seed: int,
    report: Report,
    name: str,
) -> Student:
    """Trains and gives the moving average of the weights.

    Args:
        student: Where to start; its weights change.
        lessons: All mixtures.
        rows: Those to learn from.
        texts: Names in the finished text space, which stays as it is.
        known: Kinds whose names the student may meet.
        stage: How long and how fast.
        losses: Weights of the four losses.
        seed: Of the order, the distortions and the choice of names.
        report: Told after each step.
        name: Of the stage, for ``report``.
    """
    generator = np.random.default_rng(seed)
    names = [np.flatnonzero(texts.owner == kind) for kind in known]
    phrased = torch.from_numpy(texts.kinds), torch.from_numpy(texts.classes)
    log_scale = nn.Parameter(torch.full((2,), math.log(START_SCALE)))
    hidden = student.hidden_weights() if stage.muon_rate else []
    muon = Muon(hidden, stage.muon_rate)
    others = [one for one in student.parameters() if not any(one is weight for weight in hidden)]
    matrices = [one for one in others if one.ndim > 1]
    vectors = [one for one in others if one.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": stage.decay},
            {"params": [*vectors, log_scale], "weight_decay": 0.0},
        ],
        lr=stage.rate,
        betas=(0.9, 0.99),
    )
    average = copy.deepcopy(student).eval()
    batch = min(stage.batch, len(rows))
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        order = _order(rows, batch, stage.steps, generator)
        ahead = pool.submit(_prepare, lessons, order[0], generator)
        for step in range(stage.steps):
            mel = ahead.result()
            if step + 1 < stage.steps:
                ahead = pool.submit(_prepare, lessons, order[step + 1], generator)
            pace = _pace(step, stage.steps)
            for group in optimizer.param_groups:
                group["lr"] = stage.rate * pace
            student.train()
            picked = np.array([one[step % len(one)] for one in names])
            phrase = step % len(texts.kinds)
            loss = _loss(
                student,
                mel,
                lessons,
                order[step],
                phrased[0][phrase, picked],
                phrased[1][phrase],
                list(known),
                log_scale.exp(),
                losses,
            )
            optimizer.zero_grad()
            student.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            muon.step(pace)
            follow(average, student, min(losses.average, (1 + step) / (10 + step)))
            report(name, step + 1, stage.steps)
    return average


def follow(average: nn.Module, live: nn.Module, keep: float) -> None:
    """Moves averaged weights and statistics a little towards the live ones."""
    with torch.no_grad():
        for kept, now in zip(
            average.state_dict().values(), live.state_dict().values(), strict=True
        ):
            if kept.dtype.is_floating_point:
                kept.lerp_(now, 1 - keep)


def distort(mel: Tensor, generator: np.random.Generator) -> Tensor:
    """Shifts spectrograms in time, bends their spectrum, raises their floor, hides stripes.

    The last is SpecAugment (Park et al. 2019, arXiv 1904.08779).

    Args:
        mel: ``(n, 500, 64)`` float32 log-mels.
        generator: Source of everything random.

    Returns:
        Another tensor of the same shape.
    """
    count = len(mel)
    out = torch.empty_like(mel)
    for row, shift in enumerate(generator.integers(0, FRAMES, count).tolist()):
        out[row] = torch.roll(mel[row], shift, 0)
    bends = 0.7 * generator.normal(size=(count, 1, 5)) * (generator.random((count, 1, 1)) < 0.7)
    curve = torch.from_numpy(bends.astype(np.float32))
    out += F.interpolate(curve, size=MELS, mode="linear", align_corners=True)
    floor = np.where(generator.random(count) < 0.3, generator.uniform(-16, -6, count), -20.0)
    out = torch.maximum(out, torch.from_numpy(floor.astype(np.float32))[:, None, None])
    for row in range(count):
        if generator.random() < 0.5:
            width = int(generator.integers(1, 13))
            low = int(generator.integers(0, MELS - width))
            out[row, :, low : low + width] = out[row].mean()
        if generator.random() < 0.3:
            width = int(generator.integers(5, 60))
            start = int(generator.integers(0, FRAMES - width))
            out[row, start : start + width] = -12.0
    return out


def _loss(
    student: Student,
    mel: Tensor,
    lessons: Lessons,
    rows: NDArray[np.int64],
    names: Tensor,
    classes: Tensor,
    known: list[int],
    scale: Tensor,
    losses: Weights,
) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        embedding, features, logits = student.everything(mel)
    opinion = torch.sigmoid(lessons.logits[rows])
    loss = losses.features * F.mse_loss(features.float(), lessons.features[rows])
    loss = loss + losses.classes / len(rows) * F.binary_cross_entropy_with_logits(
        logits.float(), opinion, reduction="sum"
    )
    posterior = opinion / opinion.sum(1, keepdim=True)
    loss = loss + losses.posterior * posterior_match(embedding, classes, scale[0], posterior)
    share = lessons.kinds[rows][:, known]
    guess = (scale[1] * embedding @ names.T).log_softmax(1)
    return loss - losses.names * (share * guess).sum(1).mean()


def _prepare(lessons: Lessons, rows: NDArray[np.int64], generator: np.random.Generator) -> Tensor:
    picked = [lessons.mel[array][row] for array, row in lessons.place[rows].tolist()]
    return distort(torch.from_numpy(np.stack(picked)).float(), generator)


def _order(
    rows: NDArray[np.int64], batch: int, steps: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draws batches so that no mixture returns before all were met."""
    per_round = len(rows) // batch
    batches: list[NDArray[np.int64]] = []
    while len(batches) < steps:
        shuffled = generator.permutation(rows)[: per_round * batch]
        batches.extend(shuffled.reshape(per_round, batch))
    return batches[:steps]


def _pace(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / min(WARM_UP, steps))
    return warm * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))
