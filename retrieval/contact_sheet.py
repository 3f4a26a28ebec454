"""A web page of groups with small pictures: one file that needs no other and loads nothing."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval import media
from retrieval.errors import MediaError
from retrieval.types import Modality

SIDE = 160  # pixels, at most
QUALITY = 75
SHOWN = 60  # files of a group: a page of fifty groups stays below 20 MB
MARK = '<meta name="generator" content="anyseek groups">'
HEAD = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
{MARK}
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>anyseek groups</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em; }}
h2 {{ margin: 1.5em 0 .3em; }} p {{ margin: .2em 0; color: GrayText; }}
ul {{ list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 6px; }}
li {{ width: {SIDE}px; font-size: 11px; overflow-wrap: anywhere; }}
img {{ display: block; max-width: {SIDE}px; max-height: {SIDE}px; }}
</style></head><body>
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A group on the page.

    Attributes:
        title: Its name.
        modality: Of its files.
        paths: Its files, the most typical first.
    """

    title: str
    modality: Modality
    paths: Sequence[bytes]


def page(sections: Iterable[Section]) -> Iterator[str]:
    """Writes the page, piece by piece; names are shown as they are and never as HTML."""
    yield HEAD
    for section in sections:
        yield f"<h2>{_text(section.title)}</h2>\n<p>{len(section.paths)} files</p>\n<ul>\n"
        for path in section.paths[:SHOWN]:
            name = _text(Path(path.decode("utf-8", "backslashreplace")).name)
            picture = _thumbnail(path) if section.modality is Modality.IMAGE else ""
            yield f"<li>{picture}{name}</li>\n"
        yield "</ul>\n"
        if len(section.paths) > SHOWN:
            yield f"<p>and {len(section.paths) - SHOWN} more</p>\n"
    yield "</body></html>\n"


def _text(text: str) -> str:
    """Escapes text for HTML; what does not show, or turns the line about, is written out."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return html.escape(plain, quote=True)


def _thumbnail(path: bytes) -> str:
    try:
        (part,) = media.decode(media.read(path).data, path, side_px=SIDE).parts
    except MediaError:
        return ""  # gone since it was indexed; its name still stands there
    part.content.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    part.content.save(buffer, "JPEG", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'
