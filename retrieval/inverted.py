"""Inverted lists: from a query to the ids of vectors that are probably near.

A file holds a projection, centroids and, list by list, codes and ids. The projection keeps the
directions with the most energy; it is not centred, since subtracting a mean would change the order
of inner products. Captions lie elsewhere in the space than pictures, but what they have outside the
pictures' directions hardly changes the order of pictures: of the ten best by caption among a
million, 99.7 % are among the hundred best after a projection onto 128 of 512 dimensions.

Centroids are of length 1 (spherical k-means: Dhillon and Modha 2001): queries go to lists by inner
product, in which longer means would win; 64 of 2,048 lists then hold 99.3 % of the best ten instead
of 98.5 %.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import gpu
from retrieval.ladder import Kind, Rung, Told, silent
from retrieval.store import Seal, Space

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

ENERGY = 0.9  # kept by the projection
MIN_DIMS, DIMS_STEP = 64, 32  # faiss compares codes eight numbers at a time
PROJECTION_ROWS = 16_384  # 32 to a dimension of 512
ROWS_PER_LIST = 40  # that centroids are trained on; 256 take six times as long for 0.2 % recall
ROUNDS = 6  # of k-means; later ones move hardly anything
BLOCK = 16_384  # rows projected and assigned at once


class Inverted:
    """The lists of one file."""

    def __init__(self, file: Any, seal: Seal) -> None:
        """Takes what ``opened`` has checked, or what ``trained`` has made.

        Args:
            file: FAISS's projection with its lists; ids in it count from ``seal.first_id``.
            seal: Which vectors it has.
        """
        import faiss

        self.file = file
        self.seal = seal
        self._lists: Any = faiss.downcast_index(file.index)
        matrix = faiss.downcast_VectorTransform(file.chain.at(0))
        flat: Floats = faiss.vector_to_array(matrix.A)  # type: ignore[attr-defined]
        self._projection = flat.reshape(matrix.d_out, matrix.d_in).copy()
        self._assigner: tuple[Any, bool] | None = None

    @property
    def lists(self) -> int:
        """Counts the lists."""
        return int(self._lists.nlist)

    @property
    def dims(self) -> int:
        """Counts the numbers to a code."""
        return int(self._lists.d)

    @property
    def kind(self) -> Kind:
        """Tells how many bits a number has."""
        import faiss

        eight = self._lists.sq.qtype == faiss.ScalarQuantizer.QT_8bit
        return Kind.INVERTED if eight else Kind.COMPRESSED

    @property
    def count(self) -> int:
        """Counts the vectors."""
        return int(self._lists.ntotal)

    def near(
        self, query: Floats, count: int, *, probes: int, bits: NDArray[np.uint8] | None = None
    ) -> Ids:
        """Proposes vectors.

        Args:
            query: ``(dim,)``.
            count: At most so many.
            probes: Lists that are looked through; all of them find ``count`` if that many qualify.
            bits: One for each id from ``first_id`` on, packed from the lowest; all qualify without.

        Returns:
            Ids, ascending.
        """
        import faiss

        faiss.omp_set_num_threads(1)  # see retrieval.segments
        selector = None
        if bits is not None:
            selector = faiss.IDSelectorBitmap(len(bits) * 8, faiss.swig_ptr(bits))
        parameters = faiss.SearchParametersIVF(  # type: ignore[call-arg]
            sel=selector, nprobe=min(probes, self.lists)
        )
        projected = (self._projection @ query)[None]
        _, found = self._lists.search(projected, min(count, self.count), params=parameters)
        ids: Ids = np.sort(found[0][found[0] >= 0]) + self.seal.first_id
        return ids

    def add(self, ids: Ids, rows: NDArray[np.float16], pool: ThreadPoolExecutor) -> None:
        """Adds vectors.

        Args:
            ids: ``(n,)``, none below ``seal.first_id``.
            rows: ``(n, dim)``.
            pool: Whose threads assign them.
        """
        import faiss

        if self._assigner is None:
            # a flat index's codes are the bytes of its float32 rows
            codes = faiss.vector_to_array(faiss.downcast_index(self._lists.quantizer).codes)  # type: ignore[attr-defined]
            self._assigner = gpu.flat(codes.view(np.float32).reshape(self.lists, self.dims))
        projected = np.concatenate(
            list(pool.map(lambda some: self._projected(rows[some]), _blocks(len(rows))))
        )
        labels = _assigned(projected, self._assigner, pool)
        positions = np.ascontiguousarray(ids - self.seal.first_id)
        faiss.omp_set_num_threads(cores())
        self._lists.add_core(
            len(rows), *map(faiss.swig_ptr, (projected, positions)), faiss.swig_ptr(labels)
        )
        self.file.ntotal = self._lists.ntotal

    def keep(self, bits: NDArray[np.uint8]) -> None:
        """Drops all vectors but those of a bitmap, see ``near``."""
        import faiss

        selector = faiss.IDSelectorBitmap(len(bits) * 8, faiss.swig_ptr(bits))
        self._lists.remove_ids(faiss.IDSelectorNot(selector))
        self.file.ntotal = self._lists.ntotal

    def _projected(self, rows: NDArray[np.floating]) -> Floats:
        return rows.astype(np.float32) @ self._projection.T


def opened(path: Path, seal: Seal, space: Space, *, mapped: bool = True) -> Inverted | None:
    """Opens a file of lists; ``None`` if it is missing, damaged, or of a kind unknown here.

    Args:
        path: The file.
        seal: What the store says of it.
        space: Whose vectors.
        mapped: Maps it, for searching; otherwise it is read, and can be added to.
    """
    import faiss

    try:
        # a mapped file that is too short would end the process
        if path.stat().st_size != seal.bytes:
            return None
        # a newer faiss may write what this one does not know, and says so as a RuntimeError
        file: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except (OSError, RuntimeError, MemoryError):
        return None
    if not isinstance(file, faiss.IndexPreTransform):
        return None
    chain: Any = file.chain
    if chain.size() != 1:
        return None
    lists = faiss.downcast_index(file.index)
    if not isinstance(lists, faiss.IndexIVFScalarQuantizer):
        return None
    if not isinstance(faiss.downcast_index(lists.quantizer), faiss.IndexFlat):
        return None
    if (file.d, file.ntotal, lists.ntotal) != (space.dim, seal.count, seal.count):
        return None
    return Inverted(file, seal)


def projection(rows: Floats) -> Floats:
    """Gives the directions that hold ``ENERGY`` of some vectors, ``(dims, dim)``, most first."""
    energies, directions = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    share = np.cumsum(energies[::-1]) / energies.sum()
    wanted = int(np.searchsorted(share, ENERGY)) + 1
    dims = min(max(MIN_DIMS, -(-wanted // DIMS_STEP) * DIMS_STEP), rows.shape[1])
    return np.ascontiguousarray(directions[:, ::-1][:, :dims].T, np.float32)


def trained(
    sample: Floats, matrix: Floats, wanted: Rung, *, pool: ThreadPoolExecutor, tell: Told = silent
) -> Any:
    """Makes empty lists.

    Args:
        sample: ``(n, dims)``, projected vectors, more than there are lists.
        matrix: The projection, ``(dims, dim)``.
        wanted: Which kind.
        pool: Whose threads work.
        tell: Told after every round.

    Returns:
        FAISS's index.
    """
    import faiss

    dims, dim = matrix.shape
    centroids = _centroids(sample, wanted.lists, pool, tell)
    quantizer = faiss.IndexFlatIP(dims)
    quantizer.add(centroids)
    codes = faiss.ScalarQuantizer
    lists = faiss.IndexIVFScalarQuantizer(
        quantizer,
        dims,
        wanted.lists,
        codes.QT_8bit if wanted.kind is Kind.INVERTED else codes.QT_4bit,
        faiss.METRIC_INNER_PRODUCT,
        True,  # what is coded is the difference from the centroid, whose range is smaller
    )
    faiss.omp_set_num_threads(cores())
    lists.train(sample[:: max(1, len(sample) // 50_000)])
    linear = faiss.LinearTransform(dim, dims, False)
    faiss.copy_array_to_vector(matrix.ravel(), linear.A)
    linear.is_trained = True
    return faiss.IndexPreTransform(linear, lists)


def _centroids(rows: Floats, lists: int, pool: ThreadPoolExecutor, tell: Told) -> Floats:
    random = np.random.default_rng(0)
    centroids = _unit(rows[random.choice(len(rows), lists, replace=False)])
    for done in range(ROUNDS):
        tell("training", done, ROUNDS)
        labels = _assigned(rows, gpu.flat(centroids), pool)
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=lists)
        starts = np.cumsum(counts) - counts
        some = np.flatnonzero(counts)
        centroids[some] = np.add.reduceat(rows[order], starts[some], axis=0)
        empty = np.flatnonzero(counts == 0)  # these begin anew at vectors of the longest lists
        longest = np.argsort(-counts, kind="stable")[: len(empty)]
        centroids[empty] = rows[order[starts[longest]]]
        centroids = _unit(centroids)
    tell("training", ROUNDS, ROUNDS)
    return centroids


def _assigned(rows: Floats, assigner: tuple[Any, bool], pool: ThreadPoolExecutor) -> Ids:
    """Finds each row's centroid."""
    import faiss

    index, alone = assigner

    def nearest(some: slice) -> Ids:
        if not alone:
            faiss.omp_set_num_threads(1)  # a thread of the pool is one of many already
        return np.asarray(index.search(rows[some], 1)[1][:, 0])

    parts = map(nearest, _blocks(len(rows))) if alone else pool.map(nearest, _blocks(len(rows)))
    # rows of zeros or NaN have no nearest
    return np.ascontiguousarray(np.concatenate(list(parts)).clip(min=0))


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-9), np.float32)


def cores() -> int:
    """Counts the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
