"""The sample pictures, sounds and texts are complete, unchanged, small, and free to pass on."""

import hashlib
import tomllib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

SAMPLES = Path(__file__).parent.parent / "data" / "samples"
MAX_BYTES = 6_000_000  # the whole folder travels with every clone
PICTURES = {".jpg", ".png", ".webp"}
SOUNDS = {".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG", ".wav": "WAV"}
WALK = "sounds/walk-on-a-farm.ogg"  # the one in which several sounds follow one another
# Everybody may pass these on and change them; whatever else a new file brings has to be read first.
ALLOWED = {
    "CC0-1.0",
    "CC-BY-2.0",
    "CC-BY-2.5",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "LAL-1.2",
    "LicenseRef-Public-Domain",
}


def load_sources() -> dict[str, Any]:
    """SOURCES.toml as tables."""
    return tomllib.loads((SAMPLES / "SOURCES.toml").read_text(encoding="utf-8"))


SOURCES = load_sources()
FILES: list[dict[str, str]] = SOURCES["file"]
BY_PATH = {entry["path"]: entry for entry in FILES}


def present() -> Iterator[str]:
    """Every file in the folder that must be listed, relative to it with forward slashes."""
    for path in SAMPLES.rglob("*"):
        name = path.relative_to(SAMPLES).as_posix()
        if path.is_file() and name != "SOURCES.toml" and not name.startswith("LICENSES/"):
            yield name


def test_every_file_is_listed_once_and_every_listed_file_is_there() -> None:
    """The list and the folder name the same files."""
    assert len(BY_PATH) == len(FILES)
    assert sorted(BY_PATH) == sorted(present())


def test_there_is_something_to_search() -> None:
    """A demonstration needs enough pictures and sounds in several formats, and texts."""
    suffixes = [PurePosixPath(path).suffix for path in BY_PATH]
    assert sum(suffix in PICTURES for suffix in suffixes) >= 55
    assert sum(suffix in SOUNDS for suffix in suffixes) >= 25
    assert set(suffixes) == {*PICTURES, *SOUNDS, ".txt", ".md", ".html", ".pdf", ".tsv"}


@pytest.mark.parametrize("entry", FILES, ids=lambda entry: entry["path"])
def test_a_file_says_where_it_comes_from(entry: dict[str, str]) -> None:
    """Origin, author, licence and changes are named, and nothing else slips in."""
    needed = {"path", "origin", "author", "licence", "sha256", "changes"}
    assert needed <= set(entry) <= needed | {"source", "stated_in"}
    assert all(isinstance(value, str) and value.strip() for value in entry.values())
    assert entry["licence"] in ALLOWED
    assert entry["licence"] in SOURCES["licences"]


@pytest.mark.parametrize("entry", FILES, ids=lambda entry: entry["path"])
def test_a_file_is_the_one_that_was_listed(entry: dict[str, str]) -> None:
    """The path stays inside the folder and the content has the recorded digest."""
    relative = PurePosixPath(entry["path"])
    assert not relative.is_absolute()
    assert ".." not in relative.parts
    assert "\\" not in entry["path"]
    path = SAMPLES / relative
    assert not path.is_symlink()
    assert path.resolve().is_relative_to(SAMPLES.resolve())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize(
    "name", sorted(path for path in BY_PATH if PurePosixPath(path).suffix in PICTURES)
)
def test_a_picture_opens(name: str) -> None:
    """Pillow decodes the whole picture, in the format that its name says."""
    formats = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
    with Image.open(SAMPLES / name) as picture:
        picture.load()
        assert picture.format == formats[PurePosixPath(name).suffix]
        assert 256 <= max(picture.size) <= 640


@pytest.mark.parametrize(
    "name", sorted(path for path in BY_PATH if PurePosixPath(path).suffix in SOUNDS)
)
def test_a_sound_plays(name: str) -> None:
    """All of the sound can be decoded; it is short, mono or stereo, and not silent."""
    with soundfile.SoundFile(SAMPLES / name) as file:
        assert file.format == SOUNDS[PurePosixPath(name).suffix]
        samples = file.read(dtype="float32", always_2d=True)
        assert len(samples) == file.frames
        seconds = file.frames / file.samplerate
    assert samples.shape[1] in {1, 2}
    assert np.isfinite(samples).all()
    assert abs(samples).max() > 0.1
    assert 40 <= seconds <= 60 if name == WALK else 1 <= seconds <= 12


def test_the_walk_is_parted_by_pauses() -> None:
    """Four sounds, each long enough to be found by its time, with silence between them."""
    samples, rate = soundfile.read(SAMPLES / WALK, dtype="float32")
    seconds = [abs(samples[at : at + rate]).max() > 0.02 for at in range(0, len(samples), rate)]
    runs = [len(list(group)) for loud, group in groupby(seconds) if loud]
    assert len(runs) == 4
    assert min(runs) >= 4


def test_licence_texts_are_there() -> None:
    """Each licence but the public domain comes with its text, and no text is left over."""
    needed = {entry["licence"] for entry in FILES}
    assert set(SOURCES["licences"]) == needed
    texts = {table["text"] for table in SOURCES["licences"].values() if "text" in table}
    assert {name for name in needed if "text" not in SOURCES["licences"][name]} <= {
        "LicenseRef-Public-Domain"
    }
    assert texts == {f"LICENSES/{path.name}" for path in (SAMPLES / "LICENSES").iterdir()}
    assert all((SAMPLES / text).stat().st_size > 5_000 for text in texts)


def test_texts_are_readable() -> None:
    """The written texts are UTF-8, and one of them is Chinese."""
    texts = [
        (SAMPLES / name).read_text(encoding="utf-8")
        for name in BY_PATH
        if PurePosixPath(name).suffix in {".txt", ".md", ".html"}
    ]
    assert len(texts) >= 5
    assert all(len(text) > 300 for text in texts)
    assert any("绿茶" in text for text in texts)


def test_everything_together_is_small() -> None:
    """The folder stays below its limit, licence texts included."""
    total = sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file())
    assert total <= MAX_BYTES
