"""Which items pass a filter, against the same question asked of one record after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.filters import Filters, Near
from retrieval.index import VectorIndex
from retrieval.search import Searcher, Wanted
from retrieval.store import Batch, ItemRecord, Space, Store
from retrieval.store.selecting import _from, condition, nanoseconds, vector_ids
from retrieval.types import Encoder, Fingerprint, Modality, Place
from retrieval.unmatched import why
from tests.conftest import make_record, run_sql, unit_rows
from tests.fakes import DIM, colour_encoder
from tests.retrieval.test_filters import by_vectors

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
DAY = timedelta(days=1)
TOY = Encoder("toy", "toy-1", DIM, {})


@contextmanager
def zone(name: str) -> Iterator[None]:
    """Sets this process's time zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        try:
            yield
        finally:
            patch.undo()
            time.tzset()


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2020, 1, 20)).map(
    lambda moment: moment.replace(microsecond=0, second=0, minute=0)
)
CAMERAS = ["Canon EOS 5D", "canon eos r", "Ärger 100%", "Straße_1", "SONY"]
PLACES = [(0.0, 0.0), (48.86, 2.35), (48.9, 2.4), (0.0, 179.99), (0.0, -179.99), (89.9, 10.0)]
NAMES = [b"a.jpg", b"b.JPG", b"c.png", b"jpg", b"\xff.jpg", "é.jpg".encode(), b"d.jpg.png"]


@st.composite
def records(draw: st.DrawFn) -> list[ItemRecord]:
    """Items of all kinds, some with two parts."""
    found = []
    for number in range(draw(st.integers(0, 14))):
        place = draw(st.none() | st.sampled_from(PLACES))
        modality = draw(st.sampled_from([IMAGE, IMAGE, AUDIO, TEXT]))
        taken = draw(st.none() | MOMENTS)
        count = draw(st.integers(1, 2))
        folder = draw(st.sampled_from([b"/x/", b"/x/y/", b"/xy/"]))
        found.append(
            make_record(
                folder + b"%d/" % number + draw(st.sampled_from(NAMES)),
                unit_rows(np.random.default_rng(number), count, DIM),
                modality=modality,
                places=[Place(line=line) for line in range(count)],
                fingerprint=Fingerprint(1, nanoseconds(draw(MOMENTS))),
                taken_at=None if taken is None else taken.isoformat(),
                camera=draw(st.none() | st.sampled_from(CAMERAS)),
                lat=place[0] if place else None,
                lon=place[1] if place else None,
                width=draw(st.none() | st.sampled_from([99, 100, 101])),
                duration_s=draw(st.none() | st.sampled_from([1.0, 2.5, 9.0])),
            )
        )
    return found


@st.composite
def filters(draw: st.DrawFn) -> Filters:
    """Up to all filters at once."""
    after, before = draw(st.none() | MOMENTS), draw(st.none() | MOMENTS)
    if after and before and after >= before:
        after, before = before, after + timedelta(hours=1)
    lat, lon = draw(st.sampled_from(PLACES))
    least, most = draw(st.none() | st.just(2.0)), draw(st.none() | st.sampled_from([2.5, 8.0]))
    return Filters(
        under=draw(st.none() | st.sampled_from([b"/x", b"/x/y", b"/", b"/none"])),
        after=after,
        before=before,
        camera=draw(st.none() | st.sampled_from(["CANON", "ä", "%", "_", "STRASSE", " eos "])),
        near=draw(st.none() | st.sampled_from([Near(lat, lon, km) for km in (3, 30, 9_000.0)])),
        min_width=draw(st.none() | st.just(100)),
        min_duration_s=least,
        max_duration_s=most,
        suffixes=draw(st.sampled_from([(), (), (".jpg",), (".png", ".jpg"), (".é",)])),
    )


