"""What the formats have in common: chunks of rows with their vectors, and a row's fields.

Nothing in a row is trusted: each field has a type and a range, and what is none of it is refused
with the file and the number of the row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ExchangeError
from retrieval.store.exchanging import PartRow
from retrieval.types import Facts, Fingerprint, Modality, Place

Matrix = NDArray[np.floating[Any]]

CHUNK = 1_024  # rows in memory at once: 2 MB at 512 dimensions of float32
FLOATS = ("float16", "float32", "float64")
LARGEST = 2**63 - 1
TEXT, WHOLE, NUMBER = "text", "whole", "number"
FIELDS = {  # what a row may say besides its path, in the order of a file
    "modality": TEXT,
    "part": WHOLE,
    "start_s": NUMBER,
    "end_s": NUMBER,
    "page": WHOLE,
    "line": WHOLE,
    "text": TEXT,
    "width": WHOLE,
    "height": WHOLE,
    "duration_s": NUMBER,
    "taken_at": TEXT,
    "camera": TEXT,
    "lat": NUMBER,
    "lon": NUMBER,
    "size": WHOLE,
    "mtime_ns": WHOLE,
    "content_hash": TEXT,  # hexadecimal
    "indexed_at_s": WHOLE,
}
PLACE = tuple(field.name for field in fields(Place))
FACTS = tuple(field.name for field in fields(Facts))
place_of, facts_of = attrgetter(*PLACE), attrgetter(*FACTS)
LOWEST = {"mtime_ns": -LARGEST, "start_s": -math.inf, "end_s": -math.inf, "lat": -90, "lon": -180}
HIGHEST = {"lat": 90, "lon": 180}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a file that follow each other.

    Attributes:
        file: To name when something is wrong.
        first: Number of the first row in it, from 0.
        rows: What is known of each vector.
        vectors: ``(len(rows), dim)`` of any float type.
    """

    file: Path
    first: int
    rows: list[PartRow]
    vectors: Matrix


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or two that belong together, from which vectors can come.

    Attributes:
        file: To name when something is wrong.
        space: Identity of the space, if the file says it.
        model: Name of the model that made it, if the file says it.
        dim: Length of a vector.
        count: How many vectors.
        chunks: Reads them in order, from the beginning each time.
    """

    file: Path
    space: str | None
    model: str | None
    dim: int
    count: int
    chunks: Callable[[], Iterator[Chunk]]


def values_of(row: PartRow) -> dict[str, Any]:
    """Gives the fields of ``FIELDS`` for a row, ``None`` where nothing is known."""
    print_ = row.fingerprint
    return {
        "modality": str(row.modality),
        "part": row.ordinal,
        **dict(zip(PLACE, place_of(row.place), strict=True)),
        "width": row.width,
        "height": row.height,
        "duration_s": row.duration_s,
        **dict(zip(FACTS, facts_of(row.facts), strict=True)),
        "size": None if print_ is None else print_.size,
        "mtime_ns": None if print_ is None else print_.mtime_ns,
        "content_hash": None if row.content_hash is None else row.content_hash.hex(),
        "indexed_at_s": row.indexed_at_s,
    }


def row_of(values: Mapping[str, Any], path: bytes, where: str, *, kind: Modality | None) -> PartRow:
    """Makes a row of what a file says.

    Args:
        values: By the names of ``FIELDS``; others are passed over, and any may be missing.
        path: As ``path_of`` gives it.
        where: File and row, for messages.
        kind: What the item is, if the layout of the files says so.

    Raises:
        ExchangeError: If a field is of another type or out of its range.
    """
    checked: dict[str, Any] = dict.fromkeys(FIELDS)
    for name, value in values.items():
        if value is not None and name in FIELDS:
            checked[name] = _checked(name, value, where)
    size, mtime_ns = checked["size"], checked["mtime_ns"]
    return PartRow(
        path=path,
        modality=_modality(checked["modality"], kind, path, where),
        ordinal=checked["part"] or 0,
        place=Place(*(checked[name] for name in PLACE)),
        fingerprint=None if None in (size, mtime_ns) else Fingerprint(size, mtime_ns),
        content_hash=_hash(checked["content_hash"], where),
        width=checked["width"],
        height=checked["height"],
        duration_s=checked["duration_s"],
        facts=_facts(checked, where),
        indexed_at_s=checked["indexed_at_s"],
    )


def _checked(name: str, value: Any, where: str) -> Any:
    kind = FIELDS[name]
    if isinstance(value, float) and math.isnan(value):
        return None  # pandas writes what it does not know as NaN
    if kind == TEXT:
        if isinstance(value, str) and _encodes(value):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = LOWEST.get(name, 0), HIGHEST.get(name, LARGEST)
        if math.isfinite(value) and low <= value <= high:
            if kind == NUMBER:
                return float(value)
            if value == int(value):
                return int(value)
    raise ExchangeError(f"{where}: {name} cannot be {_short(value)}")


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"


def _encodes(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _modality(said: str | None, kind: Modality | None, path: bytes, where: str) -> Modality:
    from retrieval.media import modality_of

    by_name = modality_of(path)
    if said is not None and said not in list(Modality):
        raise ExchangeError(f"{where}: modality cannot be {_short(said)}")
    found = Modality(said) if said is not None else kind or by_name
    if found is None:
        raise ExchangeError(
            f"{where}: {os.fsdecode(path)!r} is no kind of file that anyseek reads, and no column "
            "`modality` says what it is"
        )
    # a name without a suffix is no file's, but the key of a sample
    if by_name is None and said is None and os.path.splitext(path)[1]:  # noqa: PTH122 (bytes)
        raise ExchangeError(
            f"{where}: {os.fsdecode(path)!r} should be {found}, and is no such file by its name; "
            "leave it out, or give it the suffix of what it is"
        )
    if by_name not in (None, found):
        raise ExchangeError(f"{where}: {os.fsdecode(path)!r} is {by_name} by its name, not {found}")
    return found


def _hash(said: str | None, where: str) -> bytes | None:
    if said is None:
        return None
    try:
        digest = bytes.fromhex(said)
    except ValueError:
        digest = b""
    if len(digest) != 16:
        raise ExchangeError(f"{where}: content_hash cannot be {_short(said)}")
    return digest


def _facts(checked: Mapping[str, Any], where: str) -> Facts:
    taken_at, camera = checked["taken_at"], checked["camera"]
    lat, lon = checked["lat"], checked["lon"]
    if taken_at is not None:
        try:
            when = datetime.fromisoformat(taken_at)
        except ValueError:
            when = None
        if when is None or when.tzinfo is not None:
            raise ExchangeError(f"{where}: taken_at cannot be {_short(taken_at)}")
        taken_at = when.isoformat()
    if camera is not None and not camera.isprintable():
        raise ExchangeError(f"{where}: camera cannot be {_short(camera)}")
    if (lat is None) != (lon is None):
        raise ExchangeError(f"{where}: lat and lon belong together")
    return Facts(taken_at, camera, lat, lon)


def path_of(said: Any, root: Path, where: str) -> bytes:
    """Gives the absolute path of an item, as ``anyseek index`` would find it.

    Args:
        said: A text, or bytes for a name that is none.
        root: Where relative paths begin; they must stay below it.
        where: File and row, for messages.

    Raises:
        ExchangeError: If it is no path of a file.
    """
    try:
        path = said if isinstance(said, bytes) else os.fsencode(said)
    except (TypeError, UnicodeEncodeError):
        path = b""
    if not path or b"\0" in path or path.endswith((b"/", b"/.", b"/..")) or path in (b".", b".."):
        raise ExchangeError(f"{where}: {_short(said)} is no path of a file")
    folder, name = os.path.split(path)
    if os.path.isabs(path):  # noqa: PTH117 (bytes)
        return os.path.join(_real(folder), name)  # noqa: PTH118 (bytes)
    if b".." in folder.split(b"/"):
        raise ExchangeError(f"{where}: {_short(said)} leads out of {root}")
    folder = os.path.join(os.fsencode(root), folder)  # noqa: PTH118 (bytes)
    return os.path.join(_real(folder), name)  # noqa: PTH118 (bytes)


@lru_cache(maxsize=4_096)  # of folders, which lie together
def _real(folder: bytes) -> bytes:
    """Resolves the links of a folder, as the walk over folders does; it need not be there."""
    return os.path.realpath(folder)


def check_matrix(file: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Makes sure that an array can be vectors.

    Raises:
        ExchangeError: If it is no table of floats.
    """
    if len(shape) != 2 or shape[1] < 1:
        raise ExchangeError(f"{file} holds an array of shape {shape}, not one vector in each row")
    if dtype not in FLOATS:
        raise ExchangeError(f"{file} holds {dtype}, and vectors are {', '.join(FLOATS)}")


def unreadable(file: Path, kind: str, error: Exception) -> ExchangeError:
    """Gives the error for a file that is not what it should be.

    Args:
        file: To name.
        kind: What it should be.
        error: What a library raised; its words mean nothing to most people.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return ExchangeError(f"{file} cannot be read: {os.strerror(error.errno)}")
    return ExchangeError(
        f"{file} cannot be read as {kind}: it is damaged, cut short or of another kind; write or "
        "copy it again"
    )
