"""Learns an adapter and writes its folder, which is a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval import models
from retrieval.calibrate import Calibration
from retrieval.errors import MediaError, ModelError
from retrieval.learn import sense
from retrieval.learn.adapter import card
from retrieval.learn.adapter.contexts import learn_contexts, text_tower
from retrieval.learn.adapter.data import Data, arrays, read
from retrieval.learn.adapter.fitting import fitted
from retrieval.learn.adapter.kept import Kept
from retrieval.learn.adapter.material import (
    Material,
)
from retrieval.learn.adapter.methods import Heads, embedded, learn_heads
from retrieval.learn.adapter.request import Request
from retrieval.learn.atomic import digest_of
from retrieval.learn.features import Report
from retrieval.models import ModelSpec
from retrieval.sense import Sense
from retrieval.towers import adapted
from retrieval.types import Modality

WORDS, NOISE = 1_000, 2_000  # texts that tell words from noise


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
    if request.method == "context":
        text_tower(encoder, request)  # which says at once if there can be none
    kept = Kept(request.work, encoder)
    material, data = read(request, kept, report)
    if request.method == "context":
        learned = learn_contexts(data, request, encoder, start=start, report=report)
    else:
        learned = learn_heads(data, request, spec.space, start=start, report=report)
    content = adapted.packed(learned.heads)
    space = adapted.identity(spec.space, content)
    calibrations: dict[tuple[Modality, Modality], Calibration] = dict(spec.calibrations)
    for pairs in learned.dev:
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


def _sense(kept: Kept, of: Heads, material: Material, seed: int) -> Sense:
    """Fits what tells words from noise, in the new space."""
    said = sorted({text for thing in material.things for text in thing.texts})[:WORDS]
    words = kept.texts([*said, *sense.class_words()], report=_silent)
    noise = kept.texts(sense.noise(NOISE, seed), report=_silent)
    head = of.get(Modality.TEXT, {})
    return sense.fit(adapted.apply(head, words), adapted.apply(head, noise))


def _counts(material: Material, data: Data) -> dict[str, Any]:
    source = material.source.resolve()
    return {
        "source": str(source),
        "files": len(material.things),
        "classes": len(material.classes),
        "train": sum(len(one.items) for one in data.train),
        "dev": sum(len(one.items) for one in data.dev),
        "split": "as given" if material.divided else "drawn by content, caption and class",
        "digest": digest_of(*arrays([*data.train, *data.dev])),
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
        wanted = {"mlp": "down", "context": "context"}.get(request.method, "linear")
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
    if request.method == "context" and request.keep is not None:
        raise MediaError(
            "a context cannot be mixed with the model without it: leave out --keep, "
            "or use --method linear or mlp"
        )
    path = request.out / adapted.CARD
    if path.exists() and not adapted.is_adapter(request.out):
        raise ModelError(f"{path} belongs to another model: choose another folder")


def _silent(stage: str, done: int, total: int) -> None:
    pass
