"""How to find the nearest of those vectors of a segment that a filter lets through.

All ways are exact and give the same answer; they differ in time. Measured on segments of 131,072
float16 vectors of 512, one thread, ``tests/benchmarks/filters.py``:

* ``SCAN`` gathers the vectors that match and compares those: 2.1 µs for each of them.
* ``SELECT`` lets FAISS walk over all and compare those whose bit is set: 5 ns for each vector and
  0.2 to 0.4 µs for each that matches.
* ``OVERFETCH`` compares all, fetches so many that ``k`` are left when those that do not match are
  dropped: 0.16 µs for each vector, and 1 µs for each one fetched. It gains little, 2 % at best,
  since memory sets the pace of both.
"""

from __future__ import annotations

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
