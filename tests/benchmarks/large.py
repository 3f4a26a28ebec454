"""Measures searches over a large index against comparing everything, and writes JSON.

Run it on an otherwise idle machine, from an environment with anyseek installed::

    python -m tests.benchmarks.large --pictures p.npy --captions c.npy --work large --out large.json
    python -m tests.benchmarks.large --table tests/benchmarks/results/large.json

``p.npy`` has the float32 unit vectors of real pictures, ``c.npy`` those of captions that are asked
for; both of Flickr8k with the bundled model, pictures of the split ``train`` and captions of
``dev``. A million pictures are made by adding noise around the real ones. Its covariance is that of
the differences between a picture and one of its ten nearest, so that it goes where pictures differ;
its scale is where neighbours are as near as they would be among that many real ones: with every
doubling of the real ones from 375 to 6,000, the cosine of the nearest grows by 0.02, which leads to
0.87 to 0.90 at a million. Queries stay real; as texts they lie outside the cloud of pictures.

An index of a million takes 3.2 GB and stays in the folder; a second run finds it there. Times are
of one thread, whose processor time is measured, everything warm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval import inverting
from retrieval.filters import Filters
from retrieval.index import VectorIndex, folder_of, seal
from retrieval.ladder import rung
from retrieval.store import Batch, ItemRecord, Store
from retrieval.types import WHOLE, Encoder, Facts, Fingerprint, Modality, Vectors
from tests.benchmarks.filters import DAYS, FIRST
from tests.benchmarks.speed import Figures, machine, spread

K, SCALE, QUERIES, FEW, PAGE = 10, 0.85, 100, 10, 5_000
SHARES = (0.001, 0.01, 0.1, 0.9)
IMAGE = Modality.IMAGE


def main() -> None:
    """Fills an index, measures, and writes one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="float32 (n, dim), unit rows")
    parser.add_argument("--captions", type=Path, help="float32 (n, dim), unit rows")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help="folder for the index, which stays there")
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout by default")
    parser.add_argument("--resident", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help="prints the README's tables of a result")
    options = parser.parse_args()
    captions = np.load(options.captions) if options.captions else np.empty((0, 0), np.float32)
    queries = captions[np.random.default_rng(5).permutation(len(captions))[:QUERIES]]
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    if options.resident:
        print(json.dumps(resident(options.resident, queries)))
        return
    index = options.work / f"{options.items}.db"
    figures: Figures = {"machine": machine(), "gflops": gflops(), "items": options.items, "k": K}
    built = index.with_suffix(".json")
    if not built.exists():
        index.parent.mkdir(parents=True, exist_ok=True)
        built.write_text(json.dumps(fill(index, options.items, np.load(options.pictures))))
    figures |= json.loads(built.read_text())
    command = [sys.executable, "-m", "tests.benchmarks.large", "--resident", str(index)]
    command += ["--captions", str(options.captions)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures |= json.loads(done.stdout) | measure(index, queries)
    text = json.dumps(figures, indent=2) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text, end="")


def gflops() -> float:
    """Measures products of float32 matrices on one thread, in 10^9 operations a second."""
    rows = np.random.default_rng(0).normal(size=(1_024, 1_024)).astype(np.float32)
    best = 0.0
    for _ in range(5):
        started = time.thread_time()
        rows @ rows
        best = max(best, 2 * 1_024**3 / 1e9 / (time.thread_time() - started))
    return round(best, 1)


def noise(pictures: Vectors) -> Vectors:
    """Gives what turns normal numbers into differences of near pictures, ``(dim, dim)``."""
    random = np.random.default_rng(0)
    near = np.empty((len(pictures), K), np.int64)
    for start in range(0, len(pictures), 1_000):
        cosines = pictures[start : start + 1_000] @ pictures.T
        near[start : start + 1_000] = np.argpartition(-cosines, K + 1, axis=1)[:, 1 : K + 1]
    some = random.integers(0, len(pictures), 20_000)
    steps = pictures[some] - pictures[near[some, random.integers(0, K, len(some))]]
    variances, directions = np.linalg.eigh(np.cov(steps.T) / 2)
    return np.asarray((directions * np.sqrt(variances.clip(min=0))).T, np.float32)


