"""Vectors as ``NAME.npy`` and what they are of as ``NAME.jsonl``, bound together row by row.

Each line of the second file carries the number of its row and a digest of that row's vector. Lines
that were sorted, lost or taken from another export are noticed at the first that does not fit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.errors import ExchangeError
from retrieval.exchange.parquet import Pages
from retrieval.exchange.rows import (
    CHUNK,
    Chunk,
    Matrix,
    Source,
    check_matrix,
    path_of,
    row_of,
    unreadable,
    values_of,
)
from retrieval.store import Space

DIGEST_BYTES = 8
MAGIC = b"\x93NUMPY"  # at the beginning of every array
MAX_LINE = 16 << 20  # a passage of text is a few hundred bytes


def write(vectors: Path, lines: Path, space: Space, pages: Pages, dtype: str, count: int) -> int:
    """Writes the two files, page by page; gives the number of rows.

    Args:
        vectors: The array's file.
        lines: The other file.
        space: Whose vectors.
        pages: Rows with their vectors.
        dtype: ``float16`` as they are stored, or ``float32``.
        count: How many rows there will be.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    header = {"descr": kind.str, "fortran_order": False, "shape": (count, space.dim)}
    number = 0
    with vectors.open("wb") as array, lines.open("w", encoding="ascii", newline="\n") as text:
        np.lib.format.write_array_header_1_0(array, header)
        for rows, matrix in pages:
            for row, vector in zip(rows, matrix.astype(kind), strict=True):
                data = vector.tobytes()
                array.write(data)
                line = {
                    "row": number,
                    "digest": _digest(data),
                    "space": space.name,
                    "model": space.model,
                    "path": os.fsdecode(row.path),
                }
                line |= {key: value for key, value in values_of(row).items() if value is not None}
                text.write(json.dumps(line) + "\n")  # in ASCII, for paths that are not text
                number += 1
    assert number == count, "a reader sees one state of the index"
    return number


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def mapped(path: Path) -> Matrix:
    """Maps an array of vectors into memory; nothing in the file is run.

    Raises:
        ExchangeError: If it is no array of floats in rows.
    """
    try:
        with path.open("rb") as file:  # NumPy would take it for a pickle or an archive otherwise
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("no array")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy passes on what tokenize and ast raise
        raise unreadable(path, "an array of NumPy", error) from error
    check_matrix(path, array.shape, array.dtype.newbyteorder("=").name)
    matrix: Matrix = array
    return matrix


def source(vectors: Path, root: Path) -> Source:
    """Opens what ``write`` wrote.

    Args:
        vectors: The array's file; the other lies beside it.
        root: Where relative paths begin.

    Raises:
        ExchangeError: If a file is missing or cannot be read.
    """
    array = mapped(vectors)
    lines = vectors.with_suffix(".jsonl")
    if not lines.exists():
        raise ExchangeError(
            f"{vectors} has no {lines.name} beside it, which says what its rows are of; "
            "`anyseek export --format npy` writes both"
        )
    first = next(_lines(lines), {})
    for key in ("space", "model"):
        if not isinstance(first.get(key, ""), str):
            raise ExchangeError(f"{lines} row 0: {key} is no text")
    return Source(
        lines,
        first.get("space"),
        first.get("model"),
        array.shape[1],
        len(array),
        lambda: _chunks(vectors, lines, root),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for number in itertools.count():
                line = file.readline(MAX_LINE)
                if not line:
                    return
                try:
                    values = json.loads(line)
                except (ValueError, RecursionError):
                    values = None
                if not isinstance(values, dict):
                    raise ExchangeError(f"{path} row {number}: is no JSON object in one line")
                yield values
    except OSError as error:
        raise ExchangeError(f"{path} cannot be read: {error.strerror or error}") from error


def _chunks(vectors: Path, lines: Path, root: Path) -> Iterator[Chunk]:
    array = mapped(vectors)
    space, first = None, 0
    said = _lines(lines)
    while some := list(itertools.islice(said, CHUNK)):
        rows = []
        part = array[first : first + len(some)]
        if len(part) < len(some):
            raise ExchangeError(
                f"{lines} row {first + len(part)}: {vectors.name} has no such row, only "
                f"{len(array)}"
            )
        for number, (values, vector) in enumerate(zip(some, part, strict=True), first):
            where = f"{lines} row {number}"
            space = values.get("space") if number == 0 else space
            if values.get("row") != number or values.get("digest") != _digest(vector.tobytes()):
                raise ExchangeError(
                    f"{where}: is not of row {number} of {vectors.name}; "
                    "the two are not of one export, or one was changed"
                )
            if values.get("space") != space:
                raise ExchangeError(f"{where}: is of another space than the first row")
            rows.append(row_of(values, path_of(values.get("path"), root, where), where, kind=None))
        yield Chunk(lines, first, rows, part)
        first += len(some)
    if first < len(array):
        raise ExchangeError(
            f"{vectors} has {len(array)} rows and {lines.name} {first}: row {first} has no line"
        )
