"""Which model a name means, whether its weights are here, and how it is loaded.

A name is that of the bundled model, one of ``retrieval.catalogue``, a folder that ``anyseek learn``
wrote, or says what to load:

=============================  ====================================================
``ARCH/PRETRAINED``            weights of open_clip, as its table of models names them
``hf-hub:ORG/NAME``            weights on a hub, in open_clip's format
``local-dir:FOLDER``           the same in a folder
``clap:ORG/NAME``, or a folder  a CLAP model of transformers
``st:ORG/NAME``, or a folder    a model of sentence-transformers
=============================  ====================================================
"""

from __future__ import annotations

import difflib
import functools
import importlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval import rivals, sense
from retrieval.calibrate import CONFIDENT, Calibration
from retrieval.catalogue import OFFERS, Offer
from retrieval.errors import ModelError, ModelMissingError
from retrieval.rivals import Rivals
from retrieval.sense import Sense
from retrieval.towers import adapted, bundled
from retrieval.towers.described import Described, Progress
from retrieval.towers.device import choose
from retrieval.types import Encoder, Modality

FAMILIES = {
    "open_clip": "retrieval.towers.open_clip",
    "clap": "retrieval.towers.clap",
    "sentence": "retrieval.towers.sentence",
}
"""Modules with ``describe``, ``load`` and ``pull``, see ``retrieval.towers.described``.

That of ``sentence`` has ``over(encoder, source)`` besides, which gives another text tower.
"""

BUNDLED = "bundled"  # the family of the model that comes with the package, and of learned ones
PREFIXES = {"clap": "clap", "st": "sentence", "hf-hub": "open_clip", "local-dir": "open_clip"}
OWN = {"clap", "st"}  # prefixes that are ours alone; open_clip's are part of its sources
FOREIGN = {"open_clip_config.json": "local-dir", "modules.json": "st"}
"""Files by which a folder is told as another family's, with the prefix that it needs."""

