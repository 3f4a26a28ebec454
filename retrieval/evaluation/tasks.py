"""What a model is measured on: a person's own data, read into questions with right answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.evaluation import task_files
from retrieval.evaluation.metrics import Floats, Ints
from retrieval.evaluation.task_files import NAMED, Line, shown
from retrieval.media import modality_of
from retrieval.types import Modality

KINDS = ("captions.tsv", "captions.json", "pairs.tsv", "queries.tsv", "qrels")


@dataclass(frozen=True, slots=True)
class Thing:
    """What is asked with, or what is to be found: a file, or words.

    Attributes:
        name: What it is called in results: the file's name as it was given, or the words.
        modality: Of the file; words are text.
        path: Of the file; ``None`` for words.
    """

    name: str
    modality: Modality
    path: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Questions over one collection, with what is right for each.

    Attributes:
        name: Such as ``text to image``.
        queries: What is asked.
        items: What is searched, all of it for every query.
        query: ``(m,)`` numbers of queries, ascending: row ``i`` says that for query ``query[i]``
            item ``item[i]`` is right. Every query has at least one row, and no pair comes twice.
        item: ``(m,)`` numbers of items.
        grade: ``(m,)`` how right, above 0.
        groups: ``(queries,)`` from 0 on: queries of one group ask for the same thing, and are drawn
            together where it is told how sure a figure is.
    """

    name: str
    queries: tuple[Thing, ...]
    items: tuple[Thing, ...]
    query: Ints
    item: Ints
    grade: Floats
    groups: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Files of some classes.

    Attributes:
        name: Such as ``image classes``.
        classes: Their names in words, in the order of the folders' names.
        items: The files.
        truth: ``(items,)`` number of each file's class.
    """

    name: str
    classes: tuple[str, ...]
    items: tuple[Thing, ...]
    truth: Ints


@dataclass(slots=True)
class Found:
    """What was read.

    Attributes:
        tasks: In the order of ``KINDS``, or those of the classes.
        missing: Names of files that the data speak of and that are not there; left out.
        remarks: What else was left out, in words.
    """

    tasks: list[Task | Labelled] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def read(
    data: Path, *, files: Path | None = None, split: str | None = None, skip_missing: bool = False
) -> Found:
    """Reads what a folder or a file holds to measure on.

    A folder may hold ``captions.tsv`` or ``captions.json`` (files and what they show),
    ``pairs.tsv`` (a picture and a sound that belong together), ``queries.tsv`` (words, a file and
    how right it is), or ``qrels.txt`` with ``topics.tsv`` or ``topics.txt`` (the same as TREC
    writes it); all that are there count. Without any of them, each folder in it is a class that is
    called as the folder is.

    Args:
        data: The folder, or one of these files under any name that begins or ends alike.
        files: Folder that names of files start from; the folder of the data by default.
        split: Only lines whose column ``split`` says this.
        skip_missing: Go on without files that are not there and classes that are empty.

    Raises:
        EvaluationError: If nothing can be measured on it.
    """
    sources = list(_sources(data))
    found = Found()
    for kind, path in sources:
        base = files or path.parent
        if kind == "captions.json":
            _captions(task_files.captions_json(path), base, found)
        elif kind == "captions.tsv":
            _captions(task_files.captions_tsv(path, split), base, found)
        elif kind == "pairs.tsv":
            _pairs(task_files.pairs_tsv(path, split), base, found)
        elif kind == "queries.tsv":
            _queries(task_files.queries_tsv(path, split), base, found)
        else:
            _queries(task_files.trec(path), base, found)
    if not sources:
        _classes(data, found, skip_missing=skip_missing)
    if found.missing and not skip_missing:
        named = ", ".join(shown(name) for name in found.missing[:NAMED])
        more = f" and {len(found.missing) - NAMED} more" if len(found.missing) > NAMED else ""
        raise EvaluationError(
            f"{len(found.missing)} file(s) that {data} speaks of are not there: {named}{more}; "
            "name their folder with --files, or go on without them with --skip-missing"
        )
    if not found.tasks:
        raise EvaluationError(f"nothing is left to measure on in {data}; see what was left out")
    return found


def _sources(data: Path) -> Iterator[tuple[str, Path]]:
    if not data.exists():
        raise EvaluationError(f"there is no file or folder at {data}")
    if data.is_dir():
        for kind in KINDS[:-1]:
            if (data / kind).is_file():
                yield kind, data / kind
        for path in sorted(data.glob("qrels*")):
            if path.is_file():
                yield "qrels", path
        return
    name = data.name.lower()
    if name.endswith(".json"):
        yield "captions.json", data
    elif "qrels" in name:
        yield "qrels", data
    else:
        yield next((kind for kind in KINDS if kind.split(".")[0] in name), "captions.tsv"), data


# ---- tasks of lines ------------------------------------------------------------------------------


class _Collection:
    """Files that were named, each once, in the order of their first mention."""

    def __init__(self, base: Path, found: Found) -> None:
        self._base, self._found = base, found
        self._known: dict[str, Thing | None] = {}

    def get(self, line: Line, name: str) -> Thing | None:
        """Gives a file by its name; ``None`` if it is not there, which is noted once."""
        if name not in self._known:
            self._known[name] = self._thing(line, name)
        return self._known[name]

    def _thing(self, line: Line, name: str) -> Thing | None:
        clean = os.path.normpath(name)
        if Path(name).is_absolute() or Path(clean).parts[:1] == ("..",) or "\0" in name:
            raise EvaluationError(
                f"{line.where}: {shown(name)} lies outside {self._base}; write names that start "
                "from there, or name another folder with --files"
            )
        modality = modality_of(clean)
        if modality is None:
            raise EvaluationError(
                f"{line.where}: {shown(name)} is no kind of file that anyseek reads"
            )
        path = self._base / clean
        if not os.path.isfile(path):  # noqa: PTH113 (false for names that no file can have, too)
            self._found.missing.append(name)
            return None
        return Thing(clean, modality, path)


def _captions(lines: Sequence[Line], base: Path, found: Found) -> None:
    collection = _Collection(base, found)
    said: dict[Modality, dict[Thing, dict[str, None]]] = {}
    for line in lines:
        thing = collection.get(line, line.file)
        if thing is None:
            continue
        if thing.modality is Modality.TEXT:
            raise EvaluationError(
                f"{line.where}: {shown(line.file)} is a text; captions are of pictures and sounds"
            )
        said.setdefault(thing.modality, {}).setdefault(thing, {})[line.words] = None
    for modality in (Modality.IMAGE, Modality.AUDIO):
        items = said.get(modality)
        if items is None:
            continue
        things = tuple(items)
        pairs = [(at, words) for at, thing in enumerate(things) for words in items[thing]]
        texts = tuple(Thing(words, Modality.TEXT) for _, words in pairs)
        owner = np.array([at for at, _ in pairs], np.int64)
        number = np.arange(len(texts))
        ones = np.ones(len(texts))
        found.tasks.append(Task(f"text to {modality}", texts, things, number, owner, ones, owner))
        found.tasks.append(
            Task(f"{modality} to text", things, texts, owner, number, ones, np.arange(len(things)))
        )


def _pairs(lines: Sequence[Line], base: Path, found: Found) -> None:
    collection = _Collection(base, found)
    pairs: dict[tuple[Thing, Thing], None] = {}
    for line in lines:
        one, other = collection.get(line, line.words), collection.get(line, line.file)
        if one is None or other is None:
            continue
        kinds = {one.modality, other.modality}
        if kinds != {Modality.IMAGE, Modality.AUDIO}:
            raise EvaluationError(f"{line.where}: a pair is a picture and a sound, in any order")
        pairs[(one, other) if one.modality is Modality.IMAGE else (other, one)] = None
    if not pairs:
        return
    images = {thing: None for thing, _ in pairs}
    sounds = {thing: None for _, thing in pairs}
    for name, sources, targets, way in (
        ("image to audio", tuple(images), tuple(sounds), 0),
        ("audio to image", tuple(sounds), tuple(images), 1),
    ):
        rows = {(pair[way], pair[1 - way]): 1.0 for pair in pairs}
        found.tasks.append(_graded(name, sources, targets, rows))


def _queries(lines: Sequence[Line], base: Path, found: Found) -> None:
    collection = _Collection(base, found)
    grades: dict[tuple[Thing, Thing], float] = {}
    judged: dict[Thing, None] = {}
    for line in lines:
        thing = collection.get(line, line.file)
        if thing is None:
            continue
        judged[thing] = None
        key = (Thing(line.words, Modality.TEXT), thing)
        if grades.setdefault(key, line.grade) != line.grade:
            raise EvaluationError(
                f"{line.where}: {shown(line.file)} has two grades for the query "
                f"{shown(line.words)}; keep one of them"
            )
    kinds = {thing.modality for thing in judged}
    listed = {thing.path: thing for thing in judged}
    items = [
        listed.get(path, Thing(os.fspath(path.relative_to(base)), modality, path))
        for path, modality in _walk(base)
        if modality in kinds
    ]
    rows = {key: grade for key, grade in grades.items() if grade > 0}
    queries = tuple(dict.fromkeys(query for query, _ in rows))
    without = len({query for query, _ in grades}) - len(queries)
    if without:
        found.remarks.append(f"{without} queries have no right file; they are left out")
    if rows:
        name = "text to " + " and ".join(kind for kind in Modality if kind in kinds)
        found.tasks.append(_graded(name, queries, tuple(items), rows))


def _graded(
    name: str,
    queries: tuple[Thing, ...],
    items: tuple[Thing, ...],
    rows: dict[tuple[Thing, Thing], float],
) -> Task:
    of_query = {thing: at for at, thing in enumerate(queries)}
    of_item = {thing: at for at, thing in enumerate(items)}
    entries = sorted((of_query[one], of_item[other], grade) for (one, other), grade in rows.items())
    query, item, grade = zip(*entries, strict=True)
    return Task(
        name,
        queries,
        items,
        np.array(query, np.int64),
        np.array(item, np.int64),
        np.array(grade, np.float64),
        np.arange(len(queries)),
    )


# ---- folders -------------------------------------------------------------------------------------


def _walk(folder: Path) -> Iterator[tuple[Path, Modality]]:
    """Lists the files below a folder that are of a kind, folder by folder.

    Links to folders are not followed, and what is hidden does not count.
    """
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            modality = modality_of(name)
            path = Path(where, name)
            if modality is not None and not name.startswith(".") and path.is_file():
                yield path, modality


def _classes(data: Path, found: Found, *, skip_missing: bool) -> None:
    folders = sorted(
        path for path in data.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    by_name: dict[str, Path] = {}
    members: dict[Modality, list[tuple[str, Thing]]] = {}
    for folder in folders:
        name = " ".join(folder.name.replace("_", " ").replace("-", " ").split())
        other = by_name.setdefault(name.casefold(), folder)
        if other is not folder:
            raise EvaluationError(
                f"the folders {shown(other.name)} and {shown(folder.name)} in {data} name the same "
                f"class, {shown(name)}; join or rename them"
            )
        files = [
            Thing(os.fspath(path.relative_to(data)), modality, path)
            for path, modality in _walk(folder)
        ]
        if not files:
            if not skip_missing:
                raise EvaluationError(
                    f"the class {shown(folder.name)} in {data} is empty; put files into the folder "
                    "or remove it, or go on without it with --skip-missing"
                )
            found.remarks.append(f"the class {shown(folder.name)} is empty; it is left out")
        for thing in files:
            members.setdefault(thing.modality, []).append((name, thing))
    if not members:
        raise EvaluationError(
            f"there is nothing to measure on in {data}: it needs {', '.join(KINDS[:-1])}, "
            "qrels.txt, or a folder of files for each class"
        )
    for modality in Modality:
        rows = members.get(modality, [])
        names = tuple(dict.fromkeys(name for name, _ in rows))
        if len(names) == 1:
            message = (
                f"{data} has {modality} files of one class alone, {shown(names[0])}, which can be "
                "told from nothing; add a folder for each class"
            )
            if len(members) == 1:
                raise EvaluationError(message)
            found.remarks.append(message)
        elif names:
            truth = np.array([names.index(name) for name, _ in rows], np.int64)
            things = tuple(thing for _, thing in rows)
            found.tasks.append(Labelled(f"{modality} classes", names, things, truth))
