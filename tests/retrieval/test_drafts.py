"""What exports leave behind when they are killed, and several to the same place at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import ExchangeError
from retrieval.exchange.drafts import drafted, put
from retrieval.exchange.leaving import FORMATS, leave
from retrieval.store import Batch, Store
from retrieval.types import Encoder
from tests.conftest import make_record, unit_rows

DIM = 8
PAUSED = """
import sys
from pathlib import Path
from retrieval.exchange.leaving import leave
from retrieval.store import Store
def pause(done, total):
    print("half", flush=True)
    sys.stdin.readline()
index, out, format, force = sys.argv[1:]
with Store(Path(index)) as store:
    leave(store, Path(out), format=format, force=force == "force", progress=pause)
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of one picture."""
    with Store(tmp_path / "index.db", write=True) as store:
        record = make_record(b"/a.jpg", unit_rows(np.random.default_rng(0), 1, DIM))
        store.write(Batch(records=[record]), store.add_space(Encoder("m", "s.1", DIM, {})))
    return tmp_path / "index.db"


@contextmanager
def paused(index: Path, out: Path, format: str, force: str = "") -> Iterator[subprocess.Popen[str]]:
    """Runs an export that stands still when all is written and nothing has its name."""
    with subprocess.Popen(
        [sys.executable, "-c", PAUSED, index, out, format, force],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        yield process


def out_of(index: Path, out: Path, format: str, *, force: bool = False) -> None:
    """Exports an index."""
    with Store(index) as store:
        leave(store, out, format=format, force=force)


def names(out: Path) -> list[str]:
    """Lists a folder."""
    return sorted(path.name for path in out.iterdir())


EXPECTED = {"parquet": ["s.1.parquet"], "npy": ["s.1.jsonl", "s.1.npy"]}


@pytest.mark.parametrize("format", FORMATS)
def test_killed(index: Path, tmp_path: Path, format: str) -> None:
    """What a killed export left goes with the next one; what others have there stays."""
    out = tmp_path / "out"
    with paused(index, out, format) as process:
        process.kill()
    left = names(out)
    assert len(left) == len(EXPECTED[format])
    assert all(name.startswith(".s.1.") and name.endswith(".tmp") for name in left)
    others = [".s.1.npy.tmp", ".s_1.npy.01234567.tmp", ".other.npy.01234567.tmp"]
    for name in others:
        (out / name).write_text("not ours")
    out_of(index, out, format)
    assert names(out) == sorted([*others, *EXPECTED[format]])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("force", [False, True])
def test_two_at_once(index: Path, tmp_path: Path, format: str, force: bool) -> None:
    """The second says that the first is writing, and leaves its drafts alone."""
    out = tmp_path / "out"
    with paused(index, out, format) as process:
        before = names(out)
        with pytest.raises(ExchangeError, match=rf"another process is writing {out}/s\.1\..* now"):
            out_of(index, out, format, force=force)
        assert names(out) == before
        process.communicate("\n")
    assert process.returncode == 0
    assert names(out) == EXPECTED[format]


def test_a_name_that_is_taken_meanwhile(index: Path, tmp_path: Path) -> None:
    """Whoever was first keeps the name, and no half of a pair is left."""
    out = tmp_path / "out"
    for taken in EXPECTED["npy"]:
        with paused(index, out, "npy") as process:
            (out / taken).write_text("first")
            _, said = process.communicate("\n")
        assert process.returncode == 1
        assert said.splitlines()[-1].endswith(
            f"another process has made {out / taken} meanwhile; replace it with --force"
        )
        assert names(out) == [taken]
        assert (out / taken).read_text() == "first"
        (out / taken).unlink()
    (out / "s.1.npy").write_text("first")
    with paused(index, out, "npy", "force") as process:
        process.communicate("\n")
    assert process.returncode == 0
    assert names(out) == EXPECTED["npy"]
    assert len(np.load(out / "s.1.npy")) == 1


@pytest.mark.parametrize("links", [True, False])
def test_names_are_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """With links and without, as on file systems that have none."""
    if not links:

        def refuse(*_: object) -> None:
            raise PermissionError(1, os.strerror(1))

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    one, two = tmp_path / "one", tmp_path / "two"
    with drafted([one, two]) as drafts:
        for path, draft in drafts.items():
            draft.write_text(path.name)
        put(drafts, replace=False)
        assert (one.read_text(), two.read_text()) == ("one", "two")
    assert names(tmp_path) == ["one", "two"]
    one.unlink()
    with drafted([one, two]) as drafts:
        for draft in drafts.values():
            draft.write_text("other")
        with pytest.raises(ExchangeError, match=f"another process has made {two} meanwhile"):
            put(drafts, replace=False)
    assert names(tmp_path) == ["two"]
    assert two.read_text() == "two"
