"""Adapters: light heads over the frozen towers of another model, in numpy.

``anyseek learn adapter`` writes a folder with ``model.toml`` and ``heads.npz``. A vector of the
base model goes through the head of its modality, and what comes out is another space: the base's
towers are asked as ever, so that a cold search imports what the base needs and nothing more. The
base model itself is not copied; the card names it, and its space, which must still be the same.

What a head does to a unit row ``x`` of the base, before the result is brought to length 1, with
arrays that may each be missing:

* ``x + x @ linear + bias``
* ``+ relu(x @ up + up_bias) @ down + down_bias``: a branch of one hidden layer
* ``+ alpha * exp(-beta * (1 - x @ keys.T)) @ values``: near the keys, the values are added. This is
  the cache of Tip-Adapter (Zhang et al. 2021, arXiv 2111.03930) on the side of the query: keys are
  names of classes, and values the means of their examples.

The array ``context`` is another thing: vectors that the base's text tower reads before the words,
see ``retrieval.towers.open_clip_context``.
"""

from __future__ import annotations

import functools
import hashlib
import io
import threading
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from retrieval.calibrate import CONFIDENT, Calibration
from retrieval.errors import ModelError
from retrieval.towers.described import Described, Progress
from retrieval.types import Encoder, Modality, Tower, Vectors

if TYPE_CHECKING:
    from retrieval.models import ModelSpec

KIND = "adapter"
"""What ``kind`` in ``model.toml`` says."""

CARD, HEADS = "model.toml", "heads.npz"
LAYOUT = b"anyseek adapter 1"  # another way of computing would be another space

Head = Mapping[str, NDArray[np.float32]]
"""The arrays of one modality by name, float32."""

SHAPES = {
    "linear": ("dim", "dim"),
    "bias": ("dim",),
    "up": ("dim", "hidden"),
    "up_bias": ("hidden",),
    "down": ("hidden", "dim"),
    "down_bias": ("dim",),
    "keys": ("keys", "dim"),
    "values": ("keys", "dim"),
    "alpha": (),
    "beta": (),
    "context": ("vectors", "width"),
}
"""Every array that a head may have, with its shape in words."""

TOGETHER = (
    ("linear", "bias"),
    ("up", "up_bias", "down", "down_bias"),
    ("keys", "values", "alpha", "beta"),
)


@dataclass(frozen=True, slots=True)
class Card:
    """What ``model.toml`` says.

    Attributes:
        name: Of the adapter.
        space: Identity of its vectors.
        dim: Length of a vector, as of the base.
        base: Name or folder of the base model, as ``--model`` takes it.
        base_space: Identity of the base's vectors when the heads were learned.
        licence: Of the heads; the base's holds besides.
        calibrations: How cosines become relevances, by kind of query and of target.
        confident: Relevance from which on a hit counts as a good match.
        context: Vectors that are read before the words of texts; 0 for none.
    """

    name: str
    space: str
    dim: int
    base: str
    base_space: str
    licence: str
    calibrations: dict[tuple[Modality, Modality], Calibration]
    confident: float
    context: int = 0


def is_adapter(folder: Path) -> bool:
    """Tells whether a folder holds an adapter, from its card alone."""
    try:
        return bool(_table(folder).get("kind") == KIND)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


