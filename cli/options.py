"""The options that several commands share, and what their values mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retrieval.filters import Filters
    from retrieval.fusion import Fuse
    from retrieval.search import Hit


MOST_WEIGHT = 1_000.0  # as in queries


class In(StrEnum):
    """Which modality to search."""

    IMAGE = "image"
    TEXT = "text"
    AUDIO = "audio"
    ALL = "all"
    EACH = "each"


class Sort(StrEnum):
    """In which order hits are shown; which ones they are does not depend on it."""

    RELEVANCE = "relevance"
    DATE = "date"


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    PATHS = "paths"


class Ways(StrEnum):
    """What negative terms do; see ``retrieval.scoring.Negatives``."""

    SUBTRACT = "subtract"
    PENALTY = "penalty"
    DIFFERENCE = "difference"


class Fusing(StrEnum):
    """How words that belong to an item count; see ``retrieval.fusion.Fusion``."""

    ANY = "any"
    MAX = "max"
    MEAN = "mean"
    WEIGHTED = "weighted"
    CONCAT = "concat"
    ATTENTION = "attention"
    CONTENT = "content"


IndexOption = Annotated[
    Path | None,
    typer.Option(
        "--index",
        metavar="FILE",
        envvar="ANYSEEK_INDEX",
        help="The index file; the platform's user data folder by default.",
        show_default=False,
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Search in the space of this model alone; may be given again.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="In the space of this model; the default space otherwise.",
        show_default=False,
    ),
]
CountOption = Annotated[int, typer.Option("-k", help="How many hits at most.")]
UnderOption = Annotated[
    Path | None,
    typer.Option(
        "--under", metavar="PATH", help="Only files at or below this path.", show_default=False
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option("--format", help="A table, a JSON object per line, or bare paths."),
]
RelevanceOption = Annotated[
    float, typer.Option("--min-relevance", help="Only hits with at least this relevance, 0 to 1.")
]
NullOption = Annotated[
    bool,
    typer.Option("--null", "-0", help="With --format paths: end paths with NUL, for xargs -0."),
]
AfterOption = Annotated[
    str | None,
    typer.Option(
        "--after",
        metavar="DATE",
        help="Only what was taken at this date or later: 2024, 2024-05, 2024-05-31, yesterday, 7d.",
        show_default=False,
    ),
]
BeforeOption = Annotated[
    str | None,
    typer.Option(
        "--before", metavar="DATE", help="Only what was taken before this date.", show_default=False
    ),
]
CameraOption = Annotated[
    str | None,
    typer.Option(
        "--camera",
        metavar="NAME",
        help="Only pictures whose camera's make and model contain this.",
        show_default=False,
    ),
]
NearOption = Annotated[
    str | None,
    typer.Option(
        "--near",
        metavar="LAT,LON,KM",
        help="Only pictures taken within so many kilometres of a place.",
        show_default=False,
    ),
]
MinWidthOption = Annotated[
    int | None,
    typer.Option(
        "--min-width",
        metavar="PIXELS",
        help="Only pictures at least this wide.",
        show_default=False,
    ),
]
MinDurationOption = Annotated[
    float | None,
    typer.Option(
        "--min-duration",
        metavar="SECONDS",
        help="Only sounds at least this long.",
        show_default=False,
    ),
]
MaxDurationOption = Annotated[
    float | None,
    typer.Option(
        "--max-duration",
        metavar="SECONDS",
        help="Only sounds at most this long.",
        show_default=False,
    ),
]
ExtOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ext",
        metavar="EXT",
        help="Only files whose names end so: jpg or jpg,png; may be given again.",
        show_default=False,
    ),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="NAME",
        help="Only files with this tag, of `anyseek tags`; may be repeated.",
        show_default=False,
    ),
]
SortOption = Annotated[
    Sort,
    typer.Option("--sort", help="Show the most relevant hits by relevance, or newest first."),
]

AddOption = Annotated[
    list[str] | None,
    typer.Option(
        "--add",
        metavar="TERM",
        help="Look for this too, as + does; may be repeated.",
        show_default=False,
    ),
]
NotOption = Annotated[
    list[str] | None,
    typer.Option(
        "--not", metavar="TERM", help="Look away from this, as - does.", show_default=False
    ),
]
NegativesOption = Annotated[
    Ways, typer.Option("--negatives", help="What - does: move away, lower scores, or drop hits.")
]
LikeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--like",
        metavar="HIT",
        help="More like this: the number of a hit in the last result (3, 1-4, 1,3), or a ./file.",
        show_default=False,
    ),
]
UnlikeOption = Annotated[
    list[str] | None,
    typer.Option("--unlike", metavar="HIT", help="Less like this.", show_default=False),
]
SaveOption = Annotated[
    str | None,
    typer.Option(
        "--save",
        metavar="NAME",
        help="Make a concept <NAME> of what is liked and what is not.",
        show_default=False,
    ),
]
FuseOption = Annotated[
    Fusing,
    typer.Option("--fuse", help="How words that belong to a picture or sound count."),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="NAME=WEIGHT",
        help="What content, sidecar, manifest or metadata counts in --fuse; 0 leaves it out.",
        show_default=False,
    ),
]
ExactOption = Annotated[
    bool,
    typer.Option("--exact", help="Compare all vectors of a large index; slower, misses nothing."),
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Say below each hit why it is one.")]
ExplainDirOption = Annotated[
    Path | None,
    typer.Option(
        "--explain-dir",
        metavar="DIR",
        help="The same, with a heat map of each picture as a PNG in this folder.",
        show_default=False,
    ),
]


def index_path(option: Path | None) -> Path:
    """Gives the index file: the option or environment variable, else the platform's place."""
    if option is not None:
        return option.absolute()
    from platformdirs import user_data_path

    return user_data_path("anyseek", appauthor=False) / "index.db"


