"""Heads from vectors: trained or made of examples, chosen, mixed with the frozen model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.learn.adapter import heads, keys, measures
from retrieval.learn.adapter.data import Data, arrays
from retrieval.learn.adapter.measures import Pairs
from retrieval.learn.adapter.request import Request
from retrieval.learn.adapter.training import Numbers, best_of
from retrieval.learn.atomic import digest_of
from retrieval.learn.features import Report
from retrieval.learn.loop import Course, Keep
from retrieval.towers import adapted
from retrieval.towers.adapted import Head
from retrieval.types import Modality, Vectors

BATCH = 256  # files of a step
SHARES = tuple(round(0.1 * n, 1) for n in range(10, -1, -1))
"""Of learned heads in what is written, the largest first: of equals, it is taken."""

Heads = Mapping[Modality, Head]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned.

    Attributes:
        heads: As they are written.
        share: Of the learning in them, 0..1.
        figures: For the card.
        dev: The validation split, as the heads take it.
    """

    heads: Heads
    share: float
    figures: Mapping[str, Any]
    dev: Sequence[Pairs]


def learn_heads(
    data: Data, request: Request, space: str, *, start: Heads | None = None, report: Report
) -> Learned:
    """Learns heads from vectors, and takes as much of them as what is to be kept allows."""
    figures: dict[str, Any] = {}
    before = start or {}
    if request.method == "cache":
        learned, figures["cache"] = _cached(data)
    else:
        learned, figures["training"] = _trained(data, request, space, start, report)
    share = _share(data, learned, request.margin)
    final = heads.mixed(learned, share)
    figures["dev"] = {
        "base": scores({}, data.dev, classes=data.classes),
        "before": scores(before, data.dev, classes=data.classes),
        "after": scores(final, data.dev, classes=data.classes),
    }
    if data.guard:
        figures["keep"] = {
            "margin": request.margin,
            "base": scores({}, data.guard),
            "before": scores(before, data.guard),
            "after": scores(final, data.guard),
        }
    return Learned(final, share, figures, data.dev)


def scores(of: Heads, pairs: Sequence[Pairs], *, classes: bool = False) -> dict[str, Any]:
    """Measures heads: how many, mean reciprocal rank, and R@1, 5 and 10 or accuracy in percent."""
    places = places_of(of, pairs, classes)
    figures: dict[str, Any] = {
        "queries": len(places),
        "mrr": round(measures.reciprocal(places), 4),
    }
    if classes:
        return figures | {"accuracy": round(measures.recall(places, 1), 1)}
    return figures | {f"r{k}": round(measures.recall(places, k), 1) for k in (1, 5, 10)}


def embedded(of: Heads, pairs: Pairs) -> tuple[Vectors, Vectors]:
    """Gives texts and items as heads have them."""
    texts = adapted.apply(of.get(Modality.TEXT, {}), pairs.texts)
    return texts, adapted.apply(of.get(pairs.modality, {}), pairs.items)


def places_of(of: Heads, pairs: Sequence[Pairs], classes: bool) -> NDArray[np.int64]:
    """Gives the place of each right answer, from 0, as heads have texts and items."""
    place = measures.named if classes else measures.places
    found = [place(*embedded(of, one), one) for one in pairs]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _trained(
    data: Data, request: Request, space: str, start: Heads | None, report: Report
) -> tuple[Heads, dict[str, Any]]:
    """Trains with every rate, and keeps the heads that do best on the validation split."""

    def score(of: Heads) -> float:
        return measures.reciprocal(places_of(of, data.dev, data.classes))

    def fit(numbers: Numbers) -> tuple[Heads, Course]:
        return heads.fit(
            data.train,
            numbers,
            branch=request.method == "mlp",
            replay=data.replay,
            score=score if data.dev else None,
            start=start,
            keep=kept_at(request, numbers, space, data, start or {}),
            report=report,
        )

    return best_of(request, fit, batch=BATCH, measured=bool(data.dev))


def _cached(data: Data) -> tuple[Heads, dict[str, Any]]:
    """Makes the cache, chooses its numbers, and folds it into the side of texts."""
    cache, numbers = class_cache(data.train)
    items = np.concatenate(
        [np.empty((0, cache.names.shape[1]), np.float32)] + [one.items for one in data.dev]
    )
    classes = np.concatenate([np.zeros(0, np.int64)] + [one.groups for one in data.dev])
    classes = np.searchsorted(numbers, classes)
    single, fold = keys.tune(cache, items, classes)
    figures: dict[str, Any] = {
        "alpha": single[0],
        "beta": single[1],
        "fold_alpha": fold[0],
        "fold_beta": fold[1],
    }
    if len(items):
        right = keys.accuracy(cache.logits(items, *single), classes)
        figures["classifier_accuracy"] = round(right, 1)
    return {Modality.TEXT: cache.folded(*fold)}, figures


def class_cache(train: Sequence[Pairs]) -> tuple[keys.Cache, NDArray[np.int64]]:
    """Makes a cache of all examples, and tells which group each of its classes is."""
    numbers = np.unique(np.concatenate([one.groups for one in train]))
    names = np.empty((len(numbers), train[0].texts.shape[1]), np.float32)
    for one in train:
        names[np.searchsorted(numbers, one.groups[one.owner])] = one.texts
    classes = np.searchsorted(numbers, np.concatenate([one.groups for one in train]))
    return keys.Cache(names, np.concatenate([one.items for one in train]), classes), numbers


def _share(data: Data, learned: Heads, margin: float) -> float:
    """Chooses how much of the learning is taken: the best that keeps what is to be kept.

    A share is allowed if what it loses, and a standard error of that, is within the margin: the
    loss is measured on a sample, and at the limit itself every other sample would lose more.
    """
    if not data.guard:
        return 1.0
    before = places_of({}, data.guard, False) < 10
    item = np.concatenate(
        [one.owner + 1_000_000_000 * number for number, one in enumerate(data.guard)]
    )
    allowed = [0.0]
    for share in SHARES[:-1]:
        after = places_of(heads.mixed(learned, share), data.guard, False) < 10
        if sum(loss_of(before, after, item)) <= margin:
            allowed.append(share)
    allowed.sort(reverse=True)
    if not data.dev:
        return allowed[0]
    return max(
        allowed,
        key=lambda share: measures.reciprocal(
            places_of(heads.mixed(learned, share), data.dev, data.classes)
        ),
    )


def loss_of(before: Flags, after: Flags, item: NDArray[np.int64]) -> tuple[float, float]:
    """Gives the loss in points, and its standard error over items, whose texts fail together."""
    lost = 100.0 * (before.astype(np.float64) - after)
    mean = float(lost.mean())
    _, own = np.unique(item, return_inverse=True)
    sums = np.bincount(own, lost - mean)
    return mean, float(np.sqrt((sums**2).sum()) / len(lost))


def kept_at(request: Request, numbers: Numbers, space: str, data: Data, start: Heads) -> Keep:
    """Gives the checkpoint of a training, named after all that it depends on."""
    settings = f"{request.method} {request.context} {numbers}"
    every = arrays([*data.train, *data.dev, *data.replay])
    key = digest_of(space.encode(), settings.encode(), adapted.packed(start), *every)
    return Keep(request.work / f"training-{key}.npz", key)
