"""Where vectors are assigned to lists while an index is built: a GPU that works, or the processor.

Searches need none: they compare some thousand vectors of a mapped file, which takes less time than
copying them to a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-3  # of an inner product of unit vectors; a GPU may round to ten bits


@dataclass(frozen=True, slots=True)
class Device:
    """Where vectors are compared, and why there.

    Attributes:
        name: Of the processor that searches.
        reason: In words.
        builds: Whether a GPU builds large indexes.
    """

    name: str
    reason: str
    builds: bool = False


def device() -> Device:
    """Tells which processors search and build; a GPU must have passed a test of itself."""
    import faiss

    version = faiss.__version__
    if not hasattr(faiss, "StandardGpuResources"):
        return Device("cpu", f"faiss {version} is the build without GPU code")
    try:
        count = faiss.get_num_gpus()
        if count == 0:
            return Device("cpu", f"faiss {version} has GPU code, but no GPU answers")
        if not _works():
            return Device("cpu", f"faiss {version} sees {count} GPU(s), but the first errs")
    except Exception as error:  # whatever a driver brings up must not stop an index run
        lines = str(error).splitlines() or [type(error).__name__]
        return Device("cpu", f"faiss {version} has GPU code, but it fails: {lines[0]}")
    return Device(
        "cpu",
        f"faiss {version} sees {count} GPU(s), and the first builds large indexes, but searching "
        "mapped files takes less time than copying them there",
        builds=True,
    )


def flat(rows: NDArray[np.float32]) -> tuple[Any, bool]:
    """Makes an index that finds the row with the highest inner product.

    Args:
        rows: ``(n, dim)``.

    Returns:
        FAISS's index, and whether it is on a GPU, where only one thread may ask it.
    """
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    if device().builds:
        try:
            return _moved(index), True
        except Exception:  # a GPU that is full, say: the processor does as well
            return index, False
    return index, False


def _moved(index: Any) -> Any:
    import faiss

    resources = faiss.StandardGpuResources()
    moved: Any = faiss.index_cpu_to_gpu(resources, 0, index)
    moved.resources = resources  # which must live as long
    return moved


def _works() -> bool:
    """Compares a small search on the GPU with one that numpy does."""
    import faiss

    random = np.random.default_rng(0)
    rows = random.normal(size=(256, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(32)
    index.add(rows)
    scores, at = _moved(index).search(rows[:16], 1)
    return bool((at[:, 0] == np.arange(16)).all() and np.allclose(scores, 1, atol=TOLERANCE))
