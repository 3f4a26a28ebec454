"""Words beside pictures and sounds, and words inside them, of real files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from indexer import sidecars as labels_beside
from retrieval import beside, inscribed
from retrieval.errors import MediaError
from retrieval.types import Source, Words

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description>
 <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Low tide</rdf:li>
 <rdf:li xml:lang="de">Ebbe</rdf:li></rdf:Alt></dc:title>
 <dc:description><rdf:Alt><rdf:li>Two boats on the mud</rdf:li></rdf:Alt></dc:description>
 <dc:subject><rdf:Bag><rdf:li>boat</rdf:li><rdf:li>sea</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>"""
SAID = "Low tide. Two boats on the mud. boat, sea"


def test_sidecars_by_name() -> None:
    """The whole name with a suffix comes before the stem with it; nothing else counts."""
    siblings = {b"a.txt", b"a.jpg.txt", b"a.xmp", b"b.txt", b"a.jpg", b"a.md", b"aa.txt"}
    assert beside.sidecars(b"a.jpg", siblings) == (b"a.jpg.txt", b"a.txt", b"a.xmp")
    assert beside.sidecars(b"c.jpg", siblings) == ()
    assert beside.sidecars(b"CRAB.JPG", {b"CRAB.TXT"}) == (b"CRAB.TXT",)
    assert beside.sidecars(b"b.txt", siblings) == ()  # no file describes itself


def test_reads_a_caption(tmp_path: Path) -> None:
    """On one line, in the encoding that it has."""
    path = tmp_path / "a.txt"
    path.write_bytes("Zwei Boote\n\n im Schlick \x07 bei Föhr".encode("utf-16"))
    expected = Words(Source.SIDECAR, "Zwei Boote im Schlick bei Föhr")
    assert beside.read(os.fsencode(path)) == expected
    path.write_text(" \n ")
    assert beside.read(os.fsencode(path)) is None


def test_reads_an_xmp_sidecar(tmp_path: Path) -> None:
    """Title, description and keywords; of translations the default."""
    path = tmp_path / "a.xmp"
    path.write_text(XMP)
    assert beside.read(os.fsencode(path)) == Words(Source.SIDECAR, SAID)


def test_labels_of_a_model_are_no_words_of_people(tmp_path: Path) -> None:
    """What ``anyseek classify`` wrote into a sidecar is left out; keywords beside it stay."""
    picture = tmp_path / "a.jpg"
    sidecar = labels_beside.write(picture, [("cow", 0.5)], labels_beside.Kind.XMP)
    assert beside.read(os.fsencode(sidecar)) is None
    sidecar.write_bytes(labels_beside.merged_xmp(XMP.encode(), ["cow", "sea"]))
    assert beside.read(os.fsencode(sidecar)) == Words(Source.SIDECAR, SAID)