def passes(record: ItemRecord, wanted: Filters) -> bool:
    """Asks everything of one record in plain Python."""
    facts = record.facts
    date = datetime.fromtimestamp(record.fingerprint.mtime_ns / 1e9)
    if facts.taken_at is not None:
        date = datetime.fromisoformat(facts.taken_at)
    name = record.path.decode("utf-8", "surrogateescape").lower()
    below = None if wanted.under is None else wanted.under.rstrip(b"/") + b"/"
    answers = [
        below is None or record.path == wanted.under or record.path.startswith(below),
        wanted.after is None or date >= wanted.after,
        wanted.before is None or date < wanted.before,
        wanted.camera is None
        or (
            facts.camera is not None and wanted.camera.strip().casefold() in facts.camera.casefold()
        ),
        wanted.near is None
        or (
            facts.lat is not None
            and facts.lon is not None
            and by_vectors((wanted.near.lat, wanted.near.lon), (facts.lat, facts.lon))
            <= wanted.near.km
        ),
        wanted.min_width is None or (record.width or 0) >= wanted.min_width,
        wanted.min_duration_s is None or (record.duration_s or 0) >= wanted.min_duration_s,
        wanted.max_duration_s is None
        or (record.duration_s is not None and record.duration_s <= wanted.max_duration_s),
        not wanted.suffixes or name.endswith(wanted.suffixes),
    ]
    return all(answers)


@settings(max_examples=50)
@given(items=records(), wanted=filters(), where=st.sampled_from(["UTC", "Asia/Kolkata"]))
def test_what_passes_is_what_passes_one_by_one(
    items: list[ItemRecord], wanted: Filters, where: str
) -> None:
    """Ids, the ids of all others, counts and estimates, for every kind of item."""
    with (
        zone(where),
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "i.db", write=True) as store,
    ):
        other, space = store.add_space(Encoder("o", "o-1", DIM, {})), store.add_space(TOY)
        store.write(Batch(records=items), other)
        store.write(Batch(records=items), space)
        for modality in Modality:
            every, _ = store.vectors(space, modality)
            of_kind = [record for record in items if record.modality is modality]
            want = sorted(record.path for record in of_kind if passes(record, wanted))
            ids = store.vector_ids(space, modality, wanted)
            found = store.found(ids.tolist())
            assert sorted({row.path for row in found.values()}) == want
            assert (np.diff(ids) > 0).all()
            paths = [row.path for row in store.found(every.tolist()).values()]
            assert len(ids) == sum(path in want for path in paths)  # all parts of each
            others = store.vector_ids(space, modality, wanted, without=True)
            assert np.union1d(ids, others).tolist() == every.tolist()
            assert len(ids) + len(others) == len(every)
            assert store.count([modality], wanted) == len(want)
            if wanted.near is None:  # the estimate takes the box for the circle
                share = len(want) / len(of_kind) if of_kind else 0.0
                assert store.share(modality, wanted) == pytest.approx(share)


