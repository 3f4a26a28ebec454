"""Classifying, tags, duplicates and groups at the command line, with the bundled model."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_cli import SAMPLES, Anyseek
from tests.conftest import rows_of, run_sql

LABELS = "cat,horse,lighthouse,cup"
RIGHT = {
    "kitten-with-wool.jpg": "cat",
    "wild-horses.jpg": "horse",
    "brick-lighthouse.jpg": "lighthouse",
    "espresso-cup.jpg": "cup",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an index of four photographs; copied for each test."""
    home = tmp_path_factory.mktemp("made").resolve()
    (home / "photos").mkdir()
    for name in RIGHT:
        shutil.copy(SAMPLES / "photos" / name, home / "photos")
    done = Anyseek(home).here("index", "photos")
    assert done.out.startswith(b"4 added")
    return home


@pytest.fixture
def anyseek(made: Path) -> Iterator[Anyseek]:
    """The command in that home, which is put back afterwards."""
    kept = made.with_name(made.name + "-kept")
    shutil.copytree(made, kept, symlinks=True)
    yield Anyseek(made)
    shutil.rmtree(made)
    kept.rename(made)


def tree(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_formats(anyseek: Anyseek) -> None:
    """The right label of each, as a table, JSON, CSV and paths; the index is as it was."""
    before = rows_of(anyseek.index)
    command = ("classify", "photos", "--labels", LABELS)
    done = anyseek.here(*command)
    assert (done.code, done.err) == (0, "")
    found = dict(line.split("\t")[2:0:-1] for line in done.lines)
    assert found == {f"photos/{name}": label for name, label in RIGHT.items()}
    assert done.lines == sorted(done.lines, key=lambda line: line.split("\t")[2])

    lines = [
        json.loads(line) for line in anyseek.here(*command, "-k", "4", "--format", "json").lines
    ]
    for one in lines:
        assert one["label"] == RIGHT[Path(one["path"]).name] == one["labels"][0]["label"]
        assert sum(label["probability"] for label in one["labels"]) == pytest.approx(1, abs=1e-3)
        assert one["indexed"] is True
    text = anyseek.here(*command, "-k", "2", "--format", "csv").out.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 4
    assert {row["label"] for row in rows if row["rank"] == "1"} == set(RIGHT.values())
    done = anyseek.here(*command, "--only", "cat", "--format", "paths", "-0")
    assert done.out == os.fsencode(anyseek.photos / "kitten-with-wool.jpg") + b"\0"
    assert rows_of(anyseek.index) == before


def test_files_that_are_not_indexed(anyseek: Anyseek) -> None:
    """Are embedded, give the same, and need no index; those that cannot be read are named."""
    (anyseek.photos / "broken.jpg").write_bytes(b"no picture")
    command = ("classify", "photos", "--labels", LABELS, "--format", "json")
    indexed = anyseek.here(*command)
    assert "skipped photos/broken.jpg: is not a picture" in indexed.err
    other = anyseek.here(*command, "--index", "none.db")
    assert not (anyseek.home / "none.db").exists()
    for one, same in zip(indexed.lines, other.lines, strict=True):
        stored, fresh = json.loads(one), json.loads(same)
        assert (stored.pop("indexed"), fresh.pop("indexed")) == (True, False)
        assert stored["label"] == fresh["label"]
        assert stored["fit"] == pytest.approx(fresh["fit"], abs=0.02)


def test_tags_from_start_to_end(anyseek: Anyseek) -> None:
    """Written, listed, searched by, replaced, removed."""
    command = ("classify", "photos", "--write-tags", "--labels")
    done = anyseek.here(*command, LABELS)
    assert done.err == "anyseek: kept 4 tags of 4 files\n"
    assert anyseek.here("tags").lines == ["1\tcat", "1\tcup", "1\thorse", "1\tlighthouse"]
    listed = [json.loads(line) for line in anyseek.here("tags", "--format", "json").lines]
    assert {"tag": "cup", "files": 1} in listed
    hits = anyseek.here("search", "an animal", "--tag", "Horse", "--format", "paths").lines
    assert hits == [str(anyseek.photos / "wild-horses.jpg")]
    like = anyseek.here("similar", "photos/wild-horses.jpg", "--tag", "cat", "--format", "paths")
    assert like.lines == [str(anyseek.photos / "kitten-with-wool.jpg")]
    done = anyseek.here("search", "an animal", "--tag", "dog")
    assert "has the tag 'dog'; there are cat, cup, horse, lighthouse" in done.err
    anyseek.here(*command, "animal,thing")
    assert {line.split("\t")[1] for line in anyseek.here("tags").lines} <= {"animal", "thing"}
    (name, *_) = [line.split("\t")[1] for line in anyseek.here("tags").lines]
    done = anyseek.here("tags", "--remove", name.upper())
    assert re.fullmatch(rf"took {name.upper()} from \d files?\n", done.out.decode())
    assert name not in [line.split("\t")[1] for line in anyseek.here("tags").lines]
    done = anyseek.here("tags", "--remove", name)
    assert (done.code, "there is no tag" in done.err) == (1, True)
    done = anyseek.here(*command, LABELS, "--dry-run")
    assert run_sql(anyseek.index, "SELECT count(*) FROM tags WHERE tag = 'cup'") == [(0,)]


def test_tags_need_the_index(anyseek: Anyseek) -> None:
    """Of files that it does not have as they are."""
    for path in anyseek.photos.iterdir():
        os.utime(path, ns=(1, 1))
    done = anyseek.here("classify", "photos", "--labels", LABELS, "--write-tags")
    assert done.code == 1
    assert "run `anyseek index` on them first" in done.err
    assert run_sql(anyseek.index, "SELECT * FROM tags") == []


def test_moving_shows_a_plan_first(anyseek: Anyseek) -> None:
    """And does it with --yes; the next index run knows the files by their content."""
    before = tree(anyseek.home / "photos")
    command = ("classify", "photos", "--labels", LABELS, "--move", "sorted")
    for more in ((), ("--dry-run",)):
        done = anyseek.here(*command, *more)
        assert done.err == "anyseek: this is the plan for 4 files; --yes carries it out\n"
        assert "move\tphotos/wild-horses.jpg\tsorted/horse/wild-horses.jpg" in done.lines
        assert tree(anyseek.home / "photos") == before
        assert not (anyseek.home / "sorted").exists()
    done = anyseek.here(*command, "--sidecar", "xmp", "--yes")
    assert done.err.endswith("done: move of 4 files; run `anyseek index` to tell the index\n")
    wanted = {f"{label}/{name}" for name, label in RIGHT.items()}
    assert tree(anyseek.home / "sorted") == wanted | {f"{one}.xmp" for one in wanted}
    assert tree(anyseek.home / "photos") == set()
    done = anyseek.here("index", "photos", "sorted")
    assert done.out.startswith(b"0 added, 0 updated, 4 renamed, 0 removed")


def test_unknown(anyseek: Anyseek) -> None:
    """Labels that do not fit are said not to, and give no tags."""
    command = ("classify", "photos/wild-horses.jpg", "--labels", "piano,toothbrush,invoice")
    assert "unknown" not in anyseek.here(*command).out.decode()
    done = anyseek.here(*command, "--unknown", "--write-tags")
    assert done.lines == ["   -\tunknown\tphotos/wild-horses.jpg"]
    assert done.err == "anyseek: kept 0 tags of 1 files\n"
    (line,) = anyseek.here(*command, "--unknown", "--format", "json").lines
    assert (json.loads(line)["label"], json.loads(line)["known"]) == (None, False)
    (step,) = anyseek.here(*command, "--unknown", "--copy", "out").lines
    assert step == "copy\tphotos/wild-horses.jpg\tout/unknown/wild-horses.jpg"


def test_label_sets(anyseek: Anyseek) -> None:
    """Listed in both languages, and used in both."""
    done = anyseek.here("classify", "--list-sets")
    assert [line.split("\t")[0] for line in done.lines] == (
        "emotions review scenes objects documents sounds".split()
    )
    (line,) = anyseek.here(
        "classify", "photos/kitten-with-wool.jpg", "--label-set", "objects", "--language", "zh"
    ).lines
    assert line.split("\t")[1] == "猫"
    done = anyseek.here("classify", "photos", "--label-set", "sounds")
    assert done.err == "anyseek: nothing there could be classified so\n"
    done = anyseek.here("classify", "photos", "--label-set", "sounds", "--in", "image")
    assert "the labels 'sounds' are for audio" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "say what there is with one of"),
        (["photos", "--labels", "a,b", "--label-set", "scenes"], "say what there is with one of"),
        (["--labels", "a,b"], "nothing to classify"),
        (["none", "--labels", "a,b"], "there is no file or folder at none"),
        (["photos", "--labels", "a"], "one label"),
        (["photos", "--labels", "a,b", "-k", "0"], "at least 1"),
        (["photos", "--labels", "a,b", "--only", "c"], "none of the labels"),
        (["photos", "--labels", "a,b", "--yes"], "--yes is for"),
        (["photos", "--labels", "a,b", "--move", "x", "--yes", "--dry-run"], "contradict"),
        (["photos", "--labels", "a,b", "--move", "x", "--copy", "y"], "exclude each other"),
        (["photos", "--labels", "a,b", "--prompt", "nonsense"], "no prompt set"),
        (["photos", "--labels-file", "photos"], "cannot read the labels"),
    ],
)
def test_what_means_nothing(anyseek: Anyseek, arguments: list[str], message: str) -> None:
    """One line and exit code 1."""
    done = anyseek.here("classify", *arguments)
    assert (done.code, done.out) == (1, b"")
    assert message in done.err
    assert done.err.count("\n") == 1


