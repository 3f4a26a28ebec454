"""What hits must be besides near: when, where and with what they were taken, how large, how long.

Moments are those of a clock on the wall, without a zone: EXIF says what the camera's clock showed,
and the time of a file's last change is read in the zone of this machine.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from retrieval.errors import QueryError

EARTH_KM = 6371.0088  # mean radius, IUGG
HALF_TURN_KM = math.pi * EARTH_KM  # nothing on earth is farther away

DATE = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d{1,2})(-(?P<day>\d{1,2})"
    r"([T ](?P<hour>\d{1,2}):(?P<minute>\d{2})(:(?P<second>\d{2}))?)?)?)?",
    re.ASCII,
)
AGO = re.compile(r"(?P<number>\d{1,6}) ?(?P<unit>[hdw])( ago)?", re.ASCII)
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
LONGEST_TAG = 100  # characters; labels are words, not sentences
SUFFIX = re.compile(r"\.?(?P<name>[^\s./\\\x00]+)")


@dataclass(frozen=True, slots=True)
class Near:
    """A place and how far around it, over the surface of a sphere of the earth's mean radius.

    Attributes:
        lat: Degrees, north positive, -90..90.
        lon: Degrees, east positive, -180..180.
        km: Kilometres, above 0.
    """

    lat: float
    lon: float
    km: float

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            QueryError: If one means nothing.
        """
        if not -90 <= self.lat <= 90:
            raise QueryError(f"a latitude lies between -90 and 90, not at {self.lat:g}")
        if not -180 <= self.lon <= 180:
            raise QueryError(f"a longitude lies between -180 and 180, not at {self.lon:g}")
        if not (math.isfinite(self.km) and self.km > 0):
            raise QueryError(f"a distance is a number of kilometres above 0, not {self.km:g}")

    def box(self) -> tuple[float, float, tuple[tuple[float, float], ...]]:
        """Bounds what lies near: least and greatest latitude, and one or two spans of longitudes.

        The spans reach from west to east within -180..180; there are two where the date line lies
        between. What lies near is in the box, with a metre to spare for rounding.
        """
        reach = min(math.pi, self.km / EARTH_KM) + 1.6e-7
        south = self.lat - math.degrees(reach)
        north = self.lat + math.degrees(reach)
        if south <= -90 or north >= 90:  # a pole is near, and there all longitudes meet
            return max(south, -90.0), min(north, 90.0), ((-180.0, 180.0),)
        # the meridian that touches the circle; the pole is outside, so the quotient is below 1
        width = math.degrees(
            math.asin(min(1.0, math.sin(reach) / math.cos(math.radians(self.lat))))
        )
        west, east = self.lon - width, self.lon + width
        if west < -180:
            return south, north, ((west + 360, 180.0), (-180.0, east))
        if east > 180:
            return south, north, ((west, 180.0), (-180.0, east - 360))
        return south, north, ((west, east),)


