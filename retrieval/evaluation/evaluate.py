"""Models and prompts measured on a person's own data, and compared with one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.calibrate import Background, unfitted
from retrieval.errors import EvaluationError
from retrieval.evaluation import metrics, significance
from retrieval.evaluation.features import Features, Gallery, Report, Unusable
from retrieval.evaluation.metrics import Floats, Ints, Placed
from retrieval.evaluation.runs import Classes, Confidence, Miss, Result, Run, Way
from retrieval.evaluation.significance import Interval
from retrieval.evaluation.task_files import NAMED, shown
from retrieval.evaluation.tasks import Labelled, Task, Thing
from retrieval.fusion import SOURCES, fused
from retrieval.models import ModelSpec
from retrieval.types import Modality, Source, Vectors

BLOCK = 128  # queries compared at a time: 250 MB over 100,000 items
WORST = 12  # misses that are kept of every run
CURVE = (1, 2, 3, 5, 10, 20, 50, 100)


def evaluate(
    tasks: Sequence[Task | Labelled],
    ways: Sequence[Way],
    ks: Sequence[int],
    *,
    cache: Path | None = None,
    skip_missing: bool = False,
    report: Report = lambda stage, done, total: None,
) -> tuple[list[Result], list[str]]:
    """Measures every way on every task that its model can do.

    Args:
        tasks: As ``retrieval.evaluation.tasks.read`` gives them.
        ways: What is compared; the same model with another prompt embeds no file again.
        ks: Numbers of hits to look at. One larger than a collection is left out there.
        cache: Folder that keeps vectors between runs.
        skip_missing: Go on without files that cannot be used.
        report: Told how far it is.

    Returns:
        Results in the order of the tasks, and what was left out, in words.

    Raises:
        EvaluationError: If files cannot be used, or nothing is left to measure.
        ModelError: If a model cannot be loaded.
    """
    remarks: list[str] = []
    specs = list({way.model.name: way.model for way in ways}.values())
    features = {spec.name: Features(spec.load(), cache, report) for spec in specs}
    fit: dict[int, list[Way]] = {}
    bad: dict[Path, Unusable] = {}
    for number, task in enumerate(tasks):
        needed = _needed(task)
        for spec in specs:
            lacking = sorted(needed - set(spec.modalities))
            if lacking:
                remarks.append(f"{task.name}: {spec.name} has no way for {lacking[0]}; left out")
                continue
            fit.setdefault(number, []).extend(way for way in ways if way.model.name == spec.name)
            # words that are asked with go through templates, and are embedded then
            things = [*task.items, *(() if isinstance(task, Labelled) else task.queries)]
            asked = isinstance(task, Task) and _in_words(task)
            some = [one for one in things if one.path is not None or not asked]
            for one in features[spec.name].embed(some):
                assert one.thing.path is not None
                bad.setdefault(one.thing.path, one)
    if bad and not skip_missing:
        raise EvaluationError(
            f"{len(bad)} file(s) cannot be used: "
            + ", ".join(f"{shown(one.thing.name)} {one.reason}" for one in [*bad.values()][:NAMED])
            + "; go on without them with --skip-missing"
        )
    remarks.extend(f"left out {shown(one.thing.name)}: {one.reason}" for one in bad.values())
    results = []
    for number, task in enumerate(tasks):
        left = _without(task, bad)
        if left is None:
            remarks.append(f"{task.name}: nothing is left to measure on")
        elif number in fit:
            results.append(_measured(left, fit[number], features, ks, remarks))
    if not results:
        raise EvaluationError("nothing could be measured: " + "; ".join(remarks))
    return results, remarks


def _measured(
    task: Task | Labelled,
    ways: Sequence[Way],
    features: Mapping[str, Features],
    ks: Sequence[int],
    remarks: list[str],
) -> Result:
    count = len(task.items) if isinstance(task, Task) else len(task.classes)
    fitting_ks = sorted({k for k in ks if k <= count})
    if len(fitting_ks) < len(set(ks)):
        large = ", ".join(str(k) for k in sorted(set(ks)) if k > count)
        remarks.append(f"{task.name}: k = {large} is left out, since there are only {count}")
    if not fitting_ks and isinstance(task, Task):  # accuracy needs none
        raise EvaluationError(
            f"{task.name}: there are only {count} to find, fewer than any --k; give a smaller one"
        )
    if isinstance(task, Labelled):  # by what is in the files alone
        plain = [replace(way, fuse=None) for way in ways]
        ways = list({(way.model.name, way.prompt): way for way in plain}.values())
        runs = [_told(task, way, features[way.model.name], fitting_ks) for way in ways]
        groups = np.arange(len(task.items))
        return Result(task.name, len(task.items), count, _compared(runs, groups))
    if not _in_words(task):  # then one way to put words is as good as another
        ways = [
            replace(way, prompt="", fuse=None)
            for way in {way.model.name: way for way in ways}.values()
        ]
    runs = [_searched(task, way, features[way.model.name], fitting_ks) for way in ways]
    return Result(task.name, len(task.queries), count, _compared(runs, task.groups))


# ---- searching -----------------------------------------------------------------------------------


def _searched(task: Task, way: Way, features: Features, ks: Sequence[int]) -> Run:
    found: list[Placed] = []
    first: list[Ints] = []
    relevance: list[Floats] = []
    for start, scores, logits in _scored(task, way, features):
        inside = (task.query >= start) & (task.query < start + len(scores))
        query, item = task.query[inside] - start, task.item[inside]
        found.append(metrics.placed(scores, query, item, task.grade[inside]))
        first.append(scores.argmax(axis=1))
        relevance.append(1.0 / (1.0 + np.exp(-logits[np.arange(len(scores)), first[-1]])))
    placed = _joined(found)
    values: dict[str, Floats] = {}
    for name, measure in (
        ("hit", metrics.hit_rate),
        ("recall", metrics.recall),
        ("precision", metrics.precision),
        ("ndcg", metrics.ndcg),
    ):
        values.update({f"{name}@{k}": measure(placed, k) for k in ks})
    values["mrr"] = metrics.reciprocal_rank(placed)
    values["map"] = metrics.average_precision(placed)
    firsts, claims = np.concatenate(first), np.concatenate(relevance)
    right = metrics.hit_rate(placed, 1) > 0
    confidence = Confidence(
        metrics.calibration_error(claims, right),
        metrics.auroc(claims, right),
        tuple(metrics.reliability(claims, right)),
    )
    steps = [k for k in CURVE if k <= len(task.items)]
    return Run(
        way.model.name,
        way.label,
        values,
        _figures(values, task.groups),
        curve=tuple((k, float(metrics.hit_rate(placed, k).mean())) for k in steps),
        worst=_worst(task, values["mrr"], firsts),
        confidence=confidence,
    )


Scored = tuple[int, NDArray[np.floating], NDArray[np.float64]]


def _scored(task: Task, way: Way, features: Features) -> Iterator[Scored]:
    """Scores all items for all queries as a search does: by the best part of each item.

    This is the one place where a way becomes scores: a way of several models joins theirs here.

    Yields:
        The number of a block's first query, scores ``(block, items)`` that rank the items, and the
        logits of their relevances. Within one modality the scores are cosines, across modalities
        the logits themselves.
    """
    kinds = [item.modality for item in task.items]
    columns = {
        kind: np.array([at for at, one in enumerate(kinds) if one is kind], np.int64)
        for kind in dict.fromkeys(kinds)
    }
    galleries = {
        kind: features.gallery([task.items[at] for at in own.tolist()])
        for kind, own in columns.items()
    }
    asked = {kind: features.asked(task.queries, kind, way.templates) for kind in columns}
    beside = None if way.fuse is None else _Beside(task, way, features)
    for start in range(0, len(task.queries), BLOCK):
        size = min(BLOCK, len(task.queries) - start)
        cosines = np.empty((size, len(kinds)), np.float32)
        logits = np.empty((size, len(kinds)))
        for kind, own in columns.items():
            block = asked[kind][start : start + size]
            sources = [one.modality for one in task.queries[start : start + size]]
            best, certain = _compare(block, sources, galleries[kind], kind, way.model)
            cosines[:, own], logits[:, own] = best, certain
        if beside is not None:
            logits = beside.fused(start, logits)
        alone = len(columns) == 1 and beside is None
        yield start, cosines if alone else logits, logits


class _Beside:
    """The words that belong to the items of a task, and how they answer its queries."""

    def __init__(self, task: Task, way: Way, features: Features) -> None:
        assert way.fuse is not None
        self._fuse = way.fuse
        self._model = way.model
        self._sources = [one.modality for one in task.queries]
        flat = [
            (at, source, row)
            for at, said in enumerate(features.beside(task.items))
            for source, row in said
        ]
        self._item = np.array([at for at, _, _ in flat], np.int64)
        self._source = np.array([SOURCES.index(source) for _, source, _ in flat], np.int64)
        self._count = len(task.items)
        self._rows = np.stack([row for _, _, row in flat]) if flat else None
        self._asked = features.asked(task.queries, Modality.TEXT, way.templates)

    def fused(self, start: int, content: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joins the logits of a block's items ``(block, items)`` with those of their words."""
        if self._rows is None:
            return content
        size = len(content)
        block = slice(start, start + size)
        each = Gallery(self._rows, np.arange(len(self._rows)))
        _, said = _compare(
            self._asked[block], self._sources[block], each, Modality.TEXT, self._model
        )
        table = np.full((size, self._count, len(SOURCES)), -np.inf)
        for column, (item, source) in enumerate(zip(self._item, self._source, strict=True)):
            table[:, item, source] = np.maximum(table[:, item, source], said[:, column])
        table[:, :, SOURCES.index(Source.CONTENT)] = content
        table[np.isneginf(table)] = np.nan
        return fused(table.reshape(-1, len(SOURCES)), self._fuse).reshape(content.shape)


