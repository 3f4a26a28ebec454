"""One writer at a time: a second run on the same index waits until the first is done."""

from __future__ import annotations

import fcntl
import os
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
    lock = FileLock(_place(index))
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


def is_held(index: Path) -> bool:
    """Tells whether a process is writing to an index just now; changes nothing on the disk."""
    try:
        handle = os.open(_place(index), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system knows no such locks
        return False
    finally:
        os.close(handle)
    return False


def _place(index: Path) -> Path:
    return index.with_name(index.name + ".lock")
