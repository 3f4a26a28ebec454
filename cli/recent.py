"""The last result of a search, so that its hits can be spoken of by number: ``--like 3``.

It is kept in the platform's state folder, one small file per index, since a search changes nothing
beside the index. The file names the paths that were found; only its owner can read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from retrieval.errors import QueryError

MAX_PATHS = 1000  # nobody counts further
VERSION = 1

_NUMBERS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_PATH = re.compile(r"\.{0,2}/|~[\w.-]*(?:/|\Z)")


def remember(index_path: Path, paths: Sequence[bytes]) -> None:
    """Notes the hits of a search, best first; where that cannot be written, nothing happens.

    Args:
        index_path: The index that was searched.
        paths: Absolute; hit 1 is the first. Those after the thousandth are left out.
    """
    target = _file(index_path)
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.tmp")
    with contextlib.suppress(OSError):
        content = {
            "version": VERSION,
            "index": _identity(index_path),
            "paths": [os.fsdecode(path) for path in paths[:MAX_PATHS]],
        }
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:  # JSON escapes all else
                json.dump(content, file)
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def recall(index_path: Path, numbers: Sequence[int]) -> list[bytes]:
    """Gives the paths of hits of the last search of an index.

    Args:
        index_path: The index that is searched now.
        numbers: From 1, in any order.

    Raises:
        QueryError: If this index was not searched yet, or had no hit of that number.
    """
    paths = _last(index_path)
    for number in numbers:
        if not 1 <= number <= len(paths):
            raise QueryError(
                f"the last search of this index had {len(paths)} hit(s), and none of number "
                f"{number}; for a file of that name write ./{number}"
            )
    return [paths[number - 1] for number in numbers]


def picked(index_path: Path, values: Sequence[str]) -> list[bytes]:
    """Resolves the values of ``--like`` and ``--unlike``, each path once, in order.

    Args:
        index_path: The index that is searched.
        values: Numbers of hits (``3``), ranges (``1-4``), lists (``1,3``), or paths with what makes
            them paths in front (``./3``, ``/home/ada/3.jpg``, ``~/3.jpg``).

    Returns:
        Paths, absolute; whether those of the second kind exist is not looked at.

    Raises:
        QueryError: If one is none of these, or its number means nothing.
    """
    found: list[bytes] = []
    for value in itertools.chain.from_iterable(map(_listed, values)):
        if _PATH.match(value):
            found.append(os.fsencode(Path(os.path.expanduser(value)).absolute()))  # noqa: PTH111
        elif numbers := _NUMBERS.fullmatch(value):
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if last < first:
                raise QueryError(f"{value} runs backwards; write {last}-{first}")
            recall(index_path, (first, last))  # before a range is counted out
            found += recall(index_path, range(first, last + 1))
        else:
            raise QueryError(
                f"{value!r} is no hit; give the number of one in the last result, as 3 or 1-4, "
                "or a path, as ./picture.jpg"
            )
    return list(dict.fromkeys(found))


def _listed(value: str) -> list[str]:
    """Splits a list of numbers; a path may have commas."""
    parts = value.split(",")
    return parts if all(_NUMBERS.fullmatch(part) for part in parts) else [value]


def _last(index_path: Path) -> list[bytes]:
    nothing = QueryError(
        "there is no last result of this index to take hits from; search it first, or give paths"
    )
    try:
        content = json.loads(_file(index_path).read_text("ascii"))
        identity, paths = content["index"], content["paths"]
        if content["version"] != VERSION or not isinstance(paths, list):
            raise nothing
        encoded = [os.fsencode(path) for path in paths]
        same = identity == _identity(index_path)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # not there, or not ours
        raise nothing from None
    if not same:
        raise QueryError(
            "the index is another one than at the last search; search it again, or give paths"
        )
    return encoded


def _file(index_path: Path) -> Path:
    from platformdirs import user_state_path

    real = os.fsencode(os.path.realpath(index_path))
    name = hashlib.blake2b(real, digest_size=16).hexdigest()
    return user_state_path("anyseek", appauthor=False) / "last" / f"{name}.json"


def _identity(index_path: Path) -> list[str | int]:
    """Tells an index from another one at its place, made after it was deleted."""
    stat = index_path.stat()
    return [os.path.realpath(index_path), stat.st_dev, stat.st_ino]
