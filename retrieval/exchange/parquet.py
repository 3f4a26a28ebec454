"""Vectors as Parquet: each row carries its own vector, so nothing can be joined wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ExchangeError
from retrieval.exchange.rows import (
    CHUNK,
    FIELDS,
    NUMBER,
    TEXT,
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
from retrieval.store.exchanging import PartRow

ROW_GROUP = 4_096  # rows that are compressed together and in memory at once: 4 MB of float16
SPACE, MODEL = b"anyseek.space", b"anyseek.model"

Pages = Iterable[tuple[list[PartRow], NDArray[np.float16]]]


def arrow() -> Any:
    """Gives pyarrow with its Parquet part.

    Raises:
        ExchangeError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ExchangeError(
            "Parquet needs one more library: pip install 'anyseek[parquet]', or take --format npy"
        ) from None
    return pyarrow


def write(path: Path, space: Space, pages: Pages, dtype: str) -> int:
    """Writes a file, page by page; gives the number of rows.

    Args:
        path: Of the file.
        space: Whose vectors.
        pages: Rows with their vectors, each page at most ``ROW_GROUP`` rows.
        dtype: ``float16`` as they are stored, or ``float32``.
    """
    pa = arrow()
    types = {TEXT: pa.string(), NUMBER: pa.float64()}
    number = pa.float16() if dtype == "float16" else pa.float32()
    schema = pa.schema(
        [("path", pa.string()), ("path_bytes", pa.binary())]
        + [(name, types.get(kind, pa.int64())) for name, kind in FIELDS.items()]
        + [("vector", pa.list_(number, space.dim))],
        metadata={SPACE: space.name.encode(), MODEL: space.model.encode()},
    )
    count = 0
    with pa.parquet.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for rows, matrix in pages:
            texts = [_text(row.path) for row in rows]
            odd = [row.path if _text(row.path) is None else None for row in rows]
            columns: dict[str, list[Any]] = {name: [] for name in FIELDS}
            for row in rows:
                for name, value in values_of(row).items():
                    columns[name].append(value)
            flat = pa.array(matrix.astype(dtype).reshape(-1), number)
            arrays = [
                pa.array(texts, pa.string()),
                pa.array(odd, pa.binary()),
                *(pa.array(columns[name], schema.field(name).type) for name in FIELDS),
                pa.FixedSizeListArray.from_arrays(flat, space.dim),
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), ROW_GROUP)
            count += len(rows)
    return count


def _text(path: bytes) -> str | None:
    """Gives a path as text, if it is one: names need not be UTF-8."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return None


def source(path: Path, root: Path) -> Source:
    """Opens what ``write`` wrote, or any file with the columns ``path`` and ``vector``.

    Args:
        path: Of the file.
        root: Where relative paths begin.

    Raises:
        ExchangeError: If it cannot be read, or has no such columns.
    """
    with opened(path) as file:
        schema = file.schema_arrow
        for name in ("path", "vector"):
            if name not in schema.names:
                raise ExchangeError(f"{path} has no column {name!r}; it has {_names(schema)}")
        dim = _dim(path, schema.field("vector").type, file)
        metadata = schema.metadata or {}
        said = [metadata.get(key, b"").decode("utf-8", "replace") or None for key in (SPACE, MODEL)]
        count = file.metadata.num_rows
    return Source(path, said[0], said[1], dim, count, lambda: _chunks(path, root, dim))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Opens a Parquet file; whatever is wrong with it, now or later, becomes one error."""
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise unreadable(path, "Parquet", error) from error


def _names(schema: Any) -> str:
    return ", ".join(schema.names[:20])


def _dim(path: Path, kind: Any, file: Any) -> int:
    pa = arrow()
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists and not pa.types.is_fixed_size_list(kind):
        raise ExchangeError(f"{path} has a column 'vector' of {kind}, not of lists of floats")
    dim = -1
    if not lists:
        dim = kind.list_size
    elif file.metadata.num_rows:
        first = next(file.iter_batches(batch_size=1, columns=["vector"])).column(0)[0]
        dim = len(first.as_py() or ())
    if file.metadata.num_rows or not lists:
        value = {"halffloat": "float16", "float": "float32", "double": "float64"}
        name = str(kind.value_type)
        check_matrix(path, (file.metadata.num_rows, dim), value.get(name, name))
    return dim


def _chunks(path: Path, root: Path, dim: int) -> Iterator[Chunk]:
    with opened(path) as file:
        names = [n for n in ("path_bytes", *FIELDS) if n in file.schema_arrow.names]
        first = 0
        for batch in file.iter_batches(batch_size=CHUNK, columns=["path", *names, "vector"]):
            columns = {name: batch.column(name).to_pylist() for name in ("path", *names)}
            rows = []
            for number in range(batch.num_rows):
                where = f"{path} row {first + number}"
                values = {name: column[number] for name, column in columns.items()}
                said = values["path"]
                own = path_of(values.get("path_bytes") if said is None else said, root, where)
                rows.append(row_of(values, own, where, kind=None))
            yield Chunk(path, first, rows, _matrix(path, first, batch.column("vector"), dim))
            first += batch.num_rows


def _matrix(path: Path, first: int, column: Any, dim: int) -> Matrix:
    """Takes a column of lists as a matrix, each list checked for its length."""
    lengths = column.value_lengths().to_pylist()
    wrong = next((at for at, length in enumerate(lengths) if length != dim), None)
    if wrong is not None:
        raise ExchangeError(
            f"{path} row {first + wrong}: its vector has {lengths[wrong] or 0} numbers, not {dim}"
        )
    flat = column.flatten()
    if flat.null_count:
        at = flat.is_null().to_pylist().index(True) // dim
        raise ExchangeError(f"{path} row {first + at}: its vector has an empty place")
    matrix: Matrix = flat.to_numpy(zero_copy_only=False).reshape(len(lengths), dim)
    return matrix


def columns(path: Path, names: list[str]) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """Reads some columns in chunks, each with the number of its first row; missing ones are out."""
    with opened(path) as file:
        here = [name for name in names if name in file.schema_arrow.names]
        first = 0
        for batch in file.iter_batches(batch_size=CHUNK, columns=here):
            yield first, {name: batch.column(name).to_pylist() for name in here}
            first += batch.num_rows


def shape(path: Path) -> tuple[int, list[str]]:
    """Gives the number of rows and the names of the columns."""
    with opened(path) as file:
        return file.metadata.num_rows, list(file.schema_arrow.names)
