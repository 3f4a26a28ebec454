"""Items with words that belong to them: content and words searched side by side, and fused.

The nearest by content and the nearest by words are looked at together, and every item met is judged
by all of its sources. It goes on until nothing unseen can come before the last of the best: an
unseen item lies below the frontier of both, and no way of fusing but ``CONCAT`` puts it above the
chance that either is right (Fagin, Lotem and Naor 2003, "Optimal aggregation algorithms for
middleware").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.fusion import SOURCES, Fuse, Fusion, fused, log_relevance_of, logit_of
from retrieval.scoring import Judged, Scorer
from retrieval.segments import Ids
from retrieval.store import Sourced
from retrieval.types import Source, Words

FIRST_REACH = 64  # vectors of each kind in the first round
CONTENT = SOURCES.index(Source.CONTENT)


@dataclass(frozen=True, slots=True)
class Side:
    """Content, or words.

    Attributes:
        scorer: The query against it.
        best: Gives so many nearest vectors, best first.
        available: How many there are.
    """

    scorer: Scorer
    best: Callable[[int], tuple[Ids, Judged]]
    available: int


@dataclass(frozen=True, slots=True)
class Fused:
    """An item as all of its sources answer.

    Attributes:
        item_id: Row id.
        vector_id: Of the part of its content that answers best.
        score: Of that part.
        log_relevance: Of the item.
        relevances: 0..1, of each source that it has.
        words: Those that answer best, if it has any.
    """

    item_id: int
    vector_id: int
    score: float
    log_relevance: float
    relevances: Mapping[Source, float]
    words: Words | None


def nearest(
    content: Side,
    words: Side,
    reach: int,
    *,
    how: Fuse,
    without: frozenset[int],
    owners: Callable[[Ids], Sequence[int]],
    sourced: Callable[[Sequence[int]], Mapping[int, Sequence[Sourced]]],
) -> list[Fused]:
    """Finds the items that answer best, best first.

    Args:
        content: What is seen or heard.
        words: What belongs to it.
        reach: How many; fewer come back only if fewer qualify.
        how: The way of fusing.
        without: Items that are left out.
        owners: From vectors to their items.
        sourced: From items to all their vectors.
    """
    known: dict[int, Fused] = {}
    count = max(FIRST_REACH, 4 * reach)
    while True:
        seen: set[int] = set()
        frontier = np.full((1, len(SOURCES)), -np.inf)
        for side, columns in ((content, [CONTENT]), (words, _word_columns())):
            ids, judged = side.best(min(count, side.available))
            seen.update(owners(ids))
            if count < side.available and len(ids):
                frontier[0, columns] = logit_of(judged.log_relevance[-1:])
        new = sorted(seen - known.keys() - without)
        if new:
            known.update(_judged(sourced(new), content.scorer, words.scorer, how))
        ranked = sorted(known.values(), key=lambda one: (-one.log_relevance, -one.score))
        ranked = [one for one in ranked if one.log_relevance > -np.inf][:reach]
        if count >= max(content.available, words.available) or (
            len(ranked) == reach and ranked[-1].log_relevance > _bound(frontier, how)
        ):
            return ranked
        count *= 4


def _word_columns() -> list[int]:
    return [at for at in range(len(SOURCES)) if at != CONTENT]


def _bound(frontier: NDArray[np.float64], how: Fuse) -> float:
    """Gives the most that an unseen item may have."""
    if how.way is Fusion.CONCAT:  # an item need not have the sources that would lower it
        alone = np.where(np.arange(len(SOURCES)) == CONTENT, frontier, np.maximum(frontier, 0))
        return float(log_relevance_of(alone @ how.columns())[0])
    weights = dict(zip(SOURCES, np.maximum(how.columns(), 1.0).tolist(), strict=True))
    logits = np.where(np.isneginf(frontier), np.nan, frontier)
    return float(log_relevance_of(fused(logits, Fuse(Fusion.ANY, weights)))[0])


def _judged(
    items: Mapping[int, Sequence[Sourced]], content: Scorer, words: Scorer, how: Fuse
) -> dict[int, Fused]:
    """Judges items by all their vectors at once."""
    flat = [(item_id, one) for item_id, rows in items.items() for one in rows]
    if not flat:
        return {}
    matrix = np.stack([one.row for _, one in flat])
    inner = np.array([one.source is Source.CONTENT for _, one in flat])
    scores = np.empty(len(flat))
    logs = np.empty(len(flat))
    for scorer, mask in ((content, inner), (words, ~inner)):
        if mask.any():
            judged = scorer.judge(matrix[mask])
            scores[mask], logs[mask] = judged.score, judged.log_relevance
    order = list(items)
    place = {item_id: row for row, item_id in enumerate(order)}
    table = np.full((len(order), len(SOURCES)), np.nan)
    best: dict[tuple[int, int], int] = {}
    for at, (item_id, one) in enumerate(flat):
        key = (place[item_id], SOURCES.index(one.source))
        if key not in best or logs[at] > logs[best[key]]:
            best[key] = at
            table[key] = logs[at]
    counts = how.columns() > 0
    dropped = (np.isneginf(table) & counts).any(axis=1)  # by what the query looks away from
    result = fused(np.where(np.isneginf(table), np.nan, logit_of(table)), how)
    log_relevance = np.where(dropped, -np.inf, log_relevance_of(result))
    found: dict[int, Fused] = {}
    for row, item_id in enumerate(order):
        part = best.get((row, CONTENT))
        if part is None:
            continue
        said = [best[row, column] for column in _word_columns() if (row, column) in best]
        spoken = max(said, key=lambda at: logs[at], default=None)
        text = None if spoken is None else flat[spoken][1].text
        found[item_id] = Fused(
            item_id,
            flat[part][1].vector_id,
            float(scores[part]),
            float(log_relevance[row]),
            {
                source: float(np.exp(table[row, column]))
                for column, source in enumerate(SOURCES)
                if not np.isnan(table[row, column])
            },
            None if spoken is None or not text else Words(flat[spoken][1].source, text),
        )
    return found
