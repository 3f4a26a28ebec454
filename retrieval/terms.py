"""The words of a query: operators, and terms with their weights, paths and concepts."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from retrieval.errors import QueryError

MAX_WEIGHT = 1000.0
MAX_NAME = 64  # characters in the name of a concept
SHOWN = 40  # characters of a word that an error repeats

OPERATORS = frozenset(("+", "-", "AND", "OR", "(", ")"))
EMPTY = "the query is empty; say in words what you are looking for"

_CONNECTIVE = re.compile(r"(?<!\S)(AND|OR)(?!\S)")
# As in rclip, where "2:golden retriever" counts twice. A digit right after the colon of a whole
# number is no weight there: 12:30 is a time and 16:9 a shape; "2: 50 cent" has a weight.
_WEIGHT = re.compile(
    r"(?![0-9]+:[0-9])"
    r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|(?i:nan|inf|infinity)(?=:\S)):"
)
_SIGNED_WEIGHT = re.compile(r"[+-](?![0-9]+:[0-9])(?:[0-9]+\.?[0-9]*|\.[0-9]+):")
_PATH = re.compile(r"\.{0,2}/|~[\w.-]*(?:/|\Z)")
_FILE_URL = re.compile(r"file:(?=\S)", re.IGNORECASE)
_OTHER_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://|(?:https?|ftp):(?=\S)", re.IGNORECASE)
_CONCEPT = re.compile(r"<([^<>\s]+)>")
_MISNAMED = re.compile(r"(?<!\S)<([^<>\s][^<>]*)>(?!\S)")


class Kind(StrEnum):
    """What a term gives to look for."""

    WORDS = "words"
    FILE = "file"
    CONCEPT = "concept"


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that a query speaks of.

    Attributes:
        kind: How ``value`` is meant.
        value: Words with single spaces between them; a path that begins with ``/``, ``./`` or
            ``../``, as ``os.fsdecode`` gives it, a home folder put in; or a concept's name.
        weight: Finite, not 0, at most 1000 in size; negative to look away from it.
    """

    kind: Kind
    value: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Checks the weight.

        Raises:
            QueryError: If it means nothing.
        """
        if not 0 < abs(self.weight) <= MAX_WEIGHT:  # false for a NaN, too
            raise QueryError(
                f'a weight is above 0 and at most {MAX_WEIGHT:.0f}, as in "2:dog", '
                f"not {self.weight:g}"
            )


Token: TypeAlias = str | tuple[Term, ...]
"""An operator, or the terms that neighbouring words come to."""


def tokens(arguments: Sequence[str]) -> list[Token]:
    """Reads shell words; neighbours that are words join to one term.

    Raises:
        QueryError: If one of them is empty, or no operand.
    """
    found: list[Token] = []
    words: list[str] = []  # neighbours that have yet to be joined

    def join() -> None:
        if words:
            found.append(_operand(" ".join(words)))
            words.clear()

    for argument in arguments:
        for piece, is_operator in _pieces(argument):
            if is_operator:
                join()
                found.append(piece)
            elif _is_file(piece):
                join()
                found.append(_operand(piece))
            elif words and _begins_anew(piece):
                raise QueryError(f"before {short(piece)} a + is missing, as a word of its own")
            else:
                words.append(piece)
    join()
    return found


def spelled(term: Term) -> str:
    """Writes a term without its sign as one shell word, before quoting."""
    value = f"<{term.value}>" if term.kind is Kind.CONCEPT else term.value
    size = abs(float(term.weight))
    if size == 1 and value not in OPERATORS and not _CONNECTIVE.match(value):
        return value
    number = f"{size:.0f}" if size.is_integer() else repr(size)
    return f"{number}: {value}" if value[0].isdecimal() else f"{number}:{value}"


def concept_name(text: str) -> str:
    """Gives the name of a concept as it is stored, in Unicode's composed form.

    Raises:
        QueryError: If it cannot be one.
    """
    name = unicodedata.normalize("NFC", _text(text))
    if (
        not 0 < len(name) <= MAX_NAME
        or name.startswith("-")  # which a command line takes for an option
        or not all(_in_name(character) for character in name)
    ):
        raise QueryError(
            f"{short(text)} cannot be the name of a concept: names have letters, digits, - and _, "
            f"at most {MAX_NAME}, and begin with no -"
        )
    return name


def short(text: str) -> str:
    """Quotes a word for an error."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def _in_name(character: str) -> bool:
    # marks are part of letters in many scripts, as the vowels of Thai and Hindi are
    return character in "-_" or unicodedata.category(character)[0] in "LM" or character.isdecimal()


