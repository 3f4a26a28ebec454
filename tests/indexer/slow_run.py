"""One index run in a process of its own, slow enough to be killed at any moment.

Usage: ``python -m tests.indexer.slow_run INDEX ROOT SECONDS [hold]``. Lines on stdout tell how far
it is: ``waiting`` for another run, ``ready`` to start, ``sealing``, and the counts as JSON. With
``hold`` it starts only after a line on stdin.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import indexer.pipeline as pipeline
import retrieval.index
from indexer.lock import exclusive
from indexer.scan import roots_of
from retrieval.store import Store
from retrieval.types import Modality, Vectors
from tests.fakes import ColourTower, colour_encoder


def say(text: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class SlowTower(ColourTower):
    """Colours, but not so fast."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def embed(self, batch: Sequence[Any]) -> Vectors:
        """Sleeps, then embeds."""
        time.sleep(self._seconds)
        return super().embed(batch)


def run(index: Path, root: Path, seconds: float, *, hold: bool) -> None:
    """Indexes a folder of pictures; commits often, and seals small files slowly."""
    real_seal, real_sync = retrieval.index.seal, os.fsync

    def seal(*arguments: Any, **named: Any) -> bool:
        say("sealing")
        return real_seal(*arguments, **named)

    def fsync(descriptor: int) -> None:
        time.sleep(seconds)  # between a file's writing and its renaming
        real_sync(descriptor)

    vars(pipeline).update(COMMIT_ITEMS=16, COMMIT_S=0.05, seal=seal)
    vars(retrieval.index).update(SEAL_FROM=8, SEGMENT=64)
    vars(os).update(fsync=fsync)
    tower = SlowTower(seconds)
    encoder = replace(colour_encoder(), towers={Modality.IMAGE: tower})
    with exclusive(index, on_wait=lambda: say("waiting")), Store(index, write=True) as store:
        say("ready")
        if hold:
            sys.stdin.readline()
        report = pipeline.index(store, encoder, roots_of([root]), workers=1)
    say(json.dumps({"added": report.added, "embedded": tower.embedded}))


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), hold="hold" in sys.argv)
