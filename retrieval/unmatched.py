"""Which filter it was that nothing passed, in words that help to choose another."""

from __future__ import annotations

import os
from collections.abc import Sequence

from retrieval.filters import Filters, shown
from retrieval.store import Extent, Store
from retrieval.types import Modality

NAMED_CAMERAS = 5
NAMED_TAGS = 10
NO_DATE = "no date is known"


def why(store: Store, modalities: Sequence[Modality], filters: Filters) -> str:
    """Says in one line which filter excludes every item of some modalities.

    Args:
        store: The index.
        modalities: Of the items that were searched.
        filters: What no item of them passes.
    """
    kinds = f"no {modalities[0]} in the index" if len(modalities) == 1 else "nothing in the index"
    alone = filters.each()
    for one in alone:
        if not store.count(modalities, one):
            return f"{kinds} {_told(one, store.extent(modalities))}"
    return f"{kinds} passes all {len(alone)} filters at once, though something passes each of them"


def _told(one: Filters, extent: Extent) -> str:
    """Tells what a single filter asks for and what there is instead."""
    if one.under is not None:
        return f"lies at or under {os.fsdecode(one.under)}"
    if one.after is not None:
        newest = f"the newest is from {shown(extent.newest)}" if extent.newest else NO_DATE
        return f"is from {shown(one.after)} or later; {newest}"
    if one.before is not None:
        oldest = f"the oldest is from {shown(extent.oldest)}" if extent.oldest else NO_DATE
        return f"is from before {shown(one.before)}; {oldest}"
    if one.camera is not None:
        names = ", ".join(extent.cameras[:NAMED_CAMERAS])
        more = ", ..." if len(extent.cameras) > NAMED_CAMERAS else ""
        there = f"there are {names}{more}" if names else "no picture names its camera"
        return f"comes from a camera like {one.camera!r}; {there}"
    if one.near is not None:
        there = f"{extent.placed or 'no'} picture(s) say where they were taken"
        place = f"{one.near.lat:g},{one.near.lon:g}"
        return f"was taken within {one.near.km:g} km of {place}; {there}"
    if one.min_width is not None:
        there = f"the widest has {extent.width}" if extent.width else "no picture is there"
        return f"is {one.min_width} pixels wide or more; {there}"
    if one.min_duration_s is not None:
        there = (
            f"the longest lasts {extent.longest_s:g} s" if extent.longest_s else "no sound is there"
        )
        return f"lasts {one.min_duration_s:g} s or more; {there}"
    if one.max_duration_s is not None:
        there = (
            f"the shortest lasts {extent.shortest_s:g} s"
            if extent.shortest_s
            else "no sound is there"
        )
        return f"lasts {one.max_duration_s:g} s or less; {there}"
    if one.tags:
        names = ", ".join(extent.tags[:NAMED_TAGS]) + (", ..." if extent.tags[NAMED_TAGS:] else "")
        there = f"there are {names}" if names else "`anyseek classify --write-tags` makes tags"
        return f"has the tag {' and the tag '.join(map(repr, one.tags))}; {there}"
    return f"has a name that ends with {' or '.join(one.suffixes)}"
