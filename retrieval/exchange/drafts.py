"""Files that get their names when all of them are whole, and what runs that died left of such.

A draft lies beside its file under a hidden name and is locked as long as its run lives; the system
unlocks it even if the process is killed. So a draft that can be locked is of a dead run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from retrieval.errors import ExchangeError


@contextlib.contextmanager
def drafted(paths: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Gives an empty draft for each file, by the file's path; those not put in place vanish.

    Drafts of dead runs are deleted first. Where the file system knows no locks they stay.

    Args:
        paths: Of files in folders that are there.

    Raises:
        ExchangeError: If another process is writing to one of the files just now.
        OSError: If the disk does not let us.
    """
    for path in paths:
        _sweep(path)
    with contextlib.ExitStack() as stack:
        yield {path: stack.enter_context(_draft(path)) for path in paths}


def put(drafts: dict[Path, Path], *, replace: bool) -> None:
    """Gives drafts their names, in order: all of them, or none if a name is taken.

    Args:
        drafts: By the path that each gets.
        replace: Whether what is there is replaced.

    Raises:
        ExchangeError: If something came to be there meanwhile, and it is not to be replaced.
        OSError: If the disk does not let us.
    """
    if replace:
        for path, draft in drafts.items():
            draft.replace(path)
        return
    placed: list[Path] = []
    try:
        for path, draft in drafts.items():
            _link(draft, path)
            placed.append(path)
    except BaseException as error:
        for one in placed:
            one.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise ExchangeError(
                f"another process has made {path} meanwhile; replace it with --force"
            ) from None
        raise


def _link(draft: Path, path: Path) -> None:
    """Gives a draft its name; unlike a rename, it fails with ``FileExistsError`` if it is taken."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: an empty file claims the name
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            draft.replace(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with contextlib.suppress(OSError):  # no locks there: then no one sweeps
            fcntl.flock(handle, fcntl.LOCK_EX)
        if not os.fstat(handle).st_nlink:  # a run that began just now took it for a dead one's
            raise _busy(path)
        yield draft
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
        os.close(handle)


def _sweep(path: Path) -> None:
    """Deletes the drafts of a file that dead runs left."""
    name = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.tmp")
    for draft in path.parent.iterdir():
        if not name.fullmatch(draft.name):
            continue
        with contextlib.suppress(OSError):
            handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                draft.unlink()
            except BlockingIOError:
                raise _busy(path) from None
            finally:
                os.close(handle)


def _busy(path: Path) -> ExchangeError:
    return ExchangeError(
        f"another process is writing {path} just now; wait until it is done, or choose another "
        "folder"
    )
