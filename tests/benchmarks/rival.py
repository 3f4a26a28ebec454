"""Measures anyseek beside rclip with the same weights on the same machine, and writes JSON.

Run it on an otherwise idle machine, from an environment with anyseek and ``[clip]`` installed::

    python -m tests.benchmarks.rival --work rival --out rival.json
    python -m tests.benchmarks.rival --work rival --items 300 100000 1000000 --out rival.json
    python -m tests.benchmarks.rival --table tests/benchmarks/results/rival.json

rclip comes from PyPI into an environment of its own within the folder. Both run ViT-B-32-256 with
the same random weights, which are as fast as published ones: rclip as the two float32 ONNX files
that it looks for in its data folder, anyseek as a folder in open_clip's format. Its own files may
be of another precision, which are not compared here. Nothing is downloaded but the packages.

The two take turns, who is first too, so that other work on the machine meets both; a ratio is that
of one turn. Everything is a whole process from its start to its end. Indexing is ``anyseek index``
against what ``rclip`` does before it searches; searching is ``anyseek search --no-cache`` against
``rclip --no-indexing``. ``processor_s`` is the time of all threads.

Large indexes are filled with random unit vectors, the same for both, by SQL. Both give the paths of
files that are not there. rclip needs some 8 GB of memory for a million.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.index import seal
from retrieval.store import Store
from retrieval.towers import export, open_clip, open_clip_files, open_clip_network
from retrieval.types import Modality, Vectors
from tests.benchmarks.large import PAGE, insert
from tests.benchmarks.speed import QUERY, REPOSITORY, SAMPLES, Figures, machine, make_jpegs, spread
from tests.benchmarks.towers import checkpoint

RCLIP = "rclip==3.3.0"
MODEL = "ViT-B-32-256-datacomp_s34b_b86k"  # the folder that rclip looks into
SIZES = {"12 megapixels": (4000, 3000), "COCO size": (640, 480)}
K = 10
# what rclip does before it searches, with the batch that is its default
INDEX = """
import os
from rclip.main import init_rclip
rclip, model, database = init_rclip(os.getcwd(), 8)
rclip.close()
database.close()
"""

Run = Callable[[], Figures]


def main() -> None:
    """Makes both sides' models, measures, and writes one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for all that is made, which stays there")
    parser.add_argument("--venv", type=Path, help="environment of rclip; WORK/rclip by default")
    parser.add_argument("--pictures", type=int, nargs=2, default=[20, 60], help="12 MP, COCO size")
    parser.add_argument("--items", type=int, nargs="*", default=[300, 100_000])
    parser.add_argument("--repeat", type=int, default=15, help="turns of each search")
    parser.add_argument("--rounds", type=int, default=5, help="turns of indexing")
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout by default")
    parser.add_argument("--table", type=Path, help="prints the README's table of a result")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name in ("CACHE", "STATE", "DATA", "CONFIG"):
        os.environ[f"XDG_{name}_HOME"] = str(work / name.lower())
    os.environ["HF_HUB_OFFLINE"] = "1"
    python = environment(options.venv or work / "rclip")
    sides = Sides(work, python)
    figures: Figures = {
        "machine": machine() | {"rclip": versions(python)},
        "pictures": dict(zip(SIZES, options.pictures, strict=True)),
        "indexing": {},
        "searching": {},
    }

    def told() -> None:
        figures["load"] = [round(one, 1) for one in os.getloadavg()]
        text = json.dumps(figures, indent=2) + "\n"
        if options.out:
            options.out.write_text(text)
        else:
            print(text, end="")

    for (name, size), count in zip(SIZES.items(), options.pictures, strict=True):
        print(f"indexing, {name} ...", file=sys.stderr, flush=True)
        figures["indexing"][name] = sides.indexing(name, count, size, options.rounds)
        told()
    for items in options.items:
        print(f"searching {items} ...", file=sys.stderr, flush=True)
        figures["searching"][f"{items} items"] = sides.searching(items, options.repeat)
        told()


# ---- the two sides -------------------------------------------------------------------------------


