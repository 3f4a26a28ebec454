"""``anyseek prompts``, and the options of a search that say how its words are put."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from retrieval.errors import QueryError
from retrieval.prompts import AUTO, PromptSet
from retrieval.types import Modality

NameOption = Annotated[
    str,
    typer.Option(
        "--prompt",
        metavar="NAME",
        help="Prompt set that the query is put through; `anyseek prompts` lists them.",
    ),
]
TemplateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="TEXT",
        help="Template of your own instead, with {query} in it; may be repeated.",
        show_default=False,
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--prompt-file", metavar="FILE", help="TOML file with more prompt sets.", show_default=False
    ),
]
WeighOption = Annotated[
    bool,
    typer.Option("--weigh-templates", help="Weigh the templates by what they find in the index."),
]
CacheOption = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        envvar="ANYSEEK_CACHE",
        help="Keep the query's vectors, so that it is answered faster next time.",
    ),
]


class Listing(StrEnum):
    """How prompt sets are written."""

    TABLE = "table"
    JSON = "json"


def asked(name: str, templates: Sequence[str], file: Path | None) -> PromptSet | None:
    """Finds the prompt set that the options ask for; ``None`` for the choice by the query.

    Raises:
        QueryError: If they mean nothing.
    """
    from retrieval.prompts import resolve

    return resolve(name, templates=templates, file=file, user=user_file())


def user_file() -> Path:
    """Names the file with a person's own prompt sets, which may be absent."""
    from platformdirs import user_config_path

    return user_config_path("anyseek", appauthor=False) / "prompts.toml"


def cache_folder() -> Path:
    """Names the folder for the vectors of queries."""
    from platformdirs import user_cache_path

    return user_cache_path("anyseek", appauthor=False)


def preload(
    queries: Sequence[str], kinds: Sequence[Modality], prompt: PromptSet | None, cache: Path | None
) -> None:
    """Starts to load the tokenizer beside the imports to come, unless the cache has the query."""
    from retrieval.towers import use

    if cache is not None:
        from retrieval.cache import TextCache
        from retrieval.models import model
        from retrieval.prompts import fitting

        texts = list(
            dict.fromkeys(
                fitting(words, target, prompt).render(words)[0]
                for words in (" ".join(query.split()) for query in queries)
                for target in kinds or Modality
            )
        )
        spec = model()  # which most indexes are made with; a wrong guess costs a tenth of a second
        # one is enough: which kinds the index holds, and so which sets it needs, is not known yet
        if any(row is not None for row in TextCache(cache, spec.space, spec.dim).get(texts)):
            return
    use.preload()


# ---- the command ---------------------------------------------------------------------------------


def show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Show this set's templates.", show_default=False),
    ] = None,
    prompt_file: FileOption = None,
    format: Annotated[
        Listing, typer.Option("--format", help="A table, or a JSON object per line.")
    ] = Listing.TABLE,
) -> None:
    """List the prompt sets, or show one as it would stand in a file of your own."""
    from retrieval.prompts import known, resolve

    user = user_file()
    if name is None:
        sets = list(known(user if user.exists() else None, prompt_file).values())
    else:
        found = resolve(name, file=prompt_file, user=user)
        if found is None:
            raise QueryError(
                f"{AUTO} is no set of its own: it takes [name] for queries of one or two words, "
                "and [plain] for longer ones"
            )
        sets = [found]
    if format is Listing.JSON:
        for one in sets:
            print(json.dumps(_fields(one), ensure_ascii=True))
    elif name is not None:
        for one in sets:
            print(_toml(one))
    elif sys.stdout.isatty():
        _table(sets)
    else:
        for one in sets:
            print("\t".join(_row(one)))


def _fields(one: PromptSet) -> dict[str, object]:
    return {
        "name": one.name,
        "about": one.about,
        "modalities": [str(modality) for modality in one.modalities],
        "templates": list(one.templates),
        "languages": {name: list(templates) for name, templates in one.languages.items()},
        "repeat": one.repeat,
        "source": one.source,
    }


def _row(one: PromptSet) -> tuple[str, ...]:
    from cli.render import printable

    counts = [str(len(one.templates))]
    counts += [f"{name} {len(templates)}" for name, templates in one.languages.items()]
    columns = (one.name, ", ".join(one.modalities), ", ".join(counts), one.about, one.source)
    return tuple(printable(column) for column in columns)


def _table(sets: Sequence[PromptSet]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "for", "templates", "about", "from"):
        table.add_column(heading, overflow="fold")
    for one in sets:
        table.add_row(*(Text(column) for column in _row(one)))
    Console().print(table)


def _toml(one: PromptSet) -> str:
    """Writes a set so that `retrieval.prompts.parse` reads the same one."""
    name = one.name if re.fullmatch(r"[\w-]+", one.name, re.ASCII) else _string(one.name)
    lines = [f"[{name}]", f"about = {_string(one.about)}"]
    if len(one.modalities) < len(Modality):
        lines.append(f"modalities = [{', '.join(map(_string, one.modalities))}]")
    if one.repeat != 1:
        lines.append(f"repeat = {one.repeat}")
    first = "templates.en" if one.languages else "templates"
    for key, templates in (
        (first, one.templates),
        *((f"templates.{name}", listed) for name, listed in one.languages.items()),
    ):
        lines += [f"{key} = [", *(f"    {_string(text)}," for text in templates), "]"]
    return "\n".join(lines)


def _string(text: str) -> str:
    """Writes a string of TOML; what does not show as it is, is escaped."""
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in json.dumps(text, ensure_ascii=False)
    )
