"""Trains the head on sounds that are heard alone, as they are in use.

The trunk stays as it is, so its features are computed once and the head is done in seconds: one
trunk serves all trainings that leave something out, as it is never told a label.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor  # noqa: TID253

from retrieval.learn import loop
from retrieval.learn.features import Report
from retrieval.learn.sound.clips import FRAMES, Bank, Floats
from retrieval.learn.sound.mixes import distort
from retrieval.learn.sound.recipe import Place
from retrieval.learn.sound.student import Head, Trunk
from retrieval.learn.sound.words import Texts
from retrieval.towers.bundled_audio import over_mean

AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Heard:
    """What a trunk makes of the units of a bank, each heard alone.

    Attributes:
        unit: ``(n,)`` int64: which unit a row is of; there may be several views of one.
        features: ``(n, 384)`` float32.
        logits: ``(n, 527)`` float32.
    """

    unit: NDArray[np.int64]
    features: Floats
    logits: Floats


@torch.no_grad()
def hear(trunk: Trunk, bank: Bank, *, views: int, seed: int, report: Report) -> Heard:
    """Hears every unit as it is and, some time later in it, distorted.

    Args:
        trunk: What hears.
        bank: The sounds.
        views: How often each unit is heard; only the first time as it is.
        seed: Of the distortions.
        report: Told about progress.
    """
    unit = np.tile(np.arange(len(bank.units)), views)
    features, logits = [], []
    trunk = trunk.eval()
    for start in range(0, len(unit), AT_ONCE):
        mels = []
        for row in range(start, min(start + AT_ONCE, len(unit))):
            power = np.exp(bank.power[unit[row]].astype(np.float32))
            if row >= len(bank.units):
                generator = np.random.default_rng((seed, row))
                power = distort(np.roll(power, int(generator.integers(FRAMES)), 0), generator)
            mels.append(over_mean(power))
        made, answers = trunk(torch.from_numpy(np.stack(mels)))
        features.append(made.numpy())
        logits.append(answers.numpy())
        report("hearing", min(start + AT_ONCE, len(unit)), len(unit))
    return Heard(unit, np.concatenate(features), np.concatenate(logits))


def place(
    head: Head,
    heard: Heard,
    labelled: NDArray[np.int64],
    kinds: NDArray[np.int64],
    others: NDArray[np.int64],
    texts: Texts,
    known: Sequence[int],
    settings: Place,
    *,
    seed: int,
    report: Report,
) -> Head:
    """Gives a trained copy of a head.

    Sounds with a label are drawn to their names and away from other names; all sounds are kept
    where the classes that the trunk hears in them place them.

    Args:
        head: Where to start.
        heard: Sounds.
        labelled: Rows of it with a label.
        kinds: Their labels, numbered as in ``texts``.
        others: Rows without one.
        texts: Names in the finished text space.
        known: Kinds whose names the head may meet.
        settings: How long, how fast, how much.
        seed: Of everything random.
        report: Told about progress.
    """
    head = copy.deepcopy(head)
    features, logits = torch.from_numpy(heard.features), torch.from_numpy(heard.logits)
    everything = np.concatenate([labelled, others])
    head.standardise(features[everything])
    x = head.standardised(features)
    answer = torch.from_numpy(np.searchsorted(np.array(known), kinds))
    phrased = torch.from_numpy(texts.kinds)
    names = [np.flatnonzero(texts.owner == kind) for kind in known]
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)  # of noise and dropout

    def seen(rows: Tensor) -> Tensor:
        noisy = x[rows] + settings.noise * torch.randn(len(rows), x.shape[1])
        return F.dropout(noisy, settings.dropout)

    def loss(rows: Tensor) -> Tensor:
        count = len(rows)
        told = torch.from_numpy(generator.integers(len(labelled), size=count))
        picked = torch.from_numpy(labelled)[told]
        phrase = int(generator.integers(len(phrased)))
        called = phrased[phrase, [int(generator.choice(one)) for one in names]]
        guess = settings.scale * head.place(seen(picked), logits[picked]) @ called.T
        kept = torch.from_numpy(generator.choice(everything, count))
        alike = (head.place(seen(kept), logits[kept]) * head.called(logits[kept])).sum(1)
        return F.cross_entropy(guess, answer[told]) + settings.keep * (1 - alike).mean()

    groups: list[dict[str, object]] = [
        {"params": list(head.parameters()), "lr": settings.rate, "weight_decay": settings.decay}
    ]
    pace = loop.Pace(1, settings.batch, average=0.0, warm=1)
    count = settings.steps * settings.batch
    loop.run(head, groups, count, loss, pace, report=report, stage="head")
    return head.eval()
