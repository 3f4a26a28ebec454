"""The commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    check,
    classify,
    concept,
    duplicates,
    evaluate,
    exchange,
    groups,
    learn,
    models,
    prompts,
    searching,
)
from cli import tags as tagging
from cli.options import IndexOption, index_path
from cli.start import EXIT_INTERRUPTED
from retrieval.errors import AnyseekError, QueryError

app = typer.Typer(
    name="anyseek",
    help="Find your own pictures, sounds and texts by prompt, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("classify")(classify.classify)
app.add_typer(concept.app, name="concept")
app.command("duplicates")(duplicates.duplicates)
app.command("groups")(groups.groups)
app.add_typer(learn.app, name="learn")
app.add_typer(models.app, name="models")
app.command("evaluate")(evaluate.evaluate)
app.command("check")(check.check)
app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("merge")(exchange.merge)
app.command("prompts")(prompts.show)
app.command("search")(searching.search)
app.command("similar")(searching.similar)
app.command("tags")(tagging.tags)

EXIT_ERROR = 1


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
    except KeyboardInterrupt:  # in the moments that Typer does not watch over
        sys.exit(EXIT_INTERRUPTED)
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
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Folders or files.", show_default=False),
    ] = None,
    index: IndexOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Model to embed with, beside those that the index has: one that `anyseek models` "
            "lists, or a folder with a model; may be given again.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        list[str] | None,
        typer.Option(
            "--prune",
            metavar="NAME",
            help="Forget the vectors and concepts of this model or space first.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Prune without asking.")] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Where a model other than the bundled one runs: cpu, cuda, cuda:N or mps.",
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
    from cli import indexing, stopping

    if not paths and not prune:
        raise typer.BadParameter("name a folder or a file", param_hint="PATH...")
    for path in paths or ():
        if not os.path.lexists(path):
            raise QueryError(f"there is no file or folder at {path}")
    target = index_path(index)
    if prune:
        indexing.prune(target, prune, yes=yes)
    if paths:
        with stopping.stoppable(lambda: stopping.COMMITTED):
            reports = indexing.bring_up_to_date(
                target,
                paths,
                model or (),
                device=device,
                workers=workers,
                batch_size=batch_size,
            )
        if any(report.interrupted for report in reports):
            raise typer.Exit(EXIT_INTERRUPTED)
        if strict and any(report.failed for report in reports):
            raise typer.Exit(EXIT_ERROR)


@app.command()
def status(index: IndexOption = None) -> None:
    """Show what the index holds, and how to go on."""
    from cli import render
    from retrieval.index import device
    from retrieval.spaces import held
    from retrieval.store import Store

    path = index_path(index)
    with Store(path) as store:
        missing = {one.space.name: one.reason for one in held(store) if one.reason}
        render.status(path, store.summary(), device(), missing)