def test_a_row_that_is_no_utf_8_is_one_row(tmp_path: Path) -> None:
    """The others keep their letters, and a name may be of any bytes; so is a list of Windows."""
    path = tmp_path / "items.tsv"
    rows = "\ufefffile\ttitle\nföhr.jpg\tNordsee für alle\n".encode()
    path.write_bytes(rows + b"\xff.jpg\tbad \xfe name\n\0.jpg\tnul\nb.jpg\tlast\n")
    assert beside.read_list(os.fsencode(path)) == {
        "föhr.jpg".encode(): Words(Source.MANIFEST, "Nordsee für alle"),
        b"\xff.jpg": Words(Source.MANIFEST, "bad name"),
        b"b.jpg": Words(Source.MANIFEST, "last"),
    }
    path.write_bytes("file\ttitle\na.jpg\tFöhr\n".encode("cp1252"))
    assert beside.read_list(os.fsencode(path)) == {b"a.jpg": Words(Source.MANIFEST, "Föhr")}


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    """Missing, binary, too long; and a pipe does not hang the run."""
    with pytest.raises(MediaError, match="cannot be read"):
        beside.read(os.fsencode(tmp_path / "none.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2")
    with pytest.raises(MediaError, match="binary"):
        beside.read(os.fsencode(tmp_path / "binary.txt"))
    (tmp_path / "long.xmp").write_bytes(b" " * (beside.LONGEST_XMP + 1))
    with pytest.raises(MediaError, match="larger than"):
        beside.read(os.fsencode(tmp_path / "long.xmp"))
    os.mkfifo(tmp_path / "pipe.txt")
    assert beside.read(os.fsencode(tmp_path / "pipe.txt")) is None


def test_reads_a_list(tmp_path: Path) -> None:
    """Columns other than ``file`` are words; rows of one file are joined; no name leads away."""
    path = tmp_path / "items.tsv"
    path.write_text(
        "Title\tFILE\tprice\n"
        "Red chair\tchair.jpg\t30\n"
        "Oak\tchair.jpg\n"
        "\tempty.jpg\t\n"
        "Way out\t../secret.jpg\t1\n"
        "Way out\t/etc/passwd\t1\n"
        "Above\t..\t1\n"
        "short\n"
        'A "quoted" lamp\tlämp.png\t\n',
        "utf-8",
    )
    assert beside.read_list(os.fsencode(path)) == {
        b"chair.jpg": Words(Source.MANIFEST, "Red chair. 30. Oak"),
        "lämp.png".encode(): Words(Source.MANIFEST, 'A "quoted" lamp'),
    }


def test_a_list_without_files_says_so(tmp_path: Path) -> None:
    """Its header is what is wrong."""
    path = tmp_path / "items.tsv"
    path.write_text("name\ttitle\n")
    with pytest.raises(MediaError, match="no column 'file'"):
        beside.read_list(os.fsencode(path))
    path.write_text("")
    with pytest.raises(MediaError, match="no column 'file'"):
        beside.read_list(os.fsencode(path))


@given(st.binary(max_size=300))
def test_any_list_is_read_or_refused(data: bytes) -> None:
    """Whatever is in it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.tsv"
        path.write_bytes(b"file\ttitle\n" + data)
        try:
            found = beside.read_list(os.fsencode(path))
        except MediaError:
            return
        assert all(b"/" not in name and words.text for name, words in found.items())


def beside_a(folder: Path, *, listed: str | None = None, **files: tuple[str, int]) -> beside.Beside:
    """Gives what stands beside ``a.jpg`` in a folder with some files, each of a text and a time."""
    for path in folder.iterdir():
        path.unlink()
    for name, (text, mtime_ns) in files.items():
        path = folder / name.replace("_", ".")
        path.write_text(text)
        os.utime(path, ns=(mtime_ns, mtime_ns))
    if listed is not None:
        (folder / "items.tsv").write_text(f"file\ttitle\na.jpg\t{listed}\n")
    names = [os.fsencode(path.name) for path in folder.iterdir()]
    return beside.Neighbours(os.fsencode(folder), [*names, b"a.jpg"]).of(b"a.jpg")


def test_the_digest_follows_every_change(tmp_path: Path) -> None:
    """Another size, time, name or row gives another one; nothing gives none."""
    digests = [
        beside_a(tmp_path).digest,
        beside_a(tmp_path, a_txt=("red", 5)).digest,
        beside_a(tmp_path, a_txt=("red", 6)).digest,
        beside_a(tmp_path, a_txt=("blue", 5)).digest,
        beside_a(tmp_path, a_jpg_txt=("red", 5)).digest,
        beside_a(tmp_path, a_txt=("red", 5), listed="red").digest,
        beside_a(tmp_path, listed="red").digest,
        beside_a(tmp_path, listed="blue").digest,
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == b""
    again = beside_a(tmp_path, a_txt=("red", 5), z_txt=("x", 1))
    assert again.digest == digests[1]
    assert again.paths == (os.fsencode(tmp_path / "a.txt"),)


def test_a_long_text_is_no_caption(tmp_path: Path) -> None:
    """It stays a text of its own."""
    assert beside_a(tmp_path, a_txt=("x" * 2_001, 5)) == beside.NOTHING
    assert beside_a(tmp_path, a_xmp=("x" * 2_001, 5)).paths == (os.fsencode(tmp_path / "a.xmp"),)


def test_gathers_what_can_be_read(tmp_path: Path) -> None:
    """The row first, then the sidecars; one that cannot be read counts as none."""
    found = beside_a(tmp_path, a_txt=("boats", 1), a_jpg_txt=("\0", 1), listed="red")
    expected = [Words(Source.MANIFEST, "red"), Words(Source.SIDECAR, "boats")]
    assert list(found.words()) == expected


def picture(path: Path, **how: Any) -> Image.Image:
    """Saves a black picture and opens it."""
    Image.new("RGB", (8, 8)).save(path, **how)
    return Image.open(path)


def test_exif_words(tmp_path: Path) -> None:
    """Description, and what Windows calls title, subject, comment and keywords."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "Boats at low tide"
    exif[ExifTags.Base.XPTitle] = "Wattenmeer\0".encode("utf-16-le")
    exif[ExifTags.Base.XPComment] = "boats AT low tide\0".encode("utf-16-le")  # said already
    exif[ExifTags.Base.XPKeywords] = "boat;sea\0".encode("utf-16-le")
    with picture(tmp_path / "a.jpg", exif=exif) as image:
        assert inscribed.picture_words(image) == "Boats at low tide. Wattenmeer. boat, sea"


def iptc(*fields: tuple[int, bytes]) -> bytes:
    """A Photoshop block with IPTC fields of record 2."""
    data = b"".join(
        b"\x1c\x02" + bytes([number]) + len(value).to_bytes(2, "big") + value
        for number, value in fields
    )
    data += b"\0" * (len(data) % 2)
    block = b"8BIM\x04\x04\0\0" + len(data).to_bytes(4, "big") + data
    body = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


def test_iptc_words(tmp_path: Path) -> None:
    """Title, headline, caption, keywords, in this order; as UTF-8 or Latin."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path)
    data = path.read_bytes()
    fields = iptc(
        (25, b"boat"), (25, "Föhr".encode()), (120, "Zwei Bööte".encode("latin-1")), (5, b"Tide")
    )
    path.write_bytes(data[:2] + fields + data[2:])
    with Image.open(path) as image:
        assert inscribed.picture_words(image) == "Tide. Zwei Bööte. boat, Föhr"


def test_xmp_words(tmp_path: Path) -> None:
    """The packet inside a picture."""
    with picture(tmp_path / "a.jpg", xmp=XMP.encode()) as image:
        assert inscribed.picture_words(image) == SAID


@pytest.mark.parametrize(
    "noise", ["OLYMPUS DIGITAL CAMERA", "SONY DSC", "IMG_2034", "DSC00012", "  ", "---", "Untitled"]
)
def test_what_cameras_write_is_no_caption(tmp_path: Path, noise: str) -> None:
    """Every picture of such a camera would be found by it."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = noise
    with picture(tmp_path / "a.jpg", exif=exif) as image:
        assert inscribed.picture_words(image) == ""


def test_entities_are_not_expanded() -> None:
    """A small file must not become a huge one, in whatever letters it is written."""
    bomb = '<!DOCTYPE x [<!ENTITY a "boat">]>' + XMP.replace("Low tide", "&a;")
    assert inscribed.xmp_words(bomb.encode()) == ""
    assert inscribed.xmp_words(bomb.encode("utf-16")) == ""


@given(st.binary(max_size=200), st.integers(0, len(XMP)))
def test_damaged_xmp_says_nothing_or_words(noise: bytes, at: int) -> None:
    """Whatever stands in the middle of it."""
    data = XMP.encode()
    assert isinstance(inscribed.xmp_words(data[:at] + noise + data[at:]), str)


def test_sound_tags(tmp_path: Path) -> None:
    """As libsndfile gives them."""
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        file.title, file.comment, file.software = "Curlews", "at dusk", "recorder"
        file.write(np.zeros(800))
    with soundfile.SoundFile(path) as file:
        assert inscribed.sound_words(file.copy_metadata().items()) == "Curlews. at dusk"