@settings(max_examples=20)
@given(items=records(), wanted=filters(), k=st.integers(1, 20))
def test_searches_give_k_whenever_k_qualify(
    items: list[ItemRecord], wanted: Filters, k: int
) -> None:
    """The best of those that pass, as many as asked for; else a remark says why none is."""
    encoder = colour_encoder()
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "i.db", write=True) as store,
    ):
        store.write(Batch(records=items), store.add_space(encoder))
        searcher = Searcher(store, encoder)
        hits = searcher.by_text("red", Wanted(k, filters=wanted))
        remarks = searcher.remarks
        want = [record for record in items if passes(record, wanted)]
        assert len(hits) == min(k, len(want))
        assert {hit.path for hit in hits} <= {record.path for record in want}
        every = searcher.by_text("red", Wanted(1000))
        allowed = {record.path for record in want}
        assert [hit.score for hit in hits] == pytest.approx(
            [hit.score for hit in every if hit.path in allowed][:k]
        )
        assert bool(remarks) == (bool(items) and bool(wanted) and not want)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty index."""
    with Store(tmp_path / "i.db", write=True) as store:
        yield store


@pytest.fixture
def space(store: Store) -> Space:
    """Its space."""
    return store.add_space(TOY)


def plan(store: Store, wanted: Filters) -> str:
    """How SQLite goes about a filter."""
    terms, values = condition(store._run, wanted)
    values |= {"space": 1, "modality": "image", "low_part": 0, "high_part": 9}
    rows = store._run(f"EXPLAIN QUERY PLAN SELECT vectors.id {_from(terms)}", values)
    return "\n".join(row[3] for row in rows)


def test_what_is_rare_is_found_by_an_index(store: Store) -> None:
    """Dates, cameras, places and folders; and the vectors themselves are never read."""
    dated = plan(store, Filters(after=datetime(2024, 1, 1), before=datetime(2024, 2, 1)))
    assert "items_by_date" in dated
    assert "items_by_change" in dated
    assert "items_by_camera" in plan(store, Filters(camera="canon"))
    assert "items_by_place" in plan(store, Filters(near=Near(1, 2, 3)))
    assert "autoindex_items_1 (path" in plan(store, Filters(under=b"/a"))
    assert "SCAN items\n" in plan(store, Filters(min_width=5))  # no detour where no index helps
    for wanted in (Filters(min_width=5), Filters(camera="x", min_width=5)):
        text = plan(store, wanted)
        assert "vectors USING COVERING INDEX" in text
        assert "parts USING COVERING INDEX" in text


def test_what_is_common_is_found_without_an_index(store: Store, space: Space) -> None:
    """Each way where it is faster."""
    rng = np.random.default_rng(0)
    day = datetime(2024, 1, 1)
    items = [
        make_record(b"/%d" % n, unit_rows(rng, 1, DIM), taken_at=(day + n * DAY).isoformat())
        for n in range(60)
    ]
    store.write(Batch(records=items), space)
    asked: list[str] = []

    def spied(statement: str, values: Any) -> Any:
        asked.append(statement)
        return store._run(statement, values)

    for days, scanned in ((59, False), (30, True)):
        wanted = Filters(after=day + days * DAY)
        ids = vector_ids(spied, space.id, "image", wanted, without=False)
        assert len(ids) == 60 - days
        assert ("IS TRUE" in asked[-1]) == scanned


def test_the_corners_of_a_box_are_not_near(store: Store, space: Space) -> None:
    """Around Paris: within thirty kilometres, only within the box around them, and far away."""
    rng = np.random.default_rng(0)
    places = [(48.9, 2.4), (49.08, 2.7), (50.0, 2.4)]
    items = [
        make_record(b"/%d" % n, unit_rows(rng, 1, DIM), lat=lat, lon=lon)
        for n, (lat, lon) in enumerate(places)
    ]
    store.write(Batch(records=items), space)
    wanted = Filters(near=Near(48.86, 2.35, 30))
    assert store.vector_ids(space, IMAGE, wanted).tolist() == [1]
    assert store.vector_ids(space, IMAGE, wanted, without=True).tolist() == [2, 3]
    assert store.count([IMAGE], wanted) == 1


def test_the_ends_of_the_calendar(store: Store, space: Space) -> None:
    """Dates that no clock can show compare as what they are: earlier or later than all."""
    store.write(
        Batch(records=[make_record(b"/a", unit_rows(np.random.default_rng(0), 1, DIM))]), space
    )
    for where in ("Asia/Tokyo", "America/New_York"):
        with zone(where):
            for first, last, count in (
                (datetime.min, datetime.max, 1),
                (datetime.min, datetime(1, 1, 2), 0),
                (datetime(9999, 12, 31), datetime.max, 0),
            ):
                assert store.count([IMAGE], Filters(after=first, before=last)) == count


def test_details_come_with_what_is_found(store: Store, space: Space) -> None:
    """The date is the shot's, else the change's on this machine's clock, else unknown."""
    rows = unit_rows(np.random.default_rng(0), 1, DIM)
    items = [
        make_record(b"/a", rows, taken_at="2024-05-31T18:04:00", camera="C", lat=1.5, lon=-2.5),
        make_record(b"/b", rows, fingerprint=Fingerprint(1, 1_700_000_000_999_999_999)),
        make_record(b"/c", rows, fingerprint=Fingerprint(1, 2**63 - 1), duration_s=3.5),
        make_record(b"/d", rows, taken_at="nonsense"),
    ]
    store.write(Batch(records=items), space)
    run_sql(store.path, "UPDATE items SET mtime_ns = 9223372036854775807 WHERE path = x'2f63'")
    with zone("Asia/Kolkata"):
        found = store.found([1, 2, 3, 4])
    first = found[1].details
    assert first.date == datetime(2024, 5, 31, 18, 4)
    assert (first.facts.camera, first.facts.lat, first.facts.lon) == ("C", 1.5, -2.5)
    assert (first.width, first.height, first.duration_s) == (640, 480, None)
    assert found[2].details.date == datetime(2023, 11, 15, 3, 43, 20)
    assert found[3].details.duration_s == 3.5
    assert found[3].details.date == datetime(2262, 4, 12, 5, 17, 16)
    assert found[4].details.date is None


