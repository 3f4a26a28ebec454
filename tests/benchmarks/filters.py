"""Measures filtered searches over a large index, plan by plan, and writes the figures as JSON.

Run it on an otherwise idle machine, from an environment with anyseek installed::

    python -m tests.benchmarks.filters --work /tmp/filters --out filters.json   # about ten minutes

The index holds vectors around 2,000 centres, as those of real pictures lie in groups, with dates
and widths that have nothing to do with them. It is made through the store and takes 2.5 GB per
million; a second run with the same folder finds it there. Every search is warm and of one thread,
whose processor time is what is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

import numpy as np

from retrieval import index as index_module
from retrieval.filters import Filters
from retrieval.index import VectorIndex, seal
from retrieval.planner import Decision, Plan, choose
from retrieval.segments import Scores
from retrieval.store import Batch, ItemRecord, Store
from retrieval.types import WHOLE, Encoder, Facts, Fingerprint, Modality, Vectors
from tests.benchmarks.speed import Figures, machine, spread

DIM, CENTRES, K = 512, 2_000, 10
FIRST, DAYS = datetime(2005, 1, 1), 7_300  # dates of pictures
WIDTHS = (1_000, 6_000)
SHARES = (0.001, 0.01, 0.1, 0.9, 0.999)
REPEAT, FEW = 9, 3  # the latter for what takes seconds


def main() -> None:
    """Fills an index, measures, and writes one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help="folder for the index, which stays there")
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="anyseek-filters-") as name:
        index = (options.work or Path(name)) / f"{options.items}.db"
        if not index.exists():
            index.parent.mkdir(parents=True, exist_ok=True)
            fill(index, options.items)
        figures = {"machine": machine(), "items": options.items, "k": K} | measure(index)
    text = json.dumps(figures, indent=2) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text, end="")


def centres() -> Vectors:
    """Gives the middles of the groups, unit rows."""
    rows = np.random.default_rng(0).normal(size=(CENTRES, DIM)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def around(random_: np.random.Generator, count: int, middles: Vectors) -> Vectors:
    """Draws unit rows at a cosine of about 0.8 to one of the centres."""
    noise = random_.normal(0, 0.7 / np.sqrt(DIM), (count, DIM)).astype(np.float32)
    rows = middles[random_.integers(0, CENTRES, count)] + noise
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def fill(index: Path, items: int, encoder: Encoder | None = None) -> None:
    """Makes the index through the store, as indexing does."""
    random_ = np.random.default_rng(1)
    middles = centres()
    with Store(index, write=True) as store:
        space = store.add_space(encoder or Encoder("toy", "toy-1", DIM, {}))
        for start in range(0, items, 5_000):
            numbers = range(start, min(start + 5_000, items))
            rows = around(random_, len(numbers), middles)
            seconds = random_.integers(0, DAYS * 86_400, len(numbers)).tolist()
            widths = random_.integers(*WIDTHS, len(numbers)).tolist()
            records = [
                ItemRecord(
                    b"/pictures/%04d/%07d.jpg" % (number // 1_000, number),
                    Fingerprint(number + 1, 1),
                    hashlib.blake2b(str(number).encode(), digest_size=16).digest(),
                    Modality.IMAGE,
                    (WHOLE,),
                    row[None],
                    width=width,
                    height=1_000,
                    facts=Facts((FIRST + timedelta(seconds=second)).isoformat(), "Made Up 1"),
                )
                for number, row, second, width in zip(numbers, rows, seconds, widths, strict=True)
            ]
            store.write(Batch(records=records), space)
        seal(store, space, Modality.IMAGE)


def measure(index: Path) -> Figures:
    """Times finding who passes, and each way of finding the nearest of them."""
    random_ = np.random.default_rng(2)
    queries = around(random_, REPEAT, centres())
    figures: Figures = {}
    with Store(index) as store:
        (space,) = store.spaces()
        vectors = VectorIndex(store, space, Modality.IMAGE, exact=True)
        vectors.search(queries[0], K)  # brings the files into the page cache
        figures["without a filter"] = {
            "search_ms": timed(lambda query: vectors.search(query, K), queries)
        }
        for name, filters in cases():
            print(f"{name} ...", file=sys.stderr, flush=True)
            figures[name] = of_filter(store, vectors, filters, queries)
    return figures


def of_filter(store: Store, vectors: VectorIndex, filters: Filters, queries: Vectors) -> Figures:
    """Measures one filter."""
    (space,) = store.spaces()
    only = store.vector_ids(space, Modality.IMAGE, filters)

    def ids() -> object:
        return store.vector_ids(space, Modality.IMAGE, filters)

    def ids_by_the_others() -> object:
        others = store.vector_ids(space, Modality.IMAGE, filters, without=True)
        return np.setdiff1d(vectors.ids(), others, assume_unique=True)

    row: Figures = {
        "matches": len(only),
        "estimated_share": round(store.share(Modality.IMAGE, filters), 4),
        "estimate_ms": once(lambda: store.share(Modality.IMAGE, filters)),
        "ids_ms": once(ids),
        **({"ids_by_the_others_ms": once(ids_by_the_others)} if len(only) > 50_000 else {}),
        "first_search_ms": once(lambda: vectors.search(queries[0], K, only=only.copy())),
    }
    answers = []
    for plan in (None, Plan.SCAN, Plan.SELECT, Plan.OVERFETCH):
        chosen = choose if plan is None else forced(plan)
        slow = plan is Plan.OVERFETCH and len(only) < vectors.size / 2
        slow |= plan is Plan.SCAN and len(only) > vectors.size / 2
        with mock.patch.object(index_module, "choose", chosen):
            answers.append(vectors.search(queries[0], K, only=only)[1].tolist())
            row[f"{plan or 'planner'}_ms"] = timed(
                lambda query: vectors.search(query, K, only=only),
                queries[: FEW if slow else REPEAT],
            )
        if plan is None:
            row["plans"] = sorted({str(one.plan) for one in vectors.plans})
    row["returned"] = len(answers[0])
    row["all_plans_agree"] = all(answer == answers[0] for answer in answers)
    return row


def cases() -> list[tuple[str, Filters]]:
    """Names filters with what passes them: by date with an index, by width without, by folder."""
    rows = []
    for share in SHARES:
        after = FIRST + timedelta(days=DAYS * (1 - share))
        rows.append((f"date, {share:.1%}", Filters(after=after)))
    for share in SHARES:
        width = int(WIDTHS[1] - share * (WIDTHS[1] - WIDTHS[0]))
        rows.append((f"width, {share:.1%}", Filters(min_width=width)))
    rows.append(("folder, 0.1%", Filters(under=b"/pictures/0007")))
    return rows


def forced(plan: Plan) -> Callable[[int, int, int], Decision]:
    """Makes a planner that knows one plan."""
    return lambda n, matches, k: Decision(plan, "forced")


def timed(action: Callable[[Scores], object], queries: Vectors) -> Figures:
    """Times an action once for each query, in milliseconds of this thread."""
    times = []
    for query in queries:
        started = time.thread_time()
        action(query)
        times.append((time.thread_time() - started) * 1e3)
    return spread(times, 1)


def once(action: Callable[[], object]) -> Figures:
    """Times an action a few times, in milliseconds."""
    return timed(lambda _: action(), np.zeros((FEW, 1), np.float32))


if __name__ == "__main__":
    main()
