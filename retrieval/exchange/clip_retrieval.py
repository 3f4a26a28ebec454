"""The layout in which clip-retrieval leaves embeddings (its ``inference`` command).

``img_emb/img_emb_N.npy`` and ``text_emb/text_emb_N.npy`` hold vectors, ``metadata/metadata_N``
as Parquet what they are of, joined by position alone: so the numbers of rows must agree, for every
N. A caption lies in a text beside its picture, under the same name, which is how that program found
it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from retrieval.errors import ExchangeError
from retrieval.exchange.npy import mapped
from retrieval.exchange.parquet import columns, shape
from retrieval.exchange.rows import Chunk, Source, path_of, row_of
from retrieval.store.exchanging import PartRow
from retrieval.types import Modality

KINDS = {"img_emb": Modality.IMAGE, "text_emb": Modality.TEXT}
PATH, CAPTION = "image_path", "caption"


def is_layout(folder: Path) -> bool:
    """Tells whether a folder has it."""
    return any((folder / name).is_dir() for name in KINDS)


def sources(folder: Path, root: Path) -> list[Source]:
    """Opens every file of vectors, pictures first.

    Args:
        folder: The output folder of clip-retrieval.
        root: Where relative paths begin.

    Raises:
        ExchangeError: If a file has no other of its number, or they disagree on how many rows.
    """
    found = []
    for kind, modality in KINDS.items():
        numbers = _numbered(folder / kind, kind, "npy")
        about = _numbered(folder / "metadata", "metadata", "parquet")
        if not numbers and (folder / kind).is_dir():
            raise ExchangeError(f"{folder / kind} has no {kind}_0.npy or the like")
        for number, vectors in numbers.items():
            if number not in about:
                raise ExchangeError(
                    f"{vectors} has no metadata_{number}.parquet in {folder / 'metadata'}"
                )
            found.append(_source(vectors, about[number], modality, root))
        for number, metadata in about.items():
            if numbers and number not in numbers:
                raise ExchangeError(f"{metadata} has no {kind}_{number}.npy in {folder / kind}")
    return found


def _numbered(folder: Path, name: str, suffix: str) -> dict[int, Path]:
    """Lists the files of a folder by their numbers, which may be filled up with zeros."""
    found = {}
    for path in sorted(folder.glob(f"{name}_*.{suffix}")):
        if match := re.fullmatch(r"_([0-9]{1,9})", path.stem.removeprefix(name)):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _source(vectors: Path, metadata: Path, modality: Modality, root: Path) -> Source:
    array = mapped(vectors)
    count, names = shape(metadata)
    if count != len(array):
        raise ExchangeError(
            f"{vectors} has {len(array)} rows and {metadata} {count}: row {min(count, len(array))} "
            "has nothing to go with"
        )
    if PATH not in names:
        raise ExchangeError(f"{metadata} has no column {PATH!r}; it has {', '.join(names[:20])}")
    chunks = partial(_chunks, vectors, metadata, modality, root)
    return Source(vectors, None, None, array.shape[1], len(array), chunks)


def _chunks(vectors: Path, metadata: Path, modality: Modality, root: Path) -> Iterator[Chunk]:
    array = mapped(vectors)
    for first, some in columns(metadata, [PATH, CAPTION]):
        captions = some.get(CAPTION, [None] * len(some[PATH]))
        rows: list[PartRow] = []
        for number, (said, caption) in enumerate(zip(some[PATH], captions, strict=True), first):
            where = f"{vectors} row {number}"
            path = path_of(said, root, where)
            values = {}
            if modality is Modality.TEXT:
                path = os.path.splitext(path)[0] + b".txt"  # noqa: PTH122 (bytes)
                values = {"text": caption, "line": 1}
            rows.append(row_of(values, path, where, kind=modality))
        yield Chunk(vectors, first, rows, array[first : first + len(rows)])