# ---- duplicates ----------------------------------------------------------------------------------


def test_duplicates_from_start_to_end(anyseek: Anyseek) -> None:
    """Each tier by its name, in every format; links and changed files are left out."""
    photos = anyseek.photos
    kitten, horses = photos / "kitten-with-wool.jpg", photos / "wild-horses.jpg"
    shutil.copy(kitten, photos / "twin.jpg")
    with Image.open(kitten) as picture:
        picture.resize((picture.width // 2, picture.height // 2)).save(photos / "small.webp")
    with Image.open(horses) as picture:
        x, y = picture.width // 20, picture.height // 20
        picture.crop((x, y, picture.width - x, picture.height - y)).save(photos / "cut.jpg")
    for number in range(3):
        level = np.full((60, 60), 250 + number, np.uint8)
        Image.fromarray(level).save(photos / f"white-{number}.png")
    (photos / "link.jpg").symlink_to("espresso-cup.jpg")
    os.link(photos / "brick-lighthouse.jpg", photos / "hard.jpg")
    anyseek.here("index", "photos")
    before, rows = tree(photos), rows_of(anyseek.index)

    done = anyseek.here("duplicates")
    first, *others = [line.split("\t") for line in done.lines]
    assert first[:2] == ["1", "keep"]
    assert {(line[1], line[-1]) for line in others} <= {
        ("exact", "photos/twin.jpg"),
        ("exact", "photos/kitten-with-wool.jpg"),
        ("near", "photos/small.webp"),
    }
    assert len(others) == 2
    assert "1 groups among" in done.err
    assert "2 not kept (1 exact, 1 near)" in done.err

    done = anyseek.here("duplicates", "--tier", "exact", "--format", "json")
    (group,) = [json.loads(line) for line in done.lines]
    names = {Path(one["path"]).name for one in (group["keep"], *group["others"])}
    assert names == {"twin.jpg", "kitten-with-wool.jpg"}
    done = anyseek.here("duplicates", "--tier", "scene", "--format", "paths", "--null")
    found = {Path(os.fsdecode(path)).name for path in done.out.split(b"\0") if path}
    assert {"small.webp", "cut.jpg"} <= found
    assert "espresso-cup.jpg" not in found | {"link.jpg"} - {"link.jpg"}
    assert not found & {"link.jpg", "espresso-cup.jpg", "hard.jpg", "brick-lighthouse.jpg"}
    done = anyseek.here("duplicates", "--in", "audio", "--keep", "newest", "--under", "photos")
    assert "no duplicates among 0 files" in done.err

    kitten.unlink()
    (photos / "twin.jpg").touch()
    done = anyseek.here("duplicates")
    assert "left out 2 files that changed or vanished" in done.err
    assert done.lines == []
    assert tree(photos) == before - {"kitten-with-wool.jpg"}
    assert rows_of(anyseek.index) == rows


# ---- groups --------------------------------------------------------------------------------------


def test_groups(anyseek: Anyseek) -> None:
    """A number that is said, words, files; JSON has them all, and the page shows them."""
    done = anyseek.here("groups")
    assert done.err == "anyseek: 2 groups, by the root of half of 4 files; -n takes a number\n"
    assert sum(int(line.split("\t")[1]) for line in done.lines) == 4
    shutil.copy(anyseek.photos / "espresso-cup.jpg", anyseek.photos / '<b>&".jpg')
    anyseek.here("index", "photos")
    done = anyseek.here("groups", "-n", "3", "--format", "json", "--html", "page.html")
    assert (done.code, done.err) == (0, "")
    lines = [json.loads(line) for line in done.lines]
    assert sorted(path for one in lines for path in one["paths"]) == sorted(
        str(path) for path in anyseek.photos.iterdir()
    )
    assert all(len(one["words"]) == 3 for one in lines)
    page = (anyseek.home / "page.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 5
    assert "&lt;b&gt;&amp;&quot;.jpg" in page
    assert "<b>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert anyseek.here("groups", "-n", "2", "--html", "page.html").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "5"], "4 files cannot make 5 groups"),
        (["-n", "0"], "at least 1"),
        (["--in", "audio"], "there is no audio in the index"),
        (["--under", "none"], "there is no image in none"),
        (["--html", "photos"], "is a folder"),
        (["--html", "none/x.html"], "there is no folder none"),
        (["--html", "photos/wild-horses.jpg"], "no page of groups"),
    ],
)
def test_groups_that_cannot_be(anyseek: Anyseek, arguments: list[str], message: str) -> None:
    """One line and exit code 1, and nothing is written."""
    before = tree(anyseek.photos)
    done = anyseek.here("groups", *arguments)
    assert (done.code, done.out) == (1, b"")
    assert message in done.err
    assert tree(anyseek.photos) == before
