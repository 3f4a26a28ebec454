"""The commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import io
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import learn
from retrieval.errors import AnyseekError, QueryError
from retrieval.types import Modality

if TYPE_CHECKING:
    from cli.explain import Note

app = typer.Typer(
    name="anyseek",
    help="Find your own pictures, sounds and texts by prompt, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(learn.app, name="learn")

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # what a shell gives for Ctrl-C


class In(StrEnum):
    """Which modality to search."""

    IMAGE = "image"
    TEXT = "text"
    AUDIO = "audio"
    ALL = "all"
    EACH = "each"


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    PATHS = "paths"


IndexOption = Annotated[
    Path | None,
    typer.Option(
        "--index",
        metavar="FILE",
        envvar="ANYSEEK_INDEX",
        help="The index file; the platform's user data folder by default.",
        show_default=False,
    ),
]
CountOption = Annotated[int, typer.Option("-k", help="How many hits at most.")]
UnderOption = Annotated[
    Path | None,
    typer.Option(
        "--under", metavar="PATH", help="Only files at or below this path.", show_default=False
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option("--format", help="A table, a JSON object per line, or bare paths."),
]
RelevanceOption = Annotated[
    float, typer.Option("--min-relevance", help="Only hits with at least this relevance, 0 to 1.")
]
NullOption = Annotated[
    bool,
    typer.Option("--null", "-0", help="With --format paths: end paths with NUL, for xargs -0."),
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Say below each hit why it is one.")]
ExplainDirOption = Annotated[
    Path | None,
    typer.Option(
        "--explain-dir",
        metavar="DIR",
        help="The same, with a heat map of each picture as a PNG in this folder.",
        show_default=False,
    ),
]


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
def search(
    query: Annotated[str, typer.Argument(help="What to look for, in words.", show_default=False)],
    k: CountOption = 10,
    kind: Annotated[
        In,
        typer.Option("--in", help="What to search; `each` gives every kind a ranking of its own."),
    ] = In.ALL,
    under: UnderOption = None,
    format: FormatOption = Format.TABLE,
    min_relevance: RelevanceOption = 0.0,
    null: NullOption = False,
    explain: ExplainOption = False,
    explain_dir: ExplainDirOption = None,
    index: IndexOption = None,
) -> None:
    """Find files by words, in any of sixteen languages."""
    from retrieval.towers.use import preload

    preload()  # while the imports below take their time
    from cli import render
    from retrieval.search import Searcher, Wanted
    from retrieval.store import Store

    wanted = Wanted(k, _modalities(kind), _under(under), min_relevance, each=kind is In.EACH)
    with Store(index_path(index)) as store:
        searcher = Searcher(store)
        hits = searcher.by_text(_text(query), wanted)
        notes: list[Note] = []
        if explain or explain_dir:
            from cli.explain import notes as explained
            from cli.explain import words_asked

            notes = explained(
                store,
                searcher,
                hits,
                asked=words_asked(searcher, _text(query)),
                source=Modality.TEXT,
                folder=explain_dir,
            )
    render.hits(hits, format, searcher.remarks, null=null, notes=notes)


@app.command()
def similar(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A picture, a sound or a text.", show_default=False),
    ],
    k: CountOption = 10,
    kind: Annotated[
        In | None,
        typer.Option(
            "--in",
            help="What to search; the file's own kind by default.",
            show_default=False,
        ),
    ] = None,
    under: UnderOption = None,
    format: FormatOption = Format.TABLE,
    min_relevance: RelevanceOption = 0.0,
    null: NullOption = False,
    explain: ExplainOption = False,
    explain_dir: ExplainDirOption = None,
    index: IndexOption = None,
) -> None:
    """Find files like FILE, which need not be indexed; FILE itself is left out."""
    from cli import render
    from retrieval.search import Searcher, Wanted
    from retrieval.store import Store

    if not file.exists():
        raise QueryError(f"there is no file at {file}")
    kinds = tuple(Modality) if kind in (In.ALL, In.EACH) else _modalities(kind or In.ALL)
    wanted = Wanted(k, kinds, _under(under), min_relevance, each=kind is In.EACH)
    with Store(index_path(index)) as store:
        searcher = Searcher(store)
        hits = searcher.by_example(file, wanted)
        notes: list[Note] = []
        if explain or explain_dir:
            from cli.explain import notes as explained
            from retrieval.explain import Piece

            source, vector = searcher.example(file)
            piece = Piece.example(_text(str(file)), vector)
            notes = explained(
                store,
                searcher,
                hits,
                asked=lambda _: [piece],
                source=source,
                folder=explain_dir,
            )
    render.hits(hits, format, searcher.remarks, null=null, notes=notes)


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


def index_path(option: Path | None) -> Path:
    """Gives the index file: the option or environment variable, else the platform's place."""
    if option is not None:
        return option.absolute()
    from platformdirs import user_data_path

    return user_data_path("anyseek", appauthor=False) / "index.db"


def _modalities(kind: In) -> tuple[Modality, ...]:
    return () if kind in (In.ALL, In.EACH) else (Modality(kind.value),)


def _text(argument: str) -> str:
    """Gives an argument as text, whatever bytes were typed."""
    return os.fsencode(argument).decode("utf-8", "replace")


def _under(path: Path | None) -> bytes | None:
    return None if path is None else os.fsencode(os.path.realpath(path))
