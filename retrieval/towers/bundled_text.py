"""The bundled model's text head: sentence features into the shared space, in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.types import Vectors

LEVELS = ("out", "mean")
"""Levels of ``Use.hidden`` that the head reads, side by side: 1,024 columns."""

_NAMES = ("linear_weight", "linear_bias", "up_weight", "up_bias", "down_weight", "down_bias")


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """Reads the head's weights.

    Returns:
        ``linear_weight`` ``(1024, dim)``, ``up_weight`` ``(1024, hidden)``, ``down_weight``
        ``(hidden, dim)`` and their ``_bias``, float32.

    Raises:
        ModelError: If the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name].astype(np.float32) for name in _NAMES}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ModelError(
            f"the bundled text model cannot be read ({error}): reinstall anyseek"
        ) from error


def embed(
    hidden: Mapping[str, NDArray[np.float32]], head: Mapping[str, NDArray[np.float32]]
) -> Vectors:
    """Embeds texts: ``(n, dim)`` float32, unit rows, in order.

    Args:
        hidden: What ``Use.hidden`` gives for the texts.
        head: What ``read`` gives.
    """
    x = np.concatenate([hidden[level] for level in LEVELS], axis=1)
    branch = np.maximum(x @ head["up_weight"] + head["up_bias"], 0)
    y = x @ head["linear_weight"] + head["linear_bias"]
    y += branch @ head["down_weight"] + head["down_bias"]
    y /= np.maximum(np.linalg.norm(y, axis=1, keepdims=True), np.float32(1e-12))
    return np.asarray(y, np.float32)
