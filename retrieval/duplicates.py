"""Which files are the same, nearly the same, or show the same scene.

Groups are stars: every member is like the file that is kept, directly, and never only like another
member. Chains, in which the last has nothing in common with the first, would put thousands of
pictures into one group. Three tiers, each named:

* ``exact``: the same bytes.
* ``near``: the same picture, saved anew, scaled, or brightened: perceptual hashes that differ in at
  most ``NEAR_BITS`` bits, and vectors that do not disagree. The same sound, encoded anew: equally
  long, and vectors that are nearly the same.
* ``scene``: pictures whose vectors are very near: cut, mirrored, or taken a moment later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from retrieval.phash import distance, near_pairs
from retrieval.store import Entry
from retrieval.types import Modality

NEAR_BITS = 8
"""Of 64. Finds all of 250 pictures saved anew or scaled, and 98 % of those cut by 4 %; of 24
million pairs of different photographs it takes two (``tests/benchmarks/duplicates.py``)."""
NEAR_COSINE = 0.5  # what a quarter of a side leaves of a small picture; keeps those two apart
SOUND_COSINE = 0.99
"""Strict, since the model gives sounds of one kind nearly one vector: of 1.28 million pairs of
different clips that are all equally long, 0.97 takes 2,725, this takes 99 (the same benchmark)."""
SOUND_S = 0.15  # encoders pad a sound by up to some thousand samples
SCENE_COSINE = 0.93
"""Finds 85 % of pictures cut by 10 % and 98 % of mirrored ones; of 24 million pairs of photographs
it takes 17, and 0.9 takes 171 (the same benchmark)."""
BLOCK, COLUMNS = 256, 16_384  # compared at once: 16 MB

Rows = NDArray[np.int64]
Near = Callable[[int], Rows]


class Tier(StrEnum):
    """In which way files are the same, the strictest first."""

    EXACT = "exact"
    NEAR = "near"
    SCENE = "scene"


class Keep(StrEnum):
    """Which file of a group is kept."""

    BEST = "best"
    NEWEST = "newest"
    LARGEST = "largest"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a group.

    Attributes:
        entry: The file.
        tier: In which way it is the same as the one that is kept.
        bits: Of 64, in which perceptual hashes differ; ``None`` where that was not asked.
        cosine: With the one that is kept; ``None`` where that was not asked.
    """

    entry: Entry
    tier: Tier
    bits: int | None = None
    cosine: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Files that are the same.

    Attributes:
        modality: Of all.
        kept: The one to keep.
        others: All others, the strictest tier first.
    """

    modality: Modality
    kept: Entry
    others: tuple[Member, ...]


def ranked(entries: Sequence[Entry], keep: Keep) -> list[Entry]:
    """Orders files by what is kept first; ties go to the older file, then to the shorter path.

    ``best`` is the one with the most pixels or seconds, then bytes; ``newest`` by when it was taken
    or else changed; ``largest`` by bytes.
    """

    def key(entry: Entry) -> tuple[object, ...]:
        size, changed = entry.fingerprint.size, entry.fingerprint.mtime_ns
        pixels = (entry.width or 0) * (entry.height or 0)
        # lengths of one sound differ by an encoder's padding, which is no quality
        seconds = round(entry.duration_s or 0.0)
        tie = (changed, len(entry.path), entry.path)
        match keep:
            case Keep.BEST:
                return (-pixels, -seconds, -size, *tie)
            case Keep.NEWEST:
                return (-_moment(entry), -pixels, -size, *tie)
            case Keep.LARGEST:
                return (-size, -pixels, *tie)

    return sorted(entries, key=key)


def _moment(entry: Entry) -> float:
    from retrieval.store.selecting import date_of

    when = date_of(entry.taken_at, entry.fingerprint.mtime_ns)
    return when.timestamp() if when is not None and when.year > 1 else 0.0


def grouped(
    entries: Sequence[Entry],
    modality: Modality,
    *,
    tier: Tier,
    keep: Keep = Keep.BEST,
    hashes: Mapping[bytes, int | None] | None = None,
    vectors: Mapping[int, int] | None = None,
    matrix: NDArray[np.float16] | None = None,
) -> list[Group]:
    """Finds the groups of a modality.

    Args:
        entries: Files, each path and each place on the disk once.
        modality: Of all of them.
        tier: The loosest one that counts.
        keep: Which file of a group is kept.
        hashes: Perceptual hashes by content, for tiers beyond ``exact`` of pictures.
        vectors: Rows of ``matrix`` by item id, for the same.
        matrix: ``(n, dim)`` unit rows.

    Returns:
        Groups of two or more, in the order of the files that are kept.
    """
    order = ranked(entries, keep)
    copies: dict[bytes, list[Entry]] = {}
    for entry in order:
        copies.setdefault(entry.content_hash, []).append(entry)
    nodes = [same[0] for same in copies.values()]  # the first of each content, best first
    finder = None
    if tier is not Tier.EXACT and matrix is not None and vectors is not None:
        finder = _Finder(nodes, modality, hashes or {}, vectors, matrix, scenes=tier is Tier.SCENE)
    free = np.ones(len(nodes), np.bool_)
    groups = []
    for at, node in enumerate(nodes):
        if not free[at]:
            continue
        free[at] = False
        others = [Member(entry, Tier.EXACT) for entry in copies[node.content_hash][1:]]
        for other, its_tier, bits, cosine in finder.like(at, free) if finder else ():
            free[other] = False
            for entry in copies[nodes[other].content_hash]:
                others.append(Member(entry, its_tier, bits, cosine))
        if others:
            others.sort(key=lambda one: list(Tier).index(one.tier))
            groups.append(Group(modality, node, tuple(others)))
    return groups


class _Finder:
    """Finds what is like a node, among those that are free."""

    def __init__(
        self,
        nodes: Sequence[Entry],
        modality: Modality,
        hashes: Mapping[bytes, int | None],
        vectors: Mapping[int, int],
        matrix: NDArray[np.float16],
        *,
        scenes: bool,
    ) -> None:
        self._rows = np.array([vectors.get(node.id, -1) for node in nodes], np.int64)
        self._matrix = matrix
        self._lengths = np.array([node.duration_s or 0.0 for node in nodes])
        self._pictures = modality is Modality.IMAGE
        known = [hashes.get(node.content_hash) for node in nodes]
        self._hashed = np.array([one is not None for one in known], np.bool_)
        self._hashes = np.array([one or 0 for one in known], np.uint64)
        self._hash_neighbours = _neighbours(self._hashes, self._hashed)
        self._least = SCENE_COSINE if self._pictures else SOUND_COSINE
        wide = scenes if self._pictures else modality is Modality.AUDIO
        self._blocks: dict[int, Rows] | None = {} if wide else None

    def like(
        self, at: int, free: NDArray[np.bool_]
    ) -> Iterator[tuple[int, Tier, int | None, float]]:
        """Gives position, tier, bits and cosine of each free node that is like one."""
        if self._rows[at] < 0:
            return
        found = [self._hash_neighbours.get(at, _NONE)]
        if self._blocks is not None:
            if at not in self._blocks:
                self._fill(at, free)
            found.append(self._blocks.pop(at))
        rows = np.unique(np.concatenate(found))
        rows = rows[free[rows] & (self._rows[rows] >= 0)]
        if not len(rows):
            return
        own = self._matrix[self._rows[at]].astype(np.float32)
        cosines = self._matrix[self._rows[rows]].astype(np.float32) @ own
        for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
            bits = None
            if self._hashed[at] and self._hashed[row]:
                bits = int(distance(self._hashes[at : at + 1], self._hashes[row : row + 1])[0])
            if self._pictures:
                if bits is not None and bits <= NEAR_BITS and cosine >= NEAR_COSINE:
                    yield row, Tier.NEAR, bits, cosine
                elif self._blocks is not None and cosine >= SCENE_COSINE:
                    yield row, Tier.SCENE, bits, cosine
            elif abs(self._lengths[at] - self._lengths[row]) <= SOUND_S and cosine >= SOUND_COSINE:
                yield row, Tier.NEAR, None, cosine

    def _fill(self, at: int, free: NDArray[np.bool_]) -> None:
        """Compares a block of coming nodes with all later ones; one by one takes far longer."""
        assert self._blocks is not None
        coming = at + np.flatnonzero(free[at:])
        block = np.concatenate([[at], coming])[:BLOCK]
        left = self._matrix[self._rows[block]].astype(np.float32)
        found: list[list[Rows]] = [[] for _ in block]
        for start in range(0, len(coming), COLUMNS):
            some = coming[start : start + COLUMNS]
            cosines = left @ self._matrix[self._rows[some]].astype(np.float32).T
            for place, column in zip(*np.nonzero(cosines >= self._least), strict=True):
                found[place].append(some[column])
        for place, node in enumerate(block.tolist()):
            self._blocks[node] = np.array(found[place], np.int64)


_NONE: Rows = np.empty(0, np.int64)


def _neighbours(hashes: NDArray[np.uint64], hashed: NDArray[np.bool_]) -> dict[int, Rows]:
    """Lists for each hashed node those whose hash is near, itself among them, if there are any."""
    places = np.flatnonzero(hashed)
    if not len(places):
        return {}
    unique, inverse = np.unique(hashes[places], return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    of_hash = np.split(places[order], np.cumsum(np.bincount(inverse))[:-1])
    near: dict[int, list[int]] = {}
    for pairs in near_pairs(unique, NEAR_BITS):
        for one, other in pairs.tolist():
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
    found: dict[int, Rows] = {}
    for number, members in enumerate(of_hash):
        others = [of_hash[other] for other in near.get(number, ())]
        if len(members) > 1 or others:
            joined = np.concatenate([members, *others])
            found.update(dict.fromkeys(members.tolist(), joined))
    return found
