"""Prompt sets: templates that say to the text tower what kind of thing is looked for."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.errors import QueryError
from retrieval.types import Modality

SLOT = "{query}"
AUTO = "auto"  # the name that stands for `choose`
BUNDLED = "bundled"  # where the sets of the package say that they come from
NOUN_WORDS = 2  # a query of at most so many words is taken for a name, not a sentence
MOST_REPEATS = 5  # more only blur what is said
LARGEST_FILE = 1_000_000  # bytes; the bundled file has 8,000

SCRIPTS = {
    "ja": "\u3040-\u30ff",  # kana first: Japanese has Han characters, too
    "ko": "\u1100-\u11ff\uac00-\ud7af",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff",
    "th": "\u0e00-\u0e7f",
    "ar": "\u0600-\u06ff",
    "ru": "\u0400-\u04ff",
}
"""Languages that a query's script tells, and their characters as ranges of a regular expression.

One character decides: a name in Latin letters is common in all of these, the other way round rare.
"""
LATIN = "en"  # stands for every other query
LANGUAGES = (LATIN, *SCRIPTS)
KEYS = {"about", "modalities", "repeat", "templates"}


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A named list of templates.

    Attributes:
        name: What it is called.
        about: What it is for, in a few words.
        templates: Each with ``{query}`` exactly once; for queries in a language without its own.
        modalities: What it is for.
        languages: Other templates, for queries in one of ``SCRIPTS``.
        repeat: How many times the query stands in place of ``{query}``, with spaces between.
        source: ``bundled``, or the file that it was read from.
    """

    name: str
    about: str
    templates: tuple[str, ...]
    modalities: tuple[Modality, ...] = tuple(Modality)
    languages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repeat: int = 1
    source: str = field(default="", compare=False)

    def render(self, query: str, *, like: str | None = None) -> list[str]:
        """Puts the query into every template for its language, literally.

        Args:
            query: Words.
            like: Other words, whose language counts instead.
        """
        templates = self.languages.get(language(query if like is None else like), self.templates)
        words = " ".join([query] * self.repeat)
        return [template.replace(SLOT, words) for template in templates]


def language(query: str) -> str:
    """Tells the language of a query by its script: one of ``LANGUAGES``."""
    for name, characters in SCRIPTS.items():
        if re.search(f"[{characters}]", query):
            return name
    return LATIN


# ---- reading -------------------------------------------------------------------------------------


def parse(text: str, source: str) -> dict[str, PromptSet]:
    """Reads prompt sets from TOML.

    Args:
        text: One table per set, with ``templates`` (a list, or a list per language) and optionally
            ``about``, ``modalities`` and ``repeat``.
        source: Named in errors, and in the sets.

    Raises:
        QueryError: If it is no TOML, or a set has unknown keys, languages or modalities, an empty
            list, or a template without exactly one ``{query}``; the file and the set are named.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise QueryError(f"{source} is not TOML: {error}") from error
    return {name: _checked(name, table, source) for name, table in tables.items()}


def read(path: Path) -> dict[str, PromptSet]:
    """Reads prompt sets from a file; see ``parse``.

    Raises:
        QueryError: If the file cannot be read, is no text, or holds a malformed set.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise QueryError(f"{path} is no file of prompt sets: it has over {LARGEST_FILE} bytes")
        return parse(content.decode("utf-8"), str(path))
    except OSError as error:
        raise QueryError(
            f"cannot read the prompt sets in {path}: {error.strerror}; name another file"
        ) from error
    except UnicodeDecodeError as error:
        raise QueryError(f"{path} is not TOML: it is not UTF-8") from error


def _checked(name: str, table: object, source: str) -> PromptSet:
    where = f"prompt set [{name}] in {source}"
    if name == AUTO:
        raise QueryError(f"{where} needs another name: {AUTO} stands for the choice by the query")
    if not isinstance(table, Mapping):
        raise QueryError(f"{where} must be a table with templates = [...]")
    if unknown := sorted(set(table) - KEYS):
        raise QueryError(f"{where} has the unknown key {unknown[0]!r}")
    about = table.get("about", "")
    if not isinstance(about, str):
        raise QueryError(f"{where}: about must be a string")
    repeat = table.get("repeat", 1)
    if type(repeat) is not int or not 1 <= repeat <= MOST_REPEATS:  # true is an int, too
        raise QueryError(f"{where}: repeat must be a number from 1 to {MOST_REPEATS}")
    modalities = _modalities(table, where)
    templates = table.get("templates")
    if not isinstance(templates, Mapping):
        listed = _templates(templates, where)
        return PromptSet(name, about, listed, modalities, repeat=repeat, source=source)
    if unknown := sorted(set(templates) - set(LANGUAGES)):
        known = ", ".join(LANGUAGES)
        raise QueryError(f"{where} has the unknown language {unknown[0]!r}; there are {known}")
    languages = {one: _templates(listed, f"{where}, {one}") for one, listed in templates.items()}
    if not languages:
        raise QueryError(f"{where} needs a list of templates with at least one in it")
    main = LATIN if LATIN in languages else next(iter(languages))
    others = {one: listed for one, listed in languages.items() if one != main}
    return PromptSet(name, about, languages[main], modalities, others, repeat, source)


