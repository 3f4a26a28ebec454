"""Files of arrays that are there whole or not at all, and what they are known by."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays as ``npz``; a process that is killed meanwhile leaves the old file."""

    def write(file: Any) -> None:
        np.savez(file, allow_pickle=False, **arrays)

    _replace(path, write)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes, in the same way."""
    _replace(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Writes a text, in the same way."""
    _replace(path, lambda file: file.write(text.encode()))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads what ``write_arrays`` wrote; nothing where the file is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}


def digest_of(*contents: bytes | memoryview) -> str:
    """Gives 16 hexadecimal digits that stand for contents in this order.

    A checkpoint that bears them is of the training that depends on these contents.
    """
    whole = hashlib.sha256()
    for content in contents:
        whole.update(len(content).to_bytes(8, "little"))
        whole.update(content)
    return whole.hexdigest()[:16]


def _replace(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's files are for their owner alone
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