def test_the_fewer_are_asked_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most pass, the store lists the others; either way it lists once per filter."""
    encoder = colour_encoder()
    rng = np.random.default_rng(0)
    items = [make_record(b"/%d" % n, unit_rows(rng, 1, DIM), width=n) for n in range(1, 41)]
    store.write(Batch(records=items), store.add_space(encoder))
    asked: list[bool] = []
    whole = Store.vector_ids

    def spied(self: Store, *rest: Any, without: bool = False) -> Any:
        asked.append(without)
        return whole(self, *rest, without=without)

    monkeypatch.setattr(Store, "vector_ids", spied)
    searcher = Searcher(store, encoder)
    for least, without in ((37, False), (5, True)):
        for _ in range(2):
            hits = searcher.by_text("red", Wanted(50, filters=Filters(min_width=least)))
            assert len(hits) == 41 - least
        assert asked == [without]
        asked.clear()
    assert isinstance(searcher._indexes[IMAGE], VectorIndex)


# ---- what is said when nothing passes ----------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "want"),
    [
        (Filters(under=b"/z"), "lies at or under /z"),
        (
            Filters(after=datetime(2031, 1, 1)),
            "is from 2031-01-01 or later; the newest is from 2024-05-31 18:04",
        ),
        (
            Filters(before=datetime(1999, 1, 1)),
            "is from before 1999-01-01; the oldest is from 2001-09-09",
        ),
        (Filters(camera="sony"), "comes from a camera like 'sony'; there are Apple iPhone 12"),
        (
            Filters(near=Near(0, 0, 5)),
            "was taken within 5 km of 0,0; 1 picture(s) say where they were taken",
        ),
        (Filters(min_width=5000), "is 5000 pixels wide or more; the widest has 640"),
        (Filters(min_duration_s=60), "lasts 60 s or more; the longest lasts 3.5 s"),
        (Filters(max_duration_s=0.5), "lasts 0.5 s or less; the shortest lasts 3.5 s"),
        (Filters(suffixes=(".a", ".b")), "has a name that ends with .a or .b"),
        (
            Filters(camera="apple", min_duration_s=1),
            "passes all 2 filters at once, though something passes each of them",
        ),
        (
            Filters(camera="apple", min_width=5000),
            "is 5000 pixels wide or more; the widest has 640",
        ),
    ],
)
def test_the_filter_that_excludes_everything_is_named(
    wanted: Filters, want: str, store: Store, space: Space
) -> None:
    """With what there is instead."""
    rows = unit_rows(np.random.default_rng(0), 1, DIM)
    items = [
        make_record(b"/a", rows, taken_at="2024-05-31T18:04:00", camera="Apple iPhone 12")
        if modality is IMAGE
        else make_record(
            b"/b",
            rows,
            modality=AUDIO,
            width=None,
            duration_s=3.5,
            lat=5.0,
            lon=5.0,
            fingerprint=Fingerprint(1, nanoseconds(datetime(2001, 9, 9))),
        )
        for modality in (IMAGE, AUDIO)
    ]
    store.write(Batch(records=items), space)
    assert why(store, [IMAGE, AUDIO], wanted) == f"nothing in the index {want}"


def test_what_is_said_of_an_index_that_knows_little(store: Store, space: Space) -> None:
    """Of one kind, without cameras, places, sounds or pictures."""
    rows = unit_rows(np.random.default_rng(0), 1, DIM)
    store.write(Batch(records=[make_record(b"/a", rows, modality=TEXT, width=None)]), space)
    for wanted, want in (
        (Filters(camera="x"), "comes from a camera like 'x'; no picture names its camera"),
        (
            Filters(near=Near(0, 0, 5)),
            "was taken within 5 km of 0,0; no picture(s) say where they were taken",
        ),
        (Filters(min_width=5), "is 5 pixels wide or more; no picture is there"),
        (Filters(min_duration_s=5), "lasts 5 s or more; no sound is there"),
        (Filters(max_duration_s=5), "lasts 5 s or less; no sound is there"),
    ):
        assert why(store, [TEXT], wanted) == f"no text in the index {want}"
