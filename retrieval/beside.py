"""Words beside a picture or a sound: in a file of the same name, or in the folder's list.

``beach.jpg`` is described by ``beach.txt``, ``beach.jpg.txt``, ``beach.xmp`` and ``beach.jpg.xmp``
in the same folder, and by its row of the folder's ``items.tsv``. A list has a header; its column
``file`` names files of its own folder, and the words of all other columns belong to them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from retrieval.documents import decoded
from retrieval.errors import MediaError
from retrieval.inscribed import xmp_words
from retrieval.types import Source, Words

LIST_NAME = b"items.tsv"
FILE_COLUMN = "file"
SUFFIXES = (b".txt", b".xmp")

LONGEST = 2_000  # bytes; a longer text beside a picture is a text of its own, not its caption
LONGEST_XMP = 1 << 20  # editors keep every step of their work there
LONGEST_LIST = 64 << 20
MOST_CHARACTERS = 2_000  # of words that are kept of one source


def sidecars(name: bytes, siblings: Collection[bytes]) -> tuple[bytes, ...]:
    """Names the files of a folder that may describe another one of it, in a fixed order.

    Args:
        name: Of the picture or sound, without folders.
        siblings: Names of all files of the folder.
    """
    stem = os.path.splitext(name)[0]  # noqa: PTH122 (bytes)
    candidates = [base + suffix for suffix in SUFFIXES for base in (name, stem)]
    return tuple(one for one in dict.fromkeys(candidates) if one in siblings and one != name)


def is_caption(name: bytes, size: int) -> bool:
    """Tells whether a sidecar is short enough to be a caption, and no text of its own."""
    return size <= (LONGEST_XMP if name.lower().endswith(b".xmp") else LONGEST)


def read(path: bytes) -> Words | None:
    """Reads a sidecar; ``None`` if there are no words in it.

    Raises:
        MediaError: If it cannot be read, or is no text.
    """
    data = _bytes(path, LONGEST_XMP)
    text = xmp_words(data) if path.lower().endswith(b".xmp") else one_line(decoded(data))
    return Words(Source.SIDECAR, text) if text else None


def one_line(text: str) -> str:
    """Puts printable words on one line, and cuts what is too long for a caption."""
    shown = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(shown.split())[:MOST_CHARACTERS].rstrip()


def read_list(path: bytes) -> dict[bytes, Words]:
    """Reads a folder's ``items.tsv``: names of files and their words.

    Names that lead to another folder are passed over, as are rows without words. Rows of one file
    are joined.

    Raises:
        MediaError: If it cannot be read, is no table, or has no column ``file``.
    """
    text = decoded(_bytes(path, LONGEST_LIST))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        header = [column.strip().casefold() for column in next(rows, [])]
        if FILE_COLUMN not in header:
            raise MediaError(f"has no column {FILE_COLUMN!r}; its first line names the columns")
        at = header.index(FILE_COLUMN)
        found: dict[bytes, list[str]] = {}
        for row in rows:
            if len(row) <= at or not (name := row[at].strip()) or name in (".", ".."):
                continue
            if "/" in name or "\0" in name:
                continue
            cells = (one_line(cell) for place, cell in enumerate(row) if place != at)
            found.setdefault(os.fsencode(name), []).extend(cell for cell in cells if cell)
    except csv.Error as error:
        raise MediaError(f"is no list of files ({error})") from None
    except UnicodeEncodeError:
        raise MediaError("names files in letters that this system cannot write") from None
    return {
        name: Words(Source.MANIFEST, one_line(". ".join(cells)))
        for name, cells in found.items()
        if cells
    }


def _bytes(path: bytes, most: int) -> bytes:
    try:
        # without waiting: a named pipe must not hang the run
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > most:
        raise MediaError(f"larger than {most >> 20} MiB")
    return data


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside a file, as a walk over its folder found it.

    Attributes:
        paths: Of its sidecars.
        listed: Its row of the folder's list.
        digest: 16 bytes that change whenever any of it does; empty if there is nothing.
    """

    paths: tuple[bytes, ...] = ()
    listed: Words | None = None
    digest: bytes = b""

    def words(self) -> Iterator[Words]:
        """Reads all of it; sidecars that cannot be read count as none."""
        if self.listed is not None:
            yield self.listed
        for path in self.paths:
            try:
                found = read(path)
            except MediaError:
                continue
            if found is not None:
                yield found


NOTHING = Beside()


def beside(
    folder: bytes,
    name: bytes,
    captions: Mapping[bytes, tuple[int, int]],
    listed: Mapping[bytes, Words],
) -> Beside:
    """Gathers what stands beside a file.

    Args:
        folder: Its folder.
        name: Its name there.
        captions: Files of the folder that may be sidecars, with size and time in nanoseconds.
        listed: Of the folder's list.
    """
    names = [one for one in sidecars(name, captions.keys()) if is_caption(one, captions[one][0])]
    row = listed.get(name)
    if not names and row is None:
        return NOTHING
    digest = hashlib.blake2b(digest_size=16)
    for one in names:
        size, mtime_ns = captions[one]
        digest.update(b"%d:%s%d:%d;" % (len(one), one, size, mtime_ns))
    if row is not None:
        digest.update(b"=" + row.text.encode("utf-8", "surrogateescape"))
    paths = tuple(os.path.join(folder, one) for one in names)  # noqa: PTH118 (bytes)
    return Beside(paths, row, digest.digest())
