"""Export, import, merge and check at the command line, on real pictures with the bundled model."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from indexer.lock import exclusive
from tests.cli.test_cli import COMMAND, SAMPLES, Anyseek
from tests.conftest import rows_of, run_sql, unit_rows
from tests.retrieval.test_exchange import clip

SPACE = "anyseek-1-94e6fa6cf094"


@pytest.fixture
def anyseek(tmp_path: Path) -> Anyseek:
    """The command with an index of two photographs."""
    command = Anyseek(tmp_path.resolve())
    command.photos.mkdir()
    for name in ("grazing-cow.jpg", "wild-horses.jpg"):
        shutil.copy(SAMPLES / "photos" / name, command.photos)
    assert command.here("index", "photos").out.startswith(b"2 added")
    return command


def test_a_trip_from_start_to_end(anyseek: Anyseek) -> None:
    """Out, in elsewhere, not embedded again, joined, checked; the first index never changes."""
    before = rows_of(anyseek.index)
    done = anyseek.here("export", "out", "--format", "npy", "--space", SPACE)
    files = f"out/{SPACE}.npy, out/{SPACE}.jsonl"
    assert (done.code, done.err, done.lines) == (0, "", [f"2 vectors of {SPACE} to {files}"])
    done = anyseek.here("export", "out", "--format", "npy")
    assert done.code == 1
    assert done.err == f"anyseek: out/{SPACE}.npy is there already; replace it with --force\n"
    assert anyseek.here("export", "out", "--dtype", "float32").code == 0

    done = anyseek.here("import", f"out/{SPACE}.npy", "--index", "b.db")
    assert (done.code, done.err) == (0, "")
    assert done.lines == [f"2 added, 0 updated, 0 unchanged in {SPACE}"]
    done = anyseek.here("import", f"out/{SPACE}.parquet", "--model", "anyseek-1", "--index", "b.db")
    assert done.lines == [f"0 added, 0 updated, 2 unchanged in {SPACE}"]
    done = anyseek.here("index", "photos", "--index", "b.db")
    assert b"2 unchanged" in done.out
    searched = [anyseek.here("search", "cow", "--index", at).out for at in (anyseek.index, "b.db")]
    assert searched[0] == searched[1]

    done = anyseek.here("merge", str(anyseek.index), "b.db", "-o", "c.db")
    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        "0 added from B, 0 newer in B, 2 in both kept, 0 concept(s) from B, in c.db"
    ]
    assert anyseek.here("merge", "b.db", "c.db", "--into", "--prefer", "a").code == 0
    assert rows_of(anyseek.index) == before
    for wrong in ((), ("-o", "d.db", "--into")):
        assert anyseek.here("merge", "b.db", "c.db", *wrong).code == 2
    done = anyseek.here("merge", "b.db", "gone.db", "-o", "d.db")
    assert (done.code, done.err.startswith("anyseek: there is no index at gone.db")) == (1, True)


def test_check_and_repair(anyseek: Anyseek) -> None:
    """Damage gives 1 and a line, a repair mends it, and the next run embeds what was lost."""
    done = anyseek.here("check", "--full")
    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        "all is well: 2 items, 2 vectors, 0 of them compared in 0 derived file(s)"
    ]
    run_sql(anyseek.index, "UPDATE vectors SET vector = zeroblob(1024) WHERE id = 1")
    done = anyseek.here("check")
    assert done.code == 1
    (line,) = done.lines
    assert line.startswith("1 vector(s) that are not of length 1, the first of ")
    done = anyseek.here("check", "--repair")
    assert done.code == 0
    assert done.lines[0] == f"mended: {line.partition(': ')[0]}"
    assert done.lines[1].startswith("all is well: 1 items, 1 vectors")
    assert anyseek.here("index", "photos").out.startswith(b"1 added")
    assert anyseek.here("check", "--index", "gone.db").code == 1
    assert not (anyseek.home / "gone.db").exists()


def test_an_index_that_is_being_written(anyseek: Anyseek) -> None:
    """What only reads says so and goes on; what writes says so and waits."""
    shutil.copy(anyseek.index, anyseek.home / "b.db")
    writer = f"anyseek: another `anyseek` is writing to {anyseek.index}; "
    with exclusive(anyseek.index, on_wait=lambda: None):
        done = anyseek.here("check")
        assert (done.code, done.err) == (0, f"{writer}what it has committed by now is checked\n")
        for two in ((anyseek.index, "b.db"), ("b.db", anyseek.index)):
            done = anyseek.here("merge", *two, "-o", "c.db")
            assert (done.code, done.err) == (
                0,
                f"{writer}what it has committed by now is joined\n",
            )
            (anyseek.home / "c.db").unlink()
        started = []
        for command in (("merge", str(anyseek.index), "b.db", "--into"), ("check", "--repair")):
            process = subprocess.Popen(
                [*COMMAND, *command],
                env=anyseek.env,
                cwd=anyseek.home,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            assert process.stderr is not None
            assert process.stderr.readline() == f"{writer}waiting until it is done\n"
            started.append(process)
    for process in started:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    assert anyseek.here("check").err == ""
    done = anyseek.here("merge", str(anyseek.index), anyseek.index, "--into")
    assert done.err.endswith("are the same index; name two\n")
    assert done.err.count("\n") == 1


def test_embeddings_of_a_model_that_is_not_here(anyseek: Anyseek) -> None:
    """They need a space and a length; `similar` finds by them, and `search` says why it cannot."""
    vectors = unit_rows(np.random.default_rng(0), 3, 16)
    paths = ["photos/grazing-cow.jpg", "photos/wild-horses.jpg", "photos/gone.jpg"]
    clip(anyseek.home / "clip", vectors, {"image_path": paths})
    done = anyseek.here("import", "clip", "--index", "b.db")
    assert done.code == 1
    assert "give --model NAME, or --space NAME --dim N" in done.err
    done = anyseek.here("import", "clip", "--model", "anyseek-1", "--index", "b.db")
    assert "row 0: its vector has 16 numbers, and those of the space" in done.err
    command = ("import", "clip", "--space", "ViT-B-32", "--index", "b.db")
    assert anyseek.here(*command, "--model", "anyseek-1").code == 2
    assert anyseek.here("import", "clip", "--dim", "16", "--index", "b.db").code == 2
    done = anyseek.here(*command, "--dim", "16")
    assert (done.code, done.lines) == (0, ["3 added, 0 updated, 0 unchanged in ViT-B-32"])
    assert done.err == "anyseek: 1 file(s) are not there; their vectors are in all the same\n"
    done = anyseek.here("similar", paths[0], "--format", "paths", "--index", "b.db")
    assert done.code == 0
    cosines = vectors[1:] @ vectors[0]
    order = [str(anyseek.home / paths[1 + at]) for at in np.argsort(-cosines)]
    assert done.lines == order
    done = anyseek.here("search", "cow", "--index", "b.db")
    assert done.code == 1
    assert "which made ViT-B-32, cannot be used" in done.err
    (anyseek.home / "x.jpg").write_bytes((anyseek.photos / "wild-horses.jpg").read_bytes())
    done = anyseek.here("similar", "x.jpg", "--index", "b.db")
    assert "which made ViT-B-32, cannot be used" in done.err
