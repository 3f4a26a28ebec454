"""Words beside and inside pictures and sounds, from real folders into real indexes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import ExifTags, Image

from retrieval.media import modality_of
from retrieval.store import Store
from retrieval.types import Modality
from tests.conftest import run_sql
from tests.fakes import RATE_HZ, colour_encoder, pitch_hz
from tests.indexer.test_pipeline import Desk, counts

SAID = "SELECT i.path, p.source, p.text FROM parts p JOIN items i ON i.id = p.item_id "
SAID += "WHERE p.source <> 'content' ORDER BY i.path, p.ordinal"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty folder and no index yet."""
    return Desk(tmp_path.resolve())


def said(desk: Desk) -> list[tuple[str, str, str]]:
    """The words of every item, by its name."""
    prefix = os.fsencode(desk.root) + b"/"
    return [
        (os.fsdecode(path.removeprefix(prefix)), source, text)
        for path, source, text in run_sql(desk.index, SAID)
    ]


def test_a_caption_belongs_to_its_picture(desk: Desk) -> None:
    """It is no text of its own, and a text without a picture is."""
    desk.draw("a.bmp", 1)
    desk.write("a.txt", "red things")
    desk.write("b.txt", "blue things")
    assert counts(desk.run()) == {"added": 2}
    assert said(desk) == [("a.bmp", "sidecar", "red things")]
    assert set(desk.items()) == {"a.bmp", "b.txt"}
    assert counts(desk.run()) == {"unchanged": 2}


def test_a_caption_that_changes_is_read_again(desk: Desk) -> None:
    """Alone: the picture is not embedded again; and what comes or goes counts as a change."""
    desk.draw("a.bmp", 1)
    desk.run()
    assert said(desk) == []
    before = desk.ids()
    for words in ("red", "green", None, "blue"):
        if words is None:
            (desk.root / "a.txt").unlink()
        else:
            desk.write("a.txt", words)
        desk.embedded  # noqa: B018 (forgets the count)
        assert counts(desk.run()) == {"updated": 1}
        assert desk.embedded == (words is not None)
        assert said(desk) == ([("a.bmp", "sidecar", words)] if words else [])
        assert counts(desk.run()) == {"unchanged": 1}
        assert desk.embedded == 0
    assert desk.ids() == before


def test_a_text_that_gets_a_picture_is_its_caption(desk: Desk) -> None:
    """And one that loses it is a text again."""
    desk.write("a.txt", "red")
    assert counts(desk.run()) == {"added": 1}
    picture = desk.draw("a.bmp", 1)
    assert counts(desk.run()) == {"added": 1, "removed": 1}
    assert set(desk.items()) == {"a.bmp"}
    picture.unlink()
    assert counts(desk.run()) == {"added": 1, "removed": 1}
    assert set(desk.items()) == {"a.txt"}


def test_a_picture_that_moves_takes_up_what_is_beside_it_there(desk: Desk) -> None:
    """Without being embedded again; its copy has its own words."""
    desk.draw("a.bmp", 1)
    desk.write("a.txt", "red")
    desk.run()
    (desk.root / "a.bmp").rename(desk.root / "b.bmp")
    desk.write("b.txt", "blue")
    assert counts(desk.run()) == {"renamed": 1, "added": 1}  # the caption left alone is a text
    assert said(desk) == [("b.bmp", "sidecar", "blue")]
    desk.write("c.bmp", (desk.root / "b.bmp").read_bytes())
    desk.write("c.bmp.txt", "green")
    desk.embedded  # noqa: B018 (forgets the count)
    assert counts(desk.run()) == {"added": 1, "unchanged": 2}
    assert desk.embedded == 1  # the words
    assert said(desk) == [("b.bmp", "sidecar", "blue"), ("c.bmp", "sidecar", "green")]