@dataclass(frozen=True, slots=True)
class Filters:
    """What items must be; ``None`` or empty where it does not matter.

    Attributes:
        under: At or under this path, absolute.
        after: Taken at this moment or later.
        before: Taken before this moment.
        camera: Its name contains this, in upper or lower case.
        near: Taken there.
        min_width: Pixels, as shown; only pictures have them.
        min_duration_s: Seconds; only sounds have them.
        max_duration_s: Seconds, inclusive.
        suffixes: The name ends with one of these: ``(".jpg", ".png")``, in lower case.
        tags: It has all of these, as ``tag_name`` writes them.
    """

    under: bytes | None = None
    after: datetime | None = None
    before: datetime | None = None
    camera: str | None = None
    near: Near | None = None
    min_width: int | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    suffixes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the values, alone and against each other.

        Raises:
            QueryError: If one means nothing, or no item could be all of this.
        """
        if self.after is not None and self.before is not None and self.after >= self.before:
            raise QueryError(
                f"nothing lies after {shown(self.after)} and before {shown(self.before)}; "
                "--after takes the earlier moment"
            )
        if self.camera is not None and not self.camera.split():
            raise QueryError("the camera's name is empty; give a part of its make or model")
        if self.min_width is not None and not 1 <= self.min_width < 2**63:
            raise QueryError(f"a width is a number of pixels of at least 1, not {self.min_width}")
        for seconds in (self.min_duration_s, self.max_duration_s):
            if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
                raise QueryError(f"a duration is a number of seconds above 0, not {seconds:g}")
        if (
            self.min_duration_s is not None
            and self.max_duration_s is not None
            and self.min_duration_s > self.max_duration_s
        ):
            raise QueryError(
                f"no sound lasts at least {self.min_duration_s:g} s "
                f"and at most {self.max_duration_s:g} s"
            )

    def __bool__(self) -> bool:
        """Tells whether anything is asked for."""
        return bool(self.each())

    def each(self) -> list[Filters]:
        """Takes it apart: one filter for every thing that is asked for, in the order above."""
        return [
            Filters(**{field.name: value})
            for field in fields(self)
            if (value := getattr(self, field.name)) not in (None, ())
        ]


NO_FILTERS = Filters()


def moment(text: str, *, now: datetime | None = None) -> datetime:
    """Reads a moment as people write it.

    Args:
        text: A year, month, day or minute (``2024``, ``2024-05``, ``2024-05-31``,
            ``2024-05-31T18:04``), which stand for their first instant; ``today``, ``yesterday``;
            or a time ago in hours, days or weeks: ``12h``, ``7d``, ``2w``.
        now: The present moment, without a zone; the clock's by default.

    Raises:
        QueryError: If it is none of these, or no date.
    """
    now = now or datetime.now()
    words = " ".join(text.split())
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        if words.lower() in ("today", "yesterday"):
            return day - timedelta(days=words.lower() == "yesterday")
        if ago := AGO.fullmatch(words.lower()):
            return now - int(ago["number"]) * UNITS[ago["unit"]]
        if date := DATE.fullmatch(words.upper()):
            parts = {name: int(value) for name, value in date.groupdict().items() if value}
            return datetime(**({"month": 1, "day": 1} | parts))  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        raise QueryError(f"there is no such date as {text!r}") from None
    raise QueryError(
        f"{text!r} is no date; write 2024, 2024-05, 2024-05-31, 2024-05-31T18:04, today, "
        "yesterday, or a time ago like 12h, 7d, 2w"
    )


def near(text: str) -> Near:
    """Reads ``LAT,LON,KM``: degrees, degrees, kilometres.

    Raises:
        QueryError: If it is anything else.
    """
    try:
        lat, lon, km = map(float, text.split(","))
    except ValueError:
        raise QueryError(
            f"{text!r} is no place; write latitude, longitude and kilometres: 48.86,2.35,10"
        ) from None
    return Near(lat, lon, km)


def suffixes(texts: Sequence[str]) -> tuple[str, ...]:
    """Reads suffixes, with or without dots, several with commas between them.

    Raises:
        QueryError: If one is none.
    """
    found: list[str] = []
    for text in texts:
        for one in text.split(","):
            match = SUFFIX.fullmatch(one.strip())
            if match is None:
                raise QueryError(f"{text!r} is no suffix of files; write jpg or jpg,png")
            found.append("." + match["name"].lower())
    return tuple(dict.fromkeys(found))


def tag_name(text: str) -> str:
    """Reads the name of a tag: its words with single spaces, composed (NFC).

    Raises:
        QueryError: If nothing is left, it is very long, or it has what cannot be shown.
    """
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not name or len(name) > LONGEST_TAG or not name.isprintable():
        raise QueryError(
            f"{text[:LONGEST_TAG]!r} is no tag; write a word or a few, "
            f"at most {LONGEST_TAG} characters"
        )
    return name


def shown(when: datetime) -> str:
    """Writes a moment as short as it is exact."""
    text = when.isoformat(sep=" ", timespec="seconds")
    return text.removesuffix(":00").removesuffix(" 00:00")
