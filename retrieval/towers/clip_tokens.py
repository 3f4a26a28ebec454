"""Texts as tokens for open_clip's text towers, the same as its own tokenizers give, without torch.

CLIP's byte-pair encoding (Radford et al. 2021, arXiv 2103.00020) is written anew over the
vocabulary file in the package of open_clip; the tokenizers of other models are files of the library
``tokenizers``.
"""

from __future__ import annotations

import functools
import gzip
import html
import importlib.util
import json
import string
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, repeat
from operator import contains
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError

FILE = "tokens.json"
TOKENIZER = "tokenizer.json"
MERGES = 49_152 - 256 - 2  # of the vocabulary file, which holds more
MAX_WORDS = 65_536  # words that are remembered once they are split

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Settings:
    """How texts become tokens.

    Attributes:
        length: Tokens that the tower takes at most; longer texts are cut.
        clean: ``lower``, ``whitespace`` or ``canonicalize``, as open_clip calls them.
        kind: ``clip`` for CLIP's own encoding, ``file`` for a tokenizer's file, ``clips`` for the
            latter with begin, end and class marks as CLIPS has them.
        trim: Whether a batch may be cut behind its longest text, since what follows changes
            nothing: ``end`` if the highest token ends a text, ``pad`` if the rest is ``pad``.
        pad: Token that fills up.
        begin: Mark of ``clips``.
        end: Likewise.
        head: Likewise, the last token of all.
        blank: Token that becomes 0, if any.
    """

    length: int
    clean: str
    kind: str
    trim: str = ""
    pad: int = 0
    begin: int = 0
    end: int = 0
    head: int = 0
    blank: int | None = None

    def write(self, folder: Path) -> None:
        """Keeps them in a folder."""
        (folder / FILE).write_text(json.dumps(asdict(self)), "utf-8")


class Tokens:
    """Texts into tokens. May be called from several threads at once."""

    def __init__(self, folder: Path) -> None:
        """Reads the settings, and the tokenizer's file if there is one.

        Raises:
            ModelError: If they are damaged, or a library is missing.
        """
        try:
            self.settings = Settings(**json.loads((folder / FILE).read_text("utf-8")))
            self._clean = cleaner(self.settings.clean)
            self._file = None
            if self.settings.kind != "clip":
                from tokenizers import Tokenizer

                self._file = Tokenizer.from_file(str(folder / TOKENIZER))
        except ImportError:
            raise missing() from None
        except Exception as error:  # the library raises bare exceptions
            raise ModelError(f"the tokenizer in {folder} cannot be read ({error})") from error
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Ids:
        """Tokenizes: ``(len(texts), length)`` int64; see ``trimmed``."""
        told = self.settings
        cleaned = [self._clean(text) for text in texts]
        if self._file is None:
            return clip_ids(cleaned, told.length)
        with self._lock:
            encoded = self._file.encode_batch(cleaned, add_special_tokens=told.kind == "file")
        rows = [one.ids for one in encoded]
        if told.kind == "clips":
            rows = [self._framed(row) for row in rows]
        ids = np.array(rows, np.int64)
        return ids if told.blank is None else np.where(ids == told.blank, 0, ids)

    def _framed(self, row: list[int]) -> list[int]:
        told = self.settings
        row = [told.begin, *row[: told.length - 3], told.end]
        return [*row, *[told.pad] * (told.length - 1 - len(row)), told.head]


def trimmed(ids: Ids, told: Settings) -> Ids:
    """Cuts columns off that change no vector; at least one is left."""
    if told.trim == "end":
        last = int(ids.argmax(axis=1).max())
    elif told.trim == "pad":
        last = int(np.flatnonzero((ids != told.pad).any(axis=0)).max(initial=0))
    else:
        return ids
    return np.ascontiguousarray(ids[:, : last + 1])


# ---- cleaning ------------------------------------------------------------------------------------


def cleaner(kind: str) -> Callable[[str], str]:
    """Gives what open_clip calls a clean function.

    Raises:
        ModelError: If there is none of that name.
    """
    try:
        return {"lower": _lower, "whitespace": _spaced, "canonicalize": _canonical}[kind]
    except KeyError:
        raise ModelError(f"the model cleans texts in a way not known here: {kind!r}") from None