def test_a_list_of_the_folder(desk: Desk) -> None:
    """Only the rows that change are read again; a list that is none is told."""
    desk.draw("a.bmp", 1)
    desk.draw("b.bmp", 2)
    desk.write("items.tsv", "file\ttitle\na.bmp\tred\nb.bmp\tblue\n")
    assert counts(desk.run()) == {"added": 2}
    assert said(desk) == [("a.bmp", "manifest", "red"), ("b.bmp", "manifest", "blue")]
    desk.write("items.tsv", "file\ttitle\na.bmp\tred\nb.bmp\tgreen\n")
    desk.embedded  # noqa: B018 (forgets the count)
    assert counts(desk.run()) == {"updated": 1, "unchanged": 1}
    assert desk.embedded == 1
    assert said(desk) == [("a.bmp", "manifest", "red"), ("b.bmp", "manifest", "green")]
    desk.write("items.tsv", "a list of things to buy")
    report = desk.run()
    (failed,) = report.failed
    assert os.path.basename(failed.path) == b"items.tsv"  # noqa: PTH119 (bytes)
    assert "no column 'file'" in failed.reason


def test_words_inside_files(desk: Desk) -> None:
    """EXIF of a picture, tags of a sound; a copy has them, too."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "a red field"
    Image.new("RGB", (16, 16), "green").save(desk.root / "a.jpg", exif=exif)
    tone = 0.3 * np.sin(2 * np.pi * pitch_hz("blue") * np.arange(RATE_HZ) / RATE_HZ)
    with soundfile.SoundFile(desk.root / "b.flac", "w", RATE_HZ, 1) as file:
        file.title = "a yellow tone"
        file.write(tone)
    assert counts(desk.run()) == {"added": 2}
    expected = [("a.jpg", "metadata", "a red field"), ("b.flac", "metadata", "a yellow tone")]
    assert said(desk) == expected
    desk.write("c.flac", (desk.root / "b.flac").read_bytes())
    assert counts(desk.run()) == {"added": 1, "unchanged": 2}
    assert said(desk) == [*expected, ("c.flac", "metadata", "a yellow tone")]


def test_a_file_named_by_itself_has_what_is_beside_it(desk: Desk) -> None:
    """And a caption that is named by itself is a text."""
    picture = desk.draw("a.bmp", 1)
    caption = desk.write("a.txt", "red")
    assert counts(desk.run(picture)) == {"added": 1}
    assert said(desk) == [("a.bmp", "sidecar", "red")]
    assert counts(desk.run(caption)) == {"added": 1}
    assert set(desk.items()) == {"a.bmp", "a.txt"}


def test_every_space_gets_the_words(desk: Desk) -> None:
    """A change that one space has seen is still news to the other."""
    other = colour_encoder("colours-2")
    desk.draw("a.bmp", 1)
    desk.write("a.txt", "red")
    desk.run()
    assert counts(desk.run(encoder=other)) == {"updated": 1}
    count = "SELECT count(*) FROM vectors WHERE modality = 'image words'"
    assert run_sql(desk.index, count) == [(2,)]
    desk.write("a.txt", "blue")
    assert counts(desk.run()) == {"updated": 1}
    with Store(desk.index) as store:
        first, second = store.spaces()
        for space, complete in ((first, True), (second, False)):
            (known,) = store.known(os.fsencode(desk.root), space)
            assert known.complete is complete
    assert counts(desk.run(encoder=other)) == {"unchanged": 1}
    assert run_sql(desk.index, count) == [(2,)]


def test_a_model_without_words_leaves_them(desk: Desk) -> None:
    """It does not ask for them again and again."""
    seeing = replace(
        colour_encoder("colours-3"),
        towers={Modality.IMAGE: colour_encoder().towers[Modality.IMAGE]},
    )
    desk.draw("a.bmp", 1)
    desk.write("a.txt", "red")
    desk.run()
    desk.run(encoder=seeing)
    assert said(desk) == [("a.bmp", "sidecar", "red")]
    assert counts(desk.run(encoder=seeing)) == {"unchanged": 1}


def test_long_texts_and_other_kinds_stay_apart(desk: Desk) -> None:
    """A long text is no caption, and neither is one beside a text."""
    desk.draw("a.bmp", 1)
    desk.write("a.txt", "red " * 600)
    desk.write("b.md", "green")
    desk.write("b.txt", "blue")
    assert counts(desk.run()) == {"added": 4}
    assert said(desk) == []
    assert modality_of("b.md") is Modality.TEXT
