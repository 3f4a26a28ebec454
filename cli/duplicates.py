"""``anyseek duplicates``: files that are the same, and which of them to keep. Deletes nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Format, FormatOption, IndexOption, NullOption, UnderOption, index_path
from retrieval.types import Modality

if TYPE_CHECKING:
    from retrieval.duplicates import Group, Member
    from retrieval.store import Entry, Space, Store


class Tier(StrEnum):
    """See ``retrieval.duplicates.Tier``."""

    EXACT = "exact"
    NEAR = "near"
    SCENE = "scene"


class Keep(StrEnum):
    """See ``retrieval.duplicates.Keep``."""

    BEST = "best"
    NEWEST = "newest"
    LARGEST = "largest"


class In(StrEnum):
    """Which files are looked at."""

    IMAGE = "image"
    AUDIO = "audio"
    TEXT = "text"
    ALL = "all"


def duplicates(
    under: UnderOption = None,
    kind: Annotated[In, typer.Option("--in", help="Which kind of files.")] = In.ALL,
    tier: Annotated[
        Tier,
        typer.Option(
            help="The loosest that counts: the same bytes, the same picture, the same scene."
        ),
    ] = Tier.NEAR,
    keep: Annotated[
        Keep, typer.Option(help="Which file of a group to keep: best quality, newest, largest.")
    ] = Keep.BEST,
    format: FormatOption = Format.TABLE,
    null: NullOption = False,
    index: IndexOption = None,
) -> None:
    """Find files of the index that are the same; --format paths names those not kept."""
    from cli import render
    from retrieval.filters import Filters
    from retrieval.search import usable_space
    from retrieval.store import Store

    path = index_path(index)
    wanted = [*Modality] if kind is In.ALL else [Modality(kind.value)]
    filters = Filters(under=None if under is None else os.fsencode(os.path.realpath(under)))
    with Store(path) as store:
        _, space = usable_space(store)
        groups: list[Group] = []
        looked_at = changed = 0
        for modality in wanted:
            entries, gone = _present(store.entries(modality, filters))
            looked_at += len(entries)
            changed += gone
            groups += _groups(store, space, modality, entries, tier, keep)
    if changed:
        render.remark(
            f"left out {changed} files that changed or vanished since they were indexed; "
            "run `anyseek index` to take them in"
        )
    _write(groups, format, null=null)
    others = [member for group in groups for member in group.others]
    if not groups:
        render.remark(f"no duplicates among {looked_at} files")
    else:
        size = sum(member.entry.fingerprint.size for member in others)
        counts = ", ".join(
            f"{count} {name.value}"
            for name in Tier
            if (count := sum(member.tier.value == name.value for member in others))
        )
        render.remark(
            f"{len(groups)} groups among {looked_at} files; {len(others)} not kept ({counts}), "
            f"{size / 1e6:.1f} MB"
        )


def _present(entries: Sequence[Entry]) -> tuple[list[Entry], int]:
    """Leaves out what is not on the disk as the index has it, and second names of one file.

    A link beside its target is no duplicate: to remove either could lose both.
    """
    found: dict[tuple[int, int], Entry] = {}
    gone = 0
    for entry in entries:
        try:
            stat = os.stat(entry.path)  # noqa: PTH116 (bytes)
        except OSError:
            gone += 1
            continue
        fingerprint = entry.fingerprint
        if (stat.st_size, stat.st_mtime_ns) != (fingerprint.size, fingerprint.mtime_ns):
            gone += 1
            continue
        place = (stat.st_dev, stat.st_ino)
        if place not in found or os.path.islink(found[place].path):  # noqa: PTH114
            found[place] = entry
    return list(found.values()), gone


def _groups(
    store: Store,
    space: Space,
    modality: Modality,
    entries: Sequence[Entry],
    tier: Tier,
    keep: Keep,
) -> list[Group]:
    from retrieval import duplicates

    hashes, vectors, matrix = None, None, None
    if tier is not Tier.EXACT and modality is not Modality.TEXT and len(entries) > 1:
        if modality is Modality.IMAGE:
            from indexer.hashing import hashes as hashed

            hashes = hashed(store.path, entries)
        ids, matrix = store.means(sorted(entry.id for entry in entries), space)
        vectors = {item: row for row, item in enumerate(ids.tolist())}
    return duplicates.grouped(
        entries,
        modality,
        tier=duplicates.Tier(tier.value),
        keep=duplicates.Keep(keep.value),
        hashes=hashes,
        vectors=vectors,
        matrix=matrix,
    )


def _write(groups: Sequence[Group], format: Format, *, null: bool) -> None:
    from cli.render import shown

    if format is Format.PATHS:
        sys.stdout.flush()
        end = b"\0" if null else b"\n"
        for group in groups:
            for member in group.others:
                sys.stdout.buffer.write(member.entry.path + end)
        sys.stdout.buffer.flush()
        return
    for number, group in enumerate(groups, start=1):
        if format is Format.JSON:
            print(json.dumps(_fields(number, group)))  # in ASCII, for paths that are not text
            continue
        print("\t".join((str(number), "keep", "", _size(group.kept), shown(group.kept.path))))
        for member in group.others:
            entry = member.entry
            columns = (str(number), member.tier.value, _how(member), _size(entry))
            print("\t".join((*columns, shown(entry.path))))


def _how(member: Member) -> str:
    if member.tier.value == Tier.NEAR and member.bits is not None:
        return f"{member.bits} bits"
    return "" if member.cosine is None else f"{member.cosine:.2f}"


def _size(entry: Entry) -> str:
    if entry.width is not None and entry.height is not None:
        return f"{entry.width}x{entry.height}"
    return "" if entry.duration_s is None else f"{entry.duration_s:.1f} s"


def _fields(number: int, group: Group) -> dict[str, object]:
    return {
        "group": number,
        "modality": group.modality.value,
        "keep": _entry(group.kept),
        "others": [
            {
                **_entry(member.entry),
                "tier": member.tier.value,
                "bits": member.bits,
                "cosine": None if member.cosine is None else round(member.cosine, 4),
            }
            for member in group.others
        ],
    }


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "path": os.fsdecode(entry.path),
        "size": entry.fingerprint.size,
        "width": entry.width,
        "height": entry.height,
        "duration_s": entry.duration_s,
    }
