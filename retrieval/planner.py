"""How to find the nearest of those vectors of a segment that a filter lets through.

These ways are exact and give the same answer; they differ in time. Measured on segments of 131,072
float16 vectors of 512, one thread, ``tests/benchmarks/filters.py``:

* ``SCAN`` gathers the vectors that match and compares those: 2.1 µs for each of them.
* ``SELECT`` lets FAISS walk over all and compare those whose bit is set: 5 ns for each vector and
  0.2 to 0.4 µs for each that matches.
* ``OVERFETCH`` compares all, fetches so many that ``k`` are left when those that do not match are
  dropped: 0.16 µs for each vector, and 1 µs for each one fetched. It gains little, 2 % at best,
  since memory sets the pace of both.

Over inverted lists (``retrieval.inverted``) there is a way that may miss some: ``PROBE`` looks
through a few lists for candidates and compares those. ``probing`` says when it is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

SCAN_SHARE = 1 / 400  # up to this part matching, gathering is faster than walking over all
OVERFETCH_SHARE = 1 / 500  # up to this part fetched, dropping is faster than looking at bits


class Plan(StrEnum):
    """A way to search one segment."""

    NOTHING = "nothing"
    WHOLE = "whole"
    SCAN = "scan"
    SELECT = "select"
    OVERFETCH = "overfetch"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan, and why it was chosen.

    Attributes:
        plan: The way to search.
        reason: In words that can follow the plan's name: "1 % of 100000 match".
    """

    plan: Plan
    reason: str


def choose(n: int, matches: int, k: int) -> Decision:
    """Chooses the fastest way to search a segment.

    Args:
        n: Vectors in the segment.
        matches: Those that qualify, ``0 <= matches <= n``.
        k: How many are wanted, at least 1.
    """
    if matches == 0:
        return Decision(Plan.NOTHING, f"none of {n} match")
    if matches == n:
        return Decision(Plan.WHOLE, f"all {n} match")
    if matches <= max(SCAN_SHARE * n, k):  # k would come from the scan, all of them, anyway
        return Decision(Plan.SCAN, f"only {matches} of {n} match")
    if k + n - matches <= OVERFETCH_SHARE * n:
        return Decision(Plan.OVERFETCH, f"all but {n - matches} of {n} match")
    return Decision(Plan.SELECT, f"{matches} of {n} match")


RERANKED = 200  # candidates compared for up to 100 hits; 400 find nothing more, 100 find 0.3 % less
RERANK_SHARE = 1 / 20  # up to this part of those that match; comparing all is then as fast
EXACT_MATCHES = 20_000  # up to so many are compared one by one: some 10 ms


@dataclass(frozen=True, slots=True)
class Probing:
    """How far to look in inverted lists.

    Attributes:
        count: Candidates.
        probes: Lists looked through.
    """

    count: int
    probes: int


def probing(n: int, matches: int, k: int, *, lists: int, probes: int) -> Probing | None:
    """Says how far to look in inverted lists; ``None`` where comparing all that match is better.

    Where a part ``s`` of the vectors matches, the ``k`` best of them lie as deep as the ``k / s``
    best of all, in more lists; as many more as the root of it, measured for filters by chance.

    Args:
        n: Vectors in the lists.
        matches: Those that qualify.
        k: How many are wanted, at least 1.
        lists: How many there are.
        probes: Lists that are looked through for ten of all.
    """
    count = max(RERANKED, 2 * k)
    if matches <= EXACT_MATCHES or count > matches * RERANK_SHARE:
        return None
    wider = math.sqrt(count / RERANKED * n / matches)
    return Probing(count, min(lists, math.ceil(probes * wider)))
