"""Maps of heat over pictures whose colours lie where the test put them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from retrieval import heat
from retrieval.errors import MediaError, QueryError
from tests.fakes import COLOURS, ColourTower

Box = tuple[int, int, int, int]


def query(name: str) -> NDArray[np.float32]:
    """The unit vector of a colour."""
    return np.asarray([other == name for other in COLOURS], np.float32)


def spotted(size: tuple[int, int], box: Box, *, spot: str = "red") -> Image.Image:
    """A white picture with a spot of colour."""
    picture = Image.new("RGB", size, COLOURS["white"])
    picture.paste(COLOURS[spot], box)
    return picture


def hottest(found: heat.Heat) -> tuple[float, float]:
    """The middle of the hottest cells as a share of the width and of the height."""
    rows, columns = np.nonzero(found == found.max())
    count = heat.CELLS
    return float(columns.mean() + 0.5) / count, float(rows.mean() + 0.5) / count


# ---- maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (160, 60), (50, 200), (16, 16), (700, 40)])
@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.75, 0.0), (0.0, 0.75), (0.75, 0.75)])
def test_the_hottest_place_is_where_the_colour_is(
    size: tuple[int, int], corner: tuple[float, float]
) -> None:
    """A spot of a sixteenth is found in any corner of any picture, and the rest is cold."""
    width, height = size
    left, top = round(corner[0] * width), round(corner[1] * height)
    box = (left, top, left + width // 4, top + height // 4)
    found = heat.heat_map(spotted(size, box), ColourTower(), query("red"))
    assert found.shape == (heat.CELLS, heat.CELLS)
    assert found.dtype == np.float32
    assert (found.min(), found.max()) == (0.0, 1.0)
    x, y = hottest(found)
    assert corner[0] <= x <= corner[0] + 0.25
    assert corner[1] <= y <= corner[1] + 0.25
    far = found[:: heat.CELLS - 1, :: heat.CELLS - 1]  # the four corners
    assert sorted(far.ravel() < 0.3) == [False, True, True, True]


def test_another_query_looks_elsewhere() -> None:
    """The same picture has its heat in another place for another colour."""
    picture = spotted((80, 60), (0, 0, 30, 60))
    picture.paste(COLOURS["blue"], (50, 0, 80, 60))
    tower = ColourTower()
    assert hottest(heat.heat_map(picture, tower, query("red")))[0] < 0.4
    assert hottest(heat.heat_map(picture, tower, query("blue")))[0] > 0.6
    middle = hottest(heat.heat_map(picture, tower, query("white")))[0]
    assert middle == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["white", "red", "black"])
def test_nothing_stands_out_in_a_plain_picture(name: str) -> None:
    """Where it makes no difference what is seen, no place is warm."""
    picture = Image.new("RGB", (40, 30), COLOURS["red"])
    assert not heat.heat_map(picture, ColourTower(), query(name)).any()


def test_maps_are_the_same_each_time_and_cost_a_fixed_number_of_passes() -> None:
    """Nothing is drawn at random, and the passes are as many as the module says."""
    picture = spotted((90, 70), (10, 10, 40, 30))
    tower = ColourTower()
    one = heat.heat_map(picture, tower, query("red"))
    assert tower.embedded == heat.PASSES
    assert np.array_equal(heat.heat_map(picture, tower, query("red")), one)


def test_large_pictures_are_shown_small() -> None:
    """A tower gets pictures whose shorter side is what it asks for, in their own proportions."""
    sizes = set()

    class Watching(ColourTower):
        def prepare(self, content: Image.Image) -> NDArray[np.float32]:
            sizes.add(content.size)
            return super().prepare(content)

    heat.heat_map(spotted((960, 480), (0, 0, 200, 200)), Watching(), query("red"))
    assert max(sizes) == (32, 16)


# ---- drawings ----------------------------------------------------------------------------------


def test_colours_are_told_apart_without_seeing_colours() -> None:
    """The ramp gets lighter all the way, and hits its corners exactly."""
    ramp = heat.coloured(np.linspace(0, 1, 200, dtype=np.float32)).astype(float)
    light = ramp @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) >= 0).all()
    assert light[-1] - light[0] > 200
    for place, colour in enumerate(heat.RAMP):
        at = np.float32(place / (len(heat.RAMP) - 1))
        assert heat.coloured(np.array([at]))[0].tolist() == colour.tolist()
    assert heat.coloured(np.array([-1.0, 2.0], np.float32)).tolist() == [
        heat.RAMP[0].tolist(),
        heat.RAMP[-1].tolist(),
    ]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 200), (300, 200)), ((2048, 1024), (1024, 512)), ((100, 3000), (34, 1024))],
)
def test_drawings_keep_the_proportions(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """The longest side is 1,024 pixels at most, and small pictures are not blown up."""
    picture = Image.new("RGB", size, (90, 90, 90))
    image = heat.drawn(picture, np.zeros((heat.CELLS, heat.CELLS), np.float32))
    assert abs(image.width - expected[0]) <= 1
    assert abs(image.height - expected[1]) <= 1
    veil = np.array(heat.RAMP[0]) * heat.VEIL + 90 * (1 - heat.VEIL)
    assert np.abs(np.asarray(image, float) - veil).max() <= 1


def test_a_saved_drawing_reads_back(tmp_path: Path) -> None:
    """The PNG is bright where the map is hot, and dark where it is cold."""
    found = np.zeros((heat.CELLS, heat.CELLS), np.float32)
    found[:28, 28:] = 1  # the upper right quarter
    image = heat.drawn(Image.new("RGB", (400, 200), (128, 128, 128)), found)
    path = tmp_path / "new" / "folder" / "01-a.png"
    heat.save(image, path)
    with Image.open(path) as read:
        assert (read.format, read.mode, read.size) == ("PNG", "RGB", (400, 200))
        assert np.array_equal(np.asarray(read), np.asarray(image))
        light = np.asarray(read.convert("L"), float)
    assert light[:90, 220:].min() > 150
    assert max(light[110:].max(), light[:, :190].max()) < 90
    assert [one.name for one in path.parent.iterdir()] == ["01-a.png"]


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank", "path", "expected"),
    [
        (1, b"/a/Dog at sea!.jpg", "01-dog-at-sea.png"),
        (12, b"kitten_with--wool.tar.JPEG", "12-kitten-with-wool-tar.png"),
        (3, "/a/雪山 2.png".encode(), "03-雪山-2.png"),
        (3, "/a/Cafe\u0301.png".encode(), "03-café.png"),
        (4, b"/a/\xff\xfe.jpg", "04-picture.png"),
        (5, b"/a/\x1b[31mred\x07\n.jpg", "05-31mred.png"),
        (6, b"/a/.!.jpg", "06-picture.png"),
        (7, b"/a/-rf ..jpg", "07-rf.png"),
        (8, b"/a/" + b"x" * 200 + b".jpg", "08-" + "x" * 60 + ".png"),
        (9, "/a/\u202egpj.exe.jpg".encode(), "09-gpj-exe.png"),
    ],
)
def test_names(rank: int, path: bytes, expected: str) -> None:
    """Names are letters, digits and single hyphens of any script."""
    assert heat.file_name(rank, path) == expected


def test_ranks_sort() -> None:
    """A hundred hits and more get as many digits as they need."""
    assert heat.file_name(7, b"a.jpg", digits=3) == "007-a.png"


@given(st.binary(max_size=80).filter(lambda name: b"\0" not in name))
def test_names_are_safe(name: bytes) -> None:
    """Whatever a file is called, the PNG lies in the folder, and its name can be written there."""
    made = heat.file_name(1, b"/a/" + name)
    assert made.startswith("01-")
    assert made.endswith(".png")
    assert made.isprintable()
    assert not set(made) & set('/\\:*?"<>| \0')
    assert len(made.encode()) <= 255


def drawing(shade: int) -> Image.Image:
    """A small drawing."""
    return Image.new("RGB", (8, 8), (shade, shade, shade))


def test_ours_are_replaced_and_others_kept(tmp_path: Path) -> None:
    """A later run takes an older map's place; any other file is left as it is."""
    path = tmp_path / "01-a.png"
    heat.save(drawing(10), path)
    heat.save(drawing(200), path)
    with Image.open(path) as read:
        assert read.getpixel((0, 0)) == (200, 200, 200)
    drawing(50).save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()}
    for name in ("photo", "text", "folder", "link", "dangling"):
        with pytest.raises(QueryError, match=f"{name}.png is there already and not a heat map"):
            heat.save(drawing(0), tmp_path / f"{name}.png")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()} == before
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in the folder's place is named, with the way out."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(QueryError, match=r"cannot write .*choose another --explain-dir"):
        heat.save(drawing(0), tmp_path / "file" / "01-a.png")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """If the disk fills up, the older map stays and no part of the new one does."""
    path = tmp_path / "01-a.png"
    heat.save(drawing(10), path)
    whole = path.read_bytes()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        mock.patch.object(Path, "replace", side_effect=full),
        pytest.raises(QueryError, match=r"01-a\.png: No space left on device; choose another"),
    ):
        heat.save(drawing(200), path)
    assert [one.name for one in tmp_path.iterdir()] == ["01-a.png"]
    assert path.read_bytes() == whole


