"""The grammar of a query: shell words in, a tree of weighted terms out.

::

    query    all ("OR" all)*           any of these
    all      blend ("AND" blend)*      all of these
    blend    operand (("+" | "-") operand)*
    operand  term | "(" query ")"
    term     [weight ":"] (words with <concepts> in them | path)

An operator is a shell word of its own. ``AND`` and ``OR`` in capitals also count as words within a
longer one, where ``+``, ``-`` and parentheses are text. Nothing here opens a file or an index.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from retrieval.errors import QueryError
from retrieval.terms import EMPTY, Kind, Term, Token, concept_name, short, spelled, tokens

__all__ = [
    "AllOf",
    "AnyOf",
    "Blend",
    "Kind",
    "Query",
    "Term",
    "concept_name",
    "parse",
    "terms_of",
    "with_options",
    "written",
]

MAX_TERMS = 32  # each is embedded, and a sum of more says nothing
MAX_DEPTH = 8  # parentheses within parentheses


@dataclass(frozen=True, slots=True)
class Blend:
    """Terms joined by ``+`` and ``-``: one thing looked for.

    Attributes:
        terms: At least one with a positive weight.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        """Checks that there is something to look for.

        Raises:
            QueryError: If every term looks away.
        """
        if all(term.weight < 0 for term in self.terms):
            raise QueryError(
                "a query needs something to look for, not only what to leave out; "
                'write that first, as in "dog" - "people"'
            )


@dataclass(frozen=True, slots=True)
class AllOf:
    """Queries that must all be answered, two or more; none of them is such itself."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Queries of which one must be answered, two or more; none of them is such itself."""

    parts: tuple[Query, ...]


Query: TypeAlias = Blend | AllOf | AnyOf


def parse(arguments: Sequence[str]) -> Query:
    """Reads what stands after ``anyseek search``.

    Args:
        arguments: One string per shell word. Neighbours that are words join to one term.

    Raises:
        QueryError: With what is wrong and how to write it, if it is no query.
    """
    return _limited(_Parser(tokens(arguments)).whole())


def with_options(query: Query, add: Sequence[str], exclude: Sequence[str]) -> Query:
    """Appends terms to every blend of a query, so that each of its alternatives is tilted alike.

    Args:
        query: What was asked.
        add: Of ``--add``; each is one term, with its weight if it has one in front.
        exclude: Of ``--not``; the same, to look away from.

    Raises:
        QueryError: If one of them is no single term.
    """
    terms = [term for text in add for term in _option(text, "--add")]
    terms += [_signed(term, -1) for text in exclude for term in _option(text, "--not")]
    return _limited(_extended(query, tuple(terms)))


def terms_of(query: Query) -> Iterator[Term]:
    """Gives every term, from left to right."""
    if isinstance(query, Blend):
        yield from query.terms
    else:
        for part in query.parts:
            yield from terms_of(part)


def written(query: Query) -> str:
    """Writes a query in one way for a shell: ``parse(shlex.split(written(query))) == query``.

    This holds for every query that ``parse`` and ``with_options`` give.
    """
    return shlex.join(_written(query))


class _Parser:
    def __init__(self, found: Sequence[Token]) -> None:
        self._tokens = found
        self._next = 0
        self._depth = 0

    def whole(self) -> Query:
        if not self._tokens:
            raise QueryError(EMPTY)
        query = self._any()
        if self._peek() == ")":
            raise QueryError("a ) closes nothing; write a ( before it, or leave it out")
        self._must_end()
        return query

    def _peek(self) -> Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _must_end(self) -> None:
        if (left := self._peek()) is not None:
            raise QueryError(
                f"before {_named(left)} an operator is missing: + - AND or OR, as a word of its own"
            )

    def _any(self) -> Query:
        parts = [self._all()]
        while self._peek() == "OR":
            self._next += 1
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else AnyOf(_flat(AnyOf, parts))

    def _all(self) -> Query:
        parts = [self._blend()]
        while self._peek() == "AND":
            self._next += 1
            parts.append(self._blend())
        return parts[0] if len(parts) == 1 else AllOf(_flat(AllOf, parts))

    def _blend(self) -> Query:
        if self._peek() == "-":
            raise QueryError(
                "before a - something to look for is missing; "
                'write that first, as in "dog" - "people"'
            )
        first = self._operand()
        if self._peek() not in ("+", "-"):
            return first
        terms = list(_summed(first))
        while (operator := self._peek()) in ("+", "-"):
            self._next += 1
            sign = 1 if operator == "+" else -1
            terms += [_signed(term, sign) for term in _summed(self._operand())]
        return Blend(tuple(terms))

    def _operand(self) -> Query:
        token = self._peek()
        if isinstance(token, tuple):
            self._next += 1
            return Blend(token)
        if token == "(":
            return self._group()
        before = f"after {_named(self._tokens[self._next - 1])}" if self._next else "in front"
        advice = (
            f"; to look for that word, write it in small letters: {token.lower()}"
            if token in ("AND", "OR")
            else ""
        )
        raise QueryError(f"{before} something to look for is missing{advice}")

    def _group(self) -> Query:
        self._next += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise QueryError(f"parentheses go {MAX_DEPTH} deep at most; write fewer of them")
        query = self._any()
        if self._peek() is None:
            raise QueryError("a ( is not closed; write a ) where it ends, as a word of its own")
        if self._peek() != ")":
            self._must_end()
        self._next += 1
        self._depth -= 1
        return query


def _flat(kind: type[AllOf | AnyOf], parts: Sequence[Query]) -> tuple[Query, ...]:
    """Takes in the parts of parts of the same kind: parentheses around them change nothing."""
    return tuple(
        one
        for part in parts
        for one in (part.parts if isinstance(part, kind) else (part,))  # flat themselves
    )


def _named(token: Token) -> str:
    return token if isinstance(token, str) else short(spelled(token[0]))


def _summed(query: Query) -> tuple[Term, ...]:
    if not isinstance(query, Blend):
        raise QueryError(
            "+ and - cannot join what has AND or OR in it; write + and - inside the parentheses, "
            "or AND in place of +"
        )
    return query.terms


def _signed(term: Term, sign: int) -> Term:
    return Term(term.kind, term.value, sign * term.weight)


def _option(text: str, option: str) -> tuple[Term, ...]:
    found = tokens((text,))
    if len(found) != 1 or isinstance(found[0], str):
        raise QueryError(f"{option} takes one thing at a time, not {short(text)}; repeat it")
    return found[0]


def _extended(query: Query, terms: tuple[Term, ...]) -> Query:
    if isinstance(query, Blend):
        return Blend(query.terms + terms)
    return type(query)(tuple(_extended(part, terms) for part in query.parts))


def _limited(query: Query) -> Query:
    count = sum(1 for _ in terms_of(query))
    if count > MAX_TERMS:
        raise QueryError(f"a query has {MAX_TERMS} terms at most, not {count}; leave some out")
    return query


def _written(query: Query) -> Iterator[str]:
    if isinstance(query, Blend):
        terms = query.terms
        if terms[0].weight < 0:  # only where no `parse` made it: nothing begins with a -
            terms = tuple(sorted(terms, key=lambda term: term.weight < 0))
        for index, term in enumerate(terms):
            if index:
                yield "-" if term.weight < 0 else "+"
            yield spelled(term)
        return
    for index, part in enumerate(query.parts):
        if index:
            yield "AND" if isinstance(query, AllOf) else "OR"
        bare = isinstance(part, Blend) or (isinstance(query, AnyOf) and isinstance(part, AllOf))
        yield from _written(part) if bare else ("(", *_written(part), ")")