def environment(folder: Path) -> Path:
    """Gives the interpreter of an environment with rclip, which is made if it is not there."""
    python = folder.absolute() / "bin" / "python"
    if not (python.parent / "rclip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", RCLIP], check=True)
    return python


def versions(python: Path) -> Figures:
    """Tells what rclip runs on."""
    names = ["rclip", "numpy", "onnxruntime", "pillow"]
    code = f"from importlib.metadata import version as v; print(*map(v, {names}))"
    done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return dict(zip(names, done.stdout.split(), strict=True))


def rclip_files(folder: Path, source: str) -> None:
    """Writes a model as rclip looks for it: from pixels and tokens to vectors, float32."""
    import torch

    network = open_clip_network.build(open_clip_files.find(source))

    class Texts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: Any) -> Any:
            return self.network.encode_text(tokens)

    parts: list[tuple[str, Any, Any]] = [
        ("visual", network.visual, torch.zeros(2, 3, 256, 256)),
        ("textual", Texts(), torch.ones(2, 77, dtype=torch.int64)),
    ]
    (folder / MODEL).mkdir(parents=True)
    for name, module, example in parts:
        path = folder / MODEL / f"{name}.onnx"
        # the output's name is not asked for
        export.trace(module.eval(), {"input": example}, path, axes={"input": {0: "n"}})
    import open_clip as library

    vocabulary = "bpe_simple_vocab_16e6.txt.gz"
    (folder / "tokenizer").mkdir()
    shutil.copy(Path(library.__file__).parent / vocabulary, folder / "tokenizer" / vocabulary)