_ARCHITECTURE = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that can be loaded.

    Attributes:
        name: What ``--model`` takes.
        space: Identity of its vectors; known without loading it.
        dim: Length of a vector.
        modalities: What it embeds.
        size_bytes: Weights on disk.
        licence: Of the weights, in a few words.
        here: Whether it can be loaded; where it cannot, vectors of its space can still be compared.
        calibrations: How its cosines become relevances, by kind of query and of target.
        load: Makes the encoder.
        confident: Relevance from which on a hit counts as a good match.
        sense: Gives what tells words from noise, if the model has it.
        rivals: Gives what tells how near wrong pictures come to words, if the model has it.
        family: Key of ``FAMILIES``, or ``BUNDLED``, also of adapters.
    """

    name: str
    space: str
    dim: int
    modalities: tuple[Modality, ...]
    size_bytes: int
    licence: str
    here: bool
    calibrations: Mapping[tuple[Modality, Modality], Calibration]
    load: Callable[[], Encoder]
    confident: float = CONFIDENT
    sense: Callable[[], Sense | None] = lambda: None
    rivals: Callable[[], Rivals | None] = lambda: None
    family: str = BUNDLED


@dataclass(frozen=True, slots=True)
class Named:
    """A model that is spoken of, whether or not its weights are here.

    Attributes:
        name: Its shortest name; an index keeps it, so it holds from every folder.
        family: Key of ``FAMILIES``, or ``BUNDLED``.
        source: What the family calls it.
        offer: Its row in the catalogue, if it has one.
    """

    name: str
    family: str
    source: str
    offer: Offer | None = None

    @property
    def in_folder(self) -> bool:
        """Whether it is a folder of the user's, which nobody can fetch."""
        return self.family == BUNDLED or Path(self.source.removeprefix("local-dir:")).is_dir()


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of ``anyseek models``.

    Attributes:
        name: What ``--model`` takes.
        modalities: What it embeds.
        dim: Length of a vector.
        size_bytes: Weights on disk; of models that are not here, what they cost to fetch.
        licence: Of the weights.
        here: Whether it can be loaded without a download.
        quality: A figure that somebody published, with its source.
        about: Why one would choose it.
        space: Identity of its vectors; ``None`` until it is here.
        source: What it is called where it comes from.
    """

    name: str
    modalities: tuple[Modality, ...]
    dim: int
    size_bytes: int
    licence: str
    here: bool
    quality: str
    about: str
    space: str | None
    source: str


def models() -> tuple[Listed, ...]:
    """Lists the bundled model, which is the default, and those of the catalogue.

    Looks at files alone: nothing is loaded, and no model library imported.
    """
    own = _towers(bundled.WEIGHTS)
    first = Listed(
        own.name,
        own.modalities,
        own.dim,
        own.size_bytes,
        own.licence,
        True,
        "see README, The bundled model",
        "pictures, sounds and texts in one space, sixteen languages; quick, and nothing to fetch",
        own.space,
        "in the package",
    )
    return (first, *(_listed(offer) for offer in OFFERS))


def _listed(offer: Offer) -> Listed:
    try:
        told: Described | None = _described(_offered(offer))
    except ModelError:
        told = None
    return Listed(
        offer.name,
        offer.modalities,
        offer.dim,
        told.size_bytes if told else offer.download_bytes,
        offer.licence,
        told is not None,
        offer.quality,
        offer.about,
        told.space if told else None,
        " + ".join(filter(None, (offer.source, offer.text))),
    )


def named(name: str | None = None) -> Named:
    """Tells which model a name means; the default without one.

    Raises:
        ModelError: If it means none. Near names are suggested.
    """
    own = bundled.card(bundled.WEIGHTS).name
    if name in (None, own):
        return Named(own, BUNDLED, str(bundled.WEIGHTS))
    assert name is not None
    for offer in OFFERS:
        if name == offer.name:
            return _offered(offer)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        for mark, prefix in FOREIGN.items():
            if (folder / mark).exists() and not (folder / "model.toml").exists():
                raise ModelError(f"{folder} holds a model of another kind: name it {prefix}:{name}")
        return Named(str(folder.resolve()), BUNDLED, str(folder.resolve()))
    prefix, colon, rest = name.partition(":")
    if colon and rest and prefix in PREFIXES:
        local = Path(rest).expanduser()
        if prefix != "hf-hub" and local.is_dir():
            rest = str(local.resolve())
        return _shortest(
            Named(
                f"{prefix}:{rest}",
                PREFIXES[prefix],
                rest if prefix in OWN else f"{prefix}:{rest}",
            )
        )
    if name.startswith(("/", "./", "../", "~")):
        raise ModelError(
            f"there is no folder with a model at {name}; `anyseek models` lists others"
        )
    if _ARCHITECTURE.fullmatch(name):
        return _shortest(Named(name, "open_clip", name))
    near = difflib.get_close_matches(name, [own, *(offer.name for offer in OFFERS)], n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else "`anyseek models` lists them"
    raise ModelError(f"there is no model named {name!r}; {advice}")


def model(name: str | None = None, *, device: str | None = None) -> ModelSpec:
    """Finds a model by name, ready to be loaded; the default without one.

    Args:
        name: As ``--model`` takes it.
        device: Where it is to run, see ``retrieval.towers.device``; the fastest there is without
            it. The bundled model and adapters over it run on the processor.

    Raises:
        ModelMissingError: If its weights are not on this machine yet.
        ModelError: If there is none of that name, or it is damaged.
    """
    found = named(name)
    if found.family == BUNDLED:
        folder = Path(found.source)
        return _adapter(folder) if adapted.is_adapter(folder) else _towers(folder)
    told = _described(found)
    return ModelSpec(
        name=found.name,
        space=told.space,
        dim=told.dim,
        modalities=told.modalities,
        size_bytes=told.size_bytes,
        licence=found.offer.licence if found.offer else told.licence,
        here=True,
        calibrations={},
        load=functools.partial(_loaded, found, device),
        family=found.family,
    )


def pull(found: Named, progress: Progress) -> None:
    """Fetches a model's weights into its family's cache.

    Args:
        found: As ``named`` gives it.
        progress: Told bytes done and in all, 0 in all while unknown.

    Raises:
        ModelError: If it is a folder, or cannot be fetched or written.
    """
    if found.in_folder:
        raise ModelError(f"{found.name} is a folder on this machine; there is nothing to fetch")
    # which would tell of each of its tries to reach the hub; what comes of them is told once
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        _family(found.family).pull(found.source, progress)
        if found.offer and found.offer.text:
            _family("sentence").pull(found.offer.text, progress)
    except OSError as error:
        where = f" {error.filename}" if error.filename else " the cache"
        raise ModelError(
            f"cannot fetch {found.name}: {error.strerror or error};"
            f" see that{where} can be written and the network reached, and try again"
        ) from error


def runs_on(spec: ModelSpec, device: str | None) -> str | None:
    """Says on which device a model runs, in which precision and why; ``None`` if that is no choice.

    Raises:
        ModelError: If the device that was asked for is not there, or the model cannot run on it.
    """
    if spec.family != BUNDLED:
        chosen = choose(device)
        return f"{spec.name} runs on {chosen.name} in {chosen.precision}: {chosen.reason}"
    if (device or "auto").strip().lower() in ("auto", "cpu"):
        return None
    raise ModelError(f"{spec.name} runs on the processor alone; leave out --device {device}")


def place(found: Named) -> str | None:
    """Says where a model's weights lie, if its family knows."""
    if found.family == BUNDLED:
        return found.source
    told = getattr(_family(found.family), "place", None)
    return None if told is None else str(told(found.source))


