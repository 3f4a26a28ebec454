"""What a picture's EXIF data say: when, where and with what it was taken.

Cameras, editors and strangers write EXIF data, so no value is believed before it was checked, and
nothing in it can fail a picture: what makes no sense counts as not said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from numbers import Real
from typing import Any, TypeVar

from PIL import ExifTags, Image

from retrieval.types import NO_FACTS, Facts

LONGEST_NAME = 100  # characters; real names of cameras have at most some fifty
MAX_LAT, MAX_LON = 90.0, 180.0

T = TypeVar("T")


def facts_of(image: Image.Image) -> Facts:
    """Gives what is said about a picture."""
    exif = _tried(image.getexif)
    if exif is None:
        return NO_FACTS
    photo = _tried(lambda: exif.get_ifd(ExifTags.IFD.Exif)) or {}
    gps = _tried(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo)) or {}
    base = ExifTags.Base
    dates = (_value(photo, base.DateTimeOriginal), _value(exif, base.DateTime))
    place = _place(gps)
    return Facts(
        taken_at=next(filter(None, map(_date, dates)), None),
        camera=_camera(_value(exif, base.Make), _value(exif, base.Model)),
        lat=place[0] if place else None,
        lon=place[1] if place else None,
    )


def orientation_of(image: Image.Image) -> int:
    """Gives how a picture is to be turned, 2 to 8 as EXIF counts, or 1: it is as it should be.

    To be asked after the pixels were decoded: Pillow turns TIFFs by itself then.
    """
    exif = _tried(image.getexif)
    found = None if exif is None else _value(exif, ExifTags.Base.Orientation)
    return found if isinstance(found, int) and found in range(1, 9) else 1


def _tried(reading: Callable[[], T]) -> T | None:
    """Does what may fail in any way on data that someone made up."""
    try:
        return reading()
    except Exception:  # Pillow decodes each value when it is asked for, and raises what it likes
        return None


def _value(tags: Any, tag: int) -> Any:
    return _tried(lambda: tags.get(tag))


def _date(value: object) -> str | None:
    """Reads EXIF's form of a date as ISO 8601; nonsense counts as no date."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.strptime(value.strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def _camera(make: object, model: object) -> str | None:
    """Names a camera by make and model, the make once: "Apple iPhone 12", "NIKON D90"."""
    maker, name = _words(make), _words(model)
    # "NIKON CORPORATION" makes the "NIKON D90", "Canon" the "Canon EOS 5D"
    if name and maker and name.casefold().split()[0] == maker.casefold().split()[0]:
        maker = ""
    return f"{maker} {name}".strip()[:LONGEST_NAME].rstrip() or None


def _words(value: object) -> str:
    if not isinstance(value, str):
        return ""
    shown = (character if character.isprintable() else " " for character in value)
    return " ".join("".join(shown).split())


def _place(gps: Any) -> tuple[float, float] | None:
    """Reads latitude and longitude in degrees, north and east positive."""
    tags = ExifTags.GPS
    lat = _angle(_value(gps, tags.GPSLatitude), _value(gps, tags.GPSLatitudeRef), "NS", MAX_LAT)
    lon = _angle(_value(gps, tags.GPSLongitude), _value(gps, tags.GPSLongitudeRef), "EW", MAX_LON)
    # Receivers without a fix write zeros; nobody photographs that spot of the Atlantic.
    if lat is None or lon is None or (lat == 0 and lon == 0):
        return None
    return lat, lon


def _angle(value: object, side: object, sides: str, largest: float) -> float | None:
    """Adds up degrees, minutes and seconds; the sign comes from the hemisphere, never from them."""
    numbers = value if isinstance(value, tuple) else (value,)
    if not 1 <= len(numbers) <= 3 or not isinstance(side, str):
        return None
    angle = 0.0
    for number, unit in zip(numbers, (1, 60, 3600), strict=False):
        if not isinstance(number, Real):
            return None
        part = _tried(lambda number=number: float(number))  # type: ignore[misc]
        if part is None or not math.isfinite(part) or part < 0:  # a denominator of 0 gives NaN
            return None
        angle += part / unit
    letter = side.strip("\0 ").upper()
    if len(letter) != 1 or letter not in sides or angle > largest:
        return None
    return -angle if letter == sides[1] and angle else angle