@functools.cache
def card(folder: Path) -> Card:
    """Reads the card of an adapter.

    Raises:
        ModelError: If it is missing or malformed.
    """
    path = folder / CARD
    try:
        table = _table(folder)
        if table["kind"] != KIND:
            raise ValueError(f"kind is {table['kind']!r}")
        return Card(
            name=str(table["name"]),
            space=str(table["space"]),
            dim=int(table["dim"]),
            base=str(table["base"]),
            base_space=str(table["base_space"]),
            licence=str(table["licence"]),
            calibrations={
                (Modality(query), Modality(target)): _rising(Calibration(**values))
                for query, targets in table.get("calibration", {}).items()
                for target, values in targets.items()
            },
            confident=float(table.get("confident", CONFIDENT)),
            context=int(table.get("context", 0)),
        )
    except OSError as error:
        raise ModelError(
            f"there is no adapter in {folder} ({error.strerror}): `anyseek learn adapter` makes one"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not an adapter's: {error}") from error


def base(folder: Path) -> ModelSpec:
    """Finds the model that an adapter was learned on.

    Raises:
        ModelError: If it is gone, or its vectors are others now.
    """
    from retrieval.models import model  # which knows this family

    here = card(folder)
    if is_adapter(Path(here.base).expanduser()):
        raise ModelError(f"{folder / CARD} names another adapter as its base: learn it again")
    try:
        spec = model(here.base)
    except ModelError as error:
        raise ModelError(
            f"the adapter in {folder} needs the model {here.base}, which is not here: {error}"
        ) from error
    if spec.space != here.base_space:
        raise ModelError(
            f"the adapter in {folder} was learned on {here.base_space}, but {here.base} is "
            f"{spec.space} now: learn it again with `anyseek learn adapter`"
        )
    return spec


def describe(source: str | Path) -> Described:
    """Tells what an adapter is from its card and that of its base.

    Raises:
        ModelError: If the adapter is malformed, or its base is gone or changed.
    """
    folder = _folder(source)
    here, below = card(folder), base(folder)
    try:
        size_bytes = (folder / HEADS).stat().st_size
    except OSError as error:
        raise ModelError(f"the adapter in {folder} has no {HEADS}: learn it again") from error
    return Described(
        space=here.space,
        dim=here.dim,
        modalities=below.modalities,
        size_bytes=size_bytes,
        licence=here.licence,
    )


def load(source: str | Path, device: str | None = None) -> Encoder:
    """Makes the encoder; heads, and the base's weights, are read when a tower is first used.

    Args:
        source: The adapter's folder.
        device: Moot: heads are numpy, and the base is loaded as it usually is.

    Raises:
        ModelError: If the adapter is malformed, or its base is gone or changed.
    """
    folder = _folder(source)
    here = card(folder)
    below = base(folder).load()
    if below.space != here.base_space or below.dim != here.dim:
        raise ModelError(f"the adapter in {folder} does not fit {here.base}: learn it again")
    heads = _Heads(folder, here)
    towers: dict[Modality, Tower] = {
        modality: AdaptedTower(tower, heads, modality) for modality, tower in below.towers.items()
    }
    if here.context:
        steered = getattr(below.towers.get(Modality.TEXT), "steered", None)
        if steered is None:
            raise ModelError(
                f"the adapter in {folder} has a context, which the text tower of {here.base} "
                "cannot read: learn it again"
            )
        towers[Modality.TEXT] = steered(here.space, heads.context)
    return Encoder(str(folder), here.space, here.dim, towers, plain=bool(here.context))


def pull(source: str | Path, progress: Progress) -> None:
    """Fetches nothing, since an adapter is a folder of one's own; says if it cannot be used.

    Raises:
        ModelError: As of ``describe``.
    """
    size_bytes = describe(source).size_bytes
    progress(size_bytes, size_bytes)


class AdaptedTower:
    """A tower of the base with a head behind it."""

    def __init__(self, tower: Tower, heads: _Heads, modality: Modality) -> None:
        """Wraps a tower; a modality without a head of its own keeps the base's vectors."""
        self._tower, self._heads, self._modality = tower, heads, modality

    @property
    def side_px(self) -> int | None:
        """As of the base."""
        return self._tower.side_px

    @property
    def rate_hz(self) -> int | None:
        """As of the base."""
        return self._tower.rate_hz

    def prepare(self, content: Any) -> Any:
        """As the base does."""
        return self._tower.prepare(content)

    def embed(self, batch: Sequence[Any]) -> Vectors:
        """Embeds prepared contents: ``(len(batch), dim)`` float32, unit rows, in order."""
        return apply(self._heads.of(self._modality), self._tower.embed(batch))


class _Heads:
    """The heads of an adapter, read once, by whichever thread is first."""

    def __init__(self, folder: Path, here: Card) -> None:
        self._folder, self._card = folder, here
        self._read: Mapping[Modality, Head] | None = None
        self._lock = threading.Lock()

    def of(self, modality: Modality) -> Head:
        with self._lock:
            if self._read is None:
                self._read = read_heads(self._folder, self._card)
            return self._read.get(modality, {})

    def context(self) -> NDArray[np.float32]:
        context = self.of(Modality.TEXT).get("context")
        if context is None or len(context) != self._card.context:
            raise ModelError(
                f"{self._folder / HEADS} holds no context of {self._card.context} vectors: "
                "learn the adapter again"
            )
        return context


def apply(head: Head, rows: Vectors) -> Vectors:
    """Gives what a head makes of unit rows ``(n, dim)``: unit rows of the same shape, float32."""
    if not head:
        return rows
    y = rows
    if "linear" in head:
        y = y + (rows @ head["linear"] + head["bias"])
    if "down" in head:
        branch = np.maximum(rows @ head["up"] + head["up_bias"], 0)
        y = y + (branch @ head["down"] + head["down_bias"])
    if "keys" in head:
        near = np.exp(-head["beta"] * (1 - rows @ head["keys"].T))
        y = y + np.asarray(head["alpha"] * (near @ head["values"]), np.float32)
    length = np.maximum(np.linalg.norm(y, axis=1, keepdims=True), np.float32(1e-12))
    return np.asarray(y / length, np.float32)


def packed(heads: Mapping[Modality, Head]) -> bytes:
    """Gives the content of ``heads.npz``; the same heads give the same bytes."""
    file = io.BytesIO()
    arrays = {
        f"{modality.value}.{name}": np.asarray(array, np.float32)
        for modality, head in sorted(heads.items())
        for name, array in sorted(head.items())
    }
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def identity(base_space: str, content: bytes) -> str:
    """Names the space that heads of this content make of a base's space."""
    digest = hashlib.sha256(LAYOUT + base_space.encode() + b"\0" + content)
    return f"{base_space}+{digest.hexdigest()[:12]}"


def read_heads(folder: Path, here: Card) -> dict[Modality, Head]:
    """Reads the heads, and makes sure that they are the ones that the space is named for.

    Raises:
        ModelError: If they are missing, damaged or others.
    """
    path = folder / HEADS
    try:
        content = path.read_bytes()
        if identity(here.base_space, content) != here.space:
            raise ValueError(f"not those of {here.space}")
        heads: dict[Modality, dict[str, NDArray[np.float32]]] = {}
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            for key in archive.files:
                modality, _, name = key.partition(".")
                heads.setdefault(Modality(modality), {})[name] = archive[key].astype(np.float32)
        for head in heads.values():
            _check(head, here.dim)
        return dict(heads)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ModelError(f"{path} cannot be used ({error}): learn the adapter again") from error


def _check(head: Head, dim: int) -> None:
    sizes = {"dim": dim}
    for name, array in head.items():
        if name not in SHAPES or array.ndim != len(SHAPES[name]):
            raise ValueError(f"{name} has the shape {array.shape}")
        for size, axis in zip(array.shape, SHAPES[name], strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(f"{name} has the shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    for names in TOGETHER:
        if len(head.keys() & set(names)) not in (0, len(names)):
            raise ValueError(f"{', '.join(names)} belong together")


def _folder(source: str | Path) -> Path:
    return Path(source).expanduser().resolve()


def _table(folder: Path) -> dict[str, Any]:
    with (folder / CARD).open("rb") as file:
        return tomllib.load(file)


def _rising(calibration: Calibration) -> Calibration:
    if min(calibration.a, calibration.z) < 0 or calibration.spread <= 0:
        raise ValueError("a calibration must rise with the cosine")
    return calibration