def asking(encoder: Encoder) -> Encoder:
    """Gives the encoder for the words of queries.

    Some models read a question otherwise than what answers it; the text tower of such has another
    one as its attribute ``asked``. Others are given back as they are.
    """
    asked = getattr(encoder.towers.get(Modality.TEXT), "asked", None)
    if asked is None:
        return encoder
    return replace(encoder, towers={**encoder.towers, Modality.TEXT: asked})


def absent(name: str, space: str, dim: int, reason: str) -> ModelSpec:
    """Gives a stand-in for a model that cannot be loaded.

    Vectors of its space that an index has can be compared; whatever would need the model itself
    raises ``ModelMissingError`` with the reason.
    """
    tower = _Absent(reason)
    return ModelSpec(
        name=name,
        space=space,
        dim=dim,
        modalities=tuple(Modality),
        size_bytes=0,
        licence="unknown",
        here=False,
        calibrations={},
        load=lambda: Encoder(name, space, dim, dict.fromkeys(Modality, tower)),
    )


@dataclass(frozen=True, slots=True)
class _Absent:
    """A tower that is not there."""

    reason: str

    @property
    def side_px(self) -> int | None:
        """Cannot be told."""
        raise ModelMissingError(self.reason)

    @property
    def rate_hz(self) -> int | None:
        """Cannot be told."""
        raise ModelMissingError(self.reason)

    def prepare(self, content: Any) -> Any:
        """Passes the content on, since vectors of texts may be kept."""
        return content

    def embed(self, batch: Any) -> Any:
        """Cannot be done."""
        raise ModelMissingError(self.reason)


# ---- families ----------------------------------------------------------------------------------


def _family(name: str) -> Any:
    """Imports the module of a family, which imports no model library by itself."""
    try:
        return importlib.import_module(FAMILIES[name])
    except ModuleNotFoundError as error:
        if error.name != FAMILIES[name]:
            raise
        raise ModelError(
            f"this anyseek cannot load models of {name}; install a newer one"
        ) from None


def _described(found: Named) -> Described:
    try:
        told: Described = _family(found.family).describe(found.source)
        if found.offer and found.offer.text:
            text: Described = _family("sentence").describe(found.offer.text)
            told = replace(told, size_bytes=told.size_bytes + text.size_bytes)
        return told
    except ModelMissingError as error:
        if found.in_folder:
            raise
        raise ModelMissingError(
            f"the weights of {found.name} are not on this machine; "
            f"get them with `anyseek models pull {found.name}`"
        ) from error


def _loaded(found: Named, device: str | None) -> Encoder:
    encoder: Encoder = _family(found.family).load(found.source, device)
    if found.offer and found.offer.text:
        whose = replace(encoder, model=f"{found.family}:{found.source}")  # which `over` checks
        encoder = _family("sentence").over(whose, found.offer.text)
    return replace(encoder, model=found.name)


def _offered(offer: Offer) -> Named:
    return Named(offer.name, offer.family, offer.source, offer)


def _shortest(found: Named) -> Named:
    """Gives a model that is in the catalogue its name there: one model, one name."""
    for offer in OFFERS:
        if (offer.family, offer.source, offer.text) == (found.family, found.source, ""):
            return _offered(offer)
    return found


@functools.cache
def _towers(folder: Path) -> ModelSpec:
    """Makes the row of a model of the bundled kind."""
    card = bundled.card(folder)
    return ModelSpec(
        name=card.name if folder == bundled.WEIGHTS else str(folder),
        space=card.space,
        dim=card.dim,
        modalities=bundled.modalities(folder),
        size_bytes=bundled.size_bytes(folder),
        licence=card.licence,
        here=True,
        calibrations=card.calibrations,
        confident=card.confident,
        sense=functools.partial(sense.read, folder / "sense.npz"),
        rivals=functools.partial(rivals.read, folder / rivals.FILE),
        load=functools.partial(bundled.load, folder),
    )


def _adapter(folder: Path) -> ModelSpec:
    """Makes the row of an adapter over another model."""
    card, described = adapted.card(folder), adapted.describe(folder)
    return ModelSpec(
        name=card.name,
        space=described.space,
        dim=described.dim,
        modalities=described.modalities,
        size_bytes=described.size_bytes,
        licence=described.licence,
        here=True,
        calibrations=card.calibrations,
        confident=card.confident,
        sense=functools.partial(sense.read, folder / "sense.npz"),
        load=functools.partial(adapted.load, folder),
    )
