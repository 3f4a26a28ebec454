"""The benchmark's way of picking pictures and sounds out of packages, on a tiny tree."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.benchmarks import tri_modal
from tests.benchmarks.tri_modal import Item

soundfile = pytest.importorskip("soundfile")


def sound(level: float = 0.5, seconds: float = 1.0, pitch: float = 440.0) -> bytes:
    """A tone as a WAV file."""
    times = np.arange(int(8_000 * seconds)) / 8_000
    buffer = io.BytesIO()
    soundfile.write(buffer, level * np.sin(2 * np.pi * pitch * times), 8_000, format="WAV")
    return buffer.getvalue()


def png(title: str = "", colour: str = "red") -> bytes:
    """A small picture that carries its title."""
    information = PngInfo()
    information.add_text("Title", title, zip=len(title) > 20)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG", pnginfo=information)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("title", "query", "matches"),
    [
        ("Blue_Vacuum Cleaner", "vacuum cleaner", True),
        ("dog | A dog.", "dog", True),
        ("hotdog", "dog", False),
        ("A fire truck.", "crackling fire", False),
        ("A fire truck.", "siren", True),
        ("Cricket Bat", "crickets", False),
        ("Baby bottle", "breaking glass", False),
        ("baby_bottle", "crying baby", False),
        ("babyGirl", "crying baby", True),
        ("Magnifying Glass", "breaking glass", False),
        ("mouse_pointer", "computer mouse", False),
    ],
)
def test_titles_are_matched_by_words(title: str, query: str, matches: bool) -> None:
    """Whole words count, and those that only sound like the thing do not."""
    assert tri_modal.titled(title, tri_modal.QUERIES[query][0]) is matches


@pytest.mark.parametrize("title", ["Rooster", "A title that is long enough to be compressed"])
def test_a_png_tells_its_title(title: str) -> None:
    """Plain and compressed text are read."""
    assert tri_modal.png_title(png(title)) == title
    assert tri_modal.png_size(png()) == (64, 64)


def test_other_png_chunks_are_passed_over() -> None:
    """International text, and text under another key."""
    text = b"Title\0\0\0\0\0Bunter Hahn"
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(text))
    plain = png()
    assert tri_modal.png_title(plain) == ""
    assert tri_modal.png_title(plain[:33] + chunk + plain[33:]) == "Bunter Hahn"


def test_stamps_are_read_with_their_titles_and_pairs_with_a_reason(tmp_path: Path) -> None:
    """One pair a kind; silence, spoken names, shared recordings and excluded files make none."""
    birds = tmp_path / "usr/share/tuxpaint/stamps/animals/birds"
    birds.mkdir(parents=True)
    for number, name in enumerate(("crow", "drake", "duck", "owl", "lark", "hawk", "kite")):
        (birds / f"{name}.png").write_bytes(png(colour=f"#0000{number:02}"))
        (birds / f"{name}.txt").write_text(f"A {name}.\nde.utf8=Vogel\n", encoding="utf-8")
        (birds / f"{name}.wav").write_bytes(sound(pitch=300 + 50 * number))
    (birds / "owl.wav").write_bytes(sound(level=0))
    (birds / "lark.wav").write_bytes(sound(seconds=0.1))
    (birds / "kite.wav").write_bytes((birds / "hawk.wav").read_bytes())
    (birds / "crow_desc_fr.ogg").write_bytes(b"somebody says corbeau")

    items = list(tri_modal.tuxpaint(tmp_path))
    assert "crow | A crow." in [item.title for item in items]
    assert not any("_desc" in item.name for item in items)
    pairs = tri_modal.pair_up(items)
    assert [(kind, picture) for kind, picture, _ in pairs] == [
        ("crow", next(item for item in items if item.name == "animals/birds/crow.png")),
        ("duck", next(item for item in items if item.name == "animals/birds/drake.png")),
    ]


def test_photographs_go_first_and_a_picture_answers_one_query() -> None:
    """The same picture is not taken twice, and no query takes more than its share."""

    def item(package: str, name: str, title: str) -> Item:
        content = png(colour=f"#{zlib.crc32(name.encode()) & 0xFFFFFF:06x}")
        return Item(package, name, lambda: content, title)

    drawing = item("tuxpaint", "animals/cartoon/dog.png", "A dog.")
    photographs = [item("tuxpaint", f"animals/dog{n}.png", "A dog.") for n in range(4)]
    clips = [item("openclipart", f"animals/d{n}.png", "Dog and car") for n in range(3)]
    clips.append(item("openclipart", "computer/icons/dog.png", "dog"))
    queries = {"dog": ("dog", ()), "car": ("car", ())}
    found = tri_modal.pick([*clips, drawing, *photographs], queries)
    assert found["dog"] == [*photographs, drawing]
    assert found["car"] == clips[:3]
    assert tri_modal.pick([*clips, *photographs], queries) == {
        "dog": [*photographs, clips[0]],
        "car": clips[1:3],
    }


def test_a_faint_drawing_gets_a_dark_ground() -> None:
    """Transparent margins are cut off, and what white would swallow lies on black."""

    def on_ground(colour: tuple[int, int, int]) -> Image.Image:
        picture = Image.new("RGBA", (200, 400), (0, 0, 0, 0))
        picture.paste((*colour, 255), (50, 50, 100, 100))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return Image.open(io.BytesIO(tri_modal.flattened(buffer.getvalue())))

    dark, light = on_ground((90, 0, 0)), on_ground((255, 255, 250))
    assert dark.size == light.size == (66, 66)
    assert dark.getpixel((0, 0)) == (255, 255, 255)
    assert light.getpixel((0, 0)) == (0, 0, 0)
    opaque = png()
    assert tri_modal.flattened(opaque) == opaque
