"""Pictures of every format and mode against pixels worked out in numpy; files that misbehave."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import random
import resource
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

from retrieval import media
from retrieval.errors import MediaError
from retrieval.types import NO_FACTS, WHOLE, Fingerprint, Media, Modality

HEIF = importlib.util.find_spec("pillow_heif") is not None
AVIF = features.check("avif")
NOBODY = 65534

needs_heif = pytest.mark.skipif(not HEIF, reason="pillow-heif is not installed")
needs_avif = pytest.mark.skipif(not AVIF, reason="this Pillow has no AVIF")

Pixels = NDArray[np.uint8]


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """A picture as a file."""
    if format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes, name: str = "x.png", *, side_px: int | None = None) -> Media:
    """A decoded picture, after checks that hold for all of them."""
    item = media.decode(data, name, side_px=side_px)
    assert item.modality is Modality.IMAGE
    (part,) = item.parts
    assert part.content.mode == "RGB"
    assert part.place == WHOLE
    return item


def pixels(item: Media) -> Pixels:
    """The pixels of a decoded picture, ``(height, width, 3)``."""
    return np.asarray(item.parts[0].content)


def smooth(width: int, height: int) -> Image.Image:
    """A picture without hard edges, different in each direction and channel."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 255 * x / max(width - 1, 1)
    green = 255 * y / max(height - 1, 1)
    blue = 127.5 + 127.5 * np.sin(2 * np.pi * (x / width + y / height))
    return Image.fromarray(np.stack([red, green, blue], axis=2).round().astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures at 32 x 32, in steps of 256."""
    shrunk = [np.asarray(image.resize((32, 32)), np.float64) for image in (one, other)]
    return float(np.abs(shrunk[0] - shrunk[1]).mean())


# ---- formats -----------------------------------------------------------------------------------

LOSSLESS: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "a.png", {}),
    ("BMP", "a.bmp", {}),
    ("TIFF", "a.tif", {}),
    ("TIFF", "a.TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", "a.webp", {"lossless": True}),
]


@pytest.mark.parametrize(("format", "name", "options"), LOSSLESS)
def test_lossless_formats_come_back_to_the_pixel(
    format: str, name: str, options: dict[str, Any]
) -> None:
    """Without scaling the pixels are those that were saved."""
    picture = smooth(37, 23)
    item = decoded(encoded(picture, format, **options), name)
    np.testing.assert_array_equal(pixels(item), np.asarray(picture))
    assert (item.width, item.height, item.facts) == (37, 23, NO_FACTS)


LOSSY = [
    pytest.param("JPEG", "a.jpg"),
    pytest.param("JPEG", "a.JPEG"),
    pytest.param("JPEG", "a.jpe"),
    pytest.param("JPEG", "a.jfif"),
    pytest.param("WEBP", "a.webp"),
    pytest.param("AVIF", "a.avif", marks=needs_avif),
    pytest.param("HEIF", "a.heic", marks=needs_heif),
    pytest.param("HEIF", "a.HEIF", marks=needs_heif),
]


@pytest.mark.parametrize(("format", "name"), LOSSY)
@pytest.mark.parametrize("side_px", [None, 32])
def test_lossy_formats_come_back_nearly(format: str, name: str, side_px: int | None) -> None:
    """A smooth picture differs by a few steps of 256."""
    picture = smooth(320, 256)
    item = decoded(encoded(picture, format, quality=90), name, side_px=side_px)
    assert (item.width, item.height) == (320, 256)
    assert difference(item.parts[0].content, picture) < 3


def test_gif_shows_its_first_frame() -> None:
    """Later frames and their palettes do not matter."""
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert (pixels(decoded(data, "a.gif")) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("format", "name", "options"),
    [
        ("PNG", "a.png", {}),
        ("WEBP", "a.webp", {"lossless": True}),
        ("TIFF", "a.tif", {}),
        pytest.param("AVIF", "a.avif", {"quality": 100}, marks=needs_avif),
    ],
)
def test_files_of_several_pictures_show_the_first(
    format: str, name: str, options: dict[str, Any]
) -> None:
    """Animations and scans of many pages count as their first picture."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    off = np.abs(pixels(decoded(data, name)).astype(int) - (255, 0, 0)).max()
    assert off <= (5 if format == "AVIF" else 0)


def test_mpo_counts_as_jpeg() -> None:
    """Stereo cameras and many telephones write it under `.jpg`."""
    picture = smooth(640, 480)
    data = encoded(picture, "MPO", save_all=True, append_images=[Image.new("RGB", (640, 480))])
    item = decoded(data, "a.jpg", side_px=64)
    assert difference(item.parts[0].content, picture) < 3
    assert max(item.parts[0].content.size) < 640


@needs_heif
def test_heic_is_known_by_its_content() -> None:
    """A telephone's file that was renamed is read all the same."""
    picture = smooth(64, 64)
    item = decoded(encoded(picture, "HEIF", quality=90), "a.jpg")
    assert difference(item.parts[0].content, picture) < 3


def test_heic_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of the skip is the remedy."""
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name, data in (("a.heic", b"anything"), ("a.jpg", b"\0\0\0\x18ftypheic" + bytes(99))):
        with pytest.raises(MediaError, match=r"pip install 'anyseek\[heif\]'"):
            media.decode(data, name)


def test_names_tell_the_modality() -> None:
    """Only the suffix counts, in any case, in text and bytes."""
    assert media.modality_of("a.JPG") is Modality.IMAGE
    assert media.modality_of(b"/x/caf\xe9.webp") is Modality.IMAGE
    assert media.modality_of("a.b.Md") is Modality.TEXT
    assert media.modality_of("a.MP3") is Modality.AUDIO
    assert media.modality_of(b"film.mkv") is Modality.AUDIO  # its sound
    for name in ("jpg", ".jpg", "a.exe", "a.jpg.part", "a", ""):
        assert media.modality_of(name) is None
    with pytest.raises(MediaError, match="no kind of file"):
        media.decode(b"x", "a.exe")
    with pytest.raises(ValueError, match=r"retrieval\.sounds"):
        media.decode(b"x", "a.mp3")


# ---- modes -------------------------------------------------------------------------------------


def _over_white(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.float64]:
    """What shows of a colour on a white page."""
    share = alpha.astype(np.float64)[..., None] / 255
    return np.asarray(colour * share + 255 * (1 - share))


def _grey(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.repeat(values.astype(np.float64)[..., None], 3, axis=2)


def _ramp(width: int = 256, height: int = 4) -> Pixels:
    """Every grey from left to right."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))


def _modes() -> Iterator[tuple[str, bytes, NDArray[Any]]]:
    """Names, files, and the pixels that they should show."""
    grey = _ramp()
    alpha = np.tile(np.array([[0], [85], [170], [255]], np.uint8), (1, 256))
    colour = np.asarray(smooth(256, 4))

    yield "1 png", encoded(Image.fromarray(grey > 99), "PNG"), _grey(255 * (grey > 99))
    yield "1 tiff", encoded(Image.fromarray(grey > 99), "TIFF"), _grey(255 * (grey > 99))
    yield "L", encoded(Image.fromarray(grey), "PNG"), _grey(grey)
    yield "L jpeg", encoded(Image.fromarray(grey), "JPEG", quality=100), _grey(grey)
    grey_alpha = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    yield "LA", encoded(grey_alpha, "PNG"), _over_white(_grey(grey), alpha)
    rgba = Image.fromarray(np.dstack([colour, alpha]))
    yield "RGBA png", encoded(rgba, "PNG"), _over_white(colour, alpha)
    yield "RGBA tiff", encoded(rgba, "TIFF"), _over_white(colour, alpha)
    webp = encoded(rgba, "WEBP", lossless=True, exact=True)
    yield "RGBA webp", webp, _over_white(colour, alpha)

    indices = np.tile(np.arange(4, dtype=np.uint8).repeat(8), (4, 1))
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]], np.uint8)
    paletted = Image.fromarray(indices)
    paletted.putpalette(palette.tobytes())
    yield "P", encoded(paletted, "PNG"), palette[indices]
    yield "P bmp", encoded(paletted, "BMP"), palette[indices]
    yield "P gif", encoded(paletted, "GIF"), palette[indices]
    see_through = np.array([255, 255, 0, 255], np.uint8)
    want = _over_white(palette[indices], see_through[indices])
    yield "P with one clear colour", encoded(paletted, "PNG", transparency=2), want
    yield "P gif with one clear colour", encoded(paletted, "GIF", transparency=2), want
    partly = bytes((255, 128, 0, 64))
    want = _over_white(palette[indices], np.frombuffer(partly, np.uint8)[indices])
    yield "P with alpha", encoded(paletted, "PNG", transparency=partly), want

    key = Image.fromarray(palette[indices])
    want = _over_white(palette[indices], see_through[indices])
    yield "RGB with a clear colour", encoded(key, "PNG", transparency=(0, 0, 255)), want
    clear_grey = _over_white(_grey(grey), np.where(grey == 0, 0, 255))
    yield "L with a clear grey", encoded(Image.fromarray(grey), "PNG", transparency=0), clear_grey

    cmyk = np.stack([colour[..., 0], colour[..., 1], colour[..., 2], grey // 2], axis=2)
    inks = cmyk.astype(np.float64)
    want = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    as_image = Image.frombytes("CMYK", (256, 4), cmyk.tobytes())
    yield "CMYK tiff", encoded(as_image, "TIFF"), want
    flat = Image.new("CMYK", (64, 64), (200, 40, 10, 60))
    want = np.full((64, 64, 3), [(255 - ink) * (255 - 60) / 255 for ink in (200, 40, 10)])
    yield "CMYK jpeg", encoded(flat, "JPEG", quality=100), want

    deep = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (4, 1))
    yield "I;16 png", encoded(Image.fromarray(deep), "PNG"), _grey(deep / 65535 * 255)
    yield "I;16 tiff", encoded(Image.fromarray(deep), "TIFF"), _grey(deep / 65535 * 255)
    dark = deep // 300  # values up to 218 of 65,535 are black, not a picture of 8 bits
    yield "I;16 dark", encoded(Image.fromarray(dark), "PNG"), _grey(dark / 65535 * 255)
    big_endian = Image.frombytes("I;16B", (256, 4), deep.astype(">u2").tobytes())
    yield "I;16B tiff", encoded(big_endian, "TIFF"), _grey(deep / 65535 * 255)
    wide = deep.astype(np.int32) * 1000
    yield "I beyond 16 bits", encoded(Image.fromarray(wide), "TIFF"), _grey(deep / 65535 * 255)
    whole = deep.astype(np.int32)
    yield "I of 16 bits", encoded(Image.fromarray(whole), "TIFF"), _grey(deep / 65535 * 255)
    small = grey.astype(np.int32)
    yield "I of 8 bits", encoded(Image.fromarray(small), "TIFF"), _grey(grey)
    real = grey.astype(np.float32)
    yield "F to 255", encoded(Image.fromarray(real), "TIFF"), _grey(grey)
    yield "F to 1", encoded(Image.fromarray(real / 255), "TIFF"), _grey(grey)
    yield "F to 4000", encoded(Image.fromarray(real * (4000 / 255)), "TIFF"), _grey(grey)
    holes = real.copy()
    holes[0, 10], holes[0, 20], holes[0, 30] = np.nan, np.inf, -7
    filled = grey.copy()
    filled[0, [10, 20, 30]] = 0
    yield "F with holes", encoded(Image.fromarray(holes), "TIFF"), _grey(filled)
    black = Image.new("F", (5, 5))
    yield "F all zero", encoded(black, "TIFF"), np.zeros((5, 5, 3))


MODES = {name: (data, want) for name, data, want in _modes()}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_shows_the_right_colours(mode: str) -> None:
    """Converted by formula, not by Pillow; rounding and JPEG may cost a step or two."""
    data, want = MODES[mode]
    got = pixels(decoded(data)).astype(np.float64)
    assert got.shape == want.shape
    limit = {"L jpeg": 2, "CMYK jpeg": 3}.get(mode, 1)
    assert np.abs(got - want).max() <= limit


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_survives_scaling(mode: str) -> None:
    """A large version of each mode, scaled while decoding, hardly differs from the whole one."""
    data, _ = MODES[mode]
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        large = image.resize((800, 400), Image.Resampling.NEAREST)
        options = (
            {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
        )
        large_data = encoded(large, image.format or "", **options)
    whole = decoded(large_data)
    scaled = decoded(large_data, side_px=40)
    assert (scaled.width, scaled.height) == (800, 400)
    assert min(scaled.parts[0].content.size) >= 40
    assert difference(scaled.parts[0].content, whole.parts[0].content) < 2


def test_one_pixel_is_a_picture() -> None:
    """The smallest picture, at every wanted size."""
    data = encoded(Image.new("RGB", (1, 1), (10, 200, 30)), "PNG")
    for side_px in (None, 1, 224):
        item = decoded(data, side_px=side_px)
        assert pixels(item).tolist() == [[[10, 200, 30]]]
        assert (item.width, item.height) == (1, 1)


# ---- orientation -------------------------------------------------------------------------------

TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: np.rot90(stored, 1),
}
"""What the EXIF orientations ask for (CIPA DC-008, 4.6.4): stored to shown."""


def _quarters(width: int, height: int) -> Pixels:
    """Four corners of different colours."""
    stored = np.zeros((height, width, 3), np.uint8)
    stored[: height // 2, : width // 2] = (250, 10, 10)
    stored[: height // 2, width // 2 :] = (10, 250, 10)
    stored[height // 2 :, : width // 2] = (10, 10, 250)
    stored[height // 2 :, width // 2 :] = (240, 240, 20)
    return stored


ORIENTED = [
    pytest.param("JPEG", "a.jpg", {"quality": 100, "subsampling": 0}, 3),
    pytest.param("PNG", "a.png", {}, 0),
    pytest.param("TIFF", "a.tif", {}, 0),
    pytest.param("WEBP", "a.webp", {"lossless": True}, 0),
    pytest.param("AVIF", "a.avif", {"quality": 100, "subsampling": "4:4:4"}, 8, marks=needs_avif),
    pytest.param("HEIF", "a.heic", {"quality": 100, "chroma": 444}, 8, marks=needs_heif),
]


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("format", "name", "options", "limit"), ORIENTED)
def test_orientation_is_applied_to_pixels_and_sizes(
    format: str, name: str, options: dict[str, Any], limit: int, orientation: int
) -> None:
    """All eight, whole and scaled, with the right corners and the size as it is shown."""
    for size, side_px in (((48, 32), None), ((480, 320), 40)):
        stored = _quarters(*size)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        item = decoded(
            encoded(Image.fromarray(stored), format, exif=exif.tobytes(), **options),
            name,
            side_px=side_px,
        )
        want = TURNS[orientation](stored)
        assert (item.height, item.width) == want.shape[:2]
        got = pixels(item)
        if side_px is None:
            assert got.shape == want.shape
        else:
            assert got.shape[0] * want.shape[1] == got.shape[1] * want.shape[0]
            assert got.shape[0] < want.shape[0]
        height, width = got.shape[:2]
        for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            inset = got[row * (height // 8) - (row == 0) * -(height // 8), ...]
            pixel = inset[column * (width // 8) - (column == 0) * -(width // 8)]
            assert np.abs(pixel.astype(int) - want[row, column]).max() <= limit
        if side_px is None and limit == 0:
            np.testing.assert_array_equal(got, want)


def test_an_orientation_that_is_none_is_ignored() -> None:
    """Values outside 1..8 turn nothing."""
    for value in (0, 9, 4711):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = value
        item = decoded(encoded(smooth(20, 10), "PNG", exif=exif))
        np.testing.assert_array_equal(pixels(item), np.asarray(smooth(20, 10)))


# ---- EXIF time ---------------------------------------------------------------------------------


def _dated(original: str | None, changed: str | None) -> Image.Exif:
    exif = Image.Exif()
    if changed is not None:
        exif[ExifTags.Base.DateTime] = changed
    if original is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = original
    return exif


@pytest.mark.parametrize(
    ("original", "changed", "want"),
    [
        ("2024:05:31 18:04:00", "2024:06:01 00:00:00", "2024-05-31T18:04:00"),
        (None, "1999:12:31 23:59:59", "1999-12-31T23:59:59"),
        ("0000:00:00 00:00:00", "2001:02:03 04:05:06", "2001-02-03T04:05:06"),
        ("2024:05:31 18:04:00\0", None, "2024-05-31T18:04:00"),
        ("    :  :     :  :  ", None, None),
        ("2023:02:29 12:00:00", "yesterday", None),
        (None, None, None),
    ],
)
def test_the_time_comes_from_exif(
    original: str | None, changed: str | None, want: str | None
) -> None:
    """The moment of the shot before that of the last change; nonsense is no time."""
    exif = _dated(original, changed).tobytes()
    for format, name in (("JPEG", "a.jpg"), ("PNG", "a.png"), ("WEBP", "a.webp")):
        data = encoded(smooth(400, 400), format, exif=exif)
        for side_px in (None, 30):
            assert decoded(data, name, side_px=side_px).facts.taken_at == want


# ---- scaled decoding ---------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    side_px=st.integers(1, 300),
    format=st.sampled_from(["JPEG", "PNG", "GIF"]),
)
def test_scaling_never_goes_below_the_wanted_side(
    width: int, height: int, side_px: int, format: str
) -> None:
    """The shorter side keeps at least `side_px` if it had that, and the shape stays."""
    picture = Image.new("P" if format == "GIF" else "RGB", (width, height))
    item = decoded(encoded(picture, format), side_px=side_px)
    assert (item.width, item.height) == (width, height)
    got = item.parts[0].content.size
    assert min(got) >= min(side_px, width, height)
    if format == "JPEG":  # libjpeg only knows halves; it must use them when they are to be had
        assert min(got) <= (min(width, height) + 1) / 2 or min(width, height) < 4 * side_px
    scale = max(width, height) / max(got)
    assert abs(width / scale - got[0]) <= 1.5
    assert abs(height / scale - got[1]) <= 1.5


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "BMP"])
def test_scaled_decoding_hardly_changes_a_picture(format: str) -> None:
    """At the size of a network's input, whole and scaled decoding differ by under one step."""
    data = encoded(smooth(1600, 1200), format)
    whole = decoded(data).parts[0].content
    scaled = decoded(data, side_px=224).parts[0].content
    assert whole.size == (1600, 1200)
    assert scaled.width < 1600
    at_224 = [
        np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), np.float64)
        for image in (whole, scaled)
    ]
    assert np.abs(at_224[0] - at_224[1]).mean() < 1.0


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is given back, also after a failure."""
    monkeypatch.setattr(media, "LARGE_PIXELS", 100)
    data = encoded(smooth(64, 64), "PNG")
    with pytest.raises(MediaError):
        decoded(data[: len(data) // 2])
    for _ in range(2):
        np.testing.assert_array_equal(pixels(decoded(data)), np.asarray(smooth(64, 64)))


# ---- bad pictures ------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bomb(side: int) -> bytes:
    """A small file that says that it is huge, and has the zeros to prove it for a while."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
        + _chunk(b"IEND", b"")
    )


def _bmp_bomb(side: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 99, 0, 0, 54) + head + bytes(99)


def _gif_bomb() -> bytes:
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + screen + frame + b";"


def _jpeg_bomb() -> bytes:
    """A real JPEG whose frame header says 65,500 x 65,500."""
    data = bytearray(encoded(smooth(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


@contextmanager
def _little_memory(more: int) -> Iterator[None]:
    """Lets the process grow by so many bytes only."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("bomb.png", _png_bomb(30_000)),
        ("bomb.bmp", _bmp_bomb(30_000)),
        ("bomb.gif", _gif_bomb()),
        ("bomb.jpg", _jpeg_bomb()),
    ],
)
@pytest.mark.parametrize("side_px", [None, 224])
def test_a_bomb_is_refused_before_its_pixels_take_room(
    name: str, bomb: bytes, side_px: int | None
) -> None:
    """Told by its size alone; decoding would need gigabytes, and gets 300 MB here."""
    assert len(bomb) < 20_000
    with (
        _little_memory(300_000_000),
        pytest.raises(MediaError, match=r"\d+ x \d+ pixels are too many \(the limit is \d+ mill"),
    ):
        media.decode(bomb, name, side_px=side_px)


def test_the_limits_are_where_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pixels as the limit pass, one row more does not; JPEG has its own."""
    monkeypatch.setattr(media, "MAX_PIXELS", 20 * 30)
    monkeypatch.setattr(media, "MAX_JPEG_PIXELS", 40 * 30)
    for format, height in (("PNG", 20), ("BMP", 20), ("WEBP", 20), ("JPEG", 40)):
        decoded(encoded(smooth(30, height), format))
        with pytest.raises(MediaError, match="too many"):
            decoded(encoded(smooth(30, height + 1), format))


FILES: dict[str, bytes] = {
    "a.jpg": encoded(smooth(200, 150), "JPEG"),
    "progressive.jpg": encoded(smooth(200, 150), "JPEG", progressive=True),
    "a.png": encoded(smooth(200, 150), "PNG"),
    "a.webp": encoded(smooth(200, 150), "WEBP"),
    "a.gif": encoded(smooth(200, 150), "GIF"),
    "a.bmp": encoded(smooth(200, 150), "BMP"),
    "a.tif": encoded(smooth(200, 150), "TIFF"),
    "lzw.tif": encoded(smooth(200, 150), "TIFF", compression="tiff_lzw"),
    **({"a.avif": encoded(smooth(200, 150), "AVIF")} if AVIF else {}),
    **({"a.heic": encoded(smooth(200, 150), "HEIF")} if HEIF else {}),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_pictures_are_refused(name: str, share: float) -> None:
    """Half a picture is not indexed as if it were whole."""
    data = FILES[name]
    with pytest.raises(MediaError):
        media.decode(data[: int(len(data) * share)], name)
    with pytest.raises(MediaError):
        media.decode(data[: int(len(data) * share)], name, side_px=32)


@pytest.mark.parametrize("name", FILES)
def test_damaged_pictures_fail_with_a_reason_or_not_at_all(name: str) -> None:
    """Whatever bytes are changed, nothing but a `MediaError` comes out."""
    chance = random.Random(name)
    for _ in range(60):
        data = bytearray(FILES[name])
        for _ in range(chance.choice((1, 3, 10))):
            data[chance.randrange(min(len(data), chance.choice((40, 300, 10**6))))] = (
                chance.randrange(256)
            )
        try:
            item = media.decode(bytes(data), name, side_px=chance.choice((None, 32)))
        except MediaError:
            continue
        assert item.parts[0].content.mode == "RGB"


def test_the_content_decides_about_the_format() -> None:
    """Any known format is read under any picture's name; nothing else is."""
    picture = smooth(40, 30)
    for name in ("a.jpg", "a.png", "a.gif", "a.webp", "a.tif", "a.avif"):
        for format, _, options in LOSSLESS:
            got = pixels(decoded(encoded(picture, format, **options), name))
            np.testing.assert_array_equal(got, np.asarray(picture))
    others = [
        b"this is a text, not a picture",
        b"%PDF-1.4\n%nothing",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0" * 1000,
        b"x",
        encoded(picture, "PPM"),  # formats that Pillow knows and we do not promise
        encoded(picture, "ICO"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",  # would call Ghostscript
    ]
    for data in others:
        with pytest.raises(MediaError, match="not a picture in a format"):
            media.decode(data, "a.jpg")
    with pytest.raises(MediaError, match="binary"):
        media.decode(FILES["a.jpg"], "a.txt")


# ---- reading -----------------------------------------------------------------------------------


def test_a_file_is_read_with_its_fingerprint(tmp_path: Path) -> None:
    """Bytes, size, time and hash belong together; the name may be any bytes."""
    name = os.fsencode(tmp_path) + b"/caf\xe9 \n'x.jpg"
    Path(os.fsdecode(name)).write_bytes(b"some bytes")
    os.utime(name, ns=(1, 1_700_000_000_123_456_789))
    for path in (name, os.fsdecode(name), Path(os.fsdecode(name))):
        content = media.read(path)
        assert content.data == b"some bytes"
        assert content.fingerprint == Fingerprint(10, 1_700_000_000_123_456_789)
        assert content.content_hash == hashlib.blake2b(b"some bytes", digest_size=16).digest()


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone, a folder, empty, too large, a loop of links: each has its words."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "large.jpg").write_bytes(bytes(11))
    (tmp_path / "ten.jpg").write_bytes(bytes(10))
    monkeypatch.setattr(media, "MAX_FILE_BYTES", 10)
    for name, reason in (
        ("none.jpg", "vanished"),
        ("folder.jpg", "is a folder"),
        ("loop.jpg", "cannot be read: "),
        ("large.jpg", "larger than"),
        ("ten.jpg/below.jpg", "cannot be read: "),
    ):
        with pytest.raises(MediaError, match=reason):
            media.read(tmp_path / name)
    assert len(media.read(tmp_path / "ten.jpg").data) == 10


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Drops root's rights for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    """It is listed, and the run goes on."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with _as_nobody(), pytest.raises(MediaError, match="no permission to read it"):
        media.read(path)


def _grows(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _shrinks(path: Path) -> None:
    os.truncate(path, 3)


def _is_rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(5, 5))


@pytest.mark.parametrize("change", [_grows, _shrinks, _is_rewritten])
@pytest.mark.parametrize("call", [1, 2])
def test_a_file_that_changes_while_it_is_read_is_left_for_later(
    change: Callable[[Path], None], call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after the bytes are read: they would not belong to the fingerprint."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789")
    calls = 0
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        nonlocal calls
        calls += 1
        if call == 2 and calls == 2:
            change(path)
        result = real(descriptor)
        if call == 1 and calls == 1:
            change(path)
        return result

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(MediaError, match="changed while it was being read"):
        media.read(path)


def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    """Neither an unconnected pipe, nor one that somebody holds open, nor an endless device."""
    path = tmp_path / "pipe.jpg"
    os.mkfifo(path)
    with pytest.raises(MediaError, match="pipe or a device"):
        media.read(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(MediaError, match="pipe or a device"):
            media.read(path)
        os.write(descriptor, b"data")
        with pytest.raises(MediaError, match="pipe or a device"):
            media.read(path)
    finally:
        os.close(descriptor)
    with pytest.raises(MediaError, match="pipe or a device"):
        media.read("/dev/zero")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_nothing_stays_open(tmp_path: Path) -> None:
    """A run over a million names must not run out of descriptors."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "a.jpg").write_bytes(b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("", "pipe.jpg", "a.jpg", "none.jpg"):
        for _ in range(5):
            try:
                media.read(tmp_path / name)
            except MediaError:
                continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_reading_takes_the_room_of_the_file(tmp_path: Path) -> None:
    """A small file does not reserve what the largest one might need."""
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(1000))
    tracemalloc.start()
    try:
        media.read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000
