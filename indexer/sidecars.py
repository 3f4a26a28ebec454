"""Labels written beside their files, where other programs find them: XMP, or JSON.

``photo.jpg`` gets ``photo.jpg.xmp`` with the labels as keywords (``dc:subject``, XMP specification
part 1, section 8.3), or ``photo.jpg.anyseek.json``. A sidecar of another program keeps all that it
says and gets our labels besides; which ones are ours is noted in it, so that they can be replaced.
One that cannot be read is left alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from retrieval.errors import MediaError

LARGEST = 10 << 20  # bytes; lists of edits can be long
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
META = "adobe:ns:meta/"
OURS = "urn:anyseek:labels:1.0"
PREFIXES = {"x": META, "rdf": RDF, "dc": DC, "anyseek": OURS}
BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
END = '\n<?xpacket end="w"?>\n'


class Kind(StrEnum):
    """How a sidecar is written."""

    XMP = "xmp"
    JSON = "json"


def path_of(media: Path, kind: Kind) -> Path:
    """Names the sidecar of a file."""
    return media.with_name(media.name + (".xmp" if kind is Kind.XMP else ".anyseek.json"))


def write(media: Path, labels: Sequence[tuple[str, float]], kind: Kind) -> Path:
    """Writes a file's labels beside it, into the sidecar that is there or a new one.

    Args:
        media: The file.
        labels: Each with its probability; none takes ours away from a sidecar that is there.
        kind: How.

    Returns:
        The sidecar's path.

    Raises:
        MediaError: If the sidecar that is there cannot be understood, or none can be written.
    """
    path = path_of(media, kind)
    old = _read(path)
    names = [name for name, _ in labels]
    new = merged_xmp(old, names) if kind is Kind.XMP else _json(old, labels)
    if new != old:
        _replace(path, new)
    return path


def _json(old: bytes | None, labels: Sequence[tuple[str, float]]) -> bytes:
    if old is not None:
        try:
            before = json.loads(old)
        except (ValueError, RecursionError):
            before = None
        if not isinstance(before, dict) or "anyseek" not in before:
            raise MediaError("has a sidecar that another program wrote; it is left alone")
    named = [{"label": name, "probability": round(value, 4)} for name, value in labels]
    return (json.dumps({"anyseek": 1, "labels": named}, ensure_ascii=False) + "\n").encode("utf-8")


def merged_xmp(old: bytes | None, labels: Sequence[str]) -> bytes:
    """Gives a sidecar's content with some labels among its keywords, ours of before taken out.

    Raises:
        MediaError: If the old content is no XMP.
    """
    root = _parsed(old) if old is not None else _empty()
    rdf = root if root.tag == f"{{{RDF}}}RDF" else root.find(f".//{{{RDF}}}RDF")
    if rdf is None:
        raise MediaError("has a sidecar that is no XMP; it is left alone")
    places = rdf.findall(f"{{{RDF}}}Description")
    if not places:
        places = [ElementTree.SubElement(rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})]
    ours = {item.text or "" for item in _items(places, f"{{{OURS}}}labels")}
    wanted = list(dict.fromkeys(labels))
    there = []
    for bag in _bags(places, f"{{{DC}}}subject"):
        for item in list(bag):
            if item.tag == f"{{{RDF}}}li":
                if (item.text or "") in ours and item.text not in wanted:
                    bag.remove(item)
                else:
                    there.append(item.text or "")
    # what a person had written before stays theirs, even if we say the same
    missing = [label for label in wanted if label not in there]
    _add(places, f"{{{DC}}}subject", missing)
    for place in places:
        for noted in place.findall(f"{{{OURS}}}labels"):
            place.remove(noted)
    _add(places[:1], f"{{{OURS}}}labels", [one for one in wanted if one in missing or one in ours])
    _tidy(places, f"{{{DC}}}subject")
    text = ElementTree.tostring(root, encoding="unicode")
    return (BEGIN + text + END).encode("utf-8")


def _bags(places: Sequence[ElementTree.Element], tag: str) -> list[ElementTree.Element]:
    return [bag for place in places for kept in place.findall(tag) for bag in kept]


def _items(places: Sequence[ElementTree.Element], tag: str) -> list[ElementTree.Element]:
    return [item for bag in _bags(places, tag) for item in bag if item.tag == f"{{{RDF}}}li"]


def _add(places: Sequence[ElementTree.Element], tag: str, texts: Sequence[str]) -> None:
    """Adds texts to the first list of a property, which is made where there is none."""
    if not texts:
        return
    bags = _bags(places, tag)
    if bags:
        bag = bags[0]
    else:
        bag = ElementTree.SubElement(ElementTree.SubElement(places[0], tag), f"{{{RDF}}}Bag")
    for text in texts:
        ElementTree.SubElement(bag, f"{{{RDF}}}li").text = text


def _tidy(places: Sequence[ElementTree.Element], tag: str) -> None:
    """Takes away lists that became empty."""
    for place in places:
        for kept in place.findall(tag):
            if not any(len(bag) for bag in kept) and len(kept):
                place.remove(kept)


def _empty() -> ElementTree.Element:
    root = ElementTree.Element(f"{{{META}}}xmpmeta")
    rdf = ElementTree.SubElement(root, f"{{{RDF}}}RDF")
    ElementTree.SubElement(rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    for prefix, uri in PREFIXES.items():
        ElementTree.register_namespace(prefix, uri)
    return root


def _parsed(data: bytes) -> ElementTree.Element:
    """Reads a sidecar, keeps comments, and gives namespaces the prefixes that it used.

    A document type is refused: it is what entities, and with them the traps of XML, come in.
    """
    checker = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise MediaError("has a sidecar with a document type, which is not XMP; it is left alone")

    checker.StartDoctypeDeclHandler = refuse
    try:
        checker.Parse(data, True)
        builder = ElementTree.TreeBuilder(insert_comments=True, insert_pis=True)
        for prefix, uri in PREFIXES.items():
            ElementTree.register_namespace(prefix, uri)
        for _, (prefix, uri) in ElementTree.iterparse(io.BytesIO(data), ["start-ns"]):
            with contextlib.suppress(ValueError):  # ns0 and the like are ElementTree's own
                if prefix and uri not in PREFIXES.values() and prefix not in PREFIXES:
                    ElementTree.register_namespace(prefix, uri)
        parser = ElementTree.XMLParser(target=builder)
        parser.feed(data)
        root: ElementTree.Element = parser.close()
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise MediaError(f"has a sidecar that is no XML ({error}); it is left alone") from None
    return root


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MediaError(f"has a sidecar that cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise MediaError(f"has a sidecar of over {LARGEST >> 20} MB; it is left alone")
    return data


def _replace(path: Path, data: bytes) -> None:
    """Writes a file so that it is there whole or as it was."""
    hidden = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            with hidden.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)
    except OSError as error:
        raise MediaError(f"gets no sidecar: {error.strerror or error}") from error