def _templates(listed: object, where: str) -> tuple[str, ...]:
    if not isinstance(listed, list) or not listed:
        raise QueryError(f"{where} needs a list of templates with at least one in it")
    for template in listed:
        if not isinstance(template, str) or template.count(SLOT) != 1:
            raise QueryError(f"{where}: the template {template!r} must have {SLOT} exactly once")
    return tuple(listed)


def _modalities(table: Mapping[str, object], where: str) -> tuple[Modality, ...]:
    names = table.get("modalities", list(Modality))
    if not isinstance(names, list) or not names:
        raise QueryError(f"{where}: modalities must be a list with at least one in it")
    known = [str(modality) for modality in Modality]
    for name in names:
        if name not in known:
            raise QueryError(
                f"{where} has the unknown modality {name!r}; there are {', '.join(known)}"
            )
    return tuple(modality for modality in Modality if modality in names)


@functools.cache
def bundled() -> Mapping[str, PromptSet]:
    """Gives the sets that come with the package, by name."""
    path = Path(__file__).with_name("prompts.toml")
    return parse(path.read_text("utf-8"), BUNDLED)


# ---- choosing ------------------------------------------------------------------------------------


def known(*files: Path | None) -> dict[str, PromptSet]:
    """Gives the bundled sets and those of files, by name; a later one replaces an earlier one.

    Raises:
        QueryError: If a file cannot be read or is malformed.
    """
    sets = dict(bundled())
    for file in files:
        if file is not None:
            sets.update(read(file))
    return sets


def resolve(
    name: str = AUTO,
    *,
    templates: Sequence[str] = (),
    file: Path | None = None,
    user: Path | None = None,
) -> PromptSet | None:
    """Finds the prompt set that a person asked for; ``None`` where ``choose`` is to pick one.

    Args:
        name: Of a set, or ``auto``.
        templates: Used instead of a set; each with ``{query}`` exactly once.
        file: With sets that replace others of the same name. If it holds only one, that one is
            meant where ``name`` is ``auto``.
        user: The person's own file of sets, which may be absent. It is read only if a set is
            asked for by name, so a mistake in it does not stop every search.

    Raises:
        QueryError: If there is no set of that name, a template is malformed, a file cannot be
            used, or what is asked for contradicts itself.
    """
    if templates:
        if name != AUTO or file is not None:
            raise QueryError("templates replace the prompt set; give the ones or name the other")
        return PromptSet("template", "as given", _templates(list(templates), "the query"))
    if name == AUTO:
        if file is None:
            return None
        sets = read(file)
        if len(sets) != 1:
            listed = ": " + ", ".join(sets) if sets else ""
            raise QueryError(f"{file} holds {len(sets)} prompt sets{listed}; say which one to use")
        return next(iter(sets.values()))
    sets = known(user if user is not None and user.exists() else None, file)
    if name not in sets:
        import difflib

        near = difflib.get_close_matches(name, sets, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise QueryError(
            f"there is no prompt set {name!r}; {hint}`anyseek prompts` lists them: "
            + ", ".join([AUTO, *sets])
        )
    return sets[name]


def fitting(
    query: str, target: Modality, given: PromptSet | None, *, plain: bool = False
) -> PromptSet:
    """Gives the set that was asked for where it is for the modality, else what ``choose`` picks.

    Args:
        query: Words.
        target: Modality that is searched.
        given: The set that was asked for.
        plain: Whether words are left as they are in place of a choice, see ``types.Encoder``.
    """
    if given is not None and target in given.modalities:
        return given
    return bundled()["plain"] if plain else choose(query, target)


def choose(query: str, target: Modality) -> PromptSet:
    """Picks the set for a query: names of one or two words are said twice, all else is left alone.

    Measured with the bundled model (``tests/benchmarks/prompts.py`` has all figures). A name said
    twice is found better than a bare one, in pictures, texts and sounds alike, which is why the
    modality does not decide: mean average precision of 64 nouns over 1,000 pictures 42.3 instead of
    39.7 %, of the same in Chinese 35.3 instead of 34.1 %, over captions 60.1 instead of 58.3 %; of
    257 names of photographic stamps 23.3 instead of 22.0 %. Longer queries lose by it, as whole
    captions do by any template.

    Templates ("a photo of ...") help to tell which of many names a picture has: 278 of these stamps
    are named with 15.8 % instead of 14.7 %. But finding pictures by a name is another thing, and
    there they cost 2.3 points on the 64 nouns. So they are for those who ask for them.

    All languages are treated alike, since a language that is put otherwise than another agrees less
    with it in what it finds.
    """
    return bundled()["name" if _is_name(query) else "plain"]


def _is_name(query: str) -> bool:
    """Tells a name from a sentence by its length; two Han characters or kana count as a word."""
    dense = sum("\u3040" <= character <= "\u9fff" for character in query)
    spaced = "".join(" " if "\u3040" <= character <= "\u9fff" else character for character in query)
    return len(spaced.split()) + dense / 2 <= NOUN_WORDS