def fuse_from(way: Fusing, sources: Sequence[str] | None) -> Fuse:
    """Makes a way of fusing of what was typed.

    Raises:
        QueryError: If a source is unknown, or its weight is no number of at least 0.
    """
    from retrieval.errors import QueryError
    from retrieval.fusion import Fuse, Fusion
    from retrieval.types import Source

    weights: dict[Source, float] = {}
    for text in sources or ():
        name, _, number = text.partition("=")
        try:
            weight = float(number)
            if not 0 <= weight <= MOST_WEIGHT:  # NaN is not, either
                raise ValueError
            weights[Source(name.strip())] = weight
        except ValueError:
            names = ", ".join(Source)
            raise QueryError(
                f"--source takes one of {names} and a weight from 0 to {MOST_WEIGHT:g}, as in "
                f"sidecar=0.5, not {text!r}"
            ) from None
    fuse = Fuse(Fusion(way.value), weights)
    if not (fuse.columns() > 0).any():
        raise QueryError("--source leaves out everything there is; give one a weight above 0")
    return fuse


def filters_from(
    under: Path | None,
    after: str | None,
    before: str | None,
    camera: str | None,
    near: str | None,
    min_width: int | None,
    min_duration: float | None,
    max_duration: float | None,
    ext: Sequence[str] | None,
    tag: Sequence[str] | None = None,
) -> Filters:
    """Makes a filter of what was typed, in the order of the options.

    Raises:
        QueryError: If a value means nothing.
    """
    from retrieval import filters

    now = datetime.now()
    return filters.Filters(
        under=None if under is None else os.fsencode(os.path.realpath(under)),
        after=None if after is None else filters.moment(after, now=now),
        before=None if before is None else filters.moment(before, now=now),
        camera=camera,
        near=None if near is None else filters.near(near),
        min_width=min_width,
        min_duration_s=min_duration,
        max_duration_s=max_duration,
        suffixes=filters.suffixes(ext or ()),
        tags=tuple(dict.fromkeys(filters.tag_name(name) for name in tag or ())),
    )


def in_order(hits: Sequence[Hit], sort: Sort, *, each: bool) -> Sequence[Hit]:
    """Puts hits in the order asked for; of one date, or of none, the most relevant is first.

    Args:
        hits: By relevance.
        sort: The order.
        each: Whether every modality has a ranking of its own, one after the other.
    """
    if sort is Sort.RELEVANCE:
        return hits
    newest_first = sorted(hits, key=lambda hit: hit.details.date or datetime.min, reverse=True)
    if not each:
        return newest_first
    turns = list(dict.fromkeys(hit.modality for hit in hits))
    return sorted(newest_first, key=lambda hit: turns.index(hit.modality))
