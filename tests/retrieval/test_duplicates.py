"""Groups of duplicates: stars about the file that is kept, against the definition."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import duplicates
from retrieval.duplicates import NEAR_BITS, Group, Keep, Tier, grouped, ranked
from retrieval.store import Entry
from retrieval.types import Fingerprint, Modality

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


def entry(number: int, *, content: int | None = None, size: int = 1, **more: object) -> Entry:
    """A file; larger numbers are worse in every way but size."""
    own = number if content is None else content
    facts = {"width": 1000 - number, "height": 10} | more
    return Entry(
        number,
        b"/%03d.jpg" % number,
        Fingerprint(size, 10**18 + number),
        own.to_bytes(16, "big"),
        **facts,  # type: ignore[arg-type]
    )


def at_angle(*degrees: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Unit rows in a plane."""
    turns = np.radians(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float16)


def asked(
    entries: list[Entry],
    hashes: Sequence[int | None],
    degrees: Sequence[float],
    *,
    tier: Tier = Tier.NEAR,
    modality: Modality = IMAGE,
) -> list[Group]:
    """Groups files with these hashes and vectors."""
    return grouped(
        entries,
        modality,
        tier=tier,
        hashes={one.content_hash: value for one, value in zip(entries, hashes, strict=True)},
        vectors={one.id: row for row, one in enumerate(entries)},
        matrix=at_angle(*degrees),
    )


def shape(groups: list[Group]) -> list[tuple[int, list[tuple[int, str]]]]:
    """Ids and tiers alone."""
    return [
        (group.kept.id, [(one.entry.id, one.tier.value) for one in group.others])
        for group in groups
    ]


def test_each_tier_has_its_name() -> None:
    """A copy is exact, a copy of what is near is near, what only looks alike is a scene."""
    entries = [entry(1), entry(2, content=1), entry(3), entry(4, content=3), entry(5), entry(6)]
    hashes = [0, 0, 0b1111, 0b1111, 2**64 - 1, 2**64 - 1 ^ 0b11]
    degrees = [0.0, 0.0, 30.0, 30.0, 10.0, 90.0]
    near = [(1, [(2, "exact"), (3, "near"), (4, "near")])]
    assert shape(asked(entries, hashes, degrees)) == near  # 5 and 6 are 80 degrees apart
    scene = [(1, [(2, "exact"), (3, "near"), (4, "near"), (5, "scene")])]
    assert shape(asked(entries, hashes, degrees, tier=Tier.SCENE)) == scene
    assert shape(asked(entries, hashes, degrees, tier=Tier.EXACT)) == [
        (1, [(2, "exact")]),
        (3, [(4, "exact")]),
    ]
    (group,) = asked(entries, hashes, degrees)
    assert [one.bits for one in group.others] == [None, 4, 4]
    assert group.others[1].cosine == pytest.approx(np.cos(np.radians(30)), abs=1e-3)


def test_no_chains() -> None:
    """Each is near to the next, yet nothing is grouped with what it is not near to itself."""
    hashes: list[int | None] = [(1 << (6 * step)) - 1 for step in range(10)]
    groups = asked([entry(number) for number in range(1, 11)], hashes, [0.0] * 10)
    assert shape(groups) == [(n, [(n + 1, "near")]) for n in range(1, 11, 2)]


def test_even_pictures_and_those_without_vectors_are_left_alone() -> None:
    """Without a hash or a vector nothing is said; the same bytes are the same all the same."""
    entries = [entry(1), entry(2), entry(3, content=1)]
    assert shape(asked(entries, [None, None, None], [0.0, 20.0, 0.0])) == [(1, [(3, "exact")])]
    found = grouped(entries, IMAGE, tier=Tier.SCENE, hashes={}, vectors={}, matrix=at_angle())
    assert shape(found) == [(1, [(3, "exact")])]


