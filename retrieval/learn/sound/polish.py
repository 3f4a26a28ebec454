"""Trains the head once more on sounds that are heard alone, as they are in use.

Mixtures teach the network to hear, but what is searched is mostly one sound at a time. The network
stays as it is here, so its features are computed once and the head is done in seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
from numpy.typing import NDArray
from torch import Tensor  # noqa: TID253

from retrieval.learn.losses import posterior_match
from retrieval.learn.sound.clips import Report
from retrieval.learn.sound.recipe import Polish
from retrieval.learn.sound.student import Student
from retrieval.learn.sound.train import Lessons
from retrieval.learn.sound.words import Texts

AT_ONCE = 50


def choose(
    lessons: Lessons,
    alone: NDArray[np.bool_],
    labelled: NDArray[np.bool_],
    rows: NDArray[np.int64],
    settings: Polish,
    *,
    seed: int,
) -> NDArray[np.int64]:
    """Draws sounds that are heard alone: labelled ones, unknown ones, synthetic ones.

    Args:
        lessons: All mixtures.
        alone: ``(m,)``: whether a mixture has one part.
        labelled: ``(m,)``: whether it is from ESC-50.
        rows: The mixtures that may be heard.
        settings: How many of each.
        seed: Of the draw.
    """
    generator = np.random.default_rng(seed)
    rows = rows[alone[rows]]
    named = (lessons.kinds.sum(1) > 0).numpy()[rows]
    groups = (
        (rows[labelled[rows]], settings.labelled),
        (rows[~named], settings.unknown),
        (rows[named & ~labelled[rows]], settings.synthetic),
    )
    return np.concatenate([generator.permutation(group)[:count] for group, count in groups])


def polish(
    student: Student,
    lessons: Lessons,
    rows: NDArray[np.int64],
    texts: Texts,
    known: Sequence[int],
    settings: Polish,
    *,
    seed: int,
    report: Report,
) -> Student:
    """Gives a copy of the student whose head was trained on the features of some mixtures.

    Args:
        student: The trained student.
        lessons: All mixtures.
        rows: Those to use; see ``choose``.
        texts: Names in the finished text space.
        known: Kinds whose names the head may meet.
        settings: How long and how fast.
        seed: Of everything random.
        report: Told about progress.
    """
    student = copy.deepcopy(student).eval()
    features = _features(student, lessons, rows)
    head = student.head
    dropout, head.dropout.p = head.dropout.p, settings.dropout
    head.train()
    generator = torch.Generator().manual_seed(seed)
    opinion = torch.sigmoid(lessons.logits[rows])
    posterior = opinion / opinion.sum(1, keepdim=True)
    shares = lessons.kinds[rows][:, list(known)]
    phrased = torch.from_numpy(texts.kinds), torch.from_numpy(texts.classes)
    names = [torch.from_numpy(np.flatnonzero(texts.owner == kind)) for kind in known]
    optimizer = torch.optim.AdamW(head.parameters(), settings.rate, weight_decay=settings.decay)
    scale, posterior_scale = torch.tensor(settings.scale), torch.tensor(settings.posterior_scale)
    torch.manual_seed(seed)  # of dropout
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * (1 - step / settings.steps)
        batch = torch.randint(len(rows), (settings.batch,), generator=generator)
        noise = settings.noise * torch.randn(
            (settings.batch, features.shape[1]), generator=generator
        )
        embedding = head(features[batch] + noise)
        phrase = int(torch.randint(len(phrased[0]), (1,), generator=generator))
        turn = int(torch.randint(1000, (1,), generator=generator))
        picked = torch.stack([one[turn % len(one)] for one in names])
        guess = (scale * embedding @ phrased[0][phrase, picked].T).log_softmax(1)
        loss = -(shares[batch] * guess).sum(1).mean()
        loss = loss + settings.posterior * posterior_match(
            embedding, phrased[1][phrase], posterior_scale, posterior[batch]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report("head", step + 1, settings.steps)
    head.dropout.p = dropout
    return student.eval()


@torch.no_grad()
def _features(student: Student, lessons: Lessons, rows: NDArray[np.int64]) -> Tensor:
    features = []
    for start in range(0, len(rows), AT_ONCE):
        places = lessons.place[rows[start : start + AT_ONCE]].tolist()
        mel = torch.from_numpy(np.stack([lessons.mel[array][row] for array, row in places]))
        with torch.autocast("cpu", torch.bfloat16):
            features.append(student.pooled(mel.float()).float())
    return torch.cat(features)
