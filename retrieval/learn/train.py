"""Heads on fixed features, a teacher, and the backbone's last blocks, all on the same losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.atomic import digest_of
from retrieval.learn.backbone import WIDTH, Classifier, Tail, imagenet_state
from retrieval.learn.draws import one_of_each, some_of_each
from retrieval.learn.features import Halves, Report
from retrieval.learn.loop import Keep, Pace, run, temperatures
from retrieval.learn.losses import alignment, info_nce, posterior_match, soft_match
from retrieval.learn.recipe import Heads, Losses, Recipe

CAPTIONS = 5  # captions of each picture in a step; texts cost little beside pictures
IMAGINED = 128  # imagined pictures in a step
THINGS = 256  # names of things in a step
START_SCALE = 25.0  # inverse temperatures start in the middle of where they end


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything a training reads, already as features.

    Attributes:
        pooled: ``(views, n, width)`` float32, not negative: picture features.
        activations: One ``(n, 14, 14, 112)`` float16 array a view; empty for a teacher.
        captions: ``(m, k)`` float32, standardised text features of all captions in order.
        first: ``(n + 1,)``: captions ``first[i]`` to ``first[i + 1]`` belong to picture i.
        names: ``(names, templates, k)`` text features of class names.
        first_name: ``(1001,)``, as ``first``, for the classes.
        things: ``(things, languages, k)`` text features, English first; may be empty.
        posterior: ``(n, 1000)`` probabilities of the ImageNet classifiers.
    """

    pooled: Tensor
    activations: Sequence[Halves]
    captions: Tensor
    first: Tensor
    names: Tensor
    first_name: Tensor
    things: Tensor
    posterior: Tensor


@dataclass(frozen=True, slots=True)
class Lesson:
    """A teacher's embeddings of the training data, unit rows: pictures ``(n, d)``, captions."""

    pictures: Tensor
    captions: Tensor


class Head(nn.Module):
    """A linear map with a residual branch of one hidden layer, then unit length."""

    def __init__(self, width: int, dim: int, hidden: int, dropout: float) -> None:
        """Starts as a random linear map; the branch starts at zero."""
        super().__init__()
        self.linear, self.up = nn.Linear(width, dim), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, dim)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(n, width)`` to ``(n, dim)``, unit rows."""
        x = self.dropout(x)
        y = self.linear(x) + self.down(self.dropout(F.relu(self.up(x))))
        return F.normalize(y.float(), dim=1)


class Towers(nn.Module):
    """What is trained: two heads, two temperatures and, later, the backbone's tail."""

    def __init__(self, image: Head, text: Head, tail: Tail | None = None) -> None:
        """Starts with both inverse temperatures at ``START_SCALE``."""
        super().__init__()
        self.image, self.text, self.tail = image, text, tail
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self.log_name_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))


