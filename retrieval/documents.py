"""Texts become passages: a few sentences each, with the place where they stand."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import PurePath

from retrieval.errors import MediaError
from retrieval.types import Part, Place

# The sentence encoder averages over its tokens, so a passage must stay about one thing: around
# 400 characters are three to five sentences.
PASSAGE_CHARACTERS = 400
MAX_CHARACTERS = 20_000_000  # about thirty long novels in one file
MAX_PAGES = 5_000
HTML_SUFFIXES = frozenset((".html", ".htm", ".xhtml"))
LINE_END = re.compile(r"\r\n|\r|\n")  # what editors count; str.splitlines knows more
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
SILENT_TAGS = frozenset(("script", "style", "template", "noscript", "svg", "math"))
INLINE_TAGS = frozenset(
    "a abbr b bdi bdo cite code dfn em font i kbd mark q s samp small span strong sub sup tt u var"
    " wbr".split()
)


def passages(data: bytes, name: str) -> tuple[Part, ...]:
    """Splits a text file into passages, in order.

    Args:
        data: The whole file.
        name: Its name; the suffix tells plain text, HTML and PDF apart.

    Raises:
        MediaError: If there are no words in it, or it is not what its name says.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix == ".pdf":
        parts = tuple(
            part for page, text in _pdf_pages(data) for part in _split(LINE_END.split(text), page)
        )
    else:
        text = decoded(data)
        if len(text) > MAX_CHARACTERS:
            raise MediaError(f"has over {MAX_CHARACTERS // 1_000_000} million characters")
        lines = _html_lines(text) if suffix in HTML_SUFFIXES else LINE_END.split(text)
        parts = tuple(_split(lines, None))
    if not parts:
        raise MediaError("holds no words")
    return parts


def decoded(data: bytes) -> str:
    """Reads bytes as text: by their mark, else as UTF-8, GB 18030 or Windows' Latin letters.

    Raises:
        MediaError: If they are no text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:4096]:
        raise MediaError("is binary data, not text")
    encodings = ["utf-8-sig", "gb18030", "cp1252"]
    # Latin text with a few accents can pass as GB 18030 by chance, so ask for some density.
    high = sum(byte > 127 for byte in data[:65536])
    if high < 0.2 * len(data[:65536]):
        encodings.remove("gb18030")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _split(lines: Iterable[str], page: int | None) -> Iterator[Part]:
    """Joins lines to paragraphs, and cuts or joins paragraphs to passages of about equal length."""
    buffer: list[str] = []
    length, first_line = 0, 1

    def flush() -> Iterator[Part]:
        nonlocal buffer, length
        text = " ".join(buffer)
        buffer, length = [], 0
        if any(character.isalnum() for character in text):
            yield Part(text, Place(page=page, line=first_line, text=text))

    for number, line in enumerate(lines, start=1):
        words = " ".join(line.split())
        if not words:
            if length >= PASSAGE_CHARACTERS // 2:  # a paragraph ends here
                yield from flush()
            continue
        for sentence in _bounded(words):
            if buffer and length + len(sentence) > PASSAGE_CHARACTERS:
                yield from flush()
            if not buffer:
                first_line = number
            buffer.append(sentence)
            length += len(sentence) + 1
    yield from flush()


def _bounded(line: str) -> Iterator[str]:
    """Cuts a line into sentences, and sentences that are too long wherever a word ends."""
    for sentence in SENTENCE_END.split(line):
        start = 0
        while len(sentence) - start > PASSAGE_CHARACTERS:
            end = start + PASSAGE_CHARACTERS
            space = sentence.rfind(" ", start + PASSAGE_CHARACTERS // 2, end + 1)
            cut = space if space > 0 else end
            yield sentence[start:cut]
            start = cut + (cut == space)
        if start < len(sentence):
            yield sentence[start:]


class _Visible(HTMLParser):
    """Collects the words that a browser would show, each on the line where it stands."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[list[str]] = []
        self._silent = 0

    def lines(self) -> list[str]:
        return ["".join(pieces) for pieces in self._lines]

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Passes over ``<![...>``, as browsers do; Python raises at most kinds."""
        end = self.rawdata.find(">", i)
        return end + 1 if end >= 0 else -1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in SILENT_TAGS
        if tag not in INLINE_TAGS:
            self._write("\n")
        if tag in ("img", "area") and not self._silent:
            self._write(dict(attrs).get("alt") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._silent -= tag in SILENT_TAGS

    def handle_endtag(self, tag: str) -> None:
        if tag in SILENT_TAGS and self._silent:
            self._silent -= 1
        if tag not in INLINE_TAGS:
            self._write("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._write(data)

    def _write(self, words: str) -> None:
        index = self.getpos()[0] - 1
        for offset, line in enumerate(words.split("\n")):
            while len(self._lines) <= index + offset:
                self._lines.append([])
            self._lines[index + offset].append(line or " ")


def _html_lines(text: str) -> list[str]:
    parser = _Visible()
    parser.feed(text)
    parser.close()
    return parser.lines()


def _pdf_pages(data: bytes) -> Iterator[tuple[int, str]]:
    """Gives page numbers from 1 and the text of each page that has any."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # reasons come as errors, not as logs
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise MediaError("is a PDF locked with a password")
        if len(reader.pages) > MAX_PAGES:
            raise MediaError(f"is a PDF of over {MAX_PAGES} pages")
        total = 0
        for number, page in enumerate(reader.pages, start=1):
            # half a surrogate pair, as odd fonts give it, is no text that can be stored
            text = page.extract_text().encode("utf-8", "replace").decode("utf-8")
            total += len(text)
            if total > MAX_CHARACTERS:
                raise MediaError(f"has over {MAX_CHARACTERS // 1_000_000} million characters")
            if text.strip():
                yield number, text
    except MediaError:
        raise
    except DependencyError:  # no PyPdfError, although pypdf's own
        raise MediaError(
            "is a PDF encrypted with AES, which needs one more library: pip install cryptography"
        ) from None
    except (
        PyPdfError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        NotImplementedError,
        AssertionError,
    ) as error:
        # what pypdf is known to raise on damaged files
        raise MediaError(f"is a damaged PDF ({type(error).__name__}: {error})") from None