def _compare(
    queries: Vectors,
    sources: Sequence[Modality],
    gallery: Gallery,
    target: Modality,
    model: ModelSpec,
) -> tuple[Vectors, NDArray[np.float64]]:
    """Gives the best part's cosine of every item, and its logit as ``retrieval.calibrate`` has it.

    A query's background is all of the collection, where a search takes a sample of it.
    """
    parts = _cosines(queries, gallery.vectors)
    best = np.maximum.reduceat(parts, gallery.starts, axis=1)
    logits = np.empty(best.shape)
    rivals = model.rivals() if target is Modality.IMAGE else None
    nearer = np.zeros(len(queries)) if rivals is None else rivals.above(queries)
    for row, source in enumerate(sources):
        usual = model.calibrations.get((source, target)) or unfitted(source, target)
        background = Background(
            float(parts[row].mean()),
            float(parts[row].std()),
            len(gallery.vectors),
            float(nearer[row]) if source is Modality.TEXT else 0.0,
        )
        logits[row] = usual.against(background).logit(best[row])
    return best, logits


def _cosines(one: Vectors, other: Vectors) -> Vectors:
    """Compares rows with rows: ``(n, m)`` float32.

    The sums are in float64: in float32 equal vectors would differ in the last bits, by where they
    stand in the matrix, and ties would be broken by chance.
    """
    return np.asarray(one.astype(np.float64) @ other.T.astype(np.float64), np.float32)


