"""Learns an adapter and writes its folder, which is a model of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval import models
from retrieval.calibrate import Calibration
from retrieval.errors import MediaError, ModelError
from retrieval.learn import sense
from retrieval.learn.adapter import card, heads, keys, measures
from retrieval.learn.adapter.fitting import fitted
from retrieval.learn.adapter.kept import Kept, digest
from retrieval.learn.adapter.material import (
    DEV,
    TRAIN,
    Material,
    divide,
    groups_of,
    read_captioned,
    read_classes,
)
from retrieval.learn.adapter.measures import Pairs
from retrieval.learn.features import Report
from retrieval.models import ModelSpec
from retrieval.phrasing import phrase
from retrieval.prompts import choose
from retrieval.sense import Sense
from retrieval.towers import adapted
from retrieval.towers.adapted import Head
from retrieval.types import Modality, Vectors

METHODS = ("linear", "mlp", "cache")
RATES = (3e-4, 1e-3, 3e-3)
"""Tried one after the other, if there is a validation split to choose by."""
USUAL_RATE = 1e-3
SHARES = tuple(round(0.1 * n, 1) for n in range(10, -1, -1))
"""Of learned heads in what is written, the largest first: of equals, it is taken."""
WORDS, NOISE = 1_000, 2_000  # texts that tell words from noise

Heads = Mapping[Modality, Head]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be learned, and how.

    Attributes:
        out: Folder of the adapter.
        work: Folder for vectors and checkpoints; reused if there, by other trainings too.
        captions: File of captions; this or ``classes``.
        classes: Folder of folders of examples.
        files: Folder that captions name files in; the file's own by default.
        model: The base, as ``--model`` takes it; of ``start``, or the default model.
        start: Folder of an adapter to start from.
        keep: File of captions that must be found as before: its ``train`` is trained on too, its
            ``dev`` says how much of the learning is taken.
        keep_files: Folder that ``keep`` names files in.
        margin: Points of R@10 that ``keep`` may lose.
        name: Of the adapter; that of its folder by default.
        method: One of ``METHODS``.
        seed: Of everything random.
        epochs: At most.
        batch: Files of a step.
        rate: Fixed; by default the best of ``RATES``.
        command: What was typed, for the card.
    """

    out: Path
    work: Path
    captions: Path | None = None
    classes: Path | None = None
    files: Path | None = None
    model: str | None = None
    start: Path | None = None
    keep: Path | None = None
    keep_files: Path | None = None
    margin: float = 2.0
    name: str | None = None
    method: str = "linear"
    seed: int = 0
    epochs: int = 20
    batch: int = 256
    rate: float | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """Vectors of the base, as they are learned from; one ``Pairs`` a modality.

    Attributes:
        train: Never empty.
        dev: May be empty.
        classes: Whether items are told apart by the names of classes, or found by captions.
        replay: Of what is to be kept.
        guard: Of what is to be kept, to measure.
    """

    train: Sequence[Pairs]
    dev: Sequence[Pairs]
    classes: bool
    replay: Sequence[Pairs] = ()
    guard: Sequence[Pairs] = ()


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned.

    Attributes:
        heads: As they are written.
        share: Of the learning in them, 0..1.
        figures: For the card.
    """

    heads: Heads
    share: float
    figures: Mapping[str, Any]


def learn(request: Request, report: Report) -> dict[str, Any]:
    """Learns and writes ``heads.npz``, ``model.toml`` and ``README.md`` into a folder.

    The same request, files, versions and number of threads give the same heads, interrupted or not.

    Returns:
        What ``model.toml`` holds.

    Raises:
        MediaError: If the captions or classes cannot be used.
        ModelError: If the base or the adapter to start from cannot be used.
    """
    _check(request)
    spec, start = _base(request)
    encoder = spec.load()
    kept = Kept(request.work, encoder)
    material, data = _data(request, kept, report)
    learned = learn_heads(data, request, spec.space, start=start, report=report)
    content = adapted.packed(learned.heads)
    space = adapted.identity(spec.space, content)
    calibrations: dict[tuple[Modality, Modality], Calibration] = dict(spec.calibrations)
    for pairs in data.dev:
        calibrations |= fitted(pairs, *embedded(learned.heads, pairs), seed=request.seed)
    plane = None
    if spec.sense() is not None:
        report("words and noise", 0, 1)
        plane = _sense(kept, learned.heads, material, request.seed)
    return card.write(
        request.out,
        content,
        {
            "kind": adapted.KIND,
            "name": request.name or request.out.resolve().name,
            "space": space,
            "dim": spec.dim,
            "base": encoder.model,
            "base_space": spec.space,
            "licence": f"heads: of their maker; base: {spec.licence}",
            "confident": spec.confident,
            "method": request.method,
            "seed": request.seed,
            "share": learned.share,
            "command": request.command,
            "data": _counts(material, data),
            **learned.figures,
            "calibration": card.table(calibrations),
        },
        plane,
    )


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
    return Learned(final, share, figures)


def scores(of: Heads, pairs: Sequence[Pairs], *, classes: bool = False) -> dict[str, Any]:
    """Measures heads: how many, mean reciprocal rank, and R@1, 5 and 10 or accuracy in percent."""
    places = _places(of, pairs, classes)
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


def _places(of: Heads, pairs: Sequence[Pairs], classes: bool) -> Any:
    place = measures.named if classes else measures.places
    found = [place(*embedded(of, one), one) for one in pairs]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


# ---- methods -------------------------------------------------------------------------------------


def _trained(
    data: Data, request: Request, space: str, start: Heads | None, report: Report
) -> tuple[Heads, dict[str, Any]]:
    """Trains with every rate, and keeps the heads that do best on the validation split."""

    def score(of: Heads) -> float:
        return measures.reciprocal(_places(of, data.dev, data.classes))

    rates = RATES if data.dev else (USUAL_RATE,)
    if request.rate is not None:
        rates = (request.rate,)
    tried: list[tuple[float, float, int, Heads]] = []
    for rate in rates:
        settings = heads.Settings(
            branch=request.method == "mlp",
            rate=rate,
            epochs=request.epochs,
            batch=request.batch,
            seed=request.seed,
        )
        key = _key(space, repr(settings), data, start or {})
        of, course = heads.fit(
            data.train,
            settings,
            replay=data.replay,
            score=score if data.dev else None,
            start=start,
            checkpoint=request.work / f"training-{key}.npz",
            key=key,
            report=report,
        )
        reached = course.scores[course.best] if course.scores else 0.0
        tried.append((reached, rate, course.best, of))
    reached, rate, epoch, best = max(tried, key=lambda one: one[0])
    return best, {
        "rate": rate,
        "epoch": epoch,
        "rates": [one[1] for one in tried],
        "mrr": [round(one[0], 4) for one in tried],
    }


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


def class_cache(train: Sequence[Pairs]) -> tuple[keys.Cache, np.typing.NDArray[np.int64]]:
    """Makes a cache of all examples, and tells which group each of its classes is."""
    numbers = np.unique(np.concatenate([one.groups for one in train]))
    names = np.empty((len(numbers), train[0].texts.shape[1]), np.float32)
    for one in train:
        names[np.searchsorted(numbers, one.groups[one.owner])] = one.texts
    classes = np.searchsorted(numbers, np.concatenate([one.groups for one in train]))
    return keys.Cache(names, np.concatenate([one.items for one in train]), classes), numbers


def _share(data: Data, learned: Heads, margin: float) -> float:
    """Chooses how much of the learning is taken: the best that keeps what is to be kept."""
    if not data.guard:
        return 1.0
    least = measures.recall(_places({}, data.guard, False), 10) - margin
    allowed = [
        share
        for share in SHARES
        if measures.recall(_places(heads.mixed(learned, share), data.guard, False), 10) >= least
    ]  # 0 is always among them
    if not data.dev:
        return allowed[0]
    return max(
        allowed,
        key=lambda share: measures.reciprocal(
            _places(heads.mixed(learned, share), data.dev, data.classes)
        ),
    )


def _sense(kept: Kept, of: Heads, material: Material, seed: int) -> Sense:
    """Fits what tells words from noise, in the new space."""
    said = sorted({text for thing in material.things for text in thing.texts})[:WORDS]
    words = kept.texts([*said, *sense.class_words()], report=_silent)
    noise = kept.texts(sense.noise(NOISE, seed), report=_silent)
    head = of.get(Modality.TEXT, {})
    return sense.fit(adapted.apply(head, words), adapted.apply(head, noise))


# ---- data ----------------------------------------------------------------------------------------


def _data(request: Request, kept: Kept, report: Report) -> tuple[Material, Data]:
    if request.captions is not None:
        material = read_captioned(request.captions, request.files)
    else:
        assert request.classes is not None
        material = read_classes(request.classes)
    material, train, dev = _pairs(material, kept, request, report)
    data = Data(train, dev, bool(material.classes))
    if request.keep is None:
        return material, data
    general = read_captioned(request.keep, request.keep_files)
    general, replay, guard = _pairs(general, kept, request, report)
    if not guard:
        raise MediaError(f"{request.keep}: nothing is of split {DEV}, by which forgetting is told")
    return material, replace(data, replay=replay, guard=guard)


def _pairs(
    material: Material, kept: Kept, request: Request, report: Report
) -> tuple[Material, list[Pairs], list[Pairs]]:
    """Embeds what is learned from, in two splits; files that cannot be used are left out."""
    known = kept.encoder.towers
    for thing in material.things:
        if thing.modality not in known:
            raise ModelError(f"{kept.encoder.model} has no {thing.modality} tower: {thing.path}")
    digests: dict[Path, bytes] = {}
    reasons: dict[Path, str] = {}
    for thing in material.things:
        try:
            digests[thing.path] = digest(thing.path)
        except MediaError as error:
            reasons[thing.path] = str(error)
    readable = [(t.path, t.modality) for t in material.things if t.path in digests]
    vectors, broken = kept.files(readable, digests, report)
    reasons |= broken
    usable = tuple(thing for thing in material.things if thing.path in vectors)
    for path, reason in list(reasons.items())[:3]:
        report(f"left out: {path}: {reason}", len(usable), len(material.things))
    for name in material.classes:
        if not any(thing.texts[0] == name for thing in usable):
            raise MediaError(f"no file of the class {name} can be used")
    material = replace(material, things=usable)
    material = divide(material, digests, seed=request.seed)
    groups = groups_of(material, digests)
    made: dict[str, list[Pairs]] = {TRAIN: [], DEV: []}
    kinds: dict[str, int] = {}
    for split, pairs in made.items():
        for modality in Modality:
            own = [
                (thing, group)
                for thing, group in zip(material.things, groups, strict=True)
                if thing.split == split and thing.modality is modality
            ]
            if not own:
                continue
            said = [text for thing, _ in own for text in thing.texts]
            pairs.append(
                Pairs(
                    modality=modality,
                    items=np.stack([vectors[thing.path] for thing, _ in own]),
                    texts=_texts(kept, said, modality, bool(material.classes), report),
                    owner=np.repeat(np.arange(len(own)), [len(thing.texts) for thing, _ in own]),
                    groups=np.array([group for _, group in own], np.int64),
                    kinds=np.array(
                        [kinds.setdefault(text.casefold(), len(kinds)) for text in said], np.int64
                    ),
                )
            )
    if not made[TRAIN]:
        raise MediaError(f"{material.source}: nothing is of split {TRAIN}")
    return material, made[TRAIN], made[DEV]


def _texts(
    kept: Kept, said: Sequence[str], modality: Modality, classes: bool, report: Report
) -> Vectors:
    """Embeds captions as they are, and names of classes as a search puts them."""
    if not classes:
        return kept.texts(said, report=report)
    tower = kept.encoder.towers[Modality.TEXT]
    rows = {name: phrase(name, choose(name, modality), tower).vector[0] for name in set(said)}
    return np.stack([rows[name] for name in said])


def _counts(material: Material, data: Data) -> dict[str, Any]:
    source = material.source.resolve()
    return {
        "source": str(source),
        "files": len(material.things),
        "classes": len(material.classes),
        "train": sum(len(one.items) for one in data.train),
        "dev": sum(len(one.items) for one in data.dev),
        "split": "as given" if material.divided else "drawn by content, caption and class",
        "digest": _digest(*_arrays([*data.train, *data.dev])),
    }


def _base(request: Request) -> tuple[ModelSpec, Heads | None]:
    """Finds the base, and the heads to start from."""
    name = request.model
    heads_: Heads | None = None
    if request.start is not None:
        here = adapted.card(request.start.expanduser().resolve())
        below = adapted.base(request.start.expanduser().resolve())
        if name is not None and models.model(name).space != below.space:
            raise ModelError(f"{request.start} was learned on {here.base}, not on {name}")
        name = here.base
        heads_ = adapted.read_heads(request.start.expanduser().resolve(), here)
        wanted = "down" if request.method == "mlp" else "linear"
        if not all(wanted in head for head in heads_.values()):
            raise ModelError(
                f"the heads in {request.start} are of another method than {request.method}: "
                "give --method as it was learned"
            )
    elif name is not None and adapted.is_adapter(Path(name).expanduser()):
        raise ModelError(f"{name} is an adapter itself: start from it with --from")
    return models.model(name), heads_


def _check(request: Request) -> None:
    if (request.captions is None) == (request.classes is None):
        raise MediaError("give either --captions or --classes")
    if request.method == "cache" and request.classes is None:
        raise MediaError("a cache needs classes: give --classes FOLDER, or another --method")
    if request.method == "cache" and request.start is not None:
        raise MediaError(
            "a cache is not trained, so it has nothing to start from: leave out --from"
        )
    path = request.out / adapted.CARD
    if path.exists() and not adapted.is_adapter(request.out):
        raise ModelError(f"{path} belongs to another model: choose another folder")


def _key(space: str, settings: str, data: Data, start: Heads) -> str:
    every = _arrays([*data.train, *data.dev, *data.replay])
    return _digest(space.encode(), settings.encode(), adapted.packed(start), *every)


def _arrays(pairs: Sequence[Pairs]) -> list[bytes]:
    return [
        array.tobytes()
        for one in pairs
        for array in (one.items, one.texts, one.owner, one.groups, one.kinds)
    ]


def _digest(*contents: bytes) -> str:
    whole = hashlib.sha256()
    for content in contents:
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()[:16]


def _silent(stage: str, done: int, total: int) -> None:
    pass
