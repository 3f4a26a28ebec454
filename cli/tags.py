"""``anyseek tags``: what `anyseek classify --write-tags` noted in the index."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import IndexOption, index_path
from retrieval.errors import QueryError


class Format(StrEnum):
    """How tags are written."""

    TABLE = "table"
    JSON = "json"


def tags(
    remove: Annotated[
        str | None,
        typer.Option(
            "--remove", metavar="NAME", help="Take this tag from all files.", show_default=False
        ),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="Lines to read, or a JSON object per tag.")
    ] = Format.TABLE,
    index: IndexOption = None,
) -> None:
    """List the tags of the index with the number of their files, or remove one."""
    import json

    from cli import render
    from retrieval.store import Store

    path = index_path(index)
    if remove is not None:
        from retrieval.filters import tag_name

        _remove(tag_name(remove), path)
        return
    with Store(path) as store:
        counts = store.tag_counts()
    for name, count in counts.items():
        if format is Format.JSON:
            print(json.dumps({"tag": name, "files": count}))
        else:
            print(f"{count}\t{render.printable(name)}")
    if not counts:
        render.remark("there are no tags yet; `anyseek classify PATH... --write-tags` makes some")


def _remove(name: str, path: Path) -> None:
    from cli import render
    from indexer.lock import exclusive
    from retrieval.store import Store

    with Store(path) as store:  # only `anyseek index` makes an index
        meant = [tag for tag in store.tag_counts() if tag.casefold() == name.casefold()]
    if not meant:
        raise QueryError(f"there is no tag {name!r}; `anyseek tags` lists them")
    with (
        exclusive(path, on_wait=lambda: render.remark(f"waiting for another process on {path}")),
        Store(path, write=True) as store,
    ):
        count = sum(map(store.remove_tag, meant))
    print(f"took {render.printable(name)} from {count} file{'s' if count != 1 else ''}")
