"""``anyseek concept``: teach the index things by example, and look for them by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from cli.options import IndexOption, ModelOption, index_path
from retrieval.errors import QueryError

if TYPE_CHECKING:
    from retrieval.store import Concept, Space, Store

app = typer.Typer(
    help='Teach the index things by example, for queries like "<rex> on the beach".',
    no_args_is_help=True,
)

NEAREST = 3  # items of each kind that `show` names: enough to see whether it was understood


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"


NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Letters of any script, digits, - and _; at most 64.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="Lines to read, or a JSON object per concept.")
]


class _ManyAfterNot(TyperCommand):
    """Lets ``--not`` take every word up to the next option, as a shell expands ``--not bad/*``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        spread: list[str] = []
        reaching = False
        for index, word in enumerate(args):
            if word == "--":
                spread += args[index:]
                break
            if word == "--not":
                reaching = True
                if not args[index + 1 : index + 2] or args[index + 1].startswith("-"):
                    ctx.fail("Option '--not' needs a file, as in --not ./other.jpg")
            elif word.startswith("-"):
                reaching = False
                spread.append(word)
            else:
                spread += ["--not", word] if reaching else [word]
        return super().parse_args(ctx, spread)


@app.callback()
def _group() -> None:
    """Teach the index things by example, for queries like "<rex> on the beach"."""


@app.command(cls=_ManyAfterNot)
def add(
    name: NameArgument,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Examples: pictures, sounds or texts, indexed or not.",
            show_default=False,
        ),
    ],
    other: Annotated[
        list[Path] | None,
        typer.Option(
            "--not",
            metavar="FILE...",
            help="What is not meant: look-alikes. Takes every file up to the next option.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a concept of the same name.")
    ] = False,
    model: ModelOption = None,
    index: IndexOption = None,
) -> None:
    """Learn the concept NAME from a few examples: three to ten do well."""
    print(learned(name, files, other or (), index=index, force=force, model=model))


def learned(
    name: str,
    files: Sequence[Path],
    other: Sequence[Path],
    *,
    index: Path | None,
    force: bool = False,
    model: str | None = None,
) -> str:
    """Makes a concept and stores it; gives what to say of it."""
    from cli import render
    from indexer.lock import exclusive
    from retrieval.concepts import made
    from retrieval.examples import example
    from retrieval.media import modality_of
    from retrieval.query import concept_name
    from retrieval.spaces import space_for
    from retrieval.store import Store

    name = concept_name(name)
    path = _existing(index)
    kinds = [kind for file in (*files, *other) if (kind := modality_of(str(file))) is not None]
    with Store(path) as store:  # learning may take a while, and keeps no one from writing
        spec, space = space_for(store, model, kinds=kinds)
        _refuse_to_replace(store, space, name, force=force)
        encoder = spec.load()
        concept = made(
            store,
            space,
            name,
            [example(store, space, encoder, file) for file in files],
            [example(store, space, encoder, file) for file in other],
        )
    with (
        exclusive(path, on_wait=lambda: render.remark(f"waiting for another process on {path}")),
        Store(path, write=True) as store,
    ):
        _refuse_to_replace(store, space, name, force=force)
        store.put_concept(concept, space)
    return f"learned <{name}> from {_counts(concept)}"


@app.command("list")
def list_(format: FormatOption = Format.TABLE, index: IndexOption = None) -> None:
    """List the concepts of the index."""
    from cli import render
    from retrieval.store import Store

    with Store(_existing(index)) as store:
        concepts = [
            (concept, space) for space in store.spaces() for concept in store.concepts(space)
        ]
    for concept, space in concepts:
        if format is Format.JSON:
            _print_json(_fields(concept, space))
        else:
            print(f"{concept.name}\t{_counts(concept)}\t{_when(concept)}")
    if not concepts:
        render.remark("there are no concepts yet; make one with `anyseek concept add NAME FILE...`")


@app.command()
def show(
    name: NameArgument,
    format: FormatOption = Format.TABLE,
    model: ModelOption = None,
    index: IndexOption = None,
) -> None:
    """Show what a concept was learned from, and what else is nearest to it now."""
    from cli import render
    from retrieval.concepts import find, nearest
    from retrieval.query import concept_name
    from retrieval.spaces import space_of_concept
    from retrieval.store import Store

    name = concept_name(name)
    with Store(_existing(index)) as store:
        space = space_of_concept(store, name, model)
        concept = find(store, space, name)
        near = nearest(store, space, concept.vector, k=NEAREST, without=concept.positives)
    if format is Format.JSON:
        fields = _fields(concept, space)
        fields["nearest"] = [
            {"path": os.fsdecode(path), "modality": modality.value, "score": round(score, 6)}
            for modality, found in near.items()
            for path, score in found
        ]
        _print_json(fields)
        return
    lines = [f"concept    {concept.name}", f"learned    {_when(concept)}"]
    lines += [f"space      {space.name}"]
    lines += [f"like       {_file(path)}" for path in concept.positives]
    lines += [f"not        {_file(path)}" for path in concept.negatives]
    for modality, found in near.items():
        lines += [f"{f'near {modality.value}':<10} {render.shown(path)}" for path, _ in found]
    print("\n".join(lines))


@app.command()
def remove(name: NameArgument, model: ModelOption = None, index: IndexOption = None) -> None:
    """Forget a concept; files and their vectors stay."""
    from cli import render
    from indexer.lock import exclusive
    from retrieval.concepts import find
    from retrieval.query import concept_name
    from retrieval.spaces import space_of_concept
    from retrieval.store import Store

    name = concept_name(name)
    path = _existing(index)
    with (
        exclusive(path, on_wait=lambda: render.remark(f"waiting for another process on {path}")),
        Store(path, write=True) as store,
    ):
        space = space_of_concept(store, name, model)
        find(store, space, name)
        store.remove_concept(name, space)
    print(f"forgot <{name}>")


def _existing(option: Path | None) -> Path:
    """Gives the index file, and makes sure that it is there: only `anyseek index` makes one."""
    from retrieval.errors import IndexMissingError

    path = index_path(option)
    if not path.exists():
        raise IndexMissingError(
            f"there is no index at {path} yet; make one with `anyseek index FOLDER`"
        )
    return path


def check_new(name: str, index: Path | None) -> None:
    """Checks that a concept of a name can be made.

    Raises:
        QueryError: If it is no name, or there is one already.
    """
    from retrieval.query import concept_name
    from retrieval.search import usable_space
    from retrieval.store import Store

    with Store(_existing(index)) as store:
        _, space = usable_space(store)
        _refuse_to_replace(store, space, concept_name(name), force=False)


def _refuse_to_replace(store: Store, space: Space, name: str, *, force: bool) -> None:
    if not force and any(concept.name == name for concept in store.concepts(space)):
        raise QueryError(f"there is a concept {name} already; replace it with --force")


def _counts(concept: Concept) -> str:
    some, others = len(concept.positives), len(concept.negatives)
    text = f"{some} example" + ("s" if some != 1 else "")
    return f"{text}, {others} of what it is not" if others else text


def _when(concept: Concept) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(concept.created_s, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _file(path: bytes) -> str:
    from cli import render

    gone = "" if os.path.exists(path) else " (gone)"  # noqa: PTH110 (bytes)
    return render.shown(path) + gone


def _fields(concept: Concept, space: Space) -> dict[str, object]:
    return {
        "name": concept.name,
        "space": space.name,
        "created_s": concept.created_s,
        "positives": [os.fsdecode(path) for path in concept.positives],
        "negatives": [os.fsdecode(path) for path in concept.negatives],
    }


def _print_json(fields: dict[str, object]) -> None:
    import json

    print(json.dumps(fields))  # in ASCII, for paths that are not text
