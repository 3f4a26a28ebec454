"""Labels: the names of classes that files are told apart by, each with what to look for."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import QueryError
from retrieval.filters import tag_name
from retrieval.prompts import LATIN
from retrieval.types import Modality

LARGEST_FILE = 1_000_000  # bytes: twenty thousand labels, more than a model tells apart
FEWEST = 2


@dataclass(frozen=True, slots=True)
class Label:
    """A class.

    Attributes:
        name: As it is shown, and stored as a tag.
        wordings: What is looked for; at least one.
    """

    name: str
    wordings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels that exclude each other.

    Attributes:
        name: What the set is called; ``labels`` for those of an option or a file.
        labels: At least two.
        about: What it is for, in a few words.
        modalities: What it is for.
        prompt: Name of the prompt set that the wordings are put through, if it is a certain one.
        languages: Languages in which the set is there.
    """

    name: str
    labels: tuple[Label, ...]
    about: str = ""
    modalities: tuple[Modality, ...] = tuple(Modality)
    prompt: str | None = None
    languages: tuple[str, ...] = ()


def typed(text: str) -> LabelSet:
    """Reads labels with commas between them.

    Raises:
        QueryError: If there are fewer than two, or one is empty or there twice.
    """
    return LabelSet("labels", checked([_label([part]) for part in text.split(",")], "--labels"))


def read(path: Path) -> LabelSet:
    r"""Reads labels from a text file in UTF-8.

    A line holds a label, and after tabs other wordings that mean the same, which are looked for
    instead of it: ``pet\ta dog\ta cat``. Empty lines and those that begin with ``#`` say nothing.

    Raises:
        QueryError: If the file cannot be read or is no such text, or as in ``typed``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise QueryError(
            f"cannot read the labels in {path}: {error.strerror}; name another file"
        ) from error
    if len(content) > LARGEST_FILE:
        raise QueryError(f"{path} is no file of labels: it has over {LARGEST_FILE} bytes")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise QueryError(f"{path} is not UTF-8; save it so, with a label on each line") from error
    said = [line for line in lines if line.strip() and not line.startswith("#")]
    return LabelSet("labels", checked([_label(line.split("\t")) for line in said], str(path)))


def _label(parts: Sequence[str]) -> Label:
    try:
        name, *wordings = [tag_name(part) for part in parts]
    except QueryError:
        raise QueryError(
            f"a label is empty, too long or cannot be shown: {' '.join(parts)[:60]!r}"
        ) from None
    return Label(name, tuple(dict.fromkeys(wordings)) or (name,))


def checked(labels: Sequence[Label], where: str) -> tuple[Label, ...]:
    """Makes sure that labels tell something apart.

    Raises:
        QueryError: If there are fewer than two, or one is there twice.
    """
    if not labels:
        raise QueryError(f"{where} holds no labels; give at least two")
    if len(labels) < FEWEST:
        raise QueryError(
            f"{where} holds one label, {labels[0].name!r}, which tells nothing apart; "
            "give at least two, such as 'other' beside it"
        )
    seen: set[str] = set()
    for label in labels:
        if label.name.casefold() in seen:
            raise QueryError(f"{where} holds the label {label.name!r} twice; leave one out")
        seen.add(label.name.casefold())
    return tuple(labels)


# ---- the sets of the package ---------------------------------------------------------------------


@functools.cache
def _tables() -> Mapping[str, Mapping[str, object]]:
    return tomllib.loads(Path(__file__).with_name("labels.toml").read_text("utf-8"))


def names() -> tuple[str, ...]:
    """Names the sets that come with the package."""
    return tuple(_tables())


def bundled(name: str, language: str = LATIN) -> LabelSet:
    """Gives a set that comes with the package.

    Args:
        name: Of the set.
        language: Of its labels.

    Raises:
        QueryError: If there is no such set, or not in this language.
    """
    if name not in _tables():
        raise QueryError(
            f"there is no label set {name!r}; `anyseek classify --list-sets` lists them: "
            + ", ".join(names())
        )
    table = _tables()[name]
    languages = table["labels"]
    assert isinstance(languages, Mapping)
    if language not in languages:
        raise QueryError(
            f"the label set {name!r} is not there in {language!r}; there are {', '.join(languages)}"
        )
    kinds = table.get("modalities", list(Modality))
    assert isinstance(kinds, list)
    prompt = table.get("prompt")
    return LabelSet(
        name,
        checked([_label([one, *more]) for one, more in languages[language].items()], name),
        about=str(table["about"]),
        modalities=tuple(modality for modality in Modality if modality in kinds),
        prompt=None if prompt is None else str(prompt),
        languages=tuple(languages),
    )
