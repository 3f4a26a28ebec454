"""What a family of towers tells of a model before its weights are read.

Every module of a family has the same three functions. ``source`` is what stands behind the family's
name in ``--model``: an architecture and its weights, a folder, a name on a hub.

* ``describe(source) -> Described`` looks at files alone, imports no model library and takes
  milliseconds; ``ModelMissingError`` if the weights are not on this machine.
* ``load(source, device=None) -> Encoder`` makes the towers; weights are read when a tower is first
  used. It gives the space that ``describe`` named.
* ``pull(source, progress) -> None`` fetches the weights into the cache. ``progress(done, total)``
  is told bytes, total 0 while unknown.

A module may also have ``place(source) -> Path``: the folder in which the weights lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retrieval.types import Modality

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Described:
    """A model whose weights are on this machine.

    Attributes:
        space: Identity of its vectors; another for other weights or another preprocessing.
        dim: Length of a vector.
        modalities: What it embeds.
        size_bytes: Weights on disk.
        licence: Of the weights, in a few words; "unknown" where nothing tells.
    """

    space: str
    dim: int
    modalities: tuple[Modality, ...]
    size_bytes: int
    licence: str
