"""The figures of ``anyseek evaluate`` as text: tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from cli.render import printable
from retrieval.evaluation import significance
from retrieval.evaluation.runs import Result, Run

ALPHA = 0.05  # a difference with a smaller p-value is significant


def method() -> dict[str, Any]:
    """Says how the intervals and p-values were made."""
    return {
        "interval": "percentile bootstrap over groups of queries",
        "level": significance.LEVEL,
        "test": "paired permutation test over groups of queries, Holm's correction",
        "alpha": ALPHA,
        "resamples": significance.RESAMPLES,
        "seed": significance.SEED,
    }


def said() -> str:
    """The same in a sentence for people."""
    how = method()
    return (
        f"In brackets: {how['level']:.0%} intervals ({how['interval']}, {how['resamples']} draws, "
        f"seed {how['seed']}). Of several runs * is the best, and = could not be told from it "
        f"({how['test']}, p >= {how['alpha']})."
    )


def shown_names(result: Result) -> list[str]:
    """Chooses the figures that people see first; JSON and CSV have all.

    Where every query has one right item, recall is the hit rate, and mAP is MRR.
    """
    names = list(result.runs[0].figures)
    several = any(
        run.values[name].tobytes() != run.values[name.replace("recall", "hit")].tobytes()
        for run in result.runs
        for name in names
        if name.startswith("recall@")
    )
    last = max((int(name.split("@")[1]) for name in names if "@" in name), default=0)
    return [
        name
        for name in names
        if not name.startswith(("recall@", "precision@", "ndcg@", "map"))
        or (name == "map" and several)
        or (several and name.startswith("recall@"))
        or name == f"ndcg@{last}"
    ]


def cell(run: Run, name: str) -> str:
    """Writes a figure in percent with its interval and mark."""
    figure = run.figures[name]
    return (
        f"{100 * figure.value:.1f} ({100 * figure.low:.1f}-{100 * figure.high:.1f})"
        f"{mark(run, name)}"
    )


def mark(run: Run, name: str) -> str:
    """Gives ``*`` for the best of several runs, ``=`` for what cannot be told from it."""
    if name not in run.p:
        return ""
    p = run.p[name]
    return " *" if p is None else " =" if p >= ALPHA else ""


def heading(result: Result) -> str:
    """Says what was asked, and among how many."""
    if result.runs[0].classes is not None:
        return f"{result.task}: {result.queries} files of {result.items} classes"
    return f"{result.task}: {result.queries} queries, {result.items} items"


def trust(run: Run) -> str:
    """Says how far relevance can be trusted."""
    assert run.confidence is not None
    auroc = run.confidence.auroc
    second = "" if auroc is None else f", AUROC {auroc:.3f}"
    return f"calibration error {run.confidence.error:.3f}{second}"


def lines(results: Sequence[Result]) -> str:
    """Writes a table for each task, with tabs between the columns."""
    rows: list[str] = []
    for result in results:
        names = shown_names(result)
        trusted = result.runs[0].confidence is not None
        rows += [heading(result), "\t".join(["model", "prompt", *names, *["relevance"] * trusted])]
        for run in result.runs:
            cells = [printable(run.model), printable(run.prompt) or "-"]
            cells += [cell(run, name) for name in names]
            rows.append("\t".join([*cells, *([trust(run)] if trusted else [])]))
        rows.append("")
    return "\n".join([*rows, said()])


def drawn(results: Sequence[Result]) -> None:
    """Draws a table for each task on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for result in results:
        table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
        table.title = Text(heading(result))
        names = shown_names(result)
        for column in ("model", "prompt", *names):
            table.add_column(column, justify="left" if column in ("model", "prompt") else "right")
        for run in result.runs:
            table.add_row(
                Text(printable(run.model)),
                Text(printable(run.prompt) or "-"),
                *(Text(cell(run, name)) for name in names),
            )
        console.print(table)
        for run in result.runs:
            if run.confidence is not None:
                console.print(
                    Text(f"relevance of the first hit, {run.prompt or '-'}: {trust(run)}")
                )
        console.print()
    console.print(Text(said(), style="dim"))


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Gives all figures as JSON has them, as shares of 1, and how they were made."""
    listed = [
        {
            "task": result.task,
            "queries": result.queries,
            "items": result.items,
            "runs": [_fields(run) for run in result.runs],
        }
        for result in results
    ]
    return {"method": method(), "results": listed}


def _fields(run: Run) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": run.model,
        "prompt": run.prompt or None,
        "figures": {
            name: {
                "value": round(one.value, 6),
                "low": round(one.low, 6),
                "high": round(one.high, 6),
                **({"p": run.p[name], "best": run.p[name] is None} if name in run.p else {}),
            }
            for name, one in run.figures.items()
        },
    }
    if run.curve:
        fields["hit_rate_by_k"] = {str(k): round(value, 6) for k, value in run.curve}
    if run.confidence is not None:
        fields["relevance"] = {
            "calibration_error": round(run.confidence.error, 6),
            "auroc": None if run.confidence.auroc is None else round(run.confidence.auroc, 6),
            "bins": [
                {
                    "low": round(one.low, 6),
                    "high": round(one.high, 6),
                    "count": one.count,
                    "relevance": round(one.confidence, 6),
                    "right": round(one.right, 6),
                }
                for one in run.confidence.bins
            ],
        }
    if run.worst:
        fields["worst"] = [
            {
                "query": one.query.name,
                "right": one.right.name,
                "rank": one.rank,
                "first": one.first.name,
            }
            for one in run.worst
        ]
    if run.classes is not None:
        told = run.classes
        fields["classes"] = [
            {"name": name, "precision": round(p, 6), "recall": round(r, 6), "f1": round(f, 6)}
            for name, p, r, f in zip(
                told.names,
                told.by_class.precision.tolist(),
                told.by_class.recall.tolist(),
                told.by_class.f1.tolist(),
                strict=True,
            )
        ]
        fields["confusion"] = told.confusion.tolist()
    return fields


def as_csv(results: Sequence[Result]) -> str:
    """Writes a row for each figure, as shares of 1."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow("task model prompt figure value low high p best".split())
    for result in results:
        for run in result.runs:
            for name, one in run.figures.items():
                p = run.p.get(name)
                best = "" if name not in run.p else "yes" if p is None else "no"
                row = [f"{value:.6f}" for value in (one.value, one.low, one.high)]
                labels = [result.task, printable(run.model), printable(run.prompt), name]
                table.writerow([*labels, *row, "" if p is None else f"{p:.6f}", best])
    return buffer.getvalue()
