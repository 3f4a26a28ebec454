"""Whether an index agrees with itself, and what is done where it does not.

``store.checking`` looks into the file; here its derived files are held against it. Vectors in a
derived file are compared by a product with one random direction: a vector that differs by more than
the last digit of a small number has another product. The file is read as a search reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.index import folder_of, seal
from retrieval.planner import Plan
from retrieval.segments import Ids, opened
from retrieval.store import Seal, Space, Store
from retrieval.store.checking import Faults
from retrieval.types import Kept, Modality, WordsOf

SAMPLE = 2_048  # vectors of a derived file that are compared unless all are asked for
READ_ROWS = 8_192
NEAR = 1e-6  # of products of unit vectors: ten times what the order of summation changes

Progress = Callable[[int, int], None]
KINDS: tuple[Kept, ...] = (*Modality, *WordsOf)


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing that is wrong.

    Attributes:
        what: In words, with a number and an example.
        means: What comes of it.
        mend: What to do.
    """

    what: str
    means: str
    mend: str

    def __str__(self) -> str:
        """Says it in one line."""
        return f"{self.what}: {self.means}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check.

    Attributes:
        findings: Empty if all is well.
        faults: What is broken in the file itself.
        bad: Spaces and modalities whose derived files are to be made anew.
        files: Derived files that were compared.
        compared: Vectors in them that were.
    """

    findings: tuple[Finding, ...]
    faults: Faults
    bad: frozenset[tuple[Space, Kept]]
    files: int
    compared: int


def check(
    path: Path, *, full: bool = False, progress: Progress = lambda done, total: None
) -> Checked:
    """Goes through an index and changes nothing.

    Args:
        path: The index file.
        full: Whether every vector of the derived files is compared, instead of some.
        progress: Told how many derived files of how many are compared.

    Raises:
        StoreError: If there is no index, or it cannot be read at all.
    """
    with Store(path) as store:
        faults = store.faults()
        findings = _of_file(faults)
        bad: set[tuple[Space, Kept]] = set()
        compared = done = 0
        kinds = [(space, modality) for space in store.spaces() for modality in KINDS]
        seals = {kind: store.seals(*kind) for kind in kinds}
        total = sum(map(len, seals.values()))
        sizes_are_right = not faults.sizes  # or no table of vectors can be made
        for kind in kinds:
            reasons = _chain(store, *kind, seals[kind])
            for one in seals[kind]:
                reason, count = _compare(store, *kind, one, full, readable=sizes_are_right)
                if reason is not None and _still_named(path, one):
                    reasons.append(f"{one.file} {reason}")
                compared += count
                done += 1
                progress(done, total)
            if reasons:
                bad.add(kind)
                findings.append(_derived(kind, reasons))
    findings += _unnamed(path)
    return Checked(
        tuple(findings),
        faults,
        frozenset(bad),
        total,
        compared,
    )


def repair(path: Path, checked: Checked) -> None:
    """Takes out what is broken and makes derived files anew; what is whole is not touched.

    Args:
        path: The index file; nobody else may write to it meanwhile, see ``indexer.lock``.
        checked: What ``check`` found just now.

    Raises:
        StoreError: If the file cannot be mended.
    """
    with Store(path, write=True) as store:
        store.mend(checked.faults)
        for space, modality in checked.bad:
            store.unseal(space, modality)
        for file in _strays(path):
            file.unlink(missing_ok=True)
        for space in store.spaces():
            for modality in KINDS:
                seal(store, space, modality)


# ---- what is found, in words -------------------------------------------------------------------

AGAIN = "--repair takes it out, and the next `anyseek index` of its folder makes it anew"


def _of_file(faults: Faults) -> list[Finding]:
    found = []
    if faults.file:
        found.append(
            Finding(
                f"SQLite finds the file damaged ({'; '.join(faults.file[:3])})",
                "searches may miss items or fail",
                "--repair makes its tables' indexes anew; if that is not enough, remove the file "
                "and run `anyseek index` again",
            )
        )
    for table, count in (faults.orphans or {}).items():
        found.append(
            Finding(
                f"{count} row(s) of {table} belong to nothing",
                "no search can find them",
                "--repair takes them out",
            )
        )
    for name, what, means in (
        ("sizes", "vector(s) of a wrong number of bytes", "no search can read them"),
        ("numbers", "vector(s) that are not finite", "no search can rank them"),
        ("lengths", "vector(s) that are not of length 1", "they rank too high or too low"),
        ("kinds", "vector(s) kept for another kind than their item's", "the wrong search has them"),
        ("gaps", "item(s) of which some parts have no vector", "those parts are never found"),
        ("items", "item(s) with a kind, path, size or digest that none has", "searches may fail"),
        ("empty", "item(s) without a vector", "no search finds them"),
    ):
        if count := getattr(faults, name):
            path = (faults.first or {}).get(name)
            example = "" if path is None else f", the first of {os.fsdecode(path)}"
            found.append(Finding(f"{count} {what}{example}", means, AGAIN))
    if faults.masks:
        found.append(
            Finding(
                f"{faults.masks} entry(s) of removed vectors that are not removed",
                "what is there is not found",
                "--repair takes them out",
            )
        )
    for name, _ in faults.concepts:
        found.append(
            Finding(
                f"the concept <{name}> has a broken vector",
                "queries with it fail or mean nothing",
                f"--repair forgets it; teach it again with `anyseek concept add {name} FILE...`",
            )
        )
    return found


def _derived(kind: tuple[Space, Kept], reasons: list[str]) -> Finding:
    space, modality = kind
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return Finding(
        f"derived files of {modality} in {space.name}: {reasons[0]}{more}",
        "searches are slower or miss items",
        "--repair makes them anew from the index",
    )


# ---- derived files -----------------------------------------------------------------------------


def _chain(store: Store, space: Space, modality: Kept, seals: list[Seal]) -> list[str]:
    """Holds the ranges of derived files against each other: each id is in one of them or after."""
    reasons = []
    next_id = 1
    for one in seals:
        if one.first_id < next_id or one.last_id < one.first_id - 1:
            reasons.append(f"{one.file} overlaps another one")
        elif one.first_id > next_id:
            gap = len(store.kind_ids(space, modality, next_id, one.first_id - 1))
            if gap:
                reasons.append(f"{gap} vector(s) lie before {one.file} and in none")
        next_id = max(next_id, one.last_id + 1)
    return reasons


def _compare(
    store: Store, space: Space, modality: Kept, one: Seal, full: bool, *, readable: bool
) -> tuple[str | None, int]:
    """Says what is wrong with a derived file, and how many vectors were compared."""
    file = folder_of(store.path) / one.file
    segment = opened(file, one, space) if file.name == one.file else None
    if segment is None:
        there = file.is_file()
        return "is truncated or of other content" if there else "is missing", 0
    stored = store.kind_ids(space, modality, one.first_id, one.last_id)
    removed = store.removed(space, modality)
    removed = removed[(removed >= one.first_id) & (removed <= one.last_id)]
    expected = np.union1d(stored, removed)
    if not np.array_equal(segment.ids, expected):
        lost, ghosts = np.setdiff1d(expected, segment.ids), np.setdiff1d(segment.ids, expected)
        if len(lost) or len(ghosts) or len(segment.ids) != len(expected):
            return (
                f"lacks {len(lost)} vector(s) of the index and holds {len(ghosts)} of no one",
                0,
            )
        return "holds its vectors out of order", 0
    if not readable or not len(stored):
        return None, 0
    step = 1 if full else max(1, len(stored) // SAMPLE)
    chosen: Ids = stored[::step]
    rng = np.random.default_rng(0)
    direction = rng.normal(size=space.dim).astype(np.float32)
    direction /= np.linalg.norm(direction)
    for start in range(0, len(chosen), READ_ROWS):
        some = chosen[start : start + READ_ROWS]
        products, ids = segment.search(direction, len(some), segment.members(some), Plan.SCAN)
        mine = store.vectors_of(some, space).astype(np.float32) @ direction
        order = np.argsort(ids)
        with np.errstate(invalid="ignore"):
            same = np.abs(products[order] - mine) <= NEAR
        wrong = ~same & np.isfinite(mine)  # what the index itself has broken is told elsewhere
        if wrong.any():
            return f"holds other vectors than the index, the first of id {some[wrong.argmax()]}", 0
    return None, len(chosen)


def _still_named(path: Path, one: Seal) -> bool:
    """Tells whether a file is in use now: a run beside this may have replaced it meanwhile."""
    with Store(path) as now:
        return one.file in now.seal_files()


def _strays(path: Path) -> list[Path]:
    """Lists derived files that the index does not name."""
    folder = folder_of(path)
    if not folder.is_dir():
        return []
    with Store(path) as store:
        used = store.seal_files()
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in (".faiss", ".tmp") and file.name not in used
    )


def _unnamed(path: Path) -> list[Finding]:
    strays = _strays(path)
    if not strays:
        return []
    return [
        Finding(
            f"{len(strays)} derived file(s) that the index does not name, the first {strays[0]}",
            "they only take space, unless a run is writing them just now",
            "--repair or the next `anyseek index` deletes them",
        )
    ]