def _pieces(argument: str) -> Iterator[tuple[str, bool]]:
    """Splits a shell word at AND and OR, and says which pieces are operators.

    A path reaches to the end of its word.
    """
    rest = argument.lstrip()
    if not rest:
        raise QueryError(EMPTY)
    if rest.rstrip() in OPERATORS:
        yield rest.rstrip(), True
        return
    while rest:
        found = None if _is_file(rest) else _CONNECTIVE.search(rest)
        if found is None:
            yield rest, False
            return
        if before := rest[: found.start()].rstrip():
            yield before, False
        yield found[1], True
        rest = rest[found.end() :].lstrip()


def _is_file(piece: str) -> bool:
    weight = _WEIGHT.match(piece)
    rest = piece[weight.end() :].lstrip() if weight else piece
    return bool(_PATH.match(rest) or _FILE_URL.match(rest))


def _operand(text: str) -> tuple[Term, ...]:
    """Reads a weight, then a path, or words with concepts in them."""
    weight, rest = _weighted(text)
    if _OTHER_URL.match(rest):
        raise QueryError(
            f"{short(rest)} is not on this machine, and anyseek downloads nothing; "
            "save it and give its path, as in ./picture.jpg"
        )
    if _PATH.match(rest):
        return (Term(Kind.FILE, _rooted(os.path.expanduser(rest)), weight),)  # noqa: PTH111
    if url := _FILE_URL.match(rest):
        return (Term(Kind.FILE, _rooted(_from_url(rest[url.end() :])), weight),)
    return _words(_text(rest), weight)


def _weighted(text: str) -> tuple[float, str]:
    if _SIGNED_WEIGHT.match(text):
        raise QueryError(
            f"a sign is a word of its own, before the weight: write {text[0]} {short(text[1:])}"
        )
    found = _WEIGHT.match(text)
    if found is None:
        return 1.0, text
    rest = text[found.end() :].lstrip()
    if not rest:
        raise QueryError(f'nothing follows the weight {short(text)}; write it as in "2:dog"')
    if _WEIGHT.match(rest) or _SIGNED_WEIGHT.match(rest):
        raise QueryError(f"{short(text)} has two weights; leave one of them out")
    return float(found[1]), rest


def _words(text: str, weight: float) -> tuple[Term, ...]:
    names = [concept_name(found) for found in _CONCEPT.findall(text)]
    plain = " ".join(_CONCEPT.sub(" ", text).split())
    if misnamed := _MISNAMED.search(plain):
        concept_name(misnamed[1])  # says what a name is, since this one has a space in it
    concepts = tuple(Term(Kind.CONCEPT, name, weight) for name in names)
    if not plain and concepts:
        return concepts
    if not any(character.isprintable() and not character.isspace() for character in plain):
        raise QueryError(EMPTY)
    if names and (_begins_anew(plain) or _CONNECTIVE.search(plain)):
        raise QueryError(f"before {short(plain)} a + is missing, as a word of its own")
    return (*concepts, Term(Kind.WORDS, plain, weight))


def _begins_anew(plain: str) -> bool:
    """Tells whether words would be read as something else if they stood alone."""
    patterns = (_WEIGHT, _SIGNED_WEIGHT, _PATH, _FILE_URL, _OTHER_URL)
    return any(pattern.match(plain) for pattern in patterns)


def _rooted(path: str) -> str:
    """Gives a path as a term holds it: with what makes it a path in front."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raw = b""
    if not raw or b"\0" in raw:
        raise QueryError(f"{short(path)} cannot be the path of a file")
    return path if path.startswith(("/", "./", "../", "~")) else f"./{path}"


def _from_url(rest: str) -> str:
    """Decodes what follows ``file:`` to a path."""
    if rest.startswith("//"):
        host, slash, below = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise QueryError(f"{short(host)} in a file: URL is another machine; write file:///PATH")
        rest = slash + below
    try:
        path = os.fsdecode(unquote_to_bytes(os.fsencode(rest)))
    except UnicodeEncodeError:
        raise QueryError(f"{short(rest)} cannot be the path of a file") from None
    return f"./{path}" if path.startswith("~") else path  # no home folder is meant in a URL


def _text(argument: str) -> str:
    """Gives a shell word as text, whatever bytes were typed."""
    try:
        return os.fsencode(argument).decode("utf-8", "replace")
    except UnicodeEncodeError:
        return argument.encode("utf-8", "replace").decode("utf-8")
