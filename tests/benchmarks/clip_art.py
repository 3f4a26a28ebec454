"""Captions of Debian's clip art, for learning illustrations; writes ``captions.tsv``.

    python tests/benchmarks/clip_art.py --png DIR --svg DIR --out DIR

The first two hold the unpacked packages ``openclipart-png`` and ``openclipart-svg`` (``dpkg-deb -x
PACKAGE.deb DIR``). The drawings of the one are named by the titles and keywords in the files of the
other. The table has two captions for each: its title, and the title with up to six keywords.

Left out are titles that more than eight drawings have, since those name collections ("card",
"AIGA_Symbol_Signs"), titles of collections (``COLLECTION``), folders of stars, themes of icons,
patterns and gradients, and drawings that are too large to decode. The digest of a title decides the
split: all drawings of one title are in one, 60 % of the titles in ``train``, 20 % in ``dev`` and
20 % in ``test``.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval import media
from retrieval.errors import MediaError

SHARED = 8
KEYWORDS = 6
SKIPPED = ("shapes/stars", "computer/icons", "special/patterns", "special/gradients")
COLLECTION = re.compile(
    r"^clipart by |cliparts?$|^etiquette icons|collection|^svg road|^aiga|^map s|theme$|iconset$"
    r"|^lemon|^part of|^r\d+ |submission|sibmission"
)
EMPTY = {"", "hash", "sign", "signs and symbols", "clip art", "clipart", "unsorted", "theme"}
EMPTY |= {"icons", "united nations member"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing with its words, in lower case."""

    path: str
    title: str
    keywords: tuple[str, ...]

    @property
    def split(self) -> str:
        """Decided by the title alone."""
        part = int(hashlib.md5(self.title.encode(), usedforsecurity=False).hexdigest(), 16) % 10
        return "train" if part < 6 else "dev" if part < 8 else "test"

    @property
    def captions(self) -> tuple[str, ...]:
        """The title, and the title with keywords if there are any."""
        if not self.keywords:
            return (self.title,)
        return self.title, ", ".join((self.title, *self.keywords[:KEYWORDS]))


def drawings(png: Path, svg: Path) -> Iterator[Drawing]:
    """Gives the drawings that have a title of their own, by path."""
    pictures, sources = png / "usr/share/openclipart/png", svg / "usr/share/openclipart/svg"
    found = []
    for path in sorted(sources.rglob("*.svg")):
        name = path.relative_to(sources).with_suffix(".png").as_posix()
        if (pictures / name).is_file():
            found.append((name, *described(path.read_text("utf-8", "replace"))))
    shared = Counter(title.lower() for _, title, _ in found)
    for name, title, keywords in found:
        plain = words(title)
        if name.startswith(SKIPPED) or COLLECTION.search(title.lower()):
            continue
        if len(plain) < 3 or shared[title.lower()] > SHARED or not decodes(pictures / name):
            continue
        own = dict.fromkeys(words(one.replace("_", " ")) for one in keywords)
        kept = tuple(one for one in own if one not in EMPTY | {plain} and len(one) > 2)
        yield Drawing(name, plain, kept)


def described(text: str) -> tuple[str, list[str]]:
    """Gives the title and the keywords in an SVG's metadata."""
    title = re.search(r"<dc:title>(.*?)</dc:title>", text, re.DOTALL)
    keywords = re.findall(r"<rdf:li>(.*?)</rdf:li>", text, re.DOTALL)
    named = html.unescape(title.group(1)).strip() if title else ""
    return named, [html.unescape(one).strip() for one in keywords]


def words(text: str) -> str:
    """Gives the words of a name in lower case, without numbers."""
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    return " ".join(re.sub(r"[^A-Za-z' ]+", " ", parted).split()).lower()


def decodes(path: Path) -> bool:
    """Tells whether a drawing is small enough to be read."""
    try:
        media.decode(media.read(path).data, path.name, side_px=224)
    except MediaError:
        return False
    return True


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("png", "svg", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    lines = ["image\tsplit\tcaption"]
    for one in drawings(options.png, options.svg):
        lines += [f"{one.path}\t{one.split}\t{text}" for text in one.captions]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "captions.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
