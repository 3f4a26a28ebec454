"""What people type as filters, and what lies near a place."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.filters import HALF_TURN_KM, NO_FILTERS, Filters, Near, moment, near, shown, suffixes
from retrieval.store.selecting import distance_km

NOW = datetime(2024, 3, 1, 15, 30, 45, 600)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2024", datetime(2024, 1, 1)),
        ("2024-05", datetime(2024, 5, 1)),
        ("2024-5-3", datetime(2024, 5, 3)),
        ("2024-05-31", datetime(2024, 5, 31)),
        ("2024-05-31T18:04", datetime(2024, 5, 31, 18, 4)),
        (" 2024-05-31  18:04:09 ", datetime(2024, 5, 31, 18, 4, 9)),
        ("2024-05-31t18:04", datetime(2024, 5, 31, 18, 4)),
        ("today", datetime(2024, 3, 1)),
        ("Yesterday", datetime(2024, 2, 29)),
        ("7d", datetime(2024, 2, 23, 15, 30, 45, 600)),
        ("2w", datetime(2024, 2, 16, 15, 30, 45, 600)),
        ("2 W ago", datetime(2024, 2, 16, 15, 30, 45, 600)),
        ("36h", datetime(2024, 2, 29, 3, 30, 45, 600)),
        ("0d", NOW),
    ],
)
def test_moments(text: str, want: datetime) -> None:
    """A period stands for its first instant; times ago are exact."""
    assert moment(text, now=NOW) == want


@pytest.mark.parametrize(
    "text",
    ["2024-13", "2023-02-29", "0000", "2024-05-31T25:00", "999999w", "2024-00"],
)
def test_dates_that_no_calendar_has(text: str) -> None:
    """They look like dates and are none."""
    with pytest.raises(QueryError, match="no such date"):
        moment(text, now=NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "31.05.2024",
        "2024-05-31T18:04Z",
        "7",
        "-7d",
        "7m",
        "2024-05-",
        "２０２４",
        "7d 3h",
    ],
)
def test_what_is_no_date(text: str) -> None:
    """The message shows what would be one."""
    with pytest.raises(QueryError, match=r"is no date; write 2024, 2024-05"):
        moment(text, now=NOW)


def test_the_clock_is_the_default() -> None:
    """Without a present moment it is the present moment."""
    assert abs(moment("1d") - (datetime.now() - timedelta(days=1))) < timedelta(minutes=5)


def test_moments_are_shown_short() -> None:
    """No more digits than there are."""
    assert shown(datetime(2024, 5, 1)) == "2024-05-01"
    assert shown(datetime(2024, 5, 1, 18, 4)) == "2024-05-01 18:04"
    assert shown(datetime(2024, 5, 1, 0, 0, 9, 5)) == "2024-05-01 00:00:09"


def test_suffixes() -> None:
    """With and without dots, in any case, with commas and repeated."""
    assert suffixes(["jpg,.PNG", " gif ", "JPG"]) == (".jpg", ".png", ".gif")
    assert suffixes(["tar.gz".split(".")[1]]) == (".gz",)
    assert suffixes([]) == ()


@pytest.mark.parametrize("text", ["", ".", "jpg,", "a/b", "*. jpg", "a b", "\0"])
def test_what_is_no_suffix(text: str) -> None:
    """Empty ones would let everything through."""
    with pytest.raises(QueryError, match="no suffix"):
        suffixes([text])


def test_places() -> None:
    """Degrees, degrees, kilometres."""
    assert near("-33.86, 151.21,5") == Near(-33.86, 151.21, 5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no place; write"),
        ("1,2", "is no place; write"),
        ("1,2,3,4", "is no place; write"),
        ("1,2,km", "is no place; write"),
        ("91,0,1", "latitude lies between"),
        ("nan,0,1", "latitude lies between"),
        ("0,181,1", "longitude lies between"),
        ("0,0,0", "kilometres above 0"),
        ("0,0,-1", "kilometres above 0"),
        ("0,0,inf", "kilometres above 0"),
        ("0,0,nan", "kilometres above 0"),
    ],
)
def test_what_is_no_place(text: str, message: str) -> None:
    """Each with its reason."""
    with pytest.raises(QueryError, match=message):
        near(text)


MAY, JUNE = datetime(2024, 5, 1), datetime(2024, 6, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"after": JUNE, "before": MAY}, "after 2024-06-01 and before 2024-05-01"),
        ({"after": MAY, "before": MAY}, "nothing lies"),
        ({"camera": "  "}, "camera's name is empty"),
        ({"min_width": 0}, "at least 1, not 0"),
        ({"min_width": 2**63}, "number of pixels"),
        ({"min_duration_s": 0.0}, "seconds above 0"),
        ({"max_duration_s": math.nan}, "seconds above 0"),
        ({"max_duration_s": math.inf}, "seconds above 0"),
        ({"min_duration_s": 3.0, "max_duration_s": 2.0}, "no sound lasts"),
    ],
)
def test_filters_that_mean_nothing(values: dict[str, object], message: str) -> None:
    """Each is refused with a reason."""
    with pytest.raises(QueryError, match=message):
        Filters(**values)  # type: ignore[arg-type]


def test_filters_come_apart() -> None:
    """One for each thing that is asked for; nothing asked for is false."""
    assert not NO_FILTERS
    assert NO_FILTERS.each() == []
    filters = Filters(after=MAY, before=JUNE, suffixes=(".jpg",))
    assert filters
    assert filters.each() == [Filters(after=MAY), Filters(before=JUNE), Filters(suffixes=(".jpg",))]


# ---- what lies near ----------------------------------------------------------------------------

LATS = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, 89.9, -89.9]))
LONS = st.one_of(st.floats(-180, 180), st.sampled_from([-180.0, 180.0, 0.0, 179.9, -179.9]))


def by_vectors(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The distance from the angle between two directions, another formula than the haversine."""

    def direction(lat: float, lon: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        lat, lon = math.radians(lat), math.radians(lon)
        return np.array(
            [math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)]
        )

    one, other = direction(*a), direction(*b)
    return math.atan2(float(np.linalg.norm(np.cross(one, other))), float(one @ other)) * 6371.0088


