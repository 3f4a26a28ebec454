"""The commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import check, concept, exchange, learn, prompts, searching
from cli.options import IndexOption, index_path
from retrieval.errors import AnyseekError, QueryError

app = typer.Typer(
    name="anyseek",
    help="Find your own pictures, sounds and texts by prompt, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(concept.app, name="concept")
app.add_typer(learn.app, name="learn")
app.command("check")(check.check)
app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("merge")(exchange.merge)
app.command("prompts")(prompts.show)
app.command("search")(searching.search)
app.command("similar")(searching.similar)

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # what a shell gives for Ctrl-C


def main() -> None:
    """Runs the command line: exit code 0 done, 1 our error, 2 wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in other scripts than its own
    try:
        app()
    except AnyseekError as error:
        from cli import render

        render.remark(str(error))
        sys.exit(EXIT_ERROR)
    except BrokenPipeError:  # `anyseek search ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"anyseek {version('anyseek')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Find your own pictures, sounds and texts by prompt, offline."""


@app.command()
def index(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Folders or files.", show_default=False),
    ],
    index: IndexOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Model to embed with: one that `anyseek models` lists, or a folder with a model.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; one per core by default.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Parts embedded at once.")
    ] = 4,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any file could not be used.")
    ] = False,
) -> None:
    """Index folders: new and changed files are embedded, vanished ones forgotten."""
    from cli import render
    from indexer.lock import exclusive
    from indexer.pipeline import index as run
    from indexer.scan import roots_of
    from retrieval.models import model as find
    from retrieval.store import Store

    for path in paths:
        if not os.path.lexists(path):
            raise QueryError(f"there is no file or folder at {path}")
    target = index_path(index)
    spec = find(model)
    with (
        exclusive(
            target,
            on_wait=lambda: render.remark(
                f"another `anyseek index` is writing to {target}; waiting until it is done"
            ),
        ),
        Store(target, write=True) as store,
        render.progress() as progress,
    ):
        report = run(
            store,
            spec.load(),
            roots_of(paths),
            workers=workers,
            batch_size=batch_size,
            progress=progress,
        )
    render.report(report)
    if report.interrupted:
        render.remark("interrupted; what is committed is kept: run the same command to go on")
        raise typer.Exit(EXIT_INTERRUPTED)
    if strict and report.failed:
        raise typer.Exit(EXIT_ERROR)


@app.command()
def status(index: IndexOption = None) -> None:
    """Show what the index holds, and how to go on."""
    from cli import render
    from retrieval.index import device
    from retrieval.store import Store

    path = index_path(index)
    with Store(path) as store:
        render.status(path, store.summary(), device())


@app.command()
def models() -> None:
    """List the models that can be loaded."""
    from cli import render
    from retrieval.models import models as rows

    render.models(rows())