def rooted(pooled: Tensor) -> Tensor:
    """Gives the root of pooled features at length 30: bursts of one channel count for less.

    The square root before the L2 norm is the power normalisation of Perronnin et al. (2010).

    Args:
        pooled: ``(n, 1280)``, not negative; several networks' features may lie side by side.
    """
    networks = torch.chunk(pooled.clamp_min(1e-6).sqrt(), pooled.shape[1] // WIDTH, dim=1)
    return 30.0 * torch.cat([F.normalize(one, dim=1) for one in networks], dim=1)


def train_heads(
    corpus: Corpus,
    dim: int,
    settings: Heads,
    losses: Losses,
    *,
    report: Report,
    stage: str,
    lesson: Lesson | None = None,
    work: Path | None = None,
) -> Towers:
    """Trains two heads on fixed features and gives the moving average of their weights.

    With a folder ``work``, a training that was killed goes on where it was.
    """
    towers = Towers(
        Head(corpus.pooled.shape[2], dim, settings.hidden, settings.dropout),
        Head(corpus.captions.shape[1], dim, settings.hidden, settings.dropout),
    )
    groups = [
        {
            "params": [*towers.image.parameters(), *towers.text.parameters()],
            "lr": settings.rate,
            "weight_decay": settings.decay,
        },
        temperatures([towers.log_scale, towers.log_name_scale], settings.rate),
    ]
    pace = Pace(settings.epochs, settings.batch, losses.average)
    return _run(towers, groups, corpus, losses, pace, lesson, report=report, stage=stage, work=work)


def train_tail(
    corpus: Corpus,
    towers: Towers,
    recipe: Recipe,
    *,
    report: Report,
    lesson: Lesson | None,
    work: Path | None = None,
) -> Towers:
    """Goes on training heads together with the backbone's last blocks, from ImageNet's weights.

    ``work`` is as for ``train_heads``.
    """
    settings = recipe.tail
    towers = copy.deepcopy(towers)
    towers.tail = Tail(imagenet_state(0))
    for head in (towers.image, towers.text):
        head.dropout.p = settings.dropout
    groups = [
        {
            "params": list(towers.tail.parameters()),
            "lr": settings.rate,
            "weight_decay": settings.decay,
        },
        {
            "params": [*towers.image.parameters(), *towers.text.parameters()],
            "lr": settings.head_rate,
            "weight_decay": settings.head_decay,
        },
        temperatures([towers.log_scale, towers.log_name_scale], settings.head_rate),
    ]
    losses = recipe.losses
    pace = Pace(settings.epochs, settings.batch, losses.average)
    stage = "last blocks"
    return _run(towers, groups, corpus, losses, pace, lesson, report=report, stage=stage, work=work)


def imagine(pooled: Tensor, classifier: Classifier, count: int) -> tuple[Tensor, Tensor]:
    """Pushes pooled features towards random classes, most of which no training picture shows.

    A feature of class c lies along c's weights in the classifier; adding them to a picture's
    features, in random proportions, and reading the classifier's own opinion of the sum gives
    examples of all 1,000 classes without their pictures.

    Args:
        pooled: ``(n, 1280)`` float32, not negative: pictures to start from.
        classifier: ImageNet's last layer.
        count: How many to make.

    Returns:
        ``(count, 1280)`` features, not negative, and their posterior ``(count, 1000)``.
    """
    base = pooled.detach()[torch.randint(len(pooled), (count,))]
    towards = F.normalize(classifier.weight[torch.randint(1000, (count,))], dim=1)
    length = base.norm(dim=1, keepdim=True) * (0.6 + 1.2 * torch.rand(count, 1))
    features = (0.7 * torch.rand(count, 1) * base + length * towards).clamp_min(0)
    return features, classifier(features).softmax(1)


def _run(
    towers: Towers,
    groups: list[dict[str, object]],
    corpus: Corpus,
    losses: Losses,
    pace: Pace,
    lesson: Lesson | None,
    *,
    report: Report,
    stage: str,
    work: Path | None,
) -> Towers:
    """Trains by the one loop. The last weights are kept: ``dev`` is for measuring alone."""
    classifier = Classifier(imagenet_state(0)) if losses.posterior else None

    def loss(rows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return _loss(towers, corpus, rows, losses, lesson, classifier)

    keep = Keep()
    if work is not None:
        numbers = f"{stage} {pace} {losses} {[{**one, 'params': 0} for one in groups]}"
        key = _key(numbers, towers, corpus, lesson)
        keep = Keep(work / f"training-{key}.npz", key)
    count = corpus.pooled.shape[1]
    return run(towers, groups, count, loss, pace, report=report, stage=stage, keep=keep)[0]


def _key(numbers: str, towers: Towers, corpus: Corpus, lesson: Lesson | None) -> str:
    """Names a training after all that it depends on.

    Activations, a gigabyte, are those of the pictures whose pooled features are looked at.
    """
    seen = [getattr(corpus, one.name) for one in fields(corpus) if one.name != "activations"]
    seen += [] if lesson is None else [lesson.pictures, lesson.captions]
    seen += [*towers.state_dict().values(), torch.get_rng_state()]
    rows = [one.detach().contiguous().numpy().reshape(-1).view(np.uint8) for one in seen]
    return digest_of(numbers.encode(), *(one.data for one in rows))


def _loss(
    towers: Towers,
    corpus: Corpus,
    rows: Tensor,
    losses: Losses,
    lesson: Lesson | None,
    classifier: Classifier | None,
) -> Tensor:
    views = torch.randint(len(corpus.pooled), (len(rows),))
    if towers.tail is not None:
        pooled = towers.tail(_gather(corpus.activations, views, rows))
    else:
        pooled = corpus.pooled[views, rows]
    pictures = [rooted(pooled)]
    imagined_posterior = None
    if losses.imagined and classifier is not None:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            features, imagined_posterior = imagine(pooled.float(), classifier, IMAGINED)
        pictures.append(rooted(features))
    images = towers.image(torch.cat(pictures))
    seen, imagined = images[: len(rows)], images[len(rows) :]

    chosen = some_of_each(corpus.first[rows], corpus.first[rows + 1], CAPTIONS)
    texts = [corpus.captions[chosen.flatten()]]
    if classifier is not None:
        chosen_names = one_of_each(corpus.first_name[:-1], corpus.first_name[1:])
        texts.append(corpus.names[chosen_names, _any(corpus.names)])
    with_things = bool(losses.alignment) and len(corpus.things) > 0
    if with_things:
        things = torch.randint(len(corpus.things), (THINGS,))
        language = torch.randint(1, corpus.things.shape[1], (THINGS,))
        texts += [corpus.things[things, 0], corpus.things[things, language]]
    embedded = towers.text(torch.cat(texts))
    said, *rest = embedded.split([len(one) for one in texts])

    scale, name_scale = towers.log_scale.exp(), towers.log_name_scale.exp()
    with torch.autocast("cpu", enabled=False):
        per_caption = said.view(CAPTIONS, len(rows), -1)
        loss = torch.stack([info_nce(one, seen, scale) for one in per_caption]).mean()
        if classifier is not None:
            posterior = corpus.posterior[rows]
            loss = loss + losses.posterior * posterior_match(seen, rest[0], name_scale, posterior)
            if imagined_posterior is not None:
                loss = loss + losses.imagined * posterior_match(
                    imagined, rest[0], name_scale, imagined_posterior
                )
        if with_things:
            loss = loss + losses.alignment * alignment(rest[-2], rest[-1])
        if lesson is not None:
            for one, chosen_row in zip(per_caption, chosen, strict=True):
                targets = (
                    losses.teacher_scale * lesson.captions[chosen_row] @ lesson.pictures[rows].T
                )
                loss = loss + losses.teacher / CAPTIONS * soft_match(one, seen, scale, targets)
    return loss


def _any(names: Tensor) -> Tensor:
    return torch.randint(names.shape[1], (1000,))


def _gather(activations: Sequence[Halves], views: Tensor, rows: Tensor) -> Tensor:
    """Reads activations from their files: ``(n, 112, 14, 14)`` float32, channels last."""
    picked: list[NDArray[np.float16]] = [
        activations[view][row] for view, row in zip(views.tolist(), rows.tolist(), strict=True)
    ]
    return torch.from_numpy(np.stack(picked)).permute(0, 3, 1, 2).float()
