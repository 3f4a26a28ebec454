"""Contexts: vectors before the words of a frozen text tower, trained against pictures (CoOp).

See ``retrieval.towers.open_clip_context`` for what a context is. Vectors of files are those of the
base and stay as they are; texts run through the tower in every step, since what stands before
them changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
from torch import Tensor, nn  # noqa: TID253

from retrieval.errors import ModelError
from retrieval.learn.adapter.data import Data
from retrieval.learn.adapter.measures import Pairs, reciprocal
from retrieval.learn.adapter.methods import Heads, Learned, kept_at, places_of, scores
from retrieval.learn.adapter.request import Request
from retrieval.learn.adapter.training import Numbers, best_of, trained
from retrieval.learn.draws import one_of_each
from retrieval.learn.features import Report
from retrieval.learn.loop import Course
from retrieval.learn.losses import choice, group_nce
from retrieval.towers import adapted, open_clip_context
from retrieval.towers.open_clip import TextTower
from retrieval.towers.open_clip_context import Context, Steering
from retrieval.types import Encoder, Modality, Vectors

BATCH = 32  # captions of a step: each is read by the whole tower, forth and back
AT_ONCE = 64  # texts that are read without learning


class Contexts(nn.Module):
    """What is trained, and nothing else."""

    def __init__(self, start: Context) -> None:
        """Starts where it is told."""
        super().__init__()
        self.vectors = nn.Parameter(torch.tensor(start))


def text_tower(encoder: Encoder, request: Request) -> TextTower:
    """Gives the base's text tower, if it can have a context.

    Raises:
        ModelError: If it cannot, with the methods that work.
    """
    tower = encoder.towers.get(Modality.TEXT)
    if not isinstance(tower, TextTower):
        raise ModelError(
            f"{encoder.model} has no text tower of open_clip, which alone takes a learned context: "
            "use --method linear, mlp or cache"
        )
    open_clip_context.check(tower.checkpoint, request.context)
    return tower


def learn_contexts(
    data: Data, request: Request, encoder: Encoder, *, start: Heads | None = None, report: Report
) -> Learned:
    """Learns a context from vectors of files and from texts; takes it unless the base does better.

    Raises:
        ModelError: If the base's text tower takes no context.
    """
    from retrieval.towers.open_clip_network import build

    tower = text_tower(encoder, request)
    first = (start or {}).get(Modality.TEXT, {}).get("context")
    count = request.context if first is None else len(first)
    report("reading the text tower", 0, 1)
    steering = Steering(build(tower.checkpoint), tower.checkpoint, count)
    begun = steering.start(request.seed) if first is None else np.asarray(first, np.float32)
    best, training = _trained(data, request, encoder.space, steering, begun, report)
    begun_dev = [reread(one, _reader(steering, torch.from_numpy(begun))) for one in data.dev]
    del steering  # its weights are read once more to be exported
    heads: Heads = {Modality.TEXT: {"context": best}}
    # from here on as a search will read: without torch, which is compared with torch first
    final = tower.steered(adapted.identity(encoder.space, adapted.packed(heads)), lambda: best)
    report("exporting the text tower", 0, 1)
    final.embed(["a dog"])
    dev = [reread(one, final.embed) for one in data.dev]
    base, after = (reciprocal(places_of({}, one, data.classes)) for one in (data.dev, dev))
    if after < base:
        heads, dev = {}, list(data.dev)
    return Learned(
        heads,
        float(bool(heads)),
        {
            "training": training,
            "context": count if heads else 0,
            "dev": {
                "base": scores({}, data.dev, classes=data.classes),
                "before": scores({}, begun_dev, classes=data.classes),
                "after": scores({}, dev, classes=data.classes),
            },
        },
        dev,
    )


def reread(pairs: Pairs, embed: Callable[[Sequence[str]], Vectors]) -> Pairs:
    """Gives pairs with other vectors of their texts; equal texts are embedded once."""
    number = {text: at for at, text in enumerate(dict.fromkeys(pairs.said))}
    rows = embed(list(number))
    return replace(pairs, texts=rows[[number[text] for text in pairs.said]])


def among_classes(pairs: Pairs, steering: Steering) -> Callable[[Contexts, Tensor], Tensor]:
    """Gives the loss of some files whose one text is the name of their class.

    It is the cross entropy among all names, at the temperature that the model has.
    """
    kinds, first = np.unique(pairs.kinds, return_index=True)
    ids = steering.ids([pairs.said[at] for at in first])
    truth = torch.from_numpy(np.searchsorted(kinds, pairs.kinds))
    items, scale = torch.from_numpy(pairs.items), torch.tensor(steering.scale)

    def loss(model: Contexts, rows: Tensor) -> Tensor:
        return choice(items[rows], steering.embed(ids, model.vectors), scale, truth[rows])

    return loss


def by_captions(pairs: Pairs, steering: Steering) -> Callable[[Contexts, Tensor], Tensor]:
    """Gives the loss of some files, each with one of its captions drawn: contrastive."""
    ids = steering.ids(pairs.said)
    first = torch.from_numpy(np.searchsorted(pairs.owner, np.arange(len(pairs.items) + 1)))
    items, scale = torch.from_numpy(pairs.items), torch.tensor(steering.scale)
    groups = torch.from_numpy(pairs.groups)

    def loss(model: Contexts, rows: Tensor) -> Tensor:
        chosen = one_of_each(first[rows], first[rows + 1])
        said = steering.embed(ids[chosen], model.vectors)
        return group_nce(said, items[rows], scale, groups[rows])

    return loss


def _trained(
    data: Data,
    request: Request,
    space: str,
    steering: Steering,
    start: Context,
    report: Report,
) -> tuple[Context, dict[str, Any]]:
    (pairs,) = data.train  # pictures are all that open_clip's towers know beside texts
    loss = (among_classes if data.classes else by_captions)(pairs, steering)

    def score(model: Contexts) -> float:
        read = _reader(steering, model.vectors)
        return reciprocal(places_of({}, [reread(one, read) for one in data.dev], data.classes))

    def fit(numbers: Numbers) -> tuple[Context, Course]:
        torch.manual_seed(numbers.seed)
        model = Contexts(start)
        # no decay: it would pull towards vectors that are none, not towards the start
        groups: list[dict[str, object]] = [
            {"params": [model.vectors], "lr": numbers.rate, "weight_decay": 0.0}
        ]
        best, course = trained(
            model,
            groups,
            len(pairs.items),
            lambda rows: loss(model, rows),
            numbers,
            score=score if data.dev else None,
            keep=kept_at(request, numbers, space, data, {Modality.TEXT: {"context": start}}),
            report=report,
        )
        return best.vectors.detach().numpy().copy(), course

    return best_of(request, fit, batch=BATCH, measured=bool(data.dev))


def _reader(steering: Steering, context: Tensor) -> Callable[[Sequence[str]], Vectors]:
    @torch.no_grad()
    def read(said: Sequence[str]) -> Vectors:
        rows = [
            steering.embed(steering.ids(said[at : at + AT_ONCE]), context).numpy()
            for at in range(0, len(said), AT_ONCE)
        ]
        return np.concatenate(rows)

    return read
