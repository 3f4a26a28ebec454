"""Lines of the files that say what is right: captions, pairs, queries, and TREC's judgements.

All are text in UTF-8. Whatever cannot be meant is an error that names the file and the line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import EvaluationError

LARGEST_FILE = 256 << 20  # bytes; the captions of all of COCO are a third of this
LONGEST = 60  # characters of something foreign that an error shows
NAMED = 5  # missing files that an error names; more are counted

FILE = ("file", "filename", "file_name", "path", "image", "picture", "photo", "audio", "sound")
WORDS = ("caption", "text", "sentence", "words", "description")
QUERY = ("query", "question", *WORDS)
GRADE = ("grade", "relevance", "score", "rel")
IMAGE, SOUND = ("image", "picture", "photo"), ("audio", "sound")


@dataclass(frozen=True, slots=True)
class Line:
    """One statement: these words, or this other file, belong to this file.

    Attributes:
        where: File and line, for errors.
        words: A caption or a query; of a pair, the name of the first file.
        file: Name of the file.
        grade: How right the file is; 0 is wrong.
    """

    where: str
    words: str
    file: str
    grade: float = 1.0


def shown(text: str) -> str:
    """Quotes something foreign in one short line."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return repr(short)


def text_of(path: Path) -> str:
    """Reads a file of text.

    Raises:
        EvaluationError: If it cannot be read, is empty or too large, or is in another encoding.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}; name another file") from error
    if len(data) > LARGEST_FILE:
        raise EvaluationError(f"{path} is larger than {LARGEST_FILE >> 20} MiB; split it")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4096]:
        raise EvaluationError(f"{path} is in UTF-16, or no text; save it in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise EvaluationError(
            f"{path} is not in UTF-8: line {line} has the byte {data[error.start]:#04x}, as in "
            "Latin-1 or another older encoding; save it in UTF-8"
        ) from error
    if not text.strip():
        raise EvaluationError(f"{path} is empty; it needs a line for every answer")
    return text


# ---- tables --------------------------------------------------------------------------------------


def captions_tsv(path: Path, split: str | None) -> list[Line]:
    """Reads ``file<TAB>caption``, or columns of a header that names them, in any order."""
    rows = _table(path, (FILE, WORDS), split, least=2)
    return [Line(where, words, file) for where, (file, words) in rows]


def pairs_tsv(path: Path, split: str | None) -> list[Line]:
    """Reads ``picture<TAB>sound``; the first stands in ``words``."""
    rows = _table(path, (IMAGE, SOUND), split, least=2)
    return [Line(where, one, other) for where, (one, other) in rows]


def queries_tsv(path: Path, split: str | None) -> list[Line]:
    """Reads ``query<TAB>file``, and a grade in a third column if there is one."""
    rows = _table(path, (QUERY, FILE, GRADE), split, least=2)
    return [
        Line(where, words, file, _grade(where, grades[0]) if grades else 1.0)
        for where, (words, file, *grades) in rows
    ]


def _table(
    path: Path, columns: Sequence[Sequence[str]], split: str | None, *, least: int
) -> Iterator[tuple[str, list[str]]]:
    """Gives the wanted cells of every line that is not blank, and where it stands."""
    lines = [
        (f"{path}, line {number}", [cell.strip() for cell in line.split("\t")])
        for number, line in enumerate(text_of(path).split("\n"), start=1)
        if line.strip()
    ]
    places, header = _places(lines[0][1], columns, least)
    if header is None:
        if split is not None:
            raise EvaluationError(
                f"{path} has no column split; its first line must name the columns for --split"
            )
        widths = (least, len(columns))
    else:
        lines = lines[1:]
    if split is not None and header is not None:
        if "split" not in header:
            raise EvaluationError(f"{path} has no column split, which --split needs")
        at = header.index("split")
        seen = {cells[at] for _, cells in lines if len(cells) > at}
        lines = [one for one in lines if len(one[1]) > at and one[1][at] == split]
        if not lines:
            raise EvaluationError(
                f"{path} has no line of the split {shown(split)}; there are "
                + ", ".join(shown(name) for name in sorted(seen)[:NAMED])
            )
    if not lines:
        raise EvaluationError(f"{path} has a first line that names columns and nothing below it")
    for where, cells in lines:
        if header is None and not widths[0] <= len(cells) <= widths[1]:
            wanted = " and ".join(one[0] for one in columns[:least])
            raise EvaluationError(
                f"{where}: {len(cells)} columns where {wanted} are needed, with a tab between; if "
                "there are others, the first line must name them"
            )
        found = [cells[at] if at < len(cells) else "" for at in places]
        if header is None:
            found = found[: len(cells)]
        if not all(found[:least]):
            raise EvaluationError(f"{where}: a column is empty; fill it or remove the line")
        yield where, found


def _places(
    first: list[str], columns: Sequence[Sequence[str]], least: int
) -> tuple[list[int], list[str] | None]:
    """Finds the columns by the first line, if it is a header."""
    names = [cell.lower() for cell in first]
    places = [
        next((names.index(one) for one in column if one in names), None) for column in columns
    ]
    found = [at for at in places if at is not None]
    if len([at for at in places[:least] if at is not None]) < least or len(set(found)) < len(found):
        return list(range(len(columns))), None
    return found, names


def _grade(where: str, text: str) -> float:
    try:
        grade = float(text)
    except ValueError:
        grade = math.nan
    if not math.isfinite(grade):
        raise EvaluationError(f"{where}: the grade {shown(text)} is no number; write 0, 1, 2 ...")
    return max(grade, 0.0)  # TREC writes -2 for spam, which is as wrong as 0


# ---- JSON ----------------------------------------------------------------------------------------


def captions_json(path: Path) -> list[Line]:
    """Reads a list of ``{"file": ..., "captions": [...]}``, or captions as COCO writes them.

    Of COCO's tables ``file_name`` and ``id`` of the images and ``image_id`` and ``caption`` of the
    annotations are read (Chen et al. 2015, arXiv 1504.00325).
    """
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not JSON: {error}") from error
    lines = list(_coco(path, content) if isinstance(content, dict) else _listed(path, content))
    if not lines:
        raise EvaluationError(f"{path} has no captions in it")
    return lines


def _listed(path: Path, content: Any) -> Iterator[Line]:
    if not isinstance(content, list):
        raise EvaluationError(f"{path} must be a list, or have images and annotations as COCO has")
    for number, entry in enumerate(content, start=1):
        where = f"{path}, entry {number}"
        fields = entry if isinstance(entry, dict) else {}
        file = next((fields[key] for key in FILE if key in fields), None)
        captions = fields.get("captions", fields.get("caption"))
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(file, str) or not isinstance(captions, list) or not captions:
            raise EvaluationError(f"{where}: needs a file and a list of captions")
        for words in captions:
            yield _line(where, words, file)


def _coco(path: Path, content: dict[str, Any]) -> Iterator[Line]:
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise EvaluationError(f"{path} must be a list, or have images and annotations as COCO has")
    files: dict[str, str] = {}
    for number, image in enumerate(images, start=1):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            raise EvaluationError(f"{path}, image {number}: has no file_name")
        files[json.dumps(image.get("id"))] = name
    for number, entry in enumerate(annotations, start=1):
        where = f"{path}, annotation {number}"
        fields = entry if isinstance(entry, dict) else {}
        file = files.get(json.dumps(fields.get("image_id")))
        if file is None:
            raise EvaluationError(f"{where}: its image_id is that of no image")
        yield _line(where, fields.get("caption"), file)


def _line(where: str, words: Any, file: str) -> Line:
    if not isinstance(words, str) or not words.strip() or not file.strip():
        raise EvaluationError(f"{where}: a caption or a name is empty; fill it or remove it")
    if any("\ud800" <= character <= "\udfff" for character in words + file):
        raise EvaluationError(f"{where}: has half a character, a surrogate, in it; write it anew")
    return Line(where, " ".join(words.split()), file)


# ---- TREC ----------------------------------------------------------------------------------------


def trec(path: Path) -> list[Line]:
    """Reads ``topic 0 file grade`` with the words of each topic from the file beside it.

    The words stand in ``topics.tsv`` (``topic<TAB>words``), or in ``topics.txt`` in the same way or
    as TREC's ``<top> <num> <title>`` (Voorhees and Harman 2005, "TREC: Experiment and Evaluation in
    Information Retrieval").
    """
    words = _topics(path)
    lines = []
    for number, row in enumerate(text_of(path).split("\n"), start=1):
        cells = row.split()
        where = f"{path}, line {number}"
        if not cells:
            continue
        if len(cells) != 4:
            raise EvaluationError(
                f"{where}: {len(cells)} columns where topic, 0, file and grade are needed"
            )
        topic, _, file, grade = cells
        if topic not in words:
            raise EvaluationError(f"{where}: the topic {shown(topic)} is not among the topics")
        lines.append(Line(where, words[topic], file, _grade(where, grade)))
    return lines


def _topics(qrels: Path) -> dict[str, str]:
    for name in ("topics.tsv", "topics.txt"):
        path = qrels.with_name(name)
        if path.is_file():
            break
    else:
        raise EvaluationError(
            f"there is no topics.tsv or topics.txt beside {qrels}; it says in lines of a number, a "
            "tab and words what each topic asks for"
        )
    text = text_of(path)
    if "<top>" in text:
        found = {}
        for block in text.split("<top>")[1:]:
            number = re.search(r"<num>\s*(?:Number:)?\s*([^\s<]+)", block)
            title = re.search(r"<title>\s*(?:Topic:)?([^<]+)", block)
            if number is None or title is None:
                raise EvaluationError(f"{path}: a topic has no <num> or no <title>")
            found[number[1]] = " ".join(title[1].split())
        return found
    return {
        cells[0]: cells[1] for _, cells in _table(path, (("topic", "num"), QUERY), None, least=2)
    }