@given(LATS, LONS, LATS, LONS)
def test_distances_agree_with_another_formula(
    lat: float, lon: float, other_lat: float, other_lon: float
) -> None:
    """To within 10 cm at the far side of the earth, where the haversine is at its worst."""
    (got,) = distance_km(Near(lat, lon, 1), np.array([other_lat]), np.array([other_lon]))
    want = by_vectors((lat, lon), (other_lat, other_lon))
    assert got == pytest.approx(want, abs=1e-4 if want < 19_000 else 0.5)


def test_known_distances() -> None:
    """A quarter of a meridian, across the date line, over the pole."""
    for place, other, want in (
        ((0.0, 0.0), (90.0, 0.0), HALF_TURN_KM / 2),
        ((0.0, 179.5), (0.0, -179.5), HALF_TURN_KM / 180),
        ((89.5, 0.0), (89.5, 180.0), HALF_TURN_KM / 180),
    ):
        (got,) = distance_km(Near(*place, 1), np.array([other[0]]), np.array([other[1]]))
        assert got == pytest.approx(want, abs=1e-6)


@given(
    LATS,
    LONS,
    st.one_of(st.floats(1e-3, 25_000), st.floats(1, 100)),
    st.floats(0, 1),
    st.floats(0, 2 * math.pi),
)
def test_the_box_holds_what_is_near(
    lat: float, lon: float, km: float, part: float, bearing: float
) -> None:
    """Whatever the direction, also over poles and the date line, up to the rim."""
    angle = min(math.pi, part * km / 6371.0088)
    phi, theta = math.radians(lat), math.radians(lon)
    there = math.asin(
        max(
            -1.0,
            min(
                1.0,
                math.sin(phi) * math.cos(angle)
                + math.cos(phi) * math.sin(angle) * math.cos(bearing),
            ),
        )
    )
    across = theta + math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(phi),
        math.cos(angle) - math.sin(phi) * math.sin(there),
    )
    far_lat, far_lon = math.degrees(there), (math.degrees(across) + 180) % 360 - 180
    south, north, spans = Near(lat, lon, km).box()
    assert south <= far_lat <= north
    if abs(far_lat) < 89.999:  # at a pole a longitude means nothing
        assert any(west <= far_lon <= east for west, east in spans)
    assert all(-180 <= west <= east <= 180 for west, east in spans)


def test_a_box_is_no_larger_than_it_must_be() -> None:
    """Ten kilometres around Paris are a tenth of a degree, not the world."""
    south, north, ((west, east),) = Near(48.86, 2.35, 10).box()
    assert (south, north) == pytest.approx((48.86 - 0.08993, 48.86 + 0.08993), abs=1e-4)
    assert (west, east) == pytest.approx((2.35 - 0.1367, 2.35 + 0.1367), abs=1e-3)
    tenth = 0.0899  # of a degree on the equator, ten kilometres
    for lon, want in (
        (179.99, [(179.99 - tenth, 180.0), (-180.0, -180.01 + tenth)]),
        (-179.99, [(180.01 - tenth, 180.0), (-180.0, -179.99 + tenth)]),
    ):
        assert np.array(Near(0, lon, 10).box()[2]) == pytest.approx(np.array(want), abs=1e-4)
    south, north, spans = Near(89.95, 3, 10).box()
    assert south == pytest.approx(89.8601, abs=1e-4)
    assert (north, spans) == (90.0, ((-180.0, 180.0),))