def made(random: np.random.Generator, count: int, pictures: Vectors, root: Vectors) -> Vectors:
    """Draws unit rows around real pictures."""
    rows = pictures[random.integers(0, len(pictures), count)]
    rows = rows + SCALE * (random.standard_normal(rows.shape, np.float32) @ root)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def records(numbers: range, rows: Vectors, random: np.random.Generator) -> list[ItemRecord]:
    """Makes items with dates at random."""
    seconds = random.integers(0, DAYS * 86_400, len(numbers)).tolist()
    return [
        ItemRecord(
            b"/pictures/%05d/%08d.jpg" % (number // 1_000, number),
            Fingerprint(number + 1, 1),
            hashlib.blake2b(str(number).encode(), digest_size=16).digest(),
            IMAGE,
            (WHOLE,),
            row[None],
            facts=Facts((FIRST + timedelta(seconds=second)).isoformat(), None),
        )
        for number, row, second in zip(numbers, rows, seconds, strict=True)
    ]


def fill(index: Path, items: int, pictures: Vectors) -> Figures:
    """Makes the index, writing rows at once as the store would, and times the derived files."""
    random = np.random.default_rng(1)
    root = noise(pictures)
    clock: dict[str, list[float]] = {}

    def tell(what: str, done: int, total: int) -> None:
        clock.setdefault(what, []).append(time.monotonic())
        print(what, done, total, file=sys.stderr, flush=True)

    with Store(index, write=True) as store:
        space = store.add_space(Encoder("toy", "toy-1", pictures.shape[1], {}))
        with closing(sqlite3.connect(index)) as connection:
            connection.execute("PRAGMA synchronous = off")
            for start in range(0, items, PAGE):
                numbers = range(start, min(start + PAGE, items))
                insert(connection, numbers, made(random, len(numbers), pictures, root), random)
        started = time.monotonic()
        seal(store, space, IMAGE, tell=tell)
        ended = time.monotonic()
    chosen, *rest = clock
    lists_s = ended - clock[chosen][0]
    return {
        "scale_of_noise": SCALE,
        "chosen": chosen,
        "segments_s": round(ended - started - lists_s, 1),
        "lists_s": round(lists_s, 1),
        **{f"{what}_s": round(clock[what][-1] - clock[what][0], 1) for what in rest},
    }


def insert(
    connection: sqlite3.Connection, numbers: range, rows: Vectors, random: np.random.Generator
) -> None:
    """Adds items with one part and one vector each; the store takes ten times as long."""
    items: list[tuple[object, ...]] = []
    parts, vectors = [], []
    for record in records(numbers, rows, random):
        number = len(items) + numbers.start + 1
        facts = (record.fingerprint.size, 1, record.content_hash, record.facts.taken_at)
        items.append((number, record.path, *facts))
        parts.append((number, number))
        vectors.append((number, number, record.vectors[0].astype("<f2").tobytes()))
    with connection:
        connection.executemany(
            "INSERT INTO items (id, path, modality, size, mtime_ns, content_hash, taken_at,"
            " indexed_at_s, facts_version) VALUES (?, ?, 'image', ?, ?, ?, ?, 0, 1)",
            items,
        )
        connection.executemany(
            "INSERT INTO parts (id, item_id, ordinal) VALUES (?, ?, 0)",
            parts,
        )
        connection.executemany(
            "INSERT INTO vectors (id, part_id, space_id, modality, vector)"
            " VALUES (?, ?, 1, 'image', ?)",
            vectors,
        )


def resident(index: Path, queries: Vectors) -> Figures:
    """Opens the index in a process of its own, searches, and tells what memory that took."""
    started = time.monotonic()
    with Store(index) as store:
        (space,) = store.spaces()
        vectors = VectorIndex(store, space, IMAGE)
        opened = time.monotonic()
        vectors.search(queries[0], K)
        searched = time.monotonic()
        for query in queries:
            vectors.search(query, K)
    status = Path("/proc/self/status").read_text()
    megabytes = {
        line.split(":")[0]: round(int(line.split()[1]) / 1e3)
        for line in status.splitlines()
        if line.startswith(("RssAnon", "RssFile"))
    }
    return {
        "open_ms": round((opened - started) * 1e3),
        "first_search_ms": round((searched - opened) * 1e3, 1),
        "resident_mb": megabytes,
    }


def timed(
    vectors: VectorIndex, queries: Vectors, only: NDArray[np.int64] | None
) -> tuple[Figures, list[list[int]]]:
    """Times searches in milliseconds of this thread, and gives the ids that they find."""
    times, found = [], []
    for query in queries:
        started = time.thread_time()
        ids = vectors.search(query, K, only=only)[1]
        times.append((time.thread_time() - started) * 1e3)
        found.append(ids.tolist())
    return spread(times, 2) | {"p95": round(float(np.percentile(times, 95)), 2)}, found


def recall(found: list[list[int]], wanted: list[list[int]]) -> float:
    """Gives the part of the exact answers that was found."""
    shares = [len({*a} & {*b}) / len(b) for a, b in zip(found, wanted, strict=True)]
    return round(float(np.mean(shares)), 4)


def measure(index: Path, queries: Vectors) -> Figures:
    """Measures searches, filters, additions and removals."""
    figures: Figures = {}
    with Store(index) as store:
        (space,) = store.spaces()
        exact = VectorIndex(store, space, IMAGE, exact=True)
        planned = VectorIndex(store, space, IMAGE)
        planned.search(queries[0], K)
        exact.search(queries[0], K)
        (one,) = inverting.seals(store, space, IMAGE)
        figures["bytes"] = {
            "store": index.stat().st_size,
            "segments": sum(
                (folder_of(index) / seal.file).stat().st_size for seal in store.seals(space, IMAGE)
            ),
            "lists": one.bytes,
        }
        exact_ms, wanted = timed(exact, queries, None)
        planned_ms, found = timed(planned, queries, None)
        figures |= {"exact_ms": exact_ms, "search_ms": planned_ms, "recall": recall(found, wanted)}
        figures["filters"] = {}
        for share in SHARES:
            filters = Filters(after=FIRST + timedelta(days=DAYS * (1 - share)))
            only = store.vector_ids(space, IMAGE, filters)
            some = queries[:FEW]
            planned.search(some[0], K, only=only)
            exact.search(some[0], K, only=only)
            exact_ms, wanted = timed(exact, some, only)
            planned_ms, found = timed(planned, some, only)
            figures["filters"][f"{share:.1%}"] = {
                "matches": len(only),
                "plan": sorted({str(decision.plan) for decision in planned.plans}),
                "exact_ms": exact_ms,
                "search_ms": planned_ms,
                "recall": recall(found, wanted),
                "hits": min(map(len, found)),
            }
            print(share, figures["filters"][f"{share:.1%}"], file=sys.stderr, flush=True)
    return figures | changed(index, queries)


def changed(index: Path, queries: Vectors) -> Figures:
    """Times adding a thousand items and removing ten thousand, and looks whether it is so."""
    random = np.random.default_rng(int(time.time()))
    with Store(index, write=True) as store:
        (space,) = store.spaces()
        start = 10**7 + store.generation() * PAGE
        rows = queries[random.integers(0, len(queries), 1_000)]
        batch = Batch(records=records(range(start, start + 1_000), rows, random))
        started = time.monotonic()
        store.write(batch, space)
        seal(store, space, IMAGE)
        added = time.monotonic()
        vectors = VectorIndex(store, space, IMAGE)
        searched = vectors.search(rows[0], K)[1]
        ended = time.monotonic()
        newest = set(vectors.ids()[-1_000:].tolist())
        gone = random.choice(vectors.ids(), 9_000, replace=False)
        gone = np.union1d(gone, sorted(newest))  # which answer the queries best of all
        items = [row.item_id for row in store.found(gone.tolist()).values()]
        before_s = time.monotonic()
        for at in range(0, len(items), PAGE):
            store.write(Batch(removed=items[at : at + PAGE]), space)
        seal(store, space, IMAGE)
        removed_s = time.monotonic() - before_s
        vectors = VectorIndex(store, space, IMAGE)
        hits = {int(one) for query in queries for one in vectors.search(query, 100)[1]}
    return {
        "add_1000_s": round(added - started, 2),
        "then_open_and_search_s": round(ended - added, 2),
        "added_found": bool({*searched.tolist()} <= newest),
        "remove_10000_s": round(removed_s, 2),
        "removed": len(gone),
        "removed_found": len(hits & {*gone.tolist()}),
    }


def table(figures: Figures) -> str:
    """Writes the README's tables."""
    items, size = figures["items"], figures["bytes"]
    ratio = figures["exact_ms"]["median"] / figures["search_ms"]["median"]
    lines = [
        f"| {items:,} pictures | measured |",
        "|---|---|",
        f"| search, all compared | {_ms(figures['exact_ms'])} |",
        f"| search by lists | {_ms(figures['search_ms'])}, {ratio:.0f} times as fast |",
        f"| recall@10 of captions | {figures['recall']:.3f} |",
        f"| building the lists | {figures['lists_s']:.0f} s |",
        f"| opening the index, first search | {figures['open_ms']} ms, "
        f"{figures['first_search_ms']:.0f} ms |",
        f"| memory of a process that searches | {figures['resident_mb']['RssAnon']} MB, and "
        f"{figures['resident_mb']['RssFile']} MB of mapped files |",
        f"| adding 1,000 | {figures['add_1000_s']} s |",
        f"| removing 10,000 | {figures['remove_10000_s']} s |",
        "",
        "| filter by date | all that pass compared | as planned | recall@10 | hits |",
        "|---|---|---|---|---|",
    ]
    for share, row in figures["filters"].items():
        plans = ", ".join(f"`{plan}`" for plan in row["plan"])
        lines.append(
            f"| {share}, {row['matches']:,} pass | {_ms(row['exact_ms'])} | "
            f"{_ms(row['search_ms'])}, {plans} | {row['recall']:.3f} | {row['hits']} |"
        )
    each = {name: size[name] / items for name in ("store", "segments", "lists")}
    hundred = rung(100_000_000, 128)
    grown = (100_000_000 / items) ** 0.5
    days = figures["lists_s"] * 100_000_000 / items * grown / 86_400
    search_ms = figures["search_ms"]["median"] * grown
    lines += [
        "",
        "| on paper, at 100,000,000 | |",
        "|---|---|",
        f"| store, segments | {each['store'] / 10:.0f} GB, {each['segments'] / 10:.0f} GB |",
        f"| lists | {hundred.memory / 1e9:.1f} GB |",
        f"| building the lists | {days:.1f} days |",
        f"| opening the index | {figures['open_ms'] / 1e3 * 100_000_000 / items:.0f} s |",
        f"| search | {search_ms:.0f} ms, and reading 200 rows from the disk |",
    ]
    return "\n".join(lines)


def _ms(figures: Figures) -> str:
    return f"{figures['median']:.1f} ({figures['min']:.1f}-{figures['max']:.1f}) ms"


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