def _basic(text: str) -> str:
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.strip()  # nothing to mend or to unescape
    import ftfy  # comes with open_clip; 0.1 s

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _spaced(text: str) -> str:
    return " ".join(_basic(text).split())


def _lower(text: str) -> str:
    return _spaced(text).lower()


def _canonical(text: str) -> str:
    text = _basic(text).replace("_", " ").translate(_no_punctuation())
    return " ".join(text.lower().split())


@functools.cache
def _no_punctuation() -> dict[int, int | None]:
    return str.maketrans("", "", string.punctuation)


# ---- byte-pair encoding --------------------------------------------------------------------------


def clip_ids(texts: Sequence[str], length: int) -> Ids:
    """Encodes cleaned texts as CLIP does: begin, pieces, end, zeros; ``(len(texts), length)``."""
    words = _encoding()
    ids = np.zeros((len(texts), length), np.int64)
    for row, text in zip(ids, texts, strict=True):
        pieces = [words.begin, *words.encode(text), words.end][:length]
        row[: len(pieces)] = pieces
        if len(pieces) == length:
            row[-1] = words.end
    return ids


@functools.cache
def _encoding() -> Encoding:
    return Encoding(_vocabulary())


def _vocabulary() -> list[str]:
    """Reads the merges from open_clip's package, which is not imported for that."""
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        raise missing()
    path = Path(found.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}): reinstall open_clip_torch") from error
    merges = text.split("\n", MERGES + 1)[1 : MERGES + 1]
    spaces = "".join(merges).count(" ")
    if not len(merges) == spaces == sum(map(contains, merges, repeat(" "))) == MERGES:
        raise ModelError(f"{path} is damaged (not pairs of pieces): reinstall open_clip_torch")
    return merges


class Encoding:
    """CLIP's byte-pair encoding."""

    def __init__(self, merges: Sequence[str]) -> None:
        """Numbers the pieces: bytes, bytes that end a word, what is merged, two marks.

        Args:
            merges: Pairs of pieces with a space between. They are looked up as they are: splitting
                49,000 of them would take a cold search a tenth of a second.
        """
        import regex

        self._bytes = _printable()
        pieces = [*self._bytes.values(), *(f"{one}</w>" for one in self._bytes.values())]
        pieces += "\n".join(merges).replace(" ", "").split("\n")
        self.begin, self.end = len(pieces), len(pieces) + 1
        self._ids = dict(zip(pieces, range(len(pieces)), strict=True))
        self._ranks = dict(zip(merges, range(len(merges)), strict=True))
        self._marks = {"<start_of_text>": self.begin, "<end_of_text>": self.end}
        marks = "|".join(self._marks)
        self._words = regex.compile(
            marks + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
        )
        self._known: dict[str, list[int]] = {mark: [one] for mark, one in self._marks.items()}

    def encode(self, text: str) -> list[int]:
        """Gives the tokens of a cleaned text, without marks."""
        return [one for word in self._words.findall(text) for one in self._split(word)]

    def _split(self, word: str) -> list[int]:
        known = self._known.get(word)
        if known is None:
            known = [self._ids[piece] for piece in self._pieces(word)]
            if len(self._known) < MAX_WORDS:
                self._known[word] = known
        return known

    def _pieces(self, word: str) -> list[str]:
        """Merges neighbours, those first that were merged first in training."""
        pieces = [self._bytes[byte] for byte in word.encode("utf-8")]
        pieces[-1] += "</w>"
        while len(pieces) > 1:
            pairs = {" ".join(pair) for pair in pairwise(pieces)}
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged: list[str] = []
            for piece in pieces:
                # a piece that was merged just now is no half of the next pair
                if merged and f"{merged[-1]} {piece}" == best:
                    merged[-1] += piece
                else:
                    merged.append(piece)
            pieces = merged
        return pieces


def _printable() -> dict[int, str]:
    """Gives the character that stands for each byte, in the order of their numbers as tokens."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    shown += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + number) for number, byte in enumerate(hidden)
    }


def missing() -> ModelError:
    """Says how the libraries are installed."""
    return ModelError("models of open_clip need more libraries: pip install 'anyseek[clip]'")
