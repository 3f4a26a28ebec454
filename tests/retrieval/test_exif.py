"""What pictures say of themselves, through real files and through made-up values."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from retrieval import exif, media
from retrieval.types import NO_FACTS, Facts

GPS = ExifTags.GPS
SYDNEY = {
    GPS.GPSLatitudeRef: "S",
    GPS.GPSLatitude: (33.0, 51.0, 24.84),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (151.0, 12.0, 54.0),
}


def encoded(format: str, tags: Mapping[Any, object], gps: Mapping[Any, object]) -> bytes:
    """A picture with EXIF data."""
    data = Image.Exif()
    for tag, value in tags.items():
        data[tag] = value
    if gps:
        data.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    file = io.BytesIO()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file, format, exif=data)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif"])
def test_facts_come_from_real_files(suffix: str) -> None:
    """Date, camera and place come out as they went in, with and without decoding."""
    format = {"jpg": "JPEG"}.get(suffix, suffix.upper())
    base = ExifTags.Base
    tags = {base.Make: "Apple", base.Model: "iPhone 12", base.DateTime: "2024:05:31 18:04:00"}
    data = encoded(format, tags, SYDNEY)
    said = media.decode(data, f"a.{suffix}").facts
    assert said == media.facts(data, f"a.{suffix}")
    assert (said.taken_at, said.camera) == ("2024-05-31T18:04:00", "Apple iPhone 12")
    assert said.lat == pytest.approx(-(33 + 51 / 60 + 24.84 / 3600), abs=1e-6)
    assert said.lon == pytest.approx(151 + 12 / 60 + 54 / 3600, abs=1e-6)


def test_nothing_said_is_nothing_known() -> None:
    """Pictures without EXIF data, texts, and what is no picture."""
    assert media.facts(encoded("PNG", {}, {}), "a.png") == NO_FACTS
    assert media.facts(b"words", "a.txt") == NO_FACTS
    assert media.facts(b"words", "a.jpg") == NO_FACTS
    assert media.facts(encoded("PNG", {}, SYDNEY)[:60], "a.png") == NO_FACTS


@pytest.mark.parametrize(
    ("make", "model", "want"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("nikon corporation", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("SONY\0\0", " DSC-RX100 \0", "SONY DSC-RX100"),
        ("Ca\x1b[31mnon\n", "\u202eX", "Ca [31mnon X"),
        ("Canon", None, "Canon"),
        (None, "X", "X"),
        ("", "\0\0", None),
        (7, ("a", "b"), None),
        (None, b"bytes", None),
        ("A" * 300, "B", "A" * 100),
    ],
)
def test_cameras_are_named_once_and_printable(make: object, model: object, want: str) -> None:
    """The make is not doubled, control characters are gone, other types are nothing."""
    assert exif._camera(make, model) == want


ZERO = IFDRational(5, 0)


@pytest.mark.parametrize(
    ("value", "side", "want"),
    [
        ((10, 30, 36), "N", 10.51),
        ((10, 30, 36), "S", -10.51),
        ((10, 30, 36), "s\0", -10.51),
        ((Fraction(21, 2),), "N", 10.5),
        (10.5, "N", 10.5),
        ((90, 0, 0), "S", -90.0),
        ((90, 0, 1), "S", None),
        ((10, 30, 36), None, None),
        ((10, 30, 36), "E", None),
        ((10, 30, 36), "", None),
        ((10, 30, 36), "NS", None),
        ((10, 30, 36), b"N", None),
        ((-10, 30, 36), "N", None),
        ((10, ZERO, 0), "N", None),
        ((10, math.nan, 0), "N", None),
        ((math.inf,), "N", None),
        ((10**400,), "N", None),
        (("10", "30", "36"), "N", None),
        ("10", "N", None),
        ((), "N", None),
        ((1, 2, 3, 4), "N", None),
        (None, "N", None),
    ],
)
def test_angles_are_checked(value: object, side: object, want: float | None) -> None:
    """Only finite numbers in range with a hemisphere are an angle."""
    assert exif._angle(value, side, "NS", 90.0) == pytest.approx(want)


def test_a_place_needs_both_and_no_fix_is_no_place() -> None:
    """Half a place is none; zeros are what receivers without a fix write."""
    assert exif._place(SYDNEY) == pytest.approx((-33.8569, 151.215))
    assert exif._place({key: SYDNEY[key] for key in list(SYDNEY)[:2]}) is None
    zeros = SYDNEY | {GPS.GPSLatitude: (0, 0, 0), GPS.GPSLongitude: (0, 0, 0)}
    assert exif._place(zeros) is None
    assert exif._place(zeros | {GPS.GPSLatitude: (0, 0, 1)}) == pytest.approx((-1 / 3600, 0))


def _jpeg_with(body: bytes) -> bytes:
    plain = encoded("JPEG", {}, {})
    payload = b"Exif\0\0" + body
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + plain[2:]


@given(st.binary(max_size=200))
def test_noise_for_exif_fails_no_picture(noise: bytes) -> None:
    """A picture with nonsense in the place of EXIF data is a picture."""
    for body in (noise, b"II*\0\x08\0\0\0" + noise, b"MM\0*\0\0\0\x08" + noise):
        assert media.decode(_jpeg_with(body), "a.jpg").width in (30, 40)


@given(st.data())
def test_damaged_exif_fails_no_picture(data: st.DataObject) -> None:
    """Single bytes of real EXIF data may be anything; what comes out is checked or nothing."""
    base = ExifTags.Base
    tags = {base.Make: "Apple", base.Model: "iPhone", base.DateTime: "2024:05:31 18:04:00"}
    whole = encoded("JPEG", tags | {base.Orientation: 1}, SYDNEY)
    start = whole.index(b"Exif\0\0") + 6
    (length,) = struct.unpack(">H", whole[start - 8 : start - 6])
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(start, start + length - 9))
        broken[at] = data.draw(st.integers(0, 255))
    said: Facts = media.decode(bytes(broken), "a.jpg").facts
    assert (said.lat is None) == (said.lon is None)
    if said.lat is not None and said.lon is not None:
        assert -90 <= said.lat <= 90
        assert -180 <= said.lon <= 180
    assert said.camera is None or said.camera.isprintable()
