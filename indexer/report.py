"""What a run did, and who is told how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from indexer.scan import Skipped
from retrieval.ladder import Told, silent
from retrieval.types import Place


@dataclass(slots=True)
class Report:
    """What a run did; every file is counted once.

    Attributes:
        added: New files, with those whose vectors were taken over from a copy.
        updated: Files with new content.
        renamed: Files found under another path; their vectors stay.
        removed: Items whose file is gone.
        unchanged: Files that were skipped.
        failed: Files and folders that could not be used, with the reason.
        remarks: What else a person should know.
        interrupted: Whether it was stopped before the end.
        seconds: Wall-clock time.
        left_out: Files of kinds that the model does not embed, which are as they were.
    """

    added: int = 0
    updated: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: list[Skipped] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Who wants to know how far it is.

    Attributes:
        total: Called once with the number of files to read.
        advance: Called with the number of files done since the last call.
        sealing: Told how far the preparation of fast searches is, see ``retrieval.ladder``.
    """

    total: Callable[[int], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None
    sealing: Told = silent


class Silence:
    """Counts the windows of sounds that got no vector, and remembers the first."""

    def __init__(self) -> None:
        """Starts at none."""
        self._windows = self._files = 0
        self._first = ""

    def add(self, path: bytes, silent: Sequence[Place]) -> None:
        """Notes the silent windows of a sound."""
        if not silent:
            return
        if not self._first:
            self._first = f"{os.fsdecode(path)} at {silent[0].start_s:.0f}-{silent[0].end_s:.0f} s"
        self._files += 1
        self._windows += len(silent)

    def remarks(self) -> list[str]:
        """Says it in one line; nothing if there were none."""
        if not self._files:
            return []
        return [
            f"{self._windows} silent window(s) in {self._files} sound(s) got no vector, "
            f"the first in {self._first}"
        ]
