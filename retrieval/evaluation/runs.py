"""What is measured and what comes of it: ways, runs, results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval.evaluation.metrics import Bin, ByClass, Floats, Ints
from retrieval.evaluation.significance import Interval
from retrieval.evaluation.tasks import Thing
from retrieval.fusion import Fuse
from retrieval.models import ModelSpec
from retrieval.prompts import PromptSet


@dataclass(frozen=True, slots=True)
class Way:
    """What is compared: a model and how words are put to it.

    Attributes:
        model: Its row.
        prompt: Name of the prompt set; empty where nothing is asked in words.
        templates: The set; ``None`` for the choice by the query.
        fuse: How words that belong to the items count; ``None`` looks at the items alone.
    """

    model: ModelSpec
    prompt: str
    templates: PromptSet | None = None
    fuse: Fuse | None = None

    @property
    def label(self) -> str:
        """What a table calls how words are put and counted."""
        return self.prompt if self.fuse is None else f"{self.prompt} {self.fuse.way}".strip()


@dataclass(frozen=True, slots=True)
class Miss:
    """A query whose right item came late.

    Attributes:
        query: What was asked.
        right: The first of its right items.
        rank: Where it stood, from 1.
        first: What stood first instead.
    """

    query: Thing
    right: Thing
    rank: int
    first: Thing


@dataclass(frozen=True, slots=True)
class Confidence:
    """How far the relevance of the first hit can be trusted.

    Attributes:
        error: Expected calibration error; 0 is best.
        auroc: Chance that a right first hit has more relevance than a wrong one, if there are both.
        bins: Of the reliability diagram.
    """

    error: float
    auroc: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """How files were told apart.

    Attributes:
        names: Of the classes.
        confusion: ``(classes, classes)``, rows true, columns guessed.
        by_class: Figures of each class.
    """

    names: tuple[str, ...]
    confusion: Ints
    by_class: ByClass


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One way on one task.

    Attributes:
        model: Its name.
        prompt: Name of the prompt set, or empty, and of the way of fusing, if there is one.
        values: Per query, ``(queries,)``: what runs are compared by.
        figures: Their means, and figures that are no mean, with intervals.
        p: For each of ``values``, the corrected p-value of the difference from the best run;
            ``None`` for the best run itself. Empty where there is nothing to compare with.
        curve: Hit rate by k.
        worst: The misses that came latest.
        confidence: Of relevance, for tasks of searching.
        classes: For tasks of classes.
    """

    model: str
    prompt: str
    values: Mapping[str, Floats]
    figures: Mapping[str, Interval]
    p: Mapping[str, float | None] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    worst: tuple[Miss, ...] = ()
    confidence: Confidence | None = None
    classes: Classes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """All runs on one task.

    Attributes:
        task: Its name.
        queries: How many there are; files, for tasks of classes.
        items: How many are searched; classes, for tasks of classes.
        runs: In the order of the ways.
    """

    task: str
    queries: int
    items: int
    runs: tuple[Run, ...]
