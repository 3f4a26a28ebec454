"""The figures of ``anyseek evaluate`` as one page of HTML that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from cli import plots
from cli.figures import cell, heading, said, shown_names, trust
from cli.render import printable
from retrieval.evaluation.runs import Classes, Miss, Result, Run
from retrieval.evaluation.tasks import Thing
from retrieval.evaluation.thumbnails import jpeg

THUMBNAIL_PX = 96
SHOWN_CLASSES = 12  # confusions that are listed

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em;
  color: #1b1b1f; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
th, td { text-align: left; padding: .3em .8em .3em 0; border-bottom: 1px solid #ddd;
  vertical-align: top; overflow-wrap: anywhere }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
figure { display: inline-block; margin: 0 2em 1em 0; vertical-align: top }
figcaption, .dim { color: #5c5c66; font-size: 13px }
img { display: block; max-width: 96px; max-height: 96px }
svg text { font: 12px system-ui, sans-serif; fill: #1b1b1f }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def text(foreign: str) -> str:
    """Makes a foreign text safe to stand anywhere in the page, in one line."""
    return escape(printable(foreign), quote=True)


def page(results: Sequence[Result]) -> str:
    """Makes the page: a section for each task, with pictures of its misses inside."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>anyseek evaluate</title><style>{STYLE}</style></head><body>",
        "<h1>anyseek evaluate</h1>",
        f'<p class="dim">All figures are percentages. {text(said())}</p>',
    ]
    for result in results:
        parts.extend(_section(result))
    parts.append("</body></html>")
    return "\n".join(parts)


def _section(result: Result) -> list[str]:
    names = shown_names(result)
    head = "".join(f'<th class="n">{text(name)}</th>' for name in names)
    parts = [
        f"<h2>{text(heading(result))}</h2>",
        f"<table><tr><th>model</th><th>prompt</th>{head}</tr>",
    ]
    for run in result.runs:
        cells = "".join(f'<td class="n">{text(cell(run, name))}</td>' for name in names)
        parts.append(
            f"<tr><td>{text(run.model)}</td><td>{text(run.prompt) or '-'}</td>{cells}</tr>"
        )
    parts.append("</table>")
    labels = [text(" ".join((run.model, run.prompt)).strip()) for run in result.runs]
    for name in names[:1] + [one for one in names if one in ("map", "macro f1")]:
        bars = [run.figures[name] for run in result.runs]
        parts.append(_figure(plots.bars(labels, bars), f"{name} with 95 % intervals"))
    if all(run.curve for run in result.runs):
        curves = [run.curve for run in result.runs]
        parts.append(_figure(plots.curves(labels, curves), "hit rate over k"))
    for label, run in zip(labels, result.runs, strict=True):
        if run.confidence is not None:
            caption = (
                f"relevance of the first hit, and how often it is right: {label}, {trust(run)}"
            )
            parts.append(_figure(plots.reliability(run.confidence.bins), caption))
    best = _best(result.runs, names[0])
    if best.worst:
        parts.extend(_misses(best.worst))
    if best.classes is not None:
        parts.extend(_confusions(best.classes))
    return parts


def _best(runs: Sequence[Run], name: str) -> Run:
    return max(runs, key=lambda run: run.figures[name].value)


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def _misses(misses: Sequence[Miss]) -> list[str]:
    parts = [
        "<h3>What was found last</h3>",
        '<table><tr><th>asked</th><th>right</th><th class="n">at</th><th>came first</th></tr>',
    ]
    for one in misses:
        parts.append(
            f"<tr><td>{_thing(one.query)}</td><td>{_thing(one.right)}</td>"
            f'<td class="n">{one.rank}</td><td>{_thing(one.first)}</td></tr>'
        )
    return [*parts, "</table>"]


def _thing(thing: Thing) -> str:
    picture = None if thing.path is None else jpeg(thing.path, THUMBNAIL_PX)
    if picture is None:
        return text(thing.name)
    data = base64.b64encode(picture).decode("ascii")
    return f'<img alt="" src="data:image/jpeg;base64,{data}"><span>{text(thing.name)}</span>'


def _confusions(told: Classes) -> list[str]:
    counts = [
        (int(told.confusion[row, column]), row, column)
        for row in range(len(told.names))
        for column in range(len(told.names))
        if row != column and told.confusion[row, column]
    ]
    parts = [
        "<h3>What was taken for what</h3>",
        '<table><tr><th>is</th><th>taken for</th><th class="n">files</th></tr>',
    ]
    for count, row, column in sorted(counts, key=lambda one: (-one[0], *one[1:]))[:SHOWN_CLASSES]:
        names = f"<td>{text(told.names[row])}</td><td>{text(told.names[column])}</td>"
        parts.append(f'<tr>{names}<td class="n">{count}</td></tr>')
    parts.append("</table>")
    parts.append(
        '<table><tr><th>class</th><th class="n">precision</th><th class="n">recall</th>'
        '<th class="n">F1</th></tr>'
    )
    figures = told.by_class
    for at, name in enumerate(told.names):
        cells = "".join(
            f'<td class="n">{100 * float(one[at]):.1f}</td>'
            for one in (figures.precision, figures.recall, figures.f1)
        )
        parts.append(f"<tr><td>{text(name)}</td>{cells}</tr>")
    return [*parts, "</table>"]
