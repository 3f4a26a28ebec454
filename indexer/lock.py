"""One writer at a time: a second run on the same index waits until the first is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from retrieval.errors import StorageError


@contextmanager
def exclusive(index: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the right to write to an index; the system frees it even if the process is killed.

    Args:
        index: The index file.
        on_wait: Called once if another run holds it.

    Raises:
        StorageError: If no lock can be made there, or a folder is in its place.
    """
    if index.is_dir():
        raise StorageError(f"{index} is a folder; --index takes the path of a file")
    lock = FileLock(index.with_name(index.name + ".lock"))
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
    except OSError as error:
        raise StorageError(
            f"cannot write beside {index}: {error.strerror or error}; check its permissions, "
            "or choose another place with --index"
        ) from error
    try:
        yield
    finally:
        lock.release()