# ---- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_turned_pictures_are_mapped_as_shown(tmp_path: Path, suffix: str) -> None:
    """A camera's picture that lies on its side has its heat where a person sees the thing."""
    stored = spotted((1600, 800), (0, 400, 800, 800))  # lower left of what is stored
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # shown turned clockwise by a quarter
    stored.save(path, exif=exif)
    tower = ColourTower()
    picture = heat.read(os.fsencode(path), tower.side_px)
    assert picture.width < picture.height
    x, y = hottest(heat.heat_map(picture, tower, query("red")))
    assert x < 0.5
    assert y < 0.5
    image = heat.drawn(picture, heat.heat_map(picture, tower, query("red")))
    assert image.height == 1024
    assert abs(image.width - 512) <= 1
    light = np.asarray(image.convert("L"), float)
    assert light[:300, :150].mean() > light[600:, 350:].mean()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """A picture that is gone or damaged, and a file of another kind, give a reason."""
    with pytest.raises(MediaError, match="vanished"):
        heat.read(os.fsencode(tmp_path / "gone.jpg"), 16)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="not a picture in a format"):
        heat.read(os.fsencode(tmp_path / "bad.jpg"), 16)
    (tmp_path / "note.txt").write_text("words")
    with pytest.raises(MediaError, match="is not a picture"):
        heat.read(os.fsencode(tmp_path / "note.txt"), 16)
