"""What files were found to be, as lines for people, JSON, CSV or bare paths."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.render import printable, shown
from retrieval.types import Modality

if TYPE_CHECKING:
    from retrieval.classify import Verdict

UNKNOWN = "unknown"
COLUMNS = ("path", "modality", "rank", "label", "probability")


@dataclass(frozen=True, slots=True)
class Classified:
    """A file and what it is.

    Attributes:
        path: Absolute.
        modality: Of the file.
        verdict: Its labels.
        item_id: Of the index's item, if the index has the file as it is now.
        unknown: Whether no label fits, where that is asked for.
    """

    path: bytes
    modality: Modality
    verdict: Verdict
    item_id: int | None
    unknown: bool

    @property
    def shown_label(self) -> str:
        """The best label, or ``unknown``."""
        return UNKNOWN if self.unknown else self.verdict.labels[0][0]


def write(found: Iterable[Classified], format: str | None, *, null: bool) -> None:
    """Writes verdicts as they come; without a format, only goes through them."""
    if format == "csv":
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(COLUMNS)
    for one in found:
        if format == "json":
            print(json.dumps(_fields(one)))  # in ASCII, for paths that are not text
        elif format == "paths":
            sys.stdout.flush()
            sys.stdout.buffer.write(one.path + (b"\0" if null else b"\n"))
        elif format == "csv":
            path = printable(os.fsdecode(one.path))
            for rank, (label, probability) in enumerate(_labels(one), start=1):
                share = "" if probability is None else f"{probability:.4f}"
                rows.writerow((path, one.modality.value, rank, label, share))
        elif format == "table":
            for label, probability in _labels(one):
                share = "   -" if probability is None else f"{probability:.2f}"
                print("\t".join((share, printable(label), shown(one.path))))
    sys.stdout.flush()


def _labels(one: Classified) -> list[tuple[str, float | None]]:
    return [(UNKNOWN, None)] if one.unknown else list(one.verdict.labels)


def _fields(one: Classified) -> dict[str, object]:
    labels = [
        {"label": label, "probability": round(probability, 4)}
        for label, probability in one.verdict.labels
    ]
    return {
        "path": os.fsdecode(one.path),
        "modality": one.modality.value,
        "label": None if one.unknown else one.verdict.labels[0][0],
        "labels": labels,
        "fit": round(one.verdict.fit, 4),
        "known": one.verdict.known,
        "indexed": one.item_id is not None,
    }