def _joined(blocks: Sequence[Placed]) -> Placed:
    starts = np.cumsum([0, *(one.queries for one in blocks)])
    return Placed(
        np.concatenate([one.query + at for one, at in zip(blocks, starts[:-1], strict=True)]),
        np.concatenate([one.rank for one in blocks]),
        np.concatenate([one.grade for one in blocks]),
        int(starts[-1]),
    )


def _worst(task: Task, reciprocal: Floats, first: Ints) -> tuple[Miss, ...]:
    """Lists the queries whose first right item came latest; of equals the first asked."""
    order = np.argsort(reciprocal, kind="stable")[:WORST]
    starts = np.searchsorted(task.query, order)
    return tuple(
        Miss(
            task.queries[at],
            task.items[int(task.item[start])],
            round(1 / float(reciprocal[at])),
            task.items[int(first[at])],
        )
        for at, start in zip(order.tolist(), starts.tolist(), strict=True)
        if reciprocal[at] < 1
    )


# ---- classes -------------------------------------------------------------------------------------


def _told(task: Labelled, way: Way, features: Features, ks: Sequence[int]) -> Run:
    """Takes every file for the class whose name lies nearest (Radford et al. 2021, section 3.1)."""
    names = [Thing(name, Modality.TEXT) for name in task.classes]
    target = task.items[0].modality
    asked = features.asked(names, target, way.templates)
    gallery = features.gallery(task.items)
    blocks = []
    for start in range(0, len(task.items), BLOCK):
        own = gallery.starts[start : start + BLOCK]
        end = gallery.starts[start + BLOCK] if start + BLOCK < len(task.items) else None
        parts = _cosines(gallery.vectors[own[0] : end], asked)
        blocks.append(np.maximum.reduceat(parts, own - own[0], axis=0))
    scores = np.concatenate(blocks)
    count = len(task.items)
    placed = metrics.placed(scores, np.arange(count), task.truth, np.ones(count))
    guess = scores.argmax(axis=1)
    values = {"accuracy": np.asarray(task.truth == guess, np.float64)}
    values.update({f"accuracy@{k}": metrics.hit_rate(placed, k) for k in ks if k > 1})
    classes = len(names)

    def average(which: int) -> Callable[[Ints], float]:
        def figure(rows: Ints) -> float:
            drawn = metrics.confusion(task.truth[rows], guess[rows], classes)
            return metrics.macro(metrics.by_class(drawn))[which]

        return figure

    figures = _figures(values, np.arange(count))
    for which, name in enumerate(("precision", "recall", "f1")):
        figures[f"macro {name}"] = significance.interval_of(average(which), count)
    matrix = metrics.confusion(task.truth, guess, classes)
    told = Classes(task.classes, matrix, metrics.by_class(matrix))
    return Run(way.model.name, way.prompt, values, figures, classes=told)


