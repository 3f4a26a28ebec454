"""Explanations of hits, as lines for people and as fields for programs, and their heat maps."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.render import clock, printable, shown
from retrieval.types import Modality

if TYPE_CHECKING:
    from retrieval.asking import Decision, Manner
    from retrieval.explain import Explainer, Explanation, Piece, Share, Window
    from retrieval.query import Blend, Query, Term
    from retrieval.scoring import Scorer
    from retrieval.search import Hit, Searcher
    from retrieval.spaces import Spaces

SHOWN_TEMPLATES = 3  # the strongest; --format json has them all
BARS = "▁▂▃▄▅▆▇█"
COLUMNS = 60  # of the bars; longer recordings show the best of several windows in each


@dataclass(frozen=True, slots=True)
class Note:
    """An explanation as it is written.

    Attributes:
        lines: Below the hit, for people.
        fields: The value of ``"explanation"`` in a hit's JSON object.
        remark: Why there is no heat map where one was asked for.
    """

    lines: tuple[str, ...]
    fields: dict[str, object]
    remark: str | None = None


def notes(
    searcher: Searcher | Spaces,
    hits: Sequence[Hit],
    query: Query,
    manner: Manner,
    *,
    folder: Path | None,
    explainer: Explainer | None = None,
) -> list[Note]:
    """Explains hits, and draws heat maps of pictures if there is a folder for them.

    Args:
        searcher: What found them.
        hits: In the order in which they are written.
        query: What was asked; of AND and OR, the part that decided on a hit is explained.
        manner: How it was put.
        folder: For the maps.
        explainer: Used again from one query of one space to the next, where there are several.

    Raises:
        QueryError: If a map cannot be written.
    """
    from retrieval.asking import deciding
    from retrieval.explain import Explainer

    explainers: dict[str, Explainer] = {}  # by space, as all that follows
    scorers: dict[tuple[str, Modality], Scorer] = {}
    known: dict[tuple[str, Modality, Blend], list[Piece]] = {}
    made = []
    digits = max(2, len(str(len(hits))))
    for rank, hit in enumerate(hits, start=1):
        own, asked = searcher.of(hit, manner)
        if hit.space not in explainers:
            explainers[hit.space] = explainer or Explainer(own.store, own.encoder)
        if (hit.space, hit.modality) not in scorers:
            scorers[hit.space, hit.modality] = own.scorer(query, hit.modality, asked)
        scorer = scorers[hit.space, hit.modality]
        decision = deciding(query, scorer, explainers[hit.space].vector(hit))
        key = (hit.space, hit.modality, decision.blend)
        if key not in known:
            known[key] = _pieces(own, hit.modality, decision.blend, asked)
        pieces = known[key]
        told = explainers[hit.space].explain(hit, pieces, judge=scorer.judge)
        map_path, reason = None, None
        if folder is not None and hit.modality is Modality.IMAGE:
            map_path, reason = _mapped(own, hit, pieces, folder, rank, digits)
        changes = _changes(decision)
        made.append(Note(lines(told, changes, map_path), fields(told, changes, map_path), reason))
    return made


def _changes(decision: Decision) -> tuple[Share, ...]:
    """Names what came to the cosine before it was the score: penalties and feedback."""
    from retrieval.explain import Share

    avoided = [_label(term) for term in decision.blend.terms if term.weight < 0]
    made = [
        Share(f"- {label}", -taken)
        for label, taken in zip(avoided, decision.penalties, strict=False)
    ]
    if decision.gain is not None:
        made.append(Share("feedback", decision.gain))
    return tuple(made)


def _label(term: Term) -> str:
    from retrieval.query import Kind

    return term.value if term.kind is not Kind.CONCEPT else f"<{term.value}>"


def _pieces(searcher: Searcher, modality: Modality, blend: Blend, manner: Manner) -> list[Piece]:
    """Gives the terms that make up a blend's direction, as they were put to a modality."""
    from retrieval.explain import Piece
    from retrieval.scoring import AVOIDED, Negatives

    found = []
    subtract = manner.negatives is Negatives.SUBTRACT
    put = [
        one for one in searcher.pieces(blend, modality, manner) if one.term.weight > 0 or subtract
    ]
    usual = put[0].background.spread  # so that a term alone weighs what was written
    for one in put:
        weight = one.term.weight if one.term.weight > 0 else AVOIDED * one.term.weight
        label = _label(one.term)
        weight *= usual / one.background.spread
        if one.phrased is not None:
            found.append(Piece.phrased(label, one.phrased, weight=weight))
        else:
            found.append(Piece.example(label, one.vector[None], weight=weight))
    return found