class Sides:
    """Both commands with the same weights, and what they index."""

    def __init__(self, work: Path, python: Path) -> None:
        """Makes the model for both, unless it is there."""
        self._work, self._python = work, python
        if not (work / "model").exists():
            checkpoint(work / "model")
        self._source = f"local-dir:{work / 'model'}"
        if not (work / "rclip-files" / "tokenizer").exists():
            rclip_files(work / "rclip-files", self._source)
        # the first use exports the model, once for all
        self._anyseek("index", str(next(SAMPLES.iterdir())), "--index", str(work / "first.db"))

    def _anyseek(self, *arguments: str) -> Figures:
        code = "from cli.app import main; main()"
        command = [sys.executable, "-c", code, *arguments, "--model", self._source]
        return timed(command, REPOSITORY)

    def _rclip(self, data: Path, folder: Path, *command: str) -> Figures:
        os.environ["RCLIP_DATADIR"] = str(data)
        return timed([str(self._python), *command], folder)

    def _data(self, name: str, *, fresh: bool = False) -> Path:
        """Gives a data folder of rclip with the model in it."""
        data = self._work / f"rclip-{name}"
        if fresh:
            shutil.rmtree(data, ignore_errors=True)
        if not data.exists():
            data.mkdir()
            for one in (self._work / "rclip-files").iterdir():
                (data / one.name).symlink_to(one)
        return data

    def indexing(self, name: str, count: int, size: tuple[int, int], rounds: int) -> Figures:
        """Indexes pictures anew each time, and compares what is stored in the end."""
        stem = name.replace(" ", "-")
        pictures = self._work / f"{stem}-{count}"
        if not pictures.exists():
            make_jpegs(pictures, count, size)
        index = self._work / f"{stem}.db"

        def ours() -> Figures:
            for path in self._work.glob(f"{index.name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            done = self._anyseek("index", str(pictures), "--index", str(index))
            assert done["stdout"].startswith(f"{count} added"), done["stdout"]
            return done

        def theirs() -> Figures:
            return self._rclip(self._data(stem, fresh=True), pictures, "-c", INDEX)

        figures = turns(ours, theirs, rounds, warm=False)
        for one in ("anyseek", "rclip"):
            wall = figures[one]["wall_s"]
            figures[one]["pictures_s"] = {
                key: round(count / wall[other], 2)
                for key, other in (("median", "median"), ("min", "max"), ("max", "min"))
            }
        cosines = compared(index, self._data(stem) / "db.sqlite3")
        assert len(cosines) == count, f"rclip indexed {len(cosines)} of {count}"
        return {
            "pictures": count,
            **figures,
            "cosine of vectors less their mean": spread(cosines, 4),
        }

    def searching(self, items: int, repeat: int) -> Figures:
        """Searches in words, by default and, where lists would be used, comparing all."""
        index, done = self._work / f"{items}.db", self._work / f"{items}.filled"
        data = self._data(str(items), fresh=not done.exists())
        if not done.exists():
            self._fill(index, data, items)
            done.touch()

        def ours(*more: str) -> Figures:
            flags = ["--index", str(index), "--no-cache", "--format", "paths", "-k", str(K)]
            return self._anyseek("search", QUERY, *flags, *more)

        def theirs() -> Figures:
            flags = [QUERY, "--no-indexing", "--filepath-only", "--top", str(K)]
            return self._rclip(data, Path("/"), "-m", "rclip", *flags)

        found = set(ours("--exact")["stdout"].split()), set(theirs()["stdout"].split())
        figures = turns(ours, theirs, repeat)
        figures["same_hits"] = f"{len(found[0] & found[1])} of {len(found[1])}"
        if items >= 200_000:
            figures["anyseek --exact"] = turns(lambda: ours("--exact"), theirs, repeat)["anyseek"]
        return figures

    def _fill(self, index: Path, data: Path, items: int) -> None:
        """Writes the same random unit vectors into both."""
        for half in self._work.glob(f"{index.name}*"):  # of a run that did not end
            shutil.rmtree(half) if half.is_dir() else half.unlink()
        encoder = open_clip.load(self._source, "cpu")
        random = np.random.default_rng(1)
        # rclip makes its tables itself
        code = "import sys; from rclip.db import DB; DB(sys.argv[1]).close()"
        theirs = data / "db.sqlite3"
        subprocess.run([str(self._python), "-c", code, str(theirs)], check=True)
        with Store(index, write=True) as store:
            space = store.add_space(encoder)
            with (
                closing(sqlite3.connect(index)) as one,
                closing(sqlite3.connect(theirs)) as other,
            ):
                for connection in (one, other):
                    connection.execute("PRAGMA synchronous = off")
                for start in range(0, items, PAGE):
                    numbers = range(start, min(start + PAGE, items))
                    rows = random.standard_normal((len(numbers), space.dim), np.float32)
                    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                    insert(one, numbers, rows, random)
                    insert_rclip(other, numbers, rows)
            seal(store, space, Modality.IMAGE)


def insert_rclip(connection: sqlite3.Connection, numbers: range, rows: Vectors) -> None:
    """Adds rows to rclip's table under the paths that ``large.insert`` gives."""
    with connection:
        connection.executemany(
            "INSERT INTO images (filepath, modified_at, size, vector, hash) VALUES (?, 1, ?, ?, ?)",
            (
                (path(number), number + 1, row.tobytes(), f"{number:064x}")
                for number, row in zip(numbers, rows, strict=True)
            ),
        )


def path(number: int) -> str:
    """Gives the path of a made-up picture."""
    return f"/pictures/{number // 1_000:05d}/{number:08d}.jpg"


def compared(index: Path, theirs: Path) -> list[float]:
    """Gives the cosine between both sides' vectors of each picture.

    The mean picture is taken off first: to random weights all pictures look much alike.
    """
    with closing(sqlite3.connect(index)) as one, closing(sqlite3.connect(theirs)) as other:
        kept: dict[str, NDArray[np.float32]] = {
            os.fsdecode(path): np.frombuffer(vector, "<f2").astype(np.float32)
            for path, vector in one.execute(
                "SELECT path, vector FROM vectors JOIN parts ON parts.id = part_id"
                " JOIN items ON items.id = item_id WHERE source = 'content'"
            )
        }
        rows = other.execute("SELECT filepath, vector FROM images").fetchall()
    pairs = [(kept[path], np.frombuffer(vector, np.float32)) for path, vector in rows]
    a, b = (np.stack(rows) for rows in zip(*pairs, strict=True))
    a, b = a - b.mean(axis=0), b - b.mean(axis=0)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return [float(one) for one in (a * b).sum(axis=1) / lengths]


# ---- taking turns --------------------------------------------------------------------------------


def turns(ours: Run, theirs: Run, repeat: int, *, warm: bool = True) -> Figures:
    """Runs both in turns, if ``warm`` after one run of each that is not counted."""
    sides = {"anyseek": ours, "rclip": theirs}
    runs: dict[str, list[Figures]] = {name: [] for name in sides}
    for turn in range(0 if warm else 1, repeat + 1):
        for name in sorted(sides, reverse=bool(turn % 2)):
            done = sides[name]()
            if turn:
                runs[name].append(done)
    figures: Figures = {
        name: {
            "wall_s": spread([one["wall_s"] for one in done]),
            "processor_s": spread([one["processor_s"] for one in done]),
            "peak_mb": spread([one["peak_mb"] for one in done], 0),
        }
        for name, done in runs.items()
    }
    for kind in ("wall_s", "processor_s"):
        ratios = [b[kind] / a[kind] for a, b in zip(*runs.values(), strict=True)]
        figures[f"rclip / anyseek, {kind}"] = spread(ratios, 2)
    return figures


LAUNCHER = """
import json, os, sys, time
started = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, code, usage = os.wait4(child, 0)
wall_s = time.perf_counter() - started
figures = [os.waitstatus_to_exitcode(code), wall_s, usage.ru_utime + usage.ru_stime]
print(json.dumps([*figures, usage.ru_maxrss / 1024]), file=sys.stderr)
"""


def timed(command: Sequence[str], folder: Path) -> Figures:
    """Runs a cold process in a folder; gives its seconds, its peak memory and its output.

    A small process starts it, since a child's peak begins with what its parent had.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY) if folder == REPOSITORY else ""}
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, wall_s, processor_s, peak_mb = json.loads(done.stderr.splitlines()[-1])
    if code:
        raise SystemExit(f"{' '.join(command)} failed with {code}: {done.stderr}")
    return {
        "wall_s": wall_s,
        "processor_s": processor_s,
        "peak_mb": peak_mb,
        "stdout": done.stdout,
    }


# ---- the table -----------------------------------------------------------------------------------


def table(figures: Figures) -> str:
    """Writes the README's table."""
    lines = [
        "| whole processes | n | anyseek | rclip | rclip / anyseek | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["indexing"].items():
        rates = [
            "{median:.1f} ({min:.1f}-{max:.1f}) pictures/s".format(**row[one]["pictures_s"])
            for one in ("anyseek", "rclip")
        ]
        lines.append(_row(f"indexing {row['pictures']} JPEGs, {name}", row, rates))
    for name, row in figures["searching"].items():
        lines.append(_row(f"cold search, {int(name.split()[0]):,} items", row, _seconds(row)))
        if exact := row.get("anyseek --exact"):
            wall = exact["wall_s"]
            ratio = row["rclip"]["wall_s"]["median"] / wall["median"]
            took = "{median:.2f} ({min:.2f}-{max:.2f}) s".format(**wall)
            lines.append(
                f"| the same, all compared (`--exact`) | {wall['n']} | {took} | | {ratio:.1f} "
                f"| {exact['peak_mb']['median']:,.0f} MB |"
            )
    return "\n".join(lines)


def _seconds(row: Figures) -> list[str]:
    return [
        "{median:.2f} ({min:.2f}-{max:.2f}) s".format(**row[one]["wall_s"])
        for one in ("anyseek", "rclip")
    ]


def _row(name: str, row: Figures, took: list[str]) -> str:
    ratio = "{median:.1f} ({min:.1f}-{max:.1f})".format(**row["rclip / anyseek, wall_s"])
    memory = [f"{row[one]['peak_mb']['median']:,.0f}" for one in ("anyseek", "rclip")]
    count = row["anyseek"]["wall_s"]["n"]
    return f"| {name} | {count} | {' | '.join(took)} | {ratio} | {' and '.join(memory)} MB |"


if __name__ == "__main__":
    main()
