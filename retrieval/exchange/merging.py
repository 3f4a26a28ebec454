"""Two indexes become one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from retrieval.errors import ExchangeError, StorageError
from retrieval.index import seal
from retrieval.store import Store
from retrieval.store.joining import Joined, copy, join


def merge(a: Path, b: Path, out: Path | None, *, prefer: str | None = None) -> Joined:
    """Joins two indexes of the same spaces; see ``store.joining.join`` for which item wins.

    Args:
        a: An index; with ``out`` it is only read.
        b: Another, which is only read.
        out: A path where nothing is; without it, ``a`` takes ``b`` in. The caller holds the right
            to write there, see ``indexer.lock``; what a killed run left beside it is removed.
        prefer: ``"A"`` or ``"B"``, whose concepts win where both have one of a name.

    Raises:
        ExchangeError: If they cannot be joined, or something is at ``out``.
        StoreError: If one is no index, or the disk fails; then nothing was changed.
    """
    if out is not None and os.path.lexists(out):
        raise ExchangeError(f"{out} is there already; choose another place")
    for index in (a, b):
        with Store(index):  # of today's schema, or an error that says what to do
            pass
    if a.samefile(b):
        raise ExchangeError(f"{a} and {b} are the same index; name two")
    if out is None:
        joined = join(a, b, prefer=prefer)
        _seal(a)
        return joined
    temporary = out.with_name(f".{out.name}.tmp")
    _remove(temporary)  # of a run that was killed: nobody else may write to out now
    try:
        copy(a, temporary, final=out)
        joined = join(temporary, b, prefer=prefer, called=a, final=out)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(out)
    except OSError as error:
        raise StorageError(f"cannot write {out} ({error.strerror or error})") from error
    finally:
        _remove(temporary)
    _seal(out)
    return joined


def _remove(index: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(OSError):
            index.with_name(index.name + suffix).unlink()


def _seal(index: Path) -> None:
    """Prepares fast searches; all is stored by now, and without them a search is only slower."""
    with Store(index, write=True) as store, contextlib.suppress(StorageError):
        for space in store.spaces():
            for modality in store.modalities(space):
                seal(store, space, modality)
