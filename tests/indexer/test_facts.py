"""What pictures say of themselves gets into the index, for those of an older anyseek, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from sqlalchemy import text

from retrieval.store import Store, schema
from retrieval.store.engine import open_engine
from tests.conftest import run_sql
from tests.fakes import colour_encoder
from tests.indexer.test_pipeline import Desk, counts

COLUMNS = "SELECT taken_at, camera, lat, lon, facts_version FROM items ORDER BY path"
READ = schema.FACTS_VERSION
SAID = ("2024-05-31T18:04:00", "Apple iPhone 12", -33.5, 151.25)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with a picture that says all, one that says nothing, and a text."""
    desk = Desk(tmp_path)
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Apple", "iPhone 12"
    exif[ExifTags.Base.DateTime] = "2024:05:31 18:04:00"
    gps = ExifTags.GPS
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {
            gps.GPSLatitudeRef: "S",
            gps.GPSLatitude: (33.0, 30.0, 0.0),
            gps.GPSLongitudeRef: "E",
            gps.GPSLongitude: (151.0, 15.0, 0.0),
        }
    )
    desk.root.mkdir(exist_ok=True)
    Image.new("RGB", (16, 16), "red").save(desk.root / "a.png", exif=exif)
    Image.new("RGB", (16, 16), "blue").save(desk.root / "b.png")
    desk.write("c.txt", "green")
    return desk


def before_facts(index: Path) -> None:
    """Takes the facts of pictures away, as the migration finds an older anyseek's index."""
    run_sql(
        index,
        "UPDATE items SET taken_at = NULL, camera = NULL, lat = NULL, lon = NULL,"
        " facts_version = 0 WHERE modality = 'image'",
    )


def test_an_older_index_has_pictures_to_read(tmp_path: Path) -> None:
    """The migration keeps every row, and asks for nothing that has no metadata."""
    path = tmp_path / "i.db"
    with open_engine(path, write=True).connect() as connection:
        with connection.begin():
            schema._first(connection)
        for number, modality in enumerate(("image", "audio", "text")):
            row = f"(x'2f{number}0', '{modality}', 1, 2, x'00', '2020-01-01T00:00:00', 3)"
            columns = "(path, modality, size, mtime_ns, content_hash, taken_at, indexed_at_s)"
            with connection.begin():
                connection.execute(text(f"INSERT INTO items {columns} VALUES {row}"))
        with connection.begin():
            connection.execute(text("PRAGMA user_version = 1"))
            connection.execute(text(f"PRAGMA application_id = {schema.APPLICATION_ID}"))
    Store(path, write=True).close()
    old = ("2020-01-01T00:00:00", None, None, None)
    assert run_sql(path, COLUMNS) == [(*old, 0), (*old, 1), (*old, 2)]


def test_facts_are_stored(desk: Desk) -> None:
    """With the first run, and for a copy without reading it again."""
    assert counts(desk.run()) == {"added": 3}
    want: list[tuple[Any, ...]] = [(*SAID, READ), (None,) * 4 + (READ,), (None,) * 4 + (READ,)]
    assert run_sql(desk.index, COLUMNS) == want
    desk.write("a2.png", (desk.root / "a.png").read_bytes())
    desk.embedded  # noqa: B018 (forgets the count)
    assert counts(desk.run()) == {"added": 1, "unchanged": 3}
    assert desk.embedded == 0
    assert run_sql(desk.index, COLUMNS) == [want[0], *want]


def test_an_older_index_learns_the_facts_without_embedding(desk: Desk) -> None:
    """Once; pictures are read, nothing else, and all else stays as it was."""
    desk.run()
    before_facts(desk.index)
    ids = desk.ids()
    desk.embedded  # noqa: B018 (forgets the count)
    os.chmod(desk.root / "c.txt", 0)  # noqa: PTH101 (texts say nothing and are not read)
    assert counts(desk.run()) == {"unchanged": 3}
    assert desk.embedded == 0
    assert desk.ids() == ids
    assert run_sql(desk.index, COLUMNS) == [
        (*SAID, READ),
        (None,) * 4 + (READ,),
        (None,) * 4 + (READ,),
    ]
    with Store(desk.index, write=True) as store:
        (space,) = store.spaces()
        assert all(known.read for known in store.known(os.fsencode(desk.root), space))
    generation = run_sql(desk.index, "SELECT value FROM meta WHERE key = 'generation'")
    assert counts(desk.run()) == {"unchanged": 3}
    assert run_sql(desk.index, "SELECT value FROM meta WHERE key = 'generation'") == generation


def test_another_model_learns_the_facts_too(desk: Desk) -> None:
    """What is embedded anew is not read a second time for its facts."""
    desk.run()
    before_facts(desk.index)
    assert counts(desk.run(encoder=colour_encoder("colours-2"))) == {"updated": 3}
    assert run_sql(desk.index, COLUMNS)[0] == (*SAID, READ)
    assert run_sql(desk.index, "SELECT count(*) FROM items WHERE facts_version < 2") == [(0,)]
