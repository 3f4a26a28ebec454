"""One sealed file of vectors, mapped into memory, and its nearest to a query.

A segment is a FAISS file: float16 vectors, scanned exactly, and their ids in ascending order.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import StorageError
from retrieval.planner import Plan
from retrieval.store import Seal, Space

Scores = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
GATHERED = 4_096  # rows turned to float32 at once: 8 MB at 512 dimensions


class Segment:
    """A mapped file; the file may be replaced meanwhile, the mapping stays."""

    def __init__(self, file: Any, ids: Ids, path: Path) -> None:
        """Takes what ``opened`` has checked.

        Args:
            file: FAISS's map from ids to vectors, ``ntotal`` at least 1.
            ids: Its ids ``(n,)``, ascending.
            path: Of the file.

        Raises:
            OSError: If the file is not there any more.
        """
        import faiss

        self._file = file  # owns what the next two look into
        self._flat = faiss.downcast_index(file.index)
        size = len(ids) * file.d * 2
        codes = faiss.rev_swig_ptr(self._flat.codes.data(), size)  # type: ignore[attr-defined]
        self._matrix: NDArray[np.float16] = codes.view("<f2").reshape(len(ids), file.d)
        self.ids = ids
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._start = _file_bytes(0, file.d) - 8  # the count of ids comes behind the vectors

    def __len__(self) -> int:
        """Counts the vectors."""
        return len(self.ids)

    def members(self, only: Ids) -> Mask:
        """Tells for each vector whether its id is among some, which ascend."""
        first, last = int(self.ids[0]), int(self.ids[-1])
        near = only[np.searchsorted(only, first) : np.searchsorted(only, last, "right")]
        mask = np.zeros(len(self.ids), np.bool_)
        if last - first + 1 == len(self.ids):  # without gaps an id tells its position
            mask[near - first] = True
        else:
            at = np.searchsorted(self.ids, near)
            mask[at[self.ids[at] == near]] = True
        return mask

    def search(self, query: Scores, k: int, mask: Mask, plan: Plan) -> tuple[Scores, Ids]:
        """Finds the nearest among those of a mask, in any of the ways of ``retrieval.planner``.

        Args:
            query: ``(dim,)`` float32.
            k: How many.
            mask: ``(n,)``, who qualifies.
            plan: ``WHOLE`` only for a mask of all.

        Returns:
            Scores ``(m,)`` and ids ``(m,)`` of the ``k`` best, or of more; in no set order.
        """
        match plan:
            case Plan.NOTHING:
                return np.empty(0, np.float32), np.empty(0, np.int64)
            case Plan.SCAN:
                return self._scanned(query, np.flatnonzero(mask))
            case Plan.WHOLE | Plan.OVERFETCH:
                missing = len(mask) - int(mask.sum())
                scores, at = self._nearest(query, k + missing, None)
            case Plan.SELECT:
                scores, at = self._nearest(query, k, mask)
        keep = mask[at]
        return scores[keep], self.ids[at[keep]]

    def among(self, query: Scores, ids: Ids) -> tuple[Scores, Ids]:
        """Compares those of some ascending ids that are here; gives scores and ids ``(m,)``."""
        first, last = np.searchsorted(ids, self.ids[0]), np.searchsorted(ids, self.ids[-1], "right")
        near = ids[first:last]
        at = np.searchsorted(self.ids, near)
        at = at[self.ids[at] == near]
        # Read instead of mapped: a touched page brings 15 neighbours into the process's memory,
        # and a hundred searches would bring in a million vectors.
        size = self._matrix.shape[1] * 2
        read = (os.pread(self._descriptor, size, self._start + i * size) for i in at.tolist())
        rows = np.frombuffer(b"".join(read), "<f2").reshape(len(at), len(query))
        return rows.astype(np.float32) @ query, self.ids[at]

    def rows(self, at: Ids | slice) -> NDArray[np.float16]:
        """Gives vectors by position."""
        return self._matrix[at]

    def _scanned(self, query: Scores, at: Ids) -> tuple[Scores, Ids]:
        scores = np.empty(len(at), np.float32)
        for start in range(0, len(at), GATHERED):
            some = slice(start, start + GATHERED)
            scores[some] = self._matrix[at[some]].astype(np.float32) @ query
        return scores, self.ids[at]

    def _nearest(self, query: Scores, k: int, mask: Mask | None) -> tuple[Scores, Ids]:
        import faiss

        # A single query is compared by one thread anyway. FAISS would have the others wait for
        # it, and on a busy machine their start and end cost more than all the rest.
        faiss.omp_set_num_threads(1)
        parameters = None
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        k = min(k, len(self.ids))
        found, labels = self._flat.search(query[None], k, params=parameters)
        keep = labels[0] >= 0  # FAISS fills up with -1
        return found[0][keep], labels[0][keep]


def opened(path: Path, seal: Seal, space: Space) -> Segment | None:
    """Maps a segment into memory; ``None`` if the file is missing, damaged or another's."""
    import faiss

    try:
        # FAISS maps without looking how long the file is, and a short one would end the process
        if path.stat().st_size != _file_bytes(seal.count, space.dim):
            return None
        file = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError):
        return None
    if file.ntotal != seal.count or file.d != space.dim:
        return None
    ids: Ids = faiss.vector_to_array(file.id_map)  # type: ignore[attr-defined]
    if len(ids) and not seal.first_id <= ids[0] <= ids[-1] <= seal.last_id:
        return None
    try:
        return Segment(file, ids, path)
    except OSError:
        return None


def _file_bytes(count: int, dim: int) -> int:
    """Gives the size of a segment's file: a head, float16 vectors, int64 ids."""
    import faiss

    return len(faiss.serialize_index(empty(dim))) + count * (2 * dim + 8)


def empty(dim: int) -> Any:
    """Makes what a segment is written from."""
    import faiss

    return faiss.IndexIDMap(
        faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    )


def write(folder: Path, name: str, segment: Any) -> None:
    """Writes a file so that it is there whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    import faiss

    temporary = folder / f"{name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(segment, str(temporary))
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(folder / name)
    except (OSError, RuntimeError) as error:  # FAISS reports a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"cannot write {folder / name} ({error}): searches go on without it, only slower"
        ) from error
