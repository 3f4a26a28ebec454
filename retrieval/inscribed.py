"""Words that a file carries itself: titles, captions and keywords in EXIF, IPTC, XMP and tags.

People, programs and cameras write them, and nothing in them can fail a file: what makes no sense
counts as not said. What cameras write into every picture, such as their maker's name, is no
caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree import ElementTree

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

MOST_CHARACTERS = 2_000
LARGEST_XMP = 1 << 20

IPTC_FIELDS = ((2, 5), (2, 105), (2, 120), (2, 25))  # object name, headline, caption, keywords
EXIF_KEYWORDS = ExifTags.Base.XPKeywords
EXIF_FIELDS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPSubject,
    ExifTags.Base.XPComment,
    EXIF_KEYWORDS,
)
SOUND_FIELDS = ("title", "artist", "album", "genre", "comment")

DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
OWN_LABELS = "{urn:anyseek:labels:1.0}labels"
XMP_FIELDS = ("title", "description", "subject")
LIST_ITEM = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"

BY_MACHINES = re.compile(
    r"\s*(olympus digital camera|sony dsc|dcim\S*|dsc\S*|img[_-]?\d+|minolta digital camera"
    r"|kodak digital still camera|samsung camera pictures|digital camera|processed with \S+"
    r"|(mde|jpeg|exif)|default|untitled|screenshot|\W*)\s*",
    re.IGNORECASE,
)
"""What devices write where people would write a caption."""


def picture_words(image: Image.Image) -> str:
    """Gives what a picture says of itself, on one line; empty if it says nothing."""
    found = [*_exif(image), *_iptc(image)]
    packet = image.info.get("xmp")
    if isinstance(packet, bytes | str):
        found += _xmp(packet if isinstance(packet, bytes) else packet.encode("utf-8", "replace"))
    return _joined(found)


def xmp_words(data: bytes) -> str:
    """Gives title, description and keywords of an XMP packet or file; empty if it has none."""
    return _joined(_xmp(data))


def sound_words(tags: Iterable[tuple[str, str]]) -> str:
    """Gives what the tags of a sound say: title, artist, album, genre and comment.

    Args:
        tags: Names in lower case, and values.
    """
    said = dict(tags)
    return _joined([said[name] for name in SOUND_FIELDS if name in said])


def _joined(texts: Iterable[str]) -> str:
    """Joins what people wrote, each sentence once."""
    kept: dict[str, str] = {}
    for text in texts:
        line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
        if not BY_MACHINES.fullmatch(line):
            kept.setdefault(line.casefold(), line)
    return ". ".join(kept.values())[:MOST_CHARACTERS].rstrip()


def _exif(image: Image.Image) -> Iterator[str]:
    try:
        exif = image.getexif()
        values = [exif.get(tag) for tag in EXIF_FIELDS]
    except Exception:  # Pillow decodes each value when it is asked for, and raises what it likes
        return
    for tag, value in zip(EXIF_FIELDS, values, strict=True):
        if isinstance(value, bytes):  # Windows writes these as UTF-16
            value = value.decode("utf-16-le", "replace")
        if isinstance(value, str):
            text = value.split("\0")[0]
            yield text.replace(";", ", ") if tag is EXIF_KEYWORDS else text


def _iptc(image: Image.Image) -> Iterator[str]:
    if not isinstance(image, ImageFile.ImageFile):
        return
    try:
        said: dict[Any, Any] = IptcImagePlugin.getiptcinfo(image) or {}
    except Exception:  # as above
        return
    for field in IPTC_FIELDS:
        value = said.get(field)
        values = value if isinstance(value, list) else [value]
        texts = [_text(one) for one in values if isinstance(one, bytes)]
        if texts:
            yield ", ".join(text for text in texts if text)


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")  # what was usual before


def _xmp(data: bytes) -> Iterator[str]:
    # definitions of entities have no place in XMP, and are how small files become huge ones
    # (with zeros between the letters they would go unseen)
    if len(data) > LARGEST_XMP or any(one in data for one in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        return
    start, end = data.find(b"<x:xmpmeta"), data.rfind(b"</x:xmpmeta>")
    if start >= 0 and end > start:
        data = data[start : end + len(b"</x:xmpmeta>")]
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        return
    # labels of `anyseek classify`, which notes in the sidecar which ones are its own
    guessed = {item.text for noted in root.iter(OWN_LABELS) for item in noted.iter(LIST_ITEM)}
    for name in XMP_FIELDS:
        for field in root.iter(DUBLIN_CORE + name):
            # alternatives are translations: the first is the default
            texts = [item.text or "" for item in field.iter(LIST_ITEM)]
            if name == "subject":
                texts = [text for text in texts if text not in guessed]
                if not texts:
                    continue
            if not texts:
                yield field.text or ""
            elif name == "subject":
                yield ", ".join(text for text in texts if text)
            else:
                yield texts[0]
