"""Which kind of index serves how many vectors, and what it takes.

Up to 200,000 vectors are compared one by one. Above, **inverted lists** propose candidates, and the
stored float16 vectors of those are compared: vectors are projected onto the few dimensions that
hold most of their energy, gathered in lists around centroids, and kept there in 8 bits a number.
Where that does not fit the memory budget, in 4 bits. ``tests/benchmarks/codes.py`` compares these
codes with others, and ``tests/benchmarks/large.py`` measures the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

INVERTED_FROM = 200_000  # below, comparing all takes about 10 ms
BUDGET_BYTES = 1_000_000_000  # of codes in memory, for one modality
PROBES = 64  # lists looked through: 3 % of a million vectors, which hold 99.3 % of the best ten
ID_BYTES = 8


class Kind(StrEnum):
    """How vectors are found, as the store records it; ``BUILDING`` is not ready yet."""

    EXACT = "exact"
    INVERTED = "inverted"
    COMPRESSED = "compressed"
    BUILDING = "building"


Told: TypeAlias = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A kind of index for some vectors.

    Attributes:
        kind: How they are found.
        count: How many there are.
        dims: Numbers to a code.
        lists: Inverted lists; 0 where all vectors are compared.
        memory: Bytes of codes, ids and centroids.
        budget: Bytes that they may take.
    """

    kind: Kind
    count: int
    dims: int
    lists: int
    memory: int
    budget: int

    def __str__(self) -> str:
        """Says it in one line."""
        fits = "of the" if self.memory <= self.budget else "more than the"
        return (
            f"{self.count:,} vectors, {self.kind}: {self.lists:,} lists, {self.dims} dimensions, "
            f"{self.memory / 1e6:,.0f} MB {fits} {self.budget / 1e6:,.0f} MB budget"
        )


def rung(count: int, dims: int, *, budget: int | None = None) -> Rung:
    """Chooses the kind of index.

    Args:
        count: Vectors.
        dims: Numbers to a code, see ``retrieval.inverted.projection``.
        budget: Bytes of memory; ``BUDGET_BYTES`` by default. The smallest kind is taken where none
            fits.
    """
    budget = BUDGET_BYTES if budget is None else budget
    if count < INVERTED_FROM:
        return Rung(Kind.EXACT, count, dims, 0, 0, budget)
    lists = lists_for(count)
    fixed = lists * dims * 4
    memory = count * (dims + ID_BYTES) + fixed
    if memory <= budget:
        return Rung(Kind.INVERTED, count, dims, lists, memory, budget)
    memory = count * (dims // 2 + ID_BYTES) + fixed
    return Rung(Kind.COMPRESSED, count, dims, lists, memory, budget)


def lists_for(count: int) -> int:
    """Gives the number of lists: the power of two nearest to twice the root of the count.

    Steps of two keep the centroids until an index has grown fourfold. At a million, 1,024 lists
    need twice the comparisons for the same recall, and 4,096 twice the time to build.
    """
    return int(2 ** round(math.log2(2 * math.sqrt(max(count, 1)))))
