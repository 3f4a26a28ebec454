"""What sounds are called: names, phrasings, and their places in the finished text space."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import MediaError, ModelError
from retrieval.learn.sound.synthetic import WORDS as SYNTHETIC
from retrieval.types import Tower, Vectors

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Names of sounds.

    Attributes:
        templates: Each with ``{}`` once.
        names: What each kind is called, the data set's own name first; categories of ESC-50, then
            kinds of synthetic sounds.
        like: AudioSet classes that sound like a kind, for those that a training may leave out.
        synthetic: The kinds that are made by formula.
    """

    templates: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    like: Mapping[str, tuple[str, ...]]

    synthetic: tuple[str, ...] = tuple(SYNTHETIC)

    @property
    def kinds(self) -> list[str]:
        """The kinds in their order."""
        return list(self.names)


@dataclass(frozen=True, slots=True)
class Texts:
    """Unit vectors of all names in all phrasings.

    Attributes:
        kinds: ``(templates, names, dim)`` float32.
        owner: ``(names,)``: which kind a name belongs to.
        classes: ``(templates, 527, dim)`` float32 of AudioSet's classes.
    """

    kinds: Floats
    owner: NDArray[np.int64]
    classes: Floats


def read_vocabulary(path: Path | None = None) -> Vocabulary:
    """Reads ``words.toml`` beside this file, or another one.

    Raises:
        ModelError: If it is unreadable or a key is missing.
    """
    path = path or Path(__file__).with_name("words.toml")
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Vocabulary(
            tuple(table["templates"]),
            {**{kind: tuple(names) for kind, names in table["names"].items()}, **SYNTHETIC},
            {kind: tuple(names) for kind, names in table["like"].items()},
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a vocabulary ({error})") from error


def read_classes(path: Path) -> list[str]:
    """Reads the names of AudioSet's classes, in the order of the teacher's outputs.

    Raises:
        MediaError: If the list is missing or lacks the column ``display_name``.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row["display_name"] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise MediaError(f"{path}: cannot read the names of classes ({error})") from error


def embed_words(vocabulary: Vocabulary, classes: Sequence[str], tower: Tower) -> Texts:
    """Embeds every name in every phrasing with a finished text tower."""

    def phrased(names: Sequence[str]) -> Floats:
        rows = [
            tower.embed([tower.prepare(template.format(name)) for name in names])
            for template in vocabulary.templates
        ]
        return np.stack(rows)

    flat = [name for names in vocabulary.names.values() for name in names]
    counts = [len(names) for names in vocabulary.names.values()]
    owner = np.repeat(np.arange(len(counts)), counts)
    return Texts(phrased(flat), owner, phrased([name.lower() for name in classes]))


def prompts(vocabulary: Vocabulary, kinds: Sequence[str], tower: Tower, *, phrases: int) -> Vectors:
    """Gives one unit vector a kind: its first name in the first phrasings, averaged.

    Args:
        vocabulary: Names and phrasings.
        kinds: Which kinds, in which order: ``(len(kinds), dim)`` comes back.
        tower: A finished text tower.
        phrases: How many phrasings.
    """
    rows = [
        tower.embed([tower.prepare(template.format(vocabulary.names[kind][0])) for kind in kinds])
        for template in vocabulary.templates[:phrases]
    ]
    mean = np.mean(rows, axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)
