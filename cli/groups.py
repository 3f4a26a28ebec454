"""``anyseek groups``: what an index holds, in groups of like files."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import IndexOption, UnderOption, index_path
from retrieval.errors import QueryError, StorageError
from retrieval.types import Modality

EXAMPLES = 3  # files of a group that the table names


class In(StrEnum):
    """Which files are grouped: one kind, since kinds would only fall apart from each other."""

    IMAGE = "image"
    AUDIO = "audio"
    TEXT = "text"


class Format(StrEnum):
    """How groups are written."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Named:
    """A group: its words, and its files, the most typical first."""

    words: tuple[str, ...]
    paths: tuple[bytes, ...]


def groups(
    n: Annotated[
        int | None,
        typer.Option("-n", help="How many groups; by the number of files if not given."),
    ] = None,
    under: UnderOption = None,
    kind: Annotated[In, typer.Option("--in", help="Which kind of files.")] = In.IMAGE,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="A page with small pictures.", show_default=False
        ),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="A table, or a JSON object per group.")
    ] = Format.TABLE,
    index: IndexOption = None,
) -> None:
    """Sort files into groups of their like, each named by plain words."""
    from cli import render

    modality = Modality(kind.value)
    if html is not None:
        _check_page(html)
    found = _grouped(index_path(index), n, under, modality)
    for number, group in enumerate(found, start=1):
        if format is Format.JSON:
            paths = [os.fsdecode(path) for path in group.paths]
            print(json.dumps({"group": number, "words": group.words, "paths": paths}))
        else:
            examples = ", ".join(
                render.shown(os.path.basename(path))  # noqa: PTH119 (bytes)
                for path in group.paths[:EXAMPLES]
            )
            more = ", …" if len(group.paths) > EXAMPLES else ""
            words = ", ".join(group.words)
            print("\t".join((str(number), str(len(group.paths)), words, examples + more)))
    if html is not None:
        _write_page(html, modality, found)


def _grouped(path: Path, n: int | None, under: Path | None, modality: Modality) -> list[Named]:
    import numpy as np

    from cli import render
    from retrieval import clusters
    from retrieval.filters import Filters
    from retrieval.search import usable_space
    from retrieval.store import Store
    from retrieval.vocabulary import heard, vocabulary

    filters = Filters(under=None if under is None else os.fsencode(os.path.realpath(under)))
    with Store(path) as store:
        spec, space = usable_space(store)
        entries = {entry.id: entry.path for entry in store.entries(modality, filters)}
        ids, rows = store.means(list(entries), space)
    if not len(ids):
        where = "the index" if under is None else str(under)
        raise QueryError(f"there is no {modality} in {where} to be grouped; see `anyseek status`")
    if n is None:
        n = clusters.suggested(len(ids))
        render.remark(f"{n} groups, by the root of half of {len(ids)} files; -n takes a number")
    found = clusters.clustered(rows, n)
    encoder = spec.load()
    words = clusters.named(
        found,
        *vocabulary(encoder.space, encoder.towers[Modality.TEXT]),
        without=() if modality is Modality.AUDIO else heard(),
    )
    made = []
    for number, its_words in enumerate(words):
        members = np.flatnonzero(found.of == number)
        members = members[np.argsort(-found.nearness[members], kind="stable")]
        if len(members):
            made.append(Named(its_words, tuple(entries[int(ids[at])] for at in members)))
    return made


def _check_page(path: Path) -> None:
    """Makes sure that a page may be written: over an earlier one, but over nothing else."""
    from retrieval.contact_sheet import MARK

    if path.is_dir():
        raise QueryError(f"{path} is a folder; --html takes the path of a file")
    if not path.parent.is_dir():
        raise QueryError(f"there is no folder {path.parent} to write {path.name} into")
    if os.path.lexists(path):
        try:
            with path.open("rb") as file:
                ours = MARK.encode() in file.read(1_000)
        except OSError:
            ours = False
        if not ours:
            raise QueryError(f"{path} is there and no page of groups; name another file")


def _write_page(path: Path, modality: Modality, found: list[Named]) -> None:
    from retrieval.contact_sheet import Section, page

    sections = [
        Section(f"{number}. {', '.join(group.words)}", modality, group.paths)
        for number, group in enumerate(found, start=1)
    ]
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.writelines(page(sections))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; name another place with --html"
        ) from error
