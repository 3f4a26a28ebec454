"""Small arrays that come with a model beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError


def read_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]] | None:
    """Reads arrays of an ``npz`` in the order of their names; ``None`` if there is no such file.

    Raises:
        ModelError: If the file is damaged or lacks one.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ModelError(f"{path} is damaged ({error}): reinstall anyseek") from error
