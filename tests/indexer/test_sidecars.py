"""Sidecars: what other programs wrote stays, what is ours is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.sidecars import DC, RDF, Kind, merged_xmp, path_of, write
from retrieval.errors import MediaError

FOREIGN = """<?xml version="1.0" encoding="UTF-8"?>
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:darktable="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" darktable:rating="5">
   <!-- by hand -->
   <darktable:history><rdf:Seq><rdf:li darktable:num="0"/></rdf:Seq></darktable:history>
   <dc:subject><rdf:Bag><rdf:li>Ada &amp; Bob</rdf:li><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


def keywords(data: bytes) -> list[str]:
    """The keywords of a sidecar, read apart from our own code."""
    root = ElementTree.fromstring(data)
    return [item.text or "" for item in root.findall(f".//{{{DC}}}subject/*/{{{RDF}}}li")]


def test_a_new_sidecar() -> None:
    """Has the labels as keywords, in the prefixes that everyone uses."""
    data = merged_xmp(None, ["dog", "<b> & 猫"])
    assert keywords(data) == ["dog", "<b> & 猫"]
    text = data.decode()
    assert text.startswith('<?xpacket begin="\ufeff"')
    assert "<dc:subject><rdf:Bag><rdf:li>dog</rdf:li>" in text
    assert merged_xmp(data, ["dog", "<b> & 猫"]) == data


def test_a_foreign_sidecar_keeps_what_it_says() -> None:
    """Edits, comments, ratings, keywords; ours come and go beside them."""
    once = merged_xmp(FOREIGN, ["cat", "dog"])
    assert keywords(once) == ["Ada & Bob", "dog", "cat"]
    text = once.decode()
    for kept in ("darktable:rating=", "<!-- by hand -->", "darktable:history", "XMP Core 4.4.0"):
        assert kept in text
    again = merged_xmp(once, ["bird"])
    assert keywords(again) == ["Ada & Bob", "dog", "bird"]  # dog was there before us
    assert keywords(merged_xmp(again, [])) == ["Ada & Bob", "dog"]


@given(
    st.lists(
        st.text(
            st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc", "Cn", "Co")),
            min_size=1,
            max_size=8,
        ),
        unique=True,
        max_size=4,
    ),
    st.lists(st.sampled_from(["Ada & Bob", "dog", "cat", "bird"]), unique=True),
)
def test_the_last_labels_are_there(first: list[str], second: list[str]) -> None:
    """Whatever was written before, a person's keywords and the last labels are what remains."""
    data = merged_xmp(merged_xmp(FOREIGN, first), second)
    assert set(keywords(data)) == {"Ada & Bob", "dog", *second}
    assert len(keywords(data)) == len(set(keywords(data)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not xml", "no XML"),
        (b"", "no XML"),
        (b"<a/>", "no XMP"),
        (FOREIGN[:200], "no XML"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        (('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><a/>').encode("utf-16"), "document"),
    ],
)
def test_what_is_not_understood_is_left_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    """The reason is given, and the file is as it was."""
    media = tmp_path / "a.jpg"
    path_of(media, Kind.XMP).write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        write(media, [("dog", 0.5)], Kind.XMP)
    assert path_of(media, Kind.XMP).read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_json(tmp_path: Path) -> None:
    """Beside the file; ours is replaced, another program's is not."""
    media = tmp_path / "a.jpg"
    path = write(media, [("dog", 0.25), ("猫", 0.125)], Kind.JSON)
    assert path.name == "a.jpg.anyseek.json"
    assert json.loads(path.read_text("utf-8")) == {
        "anyseek": 1,
        "labels": [{"label": "dog", "probability": 0.25}, {"label": "猫", "probability": 0.125}],
    }
    write(media, [], Kind.JSON)
    assert json.loads(path.read_text("utf-8"))["labels"] == []
    for foreign in ("{}", "[1]", "x", "[" * 100_000):
        path.write_text(foreign)
        with pytest.raises(MediaError, match="another program"):
            write(media, [("dog", 0.5)], Kind.JSON)
        assert path.read_text() == foreign


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder in the sidecar's place is a reason, no crash."""
    media = tmp_path / "a.jpg"
    path_of(media, Kind.XMP).mkdir()
    with pytest.raises(MediaError, match="cannot be read"):
        write(media, [("dog", 0.5)], Kind.XMP)
    with pytest.raises(MediaError, match="gets no sidecar"):
        write(tmp_path / "none" / "a.jpg", [("dog", 0.5)], Kind.JSON)
