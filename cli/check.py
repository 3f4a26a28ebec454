"""``anyseek check``: whether an index agrees with itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.alone import alone, remark_on_writer
from cli.options import IndexOption, index_path
from retrieval.errors import IndexMissingError

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval.check import Checked

EXIT_FOUND = 1


def check(
    full: Annotated[
        bool, typer.Option("--full", help="Compare every vector of the derived files, not some.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Take out what is broken, make anew what can be made."),
    ] = False,
    index: IndexOption = None,
) -> None:
    """Look for damage in the index and its derived files; exits with 1 if there is any."""
    path = index_path(index)
    if not path.exists():
        raise IndexMissingError(
            f"there is no index at {path} yet; make one with `anyseek index FOLDER`"
        )
    if not repair:
        remark_on_writer(path, "is checked")
    found = _mended(path, full) if repair else _checked(path, full)
    for finding in found.findings:
        print(finding)
    if found.findings:
        raise typer.Exit(EXIT_FOUND)
    whole = found.faults
    print(
        f"all is well: {whole.all_items} items, {whole.all_vectors} vectors, "
        f"{found.compared} of them compared in {found.files} derived file(s)"
    )


def _checked(path: Path, full: bool) -> Checked:
    from cli import render
    from retrieval.check import check as look

    with render.steps("checking") as progress:
        return look(path, full=full, progress=progress)


def _mended(path: Path, full: bool) -> Checked:
    """Repairs what a check finds, says so, and gives what a second check finds."""
    from retrieval.check import repair as mend

    with alone(path):
        found = _checked(path, full)
        if not found.findings:
            return found
        mend(path, found)
        again = _checked(path, full)
    left = {finding.what for finding in again.findings}
    for finding in found.findings:
        if finding.what not in left:
            print(f"mended: {finding.what}")
    return again
