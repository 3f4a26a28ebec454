"""``anyseek export``, ``import`` and ``merge``: embeddings move in and out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.alone import alone, remark_on_writer
from cli.options import IndexOption, index_path
from cli.stopping import COMMITTED, stoppable
from retrieval.errors import ExchangeError

NAMED_UNREAD = 10  # files; more are counted


class Layout(StrEnum):
    """How vectors are written."""

    PARQUET = "parquet"
    NPY = "npy"


class Floats(StrEnum):
    """What numbers vectors are written as."""

    HALF = "float16"
    SINGLE = "float32"


class Side(StrEnum):
    """Which of two indexes."""

    A = "A"
    B = "B"


def export(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder for the files.", show_default=False)
    ],
    format: Annotated[
        Layout,
        typer.Option("--format", help="A Parquet file per space, or an array and lines of JSON."),
    ] = Layout.PARQUET,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="NAME",
            help="Only this space; all by default; may be repeated.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Floats, typer.Option("--dtype", help="float16 is what the index holds, to the bit.")
    ] = Floats.HALF,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of the same names.")
    ] = False,
    index: IndexOption = None,
) -> None:
    """Write the index's vectors to files, with paths, places, dates and all else it knows."""
    from cli import render
    from retrieval.exchange.leaving import leave
    from retrieval.store import Store

    with Store(index_path(index)) as store, render.steps("exporting") as progress:
        left = leave(
            store,
            out,
            format=format.value,
            spaces=space or (),
            dtype=dtype.value,
            force=force,
            progress=progress,
        )
    for one in left:
        files = ", ".join(render.printable(str(file)) for file in one.files)
        print(f"{one.count} vectors of {render.printable(one.space)} to {files}")


def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="What `anyseek export` wrote, or the output folder of clip-retrieval.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Model that made the vectors, as in `anyseek index`.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="NAME",
            help="The space instead, of a model that is not here: then only `similar` works.",
            show_default=False,
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            "--dim",
            min=1,
            metavar="N",
            help="Length of its vectors, with --space.",
            show_default=False,
        ),
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Scale vectors to length 1.")
    ] = False,
    no_hash: Annotated[
        bool, typer.Option("--no-hash", help="Do not read the files that the paths name.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="FOLDER",
            help="Where relative paths begin; the current folder by default.",
            show_default=False,
        ),
    ] = None,
    index: IndexOption = None,
) -> None:
    """Take in embeddings that were made elsewhere, as if their files had been indexed."""
    if model is not None and space is not None:
        raise typer.BadParameter("--model and --space exclude each other: a model has one space")
    if dim is not None and space is None:
        raise typer.BadParameter("--dim belongs to --space")
    from cli import render
    from retrieval.exchange import choosing
    from retrieval.exchange.bringing import bring
    from retrieval.index import seal
    from retrieval.store import Store

    found = choosing.sources(path, (root or Path.cwd()).absolute())
    target, chosen = choosing.target(found, model=model, space=space, dim=dim)
    place = index_path(index)
    with (
        stoppable(lambda: COMMITTED),
        alone(place),
        Store(place, write=True) as store,
    ):
        with render.steps("importing") as progress:
            done = bring(
                store, chosen, target, normalise=normalise, read=not no_hash, progress=progress
            )
        own = next(one for one in store.spaces() if one.name == target.space)
        for modality in store.modalities(own):
            seal(store, own, modality)
    for file, reason in done.unread[:NAMED_UNREAD]:
        render.remark(f"{render.shown(file)} {reason}; its vector is in")
    if len(done.unread) > NAMED_UNREAD:
        render.remark(f"and {len(done.unread) - NAMED_UNREAD} more that could not be read")
    if done.missing:
        render.remark(f"{done.missing} file(s) are not there; their vectors are in all the same")
    if done.changed:
        render.remark(
            f"{done.changed} file(s) are not what was embedded; the next `anyseek index` of their "
            "folder embeds them"
        )
    print(
        f"{done.added} added, {done.updated} updated, {done.unchanged} unchanged in {target.space}"
    )


def merge(
    a: Annotated[Path, typer.Argument(metavar="A", help="An index file.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="OUT", help="A new index file for both.", show_default=False
        ),
    ] = None,
    into: Annotated[
        bool, typer.Option("--into", help="Take B into A instead, which changes A.")
    ] = False,
    prefer: Annotated[
        Side | None,
        typer.Option(
            "--prefer",
            case_sensitive=False,
            help="Whose concepts win where both have one of a name.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Join two indexes of the same spaces: where both have a path, the newer file wins."""
    if (out is None) != into:
        raise typer.BadParameter("name the new index with -o OUT, or change A with --into")
    from cli import render
    from retrieval.errors import IndexMissingError
    from retrieval.exchange.merging import merge as join

    for index in (a, b):
        if not index.exists():
            raise IndexMissingError(f"there is no index at {index}; name two index files")
    target = out or a
    if out is not None and out.exists():
        raise ExchangeError(f"{out} is there already; choose another place")
    with stoppable(lambda: _after_stop(a, b, out)), alone(target):
        for index in (a, b):
            if not (target.exists() and target.samefile(index)):
                remark_on_writer(index, "is joined")
        done = join(a, b, out, prefer=None if prefer is None else prefer.value)
    print(
        f"{done.added} added from B, {done.replaced} newer in B, {done.kept} in both kept, "
        f"{done.concepts} concept(s) from B, in {render.printable(str(target))}"
    )


def _after_stop(a: Path, b: Path, out: Path | None) -> str:
    """Says what a merge that was stopped left."""
    if out is None:
        return f"{a} has taken in all of {b} or nothing of it: run the same command to be sure"
    if out.exists():  # all that is missing are derived files
        return f"{out} is whole; `anyseek index` makes searches in it fast"
    return f"{out} was not made: run the same command again"
