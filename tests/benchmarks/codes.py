"""Compares codes for inverted lists: candidates that they need, time and bytes, and writes JSON.

Run it after ``tests.benchmarks.large``, over the index that it has made::

    python -m tests.benchmarks.codes --index large/1000000.db --captions c.npy --out codes.json

All codes are in as many lists, of which a search looks through 64. ``recall`` is the part of the
exact ten best among so many candidates, which is what comparing them then finds. Times are of one
thread, whose processor time is measured, without the comparing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.index import VectorIndex
from retrieval.inverted import cores, projection
from retrieval.ladder import PROBES, lists_for
from retrieval.store import Store
from retrieval.types import Modality, Vectors
from tests.benchmarks.large import K
from tests.benchmarks.speed import Figures, machine

QUERIES, BLOCK = 50, 65_536
CANDIDATES = (100, 200, 400, 1_000)
IP = faiss.METRIC_INNER_PRODUCT
SQ = faiss.ScalarQuantizer
Make = Callable[[Any, int, int], Any]  # from centroids, dimensions and lists to empty lists

CODES: dict[str, tuple[bool, Make]] = {  # whether vectors are projected, and what is made
    "8 bits": (True, lambda q, d, n: faiss.IndexIVFScalarQuantizer(q, d, n, SQ.QT_8bit, IP, True)),
    "4 bits": (True, lambda q, d, n: faiss.IndexIVFScalarQuantizer(q, d, n, SQ.QT_4bit, IP, True)),
    "PQ, 4 bits for every 2": (
        True,
        lambda q, d, n: faiss.IndexIVFPQFastScan(q, d, n, d // 2, 4, IP),
    ),
    "RaBitQ, 4 bits": (True, lambda q, d, n: faiss.IndexIVFRaBitQ(q, d, n, IP, True, 4)),
    "RaBitQ, 1 bit, not projected": (
        False,
        lambda q, d, n: faiss.IndexIVFRaBitQFastScan(q, d, n, IP),
    ),
}


def main() -> None:
    """Measures every code and writes one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    captions = np.load(options.captions)
    queries = captions[np.random.default_rng(5).permutation(len(captions))[:QUERIES]]
    figures: Figures = {"machine": machine(), "k": K, "probes": PROBES, "codes": {}}
    with Store(options.index) as store:
        (space,) = store.spaces()
        exact = VectorIndex(store, space, Modality.IMAGE, exact=True)
        wanted = [exact.search(query, K)[1] for query in queries]
        ids = exact.ids()
        blocks = [
            exact._segments[i].rows(slice(start, start + BLOCK))
            for i in range(len(exact._segments))
            for start in range(0, len(exact._segments[i]), BLOCK)
        ]
        positions = np.concatenate([one.ids for one in exact._segments])
    figures["items"] = len(ids)
    matrix = projection(np.asarray(blocks[0][:16_384], np.float32))
    for name, (projected, make) in CODES.items():
        used = matrix if projected else np.eye(matrix.shape[1], dtype=np.float32)
        print(name, file=sys.stderr, flush=True)
        figures["codes"][name] = of(make, used, blocks, positions, queries, wanted)
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


def of(
    make: Make,
    matrix: Vectors,
    blocks: list[NDArray[np.float16]],
    positions: NDArray[np.int64],
    queries: Vectors,
    wanted: list[NDArray[np.int64]],
) -> Figures:
    """Fills lists with one code and searches them."""
    faiss.omp_set_num_threads(cores())
    lists, dims = lists_for(len(positions)), len(matrix)
    sample = np.concatenate([block[::20].astype(np.float32) @ matrix.T for block in blocks])
    means = faiss.Kmeans(dims, lists, niter=5, spherical=True, min_points_per_centroid=1)
    means.train(sample)
    quantizer = faiss.IndexFlatIP(dims)
    centroids: Any = means.centroids
    quantizer.add(centroids)
    index = make(quantizer, dims, lists)
    index.train(sample)
    for block in blocks:
        index.add(block.astype(np.float32) @ matrix.T)
    index.nprobe = PROBES
    faiss.omp_set_num_threads(1)
    turned = queries @ matrix.T
    figures: Figures = {
        "dims": dims,
        "bytes_a_vector": round(len(faiss.serialize_index(index)) / len(positions), 1),
    }
    for count in CANDIDATES:
        started = time.process_time()
        found = [index.search(query[None], count)[1][0] for query in turned]
        spent = (time.process_time() - started) * 1e3 / len(queries)
        shares = [
            np.isin(best, positions[some]).mean() for best, some in zip(wanted, found, strict=True)
        ]
        figures[str(count)] = {"ms": round(spent, 2), "recall": round(float(np.mean(shares)), 4)}
    return figures


if __name__ == "__main__":
    main()
