"""An index run that is killed at any moment leaves an index that agrees with itself."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import indexer.pipeline as pipeline
from indexer.scan import roots_of
from retrieval import media
from retrieval.search import Searcher, Wanted
from retrieval.store import Store
from tests.fakes import ColourTower, colour_encoder
from tests.indexer import inside

PICTURES = 300
SLOW_S = 0.04  # a batch of eight pictures; a whole first run takes 1.5 s
# How a run is killed: what it has said last, and the seconds since then.
MOMENTS = (
    ("ready", 0.31),
    ("sealing", 0.07),  # while a derived file is there under its temporary name
    ("ready", 0.0),
    ("ready", 0.42),
    ("ready", 0.18),
    ("sealing", 0.2),
    ("ready", 0.6),
    ("ready", 0.05),
)


def start(index: Path, root: Path) -> subprocess.Popen[str]:
    """Starts a slow run."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.indexer.slow_run", index, root, str(SLOW_S)],
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str], line: str, delay_s: float) -> bool:
    """Kills a run some time after it has said something; tells whether it was still going."""
    assert process.stdout is not None
    with process, process.stdout:
        for said in process.stdout:
            if said.strip() == line:
                time.sleep(delay_s)
                break
        process.kill()
        assert process.wait() in (0, -9)
    return process.returncode == -9


def embedded(path: Path) -> bytes:
    """Gives the vector that belongs to a picture, as it is stored."""
    tower = ColourTower()
    item = media.decode(path.read_bytes(), path.name, side_px=tower.side_px)
    (vector,) = tower.embed([tower.prepare(item.parts[0].content)]).astype("<f2")
    return bytes(vector.tobytes())


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Whatever the moment, the index is whole, nothing goes back, and the next run completes."""
    root, index = tmp_path / "root", tmp_path / "index.db"
    root.mkdir()
    choice = random.Random(7)
    vectors: dict[bytes, bytes] = {}
    seeds = iter(range(10_000))
    clock = iter(range(10**18, 2 * 10**18, 10**9))

    def draw(name: str) -> None:
        inside.draw(root / name, next(seeds), mtime_ns=next(clock))
        content = hashlib.blake2b((root / name).read_bytes(), digest_size=16).digest()
        vectors[content] = embedded(root / name)

    def change() -> None:
        """Draws some pictures anew, adds some, removes, renames and copies some."""
        for name in choice.sample(sorted(os.listdir(root)), 60):  # noqa: PTH208
            draw(name)
        for number in range(10):
            draw(f"new-{choice.random()}-{number}.bmp")
        some = choice.sample(sorted(os.listdir(root)), 40)  # noqa: PTH208
        for name in some[:15]:
            (root / name).unlink()
        for name in some[15:30]:
            (root / name).rename(root / f"renamed-{name}")
        for name in some[30:]:
            shutil.copy(root / name, root / f"copied-{name}")

    for number in range(PICTURES):
        draw(f"{number:03}.bmp")

    generation = killed = 0
    for line, delay_s in MOMENTS:
        killed += kill(start(index, root), line, delay_s)
        inside.check(index)
        for item in inside.items(index).values():
            assert item.vectors == (vectors[item.content_hash],)
        now = inside.generation(index)
        assert now >= generation
        generation = now
        with Store(index) as store:
            if store.spaces():  # a reader is not disturbed by what the killed run left
                Searcher(store, colour_encoder()).by_text("red", Wanted(5))
        change()
    assert killed >= 5  # a quick machine may be done before it is killed

    process = start(index, root)
    assert process.stdout is not None
    with process, process.stdout:
        process.stdout.read()
    assert process.returncode == 0
    inside.check(index)
    fresh = tmp_path / "fresh.db"
    with Store(fresh, write=True) as store:
        pipeline.index(store, colour_encoder(), roots_of([root]))
    assert inside.items(index) == inside.items(fresh)
    derived = {path.name for path in (tmp_path / "index.db.derived").iterdir()}
    with inside.opened(index) as connection:
        assert derived == {row[0] for row in connection.execute("SELECT file FROM seals")}
