"""Words beside a picture or a sound: in a file of the same name, or in the folder's list.

``beach.jpg`` is described by ``beach.txt``, ``beach.jpg.txt``, ``beach.xmp`` and ``beach.jpg.xmp``
in the same folder, and by its row of the folder's ``items.tsv``. A list has a header; its column
``file`` names files of its own folder, and the words of all other columns belong to them.
"""

from __future__ import annotations

import codecs
import csv
import functools
import hashlib
import io
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from stat import S_ISREG

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
    endings = [end for suffix in SUFFIXES for end in (suffix, suffix.upper())]
    candidates = [base + end for end in endings for base in (name, stem)]
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
    text = _rows_text(_bytes(path, LONGEST_LIST))
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
            if "/" in name or any("\0" in cell for cell in row):
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


def _rows_text(data: bytes) -> str:
    """Decodes a list; a row that is no UTF-8 keeps its bytes, which a file's name may be made of.

    Where most of it is no UTF-8 it is in another encoding.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return decoded(data)
    lines = data.splitlines()
    odd = sum(not _is_utf8(line) for line in lines)
    if 2 * odd > sum(not line.isascii() for line in lines):
        return decoded(data)
    return data.decode("utf-8", "surrogateescape")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


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


class Neighbours:
    """The files of one folder, and which of them describe others."""

    def __init__(self, folder: bytes, names: Collection[bytes]) -> None:
        """Takes a folder as it was listed.

        Args:
            folder: Its path.
            names: Of its files; hidden ones need not be among them.
        """
        self._folder = folder
        self._names = names

    def of(self, name: bytes) -> Beside:
        """Gathers what stands beside a picture or a sound of the folder."""
        captions = self._captions
        names = [
            one for one in sidecars(name, captions.keys()) if is_caption(one, captions[one][0])
        ]
        row = self._list[0].get(name)
        if not names and row is None:
            return NOTHING
        digest = hashlib.blake2b(digest_size=16)
        for one in names:
            size, mtime_ns = captions[one]
            digest.update(b"%d:%s%d:%d;" % (len(one), one, size, mtime_ns))
        if row is not None:
            digest.update(b"=" + row.text.encode("utf-8", "surrogateescape"))
        return Beside(tuple(self._full(one) for one in names), row, digest.digest())

    @property
    def list_failure(self) -> str | None:
        """Why the folder's list cannot be read, if there is one and it cannot."""
        return self._list[1]

    def _full(self, name: bytes) -> bytes:
        return os.path.join(self._folder, name)  # noqa: PTH118 (bytes)

    @functools.cached_property
    def _captions(self) -> Mapping[bytes, tuple[int, int]]:
        """Files that may describe others, with size and time; only those with a likely name."""
        possible = [name for name in self._names if name.lower().endswith(SUFFIXES)]
        if not possible:
            return {}
        described = set(self._names)
        stems = {os.path.splitext(name)[0] for name in described}  # noqa: PTH122 (bytes)
        found = {}
        for name in possible:
            stem = os.path.splitext(name)[0]  # noqa: PTH122 (bytes)
            if stem not in described and stem not in stems:
                continue
            try:
                stat = os.stat(self._full(name))  # noqa: PTH116 (bytes)
            except OSError:
                continue
            if S_ISREG(stat.st_mode):
                found[name] = (stat.st_size, stat.st_mtime_ns)
        return found

    @functools.cached_property
    def _list(self) -> tuple[Mapping[bytes, Words], str | None]:
        if LIST_NAME not in self._names:
            return {}, None
        try:
            return read_list(self._full(LIST_NAME)), None
        except MediaError as error:
            return {}, str(error)