def test_sounds_must_be_equally_long() -> None:
    """And have nearly the same vector; texts are the same by their bytes alone."""
    entries = [
        entry(1, width=None, duration_s=5.0),
        entry(2, width=None, duration_s=5.1),
        entry(3, width=None, duration_s=5.4),
        entry(4, width=None, duration_s=5.0),
    ]
    degrees = [0.0, 3.0, 0.0, 40.0]
    none: list[int | None] = [None] * 4
    # a second counts as length, its fraction does not, so the older one is kept
    assert shape(asked(entries, none, degrees, modality=AUDIO)) == [(1, [(2, "near")])]
    assert asked(entries, none, degrees, modality=TEXT, tier=Tier.SCENE) == []


def test_which_is_kept() -> None:
    """By pixels, by date, by bytes; ties go to the older, then to the shorter path."""
    small_new = Entry(1, b"/a", Fingerprint(5, 3 * 10**18), b"1" * 16, 10, 10, None)
    large_old = Entry(2, b"/b", Fingerprint(9, 1 * 10**18), b"2" * 16, 20, 20, None)
    dated = Entry(3, b"/c", Fingerprint(7, 2), b"3" * 16, 15, 15, None, "2090-01-01T00:00:00")
    every = [small_new, large_old, dated]
    assert [one.id for one in ranked(every, Keep.BEST)] == [2, 3, 1]
    assert [one.id for one in ranked(every, Keep.NEWEST)] == [3, 1, 2]
    assert [one.id for one in ranked(every, Keep.LARGEST)] == [2, 3, 1]
    twins = [
        Entry(1, b"/long/a", Fingerprint(5, 7), b"1" * 16, 10, 10),
        Entry(2, b"/a", Fingerprint(5, 7), b"1" * 16, 10, 10),
        Entry(3, b"/z", Fingerprint(5, 6), b"1" * 16, 10, 10),
    ]
    for order in itertools.permutations(twins):
        assert [one.id for one in ranked(order, Keep.BEST)] == [3, 2, 1]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from([None, 0, 0b111, 0b1111111, (1 << 12) - 1, 2**64 - 1]),
            st.sampled_from([0.0, 15.0, 30.0, 70.0]),
        ),
        max_size=12,
    ),
    st.sampled_from(list(Tier)),
    st.integers(1, 4),
)
def test_groups_are_greedy_stars(
    files: list[tuple[int, int | None, float]], tier: Tier, block: int
) -> None:
    """As gone through one by one in plain Python, whatever is compared at once."""
    first: dict[int, tuple[int | None, float]] = {}
    entries, hashes, degrees = [], [], []
    for number, (content, hashed, turn) in enumerate(files, start=1):
        value, angle = first.setdefault(content, (hashed, turn))  # one content has one of each
        entries.append(entry(number, content=content))
        hashes.append(value)
        degrees.append(angle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", block)
        patch.setattr(duplicates, "COLUMNS", 3)
        found = shape(asked(entries, hashes, degrees, tier=tier)) if entries else []
    wanted: list[tuple[int, list[tuple[int, str]]]] = []
    taken: set[int] = set()
    for one in range(len(files)):
        if one in taken:
            continue
        members = []
        for other in range(one + 1, len(files)):
            if other in taken:
                continue
            mine, its = hashes[one], hashes[other]
            cosine = np.cos(np.radians(degrees[one] - degrees[other]))
            if files[one][0] == files[other][0]:
                members.append((other, Tier.EXACT))
            elif tier is Tier.EXACT:
                continue
            elif (
                mine is not None
                and its is not None
                and (mine ^ its).bit_count() <= NEAR_BITS
                and cosine >= 0.5
            ):
                members.append((other, Tier.NEAR))
            elif tier is Tier.SCENE and cosine >= 0.93:
                members.append((other, Tier.SCENE))
        taken |= {one, *(other for other, _ in members)}
        if members:
            order = sorted(members, key=lambda pair: list(Tier).index(pair[1]))
            wanted.append((one + 1, [(other + 1, its.value) for other, its in order]))
    assert [(kept, sorted(others)) for kept, others in found] == [
        (kept, sorted(others)) for kept, others in wanted
    ]