def _mapped(
    searcher: Searcher, hit: Hit, pieces: Sequence[Piece], folder: Path, rank: int, digits: int
) -> tuple[Path | None, str | None]:
    """Draws a hit's heat map; gives its path, or why there is none."""
    from retrieval import heat
    from retrieval.errors import MediaError
    from retrieval.explain import blend

    tower = searcher.encoder.towers[Modality.IMAGE]
    try:
        picture = heat.read(hit.path, tower.side_px)
    except MediaError as error:
        return None, f"no map of {shown(hit.path)}: it {error}"
    path = folder / heat.file_name(rank, hit.path, digits=digits)
    heat.save(heat.drawn(picture, heat.heat_map(picture, tower, blend(pieces)[0])), path)
    return path, None


# ---- writing -----------------------------------------------------------------------------------


def lines(told: Explanation, changes: Sequence[Share], map_path: Path | None) -> tuple[str, ...]:
    """Writes an explanation for people, a line for each thing that there is to say."""
    rows = []
    templates = [share for term in told.terms for share in term.templates]
    if len(told.terms) > 1:
        rows.append(("terms", [f"{printable(t.label)} {t.share:+.2f}" for t in told.terms]))
    if len(templates) > len(told.terms):
        best = sorted(templates, key=lambda share: -abs(share.share))[:SHOWN_TEMPLATES]
        more = ["…"] if len(templates) > len(best) else []
        rows.append(("templates", [f"{printable(s.label)} {s.share:+.2f}" for s in best] + more))
    rows.append(("changed", [f"{printable(s.label)} {s.share:+.2f}" for s in changes]))
    rows.append(("near", [word.text for word in told.words]))
    rows.append(("passage", [f"{printable(s.label)} {s.share:+.2f}" for s in told.passage]))
    if len(told.windows) > 1:
        rows.append(("windows", [_bars(told.windows)]))
    if map_path is not None:
        rows.append(("map", [shown(os.fsencode(map_path))]))
    return tuple(f"{name:<9} {', '.join(parts)}" for name, parts in rows if parts)


def _bars(windows: Sequence[Window]) -> str:
    """Draws relevance over time, from empty at 0 to full at 1."""
    count = min(len(windows), COLUMNS)
    edges = [len(windows) * column // count for column in range(count + 1)]
    heights = [
        max(window.relevance for window in windows[start:end])
        for start, end in itertools.pairwise(edges)
    ]
    bars = "".join(BARS[min(int(height * len(BARS)), len(BARS) - 1)] for height in heights)
    best = max(windows, key=lambda window: (window.relevance, window.score))
    place = f"{clock(best.start_s)}-{clock(best.end_s)}"
    whole = f"{clock(windows[0].start_s)}-{clock(windows[-1].end_s)}"
    return f"{bars} over {whole}, best {best.relevance:.2f} at {place}"


def fields(told: Explanation, changes: Sequence[Share], map_path: Path | None) -> dict[str, object]:
    """Gives an explanation for programs; every key is always there."""
    return {
        "terms": [
            {
                "term": term.label,
                "weight": term.weight,
                "share": round(term.share, 6),
                "templates": [
                    {"template": share.label, "share": round(share.share, 6)}
                    for share in term.templates
                ],
            }
            for term in told.terms
        ],
        "changes": [{"by": share.label, "share": round(share.share, 6)} for share in changes],
        "near": [{"word": word.text, "score": round(word.score, 4)} for word in told.words],
        "passage": [{"word": share.label, "loss": round(share.share, 4)} for share in told.passage],
        "windows": [
            {
                "start_s": window.start_s,
                "end_s": window.end_s,
                "score": round(window.score, 6),
                "relevance": round(window.relevance, 4),
            }
            for window in told.windows
        ],
        "map": None if map_path is None else str(map_path.absolute()),
    }
