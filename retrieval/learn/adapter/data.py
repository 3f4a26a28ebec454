"""Material becomes vectors of the base, in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval.errors import MediaError, ModelError
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
from retrieval.learn.adapter.request import Request
from retrieval.learn.features import Report
from retrieval.phrasing import phrase
from retrieval.prompts import choose
from retrieval.types import Modality, Vectors


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


def read(request: Request, kept: Kept, report: Report) -> tuple[Material, Data]:
    """Reads and embeds all that a request names; files that cannot be used are reported.

    Raises:
        MediaError: If the captions or classes cannot be used.
        ModelError: If the base has no tower for a file.
    """
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
                    said=tuple(said),
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


def arrays(pairs: Sequence[Pairs]) -> list[bytes]:
    """Gives what a training depends on, to be digested."""
    return [
        array.tobytes()
        for one in pairs
        for array in (one.items, one.texts, one.owner, one.groups, one.kinds)
    ]