# ---- comparing -----------------------------------------------------------------------------------


def _figures(values: Mapping[str, Floats], groups: Ints) -> dict[str, Interval]:
    columns = np.stack(list(values.values()), axis=1)
    return dict(zip(values, significance.intervals(columns, groups), strict=True))


def _compared(runs: Sequence[Run], groups: Ints) -> tuple[Run, ...]:
    """Says of every run and measure whether the best is really better."""
    if len(runs) < 2:
        return tuple(runs)
    p: list[dict[str, float | None]] = [{} for _ in runs]
    for name in runs[0].values:
        best = max(range(len(runs)), key=lambda at: runs[at].figures[name].value)
        others = [at for at in range(len(runs)) if at != best]
        raw = [
            significance.differ(runs[best].values[name], runs[at].values[name], groups)
            for at in others
        ]
        p[best][name] = None
        for at, value in zip(others, significance.holm(raw), strict=True):
            p[at][name] = value
    return tuple(replace(run, p=values) for run, values in zip(runs, p, strict=True))


# ---- what is left --------------------------------------------------------------------------------


def _needed(task: Task | Labelled) -> set[Modality]:
    kinds = {thing.modality for thing in task.items}
    if isinstance(task, Labelled):
        return kinds | {Modality.TEXT}
    return kinds | {thing.modality for thing in task.queries}


def _in_words(task: Task) -> bool:
    return any(thing.path is None for thing in task.queries)


def _without(task: Task | Labelled, bad: Mapping[Path, Unusable]) -> Task | Labelled | None:
    """Leaves out files that cannot be used; ``None`` if nothing is left to tell apart."""
    kept = np.array([thing.path not in bad for thing in task.items])
    if isinstance(task, Task):  # the captions of a picture leave with it
        asked = np.array([thing.path not in bad for thing in task.queries])
        right = np.isin(np.arange(len(kept)), task.item[asked[task.query]])
        kept &= right | np.array([thing.path is not None for thing in task.items])
    items = tuple(thing for thing, keep in zip(task.items, kept.tolist(), strict=True) if keep)
    number = np.cumsum(kept) - 1
    if isinstance(task, Labelled):
        truth = task.truth[kept]
        left, truth = np.unique(truth, return_inverse=True)
        if len(left) < 2:
            return None
        names = tuple(task.classes[at] for at in left.tolist())
        return Labelled(task.name, names, items, truth)
    rows = kept[task.item] & asked[task.query]
    if not rows.any():
        return None
    left, query = np.unique(task.query[rows], return_inverse=True)
    _, groups = np.unique(task.groups[left], return_inverse=True)
    queries = tuple(task.queries[at] for at in left.tolist())
    item, grade = number[task.item[rows]], task.grade[rows]
    return Task(task.name, queries, items, query, item, grade, groups)
