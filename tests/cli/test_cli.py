"""The real command on real pictures with the bundled model.

Where processes, streams and signals matter it runs in a process of its own, elsewhere within the
tests' own, which saves the start.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import chdir, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
from PIL import ExifTags, Image

from cli.app import main
from retrieval.catalogue import OFFERS
from retrieval.models import model
from retrieval.types import Modality

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "data" / "samples"
COMMAND = [sys.executable, "-c", "from cli.app import main; main()"]
PHOTOS = (
    "brick-lighthouse.jpg",
    "espresso-cup.jpg",
    "giraffe-pair.jpg",
    "grazing-cow.jpg",
    "kitten-with-wool.jpg",
    "mountain-lake.jpg",
    "wall-clock.jpg",
    "wild-horses.jpg",
)
TEXTS = ("bread-recipe.md", "telescope-notes.pdf")
KEYS = {"path", "modality", "score", "start_s", "end_s", "space"}
NAMES = [
    b"new\nline.jpg",
    b"q'uo\"te.jpg",
    "🦊 日本.jpg".encode(),
    b"\xff\xfe.jpg",
    b"\x1b[31mred\x1b]0;title\x07.jpg",
    "\u202egpj.exe.jpg".encode(),
    b"-k.jpg",
]


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.decode().splitlines()


class Anyseek:
    """The command with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.photos = home / "photos"
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith("ANYSEEK")
        } | {
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8:strict",
            "TERM": "xterm-256color",
        }

    @property
    def index(self) -> Path:
        """Where the index is unless told otherwise."""
        return self.home / "data" / "anyseek" / "index.db"

    def __call__(
        self,
        *arguments: str | bytes | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        """Runs the command in pipes; nothing may look like a crash or speak to a terminal."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.env | dict(env or {}),
            cwd=cwd or self.home,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        err = done.stderr.decode()
        assert "Traceback" not in err
        assert "\x1b" not in err
        return Done(done.returncode, done.stdout, err)

    def here(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
        """Runs the command within this process, its home as the working folder."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n") for _ in range(2))
        with (
            mock.patch.dict(os.environ, self.env | dict(env or {}), clear=True),
            mock.patch.object(sys, "argv", ["anyseek", *(str(one) for one in arguments)]),
            mock.patch.object(sys, "stdout", out),
            mock.patch.object(sys, "stderr", err),
            chdir(self.home),
        ):
            code: int | str | None = 0
            try:
                main()
            except SystemExit as end:
                code = end.code
            out.flush()
            err.flush()
        assert isinstance(code, int)
        written = [stream.buffer for stream in (out, err)]
        assert isinstance(written[0], io.BytesIO)
        assert isinstance(written[1], io.BytesIO)
        text = written[1].getvalue().decode()
        assert "\x1b" not in text
        return Done(code, written[0].getvalue(), text)

    def found(self, *arguments: str | Path) -> list[str]:
        """Gives the names of the files that a command finds."""
        done = self.here(*arguments, "--format", "paths")
        assert done.code == 0
        assert re.sub("anyseek: no good match for this query.*\n", "", done.err) == ""
        return [Path(line).name for line in done.lines]


@pytest.fixture(scope="module")
def anyseek(tmp_path_factory: pytest.TempPathFactory) -> Anyseek:
    """Gives the command with an index of eight photographs and two texts."""
    command = Anyseek(tmp_path_factory.mktemp("home").resolve())
    command.photos.mkdir()
    for name in PHOTOS:
        shutil.copy(SAMPLES / "photos" / name, command.photos)
    (command.home / "texts").mkdir()
    for name in TEXTS:
        shutil.copy(SAMPLES / "texts" / name, command.home / "texts")
    done = command("index", command.photos, "texts")
    counts = "10 added, 0 updated, 0 renamed, 0 removed, 0 unchanged, 0 failed"
    assert re.fullmatch(rf"{counts} in \d+\.\d s\n", done.out.decode())
    assert (done.code, done.err) == (0, "")
    return command


# ---- index -------------------------------------------------------------------------------------


def test_index_again(anyseek: Anyseek) -> None:
    """A second run finds nothing to do; a single file is brought in step alone."""
    done = anyseek("index", "photos/grazing-cow.jpg", "texts")
    assert done.out.startswith(b"0 added, 0 updated, 0 renamed, 0 removed, 3 unchanged, 0 failed")
    assert (done.code, done.err) == (0, "")


def test_index_with_failures(anyseek: Anyseek, tmp_path: Path) -> None:
    """A bad file is named on stderr; only --strict makes it an error."""
    shutil.copy(SAMPLES / "photos" / PHOTOS[0], tmp_path / "good.jpg")
    (tmp_path / "bad\n.jpg").write_bytes(b"no picture")
    index = tmp_path / "index.db"
    reason = "is not a picture in a format that anyseek knows"
    done = anyseek("index", tmp_path, "--index", index)
    assert (done.code, done.err) == (0, f"anyseek: skipped {tmp_path}/bad\\n.jpg: {reason}\n")
    assert done.out.startswith(b"1 added, 0 updated, 0 renamed, 0 removed, 0 unchanged, 1 failed")
    done = anyseek("index", tmp_path, "--index", index, "--strict")
    assert done.code == 1
    assert done.out.startswith(b"0 added, 0 updated, 0 renamed, 0 removed, 1 unchanged, 1 failed")
    assert done.err.count("\n") == 1


def test_interrupt(anyseek: Anyseek, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and the advice, and keeps what it counts as added."""
    folder = tmp_path / "many"
    folder.mkdir()
    colours = random.Random(0)
    for number in range(1_500):
        picture = Image.new("RGB", (16, 16), "#" + colours.randbytes(3).hex())
        picture.save(folder / f"{number}.png")
    index = tmp_path / "index.db"
    process = subprocess.Popen(
        [*COMMAND, "index", folder, "--index", index, "--workers", "1"],
        env=anyseek.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while count(index, "spaces") == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert err == (
        "anyseek: interrupted; what is committed is kept: run the same command to go on\n"
    )
    added = int(out.split()[0])
    assert out.startswith(f"{added} added, 0 updated, ")
    assert count(index, "items") == added < 1_500


def count(index: Path, table: str) -> int:
    """Counts the rows of a table, also of an index that is only just being made."""
    try:
        with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


# ---- search ------------------------------------------------------------------------------------


def test_search_json(anyseek: Anyseek) -> None:
    """A JSON object per hit with the promised keys, the most relevant first."""
    done = anyseek("search", "a cat playing with wool", "--format", "json", "-k", "20")
    assert (done.code, done.err) == (0, "")
    hits = [json.loads(line) for line in done.lines]
    assert len(hits) == 10
    assert all(hit.keys() >= KEYS for hit in hits)
    assert {hit["modality"] for hit in hits} == {"image", "text"}
    assert {Path(hit["path"]).name for hit in hits} == {*PHOTOS, *TEXTS}
    assert all(Path(hit["path"]).is_file() for hit in hits)
    assert all(-1 <= hit["score"] <= 1 and 0 <= hit["relevance"] <= 1 for hit in hits)
    assert [hit["relevance"] for hit in hits] == sorted(
        (hit["relevance"] for hit in hits), reverse=True
    )
    assert {(hit["start_s"], hit["end_s"]) for hit in hits} == {(None, None)}
    (space,) = {hit["space"] for hit in hits}
    assert json.loads(anyseek("models", "--format", "json").lines[0])["space"] == space
    pages = {Path(hit["path"]).name: hit["page"] for hit in hits if hit["modality"] == "text"}
    assert pages["bread-recipe.md"] is None
    assert pages["telescope-notes.pdf"] >= 1


def test_search_finds(anyseek: Anyseek) -> None:
    """Plain things in plain words come first, in texts as well."""
    assert anyseek.found("search", "a kitten", "-k", "1", "--in", "image") == [
        "kitten-with-wool.jpg"
    ]
    assert anyseek.found("search", "how to bake bread", "-k", "1", "--in", "text") == [
        "bread-recipe.md"
    ]
    assert anyseek.found("search", "一只小猫", "-k", "1", "--in", "image") == [
        "kitten-with-wool.jpg"
    ]


def test_search_formats(anyseek: Anyseek) -> None:
    """All formats give the same hits; a pipe's table has tabs and no heading."""
    search = ("search", "giraffes", "-k", "3", "--in", "image")
    hits = [json.loads(line) for line in anyseek(*search, "--format", "json").lines]
    paths = [hit["path"] for hit in hits]
    null = anyseek(*search, "--format", "paths", "-0")
    assert null.out == b"".join(os.fsencode(path) + b"\0" for path in paths)
    table = anyseek(*search, cwd=anyseek.photos)
    assert table.lines == [
        f"{hit['relevance']:.2f}\timage\t{Path(hit['path']).name}" for hit in hits
    ]
    assert table.err == ""


def test_search_filters(anyseek: Anyseek) -> None:
    """--in, --under and --min-relevance keep what they say."""
    under = anyseek.found("search", "food", "--under", "photos", "-k", "99")
    assert sorted(under) == sorted(PHOTOS)
    texts = anyseek.found("search", "food", "--under", anyseek.home, "--in", "text")
    assert sorted(texts) == sorted(TEXTS)
    for nothing in (["--in", "audio"], ["--min-relevance", "1"]):
        done = anyseek.here("search", "food", *nothing)
        assert (done.code, done.out) == (0, b"")
        assert done.err == "anyseek: nothing in the index answers this\n"


def test_search_by_facts(anyseek: Anyseek, tmp_path: Path) -> None:
    """Dates, places, cameras, sizes and suffixes choose; JSON tells them; --sort shows by date."""
    index = ("--index", tmp_path / "i.db")
    for number in range(1, 4):
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = f"Canon {number}"
        exif[ExifTags.Base.DateTime] = f"202{number}:05:31 18:04:00"
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "S", "E"
        gps[ExifTags.GPS.GPSLatitude] = (30.0 + number, 0.0, 0.0)
        gps[ExifTags.GPS.GPSLongitude] = (151.0, 0.0, 0.0)
        suffix = "webp" if number == 3 else "jpg"
        with Image.open(anyseek.photos / PHOTOS[number]) as photo:
            small = photo.resize((100 * number, 100))
            small.save(tmp_path / f"{number}.{suffix}", exif=exif)
    assert anyseek.here("index", tmp_path, *index).code == 0

    def found(*options: str) -> list[str]:
        return sorted(anyseek.found("search", "an animal", *index, *options))

    every = ["1.jpg", "2.jpg", "3.webp"]
    for options, want in (
        (["--after", "2022-05-31T18:04"], every[1:]),
        (["--before", "2022-05-31T18:04"], every[:1]),
        (["--after", "2022", "--before", "2023"], every[1:2]),
        (["--before", "7d", "--after", "2000"], every),
        (["--camera", "canon"], every),
        (["--camera", "CANON 3"], every[2:]),
        (["--near", "-32.5,151,60"], every[1:]),
        (["--min-width", "200"], every[1:]),
        (["--ext", ".JPG"], every[:2]),
        (["--ext", "webp", "--ext", "jpg"], every),
        (["--camera", "canon", "--min-width", "200", "--ext", "jpg"], every[1:2]),
    ):
        assert found(*options) == want, options
    done = anyseek.here("search", "an animal", *index, "--sort", "date", "--format", "json")
    hits = [json.loads(line) for line in done.lines]
    assert [hit["date"] for hit in hits] == [f"202{n}-05-31T18:04:00" for n in (3, 2, 1)]
    assert [hit["taken_at"] for hit in hits] == [hit["date"] for hit in hits]
    assert [hit["camera"] for hit in hits] == ["Canon 3", "Canon 2", "Canon 1"]
    assert [(hit["lat"], hit["lon"]) for hit in hits] == [(-33, 151), (-32, 151), (-31, 151)]
    assert [(hit["width"], hit["height"]) for hit in hits] == [(300, 100), (200, 100), (100, 100)]
    assert {hit["duration_s"] for hit in hits} == {None}
    two = anyseek.found("search", "an animal", *index, "-k", "2")
    by_date = anyseek.found("search", "an animal", *index, "-k", "2", "--sort", "date")
    assert by_date == sorted(two, reverse=True)  # the same ones
    like = ("similar", tmp_path / "1.jpg", *index, "--after", "2023")
    assert anyseek.found(*like) == ["3.webp"]
    done = anyseek.here("search", "an animal", *index, "--after", "2031")
    assert (done.code, done.out) == (0, b"")
    assert done.err == (
        "anyseek: no image in the index is from 2031-01-01 or later; the newest is from "
        "2023-05-31 18:04\nanyseek: nothing in the index answers this\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--after", "soon"], "is no date"),
        (["--before", "2024-13"], "no such date"),
        (["--after", "2024", "--before", "2023"], "takes the earlier moment"),
        (["--near", "1,2"], "is no place"),
        (["--near", "91,0,1"], "latitude"),
        (["--camera", " "], "camera's name is empty"),
        (["--min-width", "0"], "at least 1"),
        (["--min-duration", "nan"], "above 0"),
        (["--max-duration", "-1"], "above 0"),
        (["--ext", ""], "is no suffix"),
    ],
)
def test_filters_that_mean_nothing(anyseek: Anyseek, options: list[str], message: str) -> None:
    """Each is refused in one line."""
    assert message in failed(anyseek.here("search", "a cow", *options))
    assert message in failed(anyseek.here("similar", anyseek.photos / PHOTOS[0], *options))


def test_any_number_of_hits(anyseek: Anyseek) -> None:
    """As many as there are, each item once, and none at all is an error."""
    assert sorted(anyseek.found("search", "a", "-k", "1000000000")) == sorted((*PHOTOS, *TEXTS))
    message = "the number of hits must be at least 1, not 0"
    assert failed(anyseek.here("search", "a", "-k", "0")) == message


def test_queries_that_mean_nothing(anyseek: Anyseek) -> None:
    """An empty query is an error, bytes that are no text are not."""
    for query in ("", " \t\n\x01"):
        message = "the query is empty; say in words what you are looking for"
        assert failed(anyseek.here("search", query)) == message
    done = anyseek("search", b"a \xff kitten", "-k", "1", "--format", "paths")
    assert (done.code, len(done.lines)) == (0, 1)


def test_search_where_nobody_can_stand(anyseek: Anyseek, tmp_path: Path) -> None:
    """A working folder that was removed stands in no search's way."""
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", tmp_path, *COMMAND, "search", "a cow", "-k", "1"],
        env=anyseek.env,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(anyseek.photos) in done.stdout


def test_similar(anyseek: Anyseek, tmp_path: Path) -> None:
    """A file's own entry is left out; a copy elsewhere finds the original first."""
    own = anyseek.photos / "wild-horses.jpg"
    neighbours = anyseek.found("similar", own, "-k", "99")
    assert sorted([*neighbours, own.name]) == sorted(PHOTOS)
    shutil.copy(own, tmp_path / "copy.jpg")
    done = anyseek("similar", tmp_path / "copy.jpg", "-k", "2", "--format", "json")
    first, second = (json.loads(line) for line in done.lines)
    assert first["path"] == str(own)
    assert first["score"] > 0.999 > second["score"]
    assert second["path"] == str(anyseek.photos / neighbours[0])
    (tmp_path / "note.txt").write_text("A lighthouse by the sea")
    assert anyseek.found("similar", tmp_path / "note.txt", "--in", "image", "-k", "1") == [
        "brick-lighthouse.jpg"
    ]


# ---- other commands ----------------------------------------------------------------------------


def test_status(anyseek: Anyseek) -> None:
    """What the index holds, and where it is."""
    done = anyseek("status")
    assert (done.code, done.err) == (0, "")
    assert f"index         {anyseek.index}" in done.lines
    assert "image         8 items" in done.lines
    assert [line for line in done.lines if re.fullmatch(r"text +2 items in \d+ parts", line)]
    for name in ("space", "on disk", "last indexed", "compared on", "next"):
        assert [line for line in done.lines if line.startswith(f"{name:<14}")]


def test_models(anyseek: Anyseek) -> None:
    """The bundled model comes first, and is here."""
    lines = anyseek("models").lines
    name, embeds, dim, _, _, here, *_ = lines[0].split("\t")
    assert (name, embeds, dim, here) == (model().name, "image, text, audio", "512", "yes")
    assert len(lines) == 1 + len(OFFERS)


def test_which_index(anyseek: Anyseek, tmp_path: Path) -> None:
    """The option comes before the environment variable, and that before the default."""
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    shutil.copy(anyseek.index, one)
    shutil.copy(anyseek.index, two)
    env = {"ANYSEEK_INDEX": str(one)}
    assert anyseek.here("status", env=env).lines[0].split() == ["index", str(one)]
    both = anyseek.here("status", "--index", two, env=env)
    assert both.lines[0].split() == ["index", str(two)]
    assert anyseek.here("status", env={"ANYSEEK_INDEX": ""}).lines[0].split()[1] == str(
        anyseek.index
    )


# ---- names -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(anyseek: Anyseek) -> Path:
    """Gives an index of pictures with odd names."""
    folder = anyseek.home / "odd"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:  # noqa: PTH123 (bytes)
            Image.new("RGB", (16, 16), (30 * number, 0, 0)).save(file, "JPEG")
    index = anyseek.home / os.fsdecode(b"odd \xff.db")
    assert anyseek("index", folder, "--index", index).out.startswith(b"7 added")
    return index


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii"])
def test_odd_names(anyseek: Anyseek, odd: Path, encoding: str) -> None:
    """Names come back exactly from JSON and bare paths, and harmless from the table."""
    env = {"PYTHONIOENCODING": encoding}
    search = ("search", "red", "--index", odd)
    expected = sorted(os.fsencode(anyseek.home / "odd") + b"/" + name for name in NAMES)
    lines = anyseek(*search, "--format", "json", env=env).out.splitlines()
    assert sorted(os.fsencode(json.loads(line)["path"]) for line in lines) == expected
    paths = anyseek(*search, "--format", "paths", "-0", env=env).out
    assert sorted(paths.split(b"\0")[:-1]) == expected
    table = anyseek(*search, env=env).out
    assert table.count(b"\n") == len(NAMES)
    assert not {byte for byte in table if byte < 32} - set(b"\t\n")


def test_odd_name_of_the_index(anyseek: Anyseek, odd: Path) -> None:
    """An index whose own name is no UTF-8 has a status like any other."""
    assert anyseek.here("status", "--index", odd).lines[0].endswith("/odd \\xff.db")


def test_odd_name_as_an_example(anyseek: Anyseek, odd: Path) -> None:
    """A file is found by its bytes."""
    name = os.fsencode(anyseek.home / "odd") + b"/\xff\xfe.jpg"
    done = anyseek("similar", name, "--index", odd, "--format", "paths", "-0")
    assert done.code == 0
    assert len(done.out.split(b"\0")) - 1 == len(NAMES) - 1
    assert name not in done.out.split(b"\0")


# ---- errors ------------------------------------------------------------------------------------


def failed(done: Done) -> str:
    """Gives the message of a command that ended with our error and wrote nothing else."""
    assert (done.code, done.out) == (1, b"")
    (line,) = done.err.splitlines()
    assert line.startswith("anyseek: ")
    return line.removeprefix("anyseek: ")


def test_missing_paths(anyseek: Anyseek) -> None:
    """A path that is not there is named, on one line, before anything is done."""
    assert failed(anyseek("index", "photos", "no\nwhere\x1b[31m")) == (
        "there is no file or folder at no\\nwhere\\x1b[31m"
    )
    assert failed(anyseek.here("similar", "nowhere.jpg")) == "there is no file at nowhere.jpg"


def test_examples_that_cannot_be_used(anyseek: Anyseek, tmp_path: Path) -> None:
    """An unsupported, a damaged and an empty example say what is wrong."""
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    message = "is no kind of file that this index can be searched with"
    assert failed(anyseek.here("similar", tmp_path / "a.zip")) == f"{tmp_path}/a.zip {message}"
    message = "is not a picture in a format that anyseek knows"
    assert failed(anyseek.here("similar", tmp_path / "b.jpg")) == f"{tmp_path}/b.jpg {message}"


@pytest.mark.parametrize("command", [["search", "a cow"], ["status"]])
def test_missing_index(anyseek: Anyseek, tmp_path: Path, command: list[str]) -> None:
    """Without an index the message says how to make one, and none is made."""
    index = tmp_path / "index.db"
    assert failed(anyseek.here(*command, "--index", index)) == (
        f"there is no index at {index} yet; make one with `anyseek index FOLDER`"
    )
    assert list(tmp_path.iterdir()) == []


def test_index_of_another_program(anyseek: Anyseek, tmp_path: Path) -> None:
    """Another program's file is named and left as it is, by readers and writers."""
    database, text = tmp_path / "other.db", tmp_path / "other.txt"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.commit()
    text.write_text("my diary\n" * 1_000)
    for file in (database, text):
        before = file.read_bytes()
        for command in (["status"], ["index", "photos"]):
            message = failed(anyseek.here(*command, "--index", file))
            assert message.startswith(f"{file} is ")
            assert "not an anyseek index" in message
            assert message.endswith("choose another file with --index")
        assert file.read_bytes() == before


def test_index_of_a_newer_anyseek(anyseek: Anyseek, tmp_path: Path) -> None:
    """An index of a newer schema is left as it is, and the way out named."""
    index = tmp_path / "index.db"
    shutil.copy(anyseek.index, index)
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for command in (["search", "a cow"], ["index", "photos"]):
        message = failed(anyseek.here(*command, "--index", index))
        assert message.startswith(f"{index} was written by a newer anyseek")
        assert message.endswith("upgrade anyseek, or choose another file with --index")
    assert count(index, "items") == 10


def test_folder_as_the_index(anyseek: Anyseek, tmp_path: Path) -> None:
    """A folder is no index."""
    for command in (["status"], ["index", "photos"]):
        assert failed(anyseek.here(*command, "--index", tmp_path)) == (
            f"{tmp_path} is a folder; --index takes the path of a file"
        )
    assert failed(anyseek.here("index", "photos", "--index", "/")) == (
        "/ is a folder; --index takes the path of a file"
    )


def test_unknown_model(anyseek: Anyseek, tmp_path: Path) -> None:
    """A model that is not known is named, with where to look."""
    message = failed(
        anyseek.here("index", "photos", "--model", "no-such", "--index", tmp_path / "index.db")
    )
    assert "no-such" in message
    assert "anyseek models" in message


def test_numbers_that_mean_nothing(anyseek: Anyseek) -> None:
    """A relevance outside of 0..1 is an error of ours."""
    message = failed(anyseek.here("search", "a cow", "--min-relevance", "nan"))
    assert message == "a relevance lies between 0 and 1, not at nan"


def test_usage_from_outside(anyseek: Anyseek) -> None:
    """A process that was used in a wrong way ends with 2, too."""
    done = anyseek("bogus")
    assert (done.code, done.out) == (2, b"")
    assert "bogus" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bogus"],
        ["search"],
        ["search", "a", "-k", "many"],
        ["search", "a", "--in", "video"],
        ["search", "a", "--format", "xml"],
        ["index"],
        ["index", ".", "--workers", "0"],
    ],
)
def test_usage(anyseek: Anyseek, arguments: list[str]) -> None:
    """Wrong usage ends with 2 and an explanation."""
    done = anyseek.here(*arguments)
    assert done.code == 2
    assert "Usage: " in done.err + done.out.decode()
    assert b"\x1b" not in done.out
    assert not arguments or done.out == b""


# ---- pipes and terminals -----------------------------------------------------------------------


def test_pipe_that_is_closed(anyseek: Anyseek) -> None:
    """A reader that has seen enough, at the start or after a line, is no reason to complain."""
    for format in ("json", "paths"):
        search = [*COMMAND, "search", "a cow", "--format", format]
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(search, env=anyseek.env, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert done.stderr == b""
    command = f'"{sys.executable}" -c "from cli.app import main; main()" search cow | head -n 1'
    piped = subprocess.run(["sh", "-c", command], env=anyseek.env, capture_output=True)
    assert piped.stderr == b""
    assert piped.stdout.count(b"\n") == 1


def on_terminal(anyseek: Anyseek, *arguments: str | Path) -> str:
    """Runs the command on a real terminal, and gives what it showed."""
    controller, screen = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=anyseek.env | {"COLUMNS": "160", "LINES": "40"},
        cwd=anyseek.home,
        stdin=screen,
        stdout=screen,
        stderr=screen,
    )
    os.close(screen)
    shown = b""
    with suppress(OSError):  # how Linux says that the other side is gone
        while chunk := os.read(controller, 65_536):
            shown += chunk
    os.close(controller)
    assert process.wait() == 0
    return shown.decode()


def test_terminal(anyseek: Anyseek, odd: Path) -> None:
    """A terminal gets a table with a heading, and names cannot speak to it."""
    shown = on_terminal(anyseek, "search", "red", "--index", odd)
    heading = re.sub(r"\x1b\[[0-9;]*m", "", shown.splitlines()[0])
    assert heading.split() == ["relevance", "kind", "file"]
    assert "\x1b[" in shown
    assert r"odd/\x1b[31mred\x1b]0;title\x07.jpg" in shown
    assert "🦊 日本.jpg" in shown
    for forbidden in ("\x1b[31m", "\x1b]0;", "\x07", "\u202e"):
        assert forbidden not in shown
    shown = on_terminal(anyseek, "search", "a cow", "-k", "1", "--format", "json")
    assert "\x1b" not in shown


def test_terminal_shows_progress(anyseek: Anyseek, tmp_path: Path) -> None:
    """A terminal gets a bar while files are indexed, and the counts at the end."""
    shown = on_terminal(anyseek, "index", "photos", "--index", tmp_path / "i.db")
    assert "indexing" in shown
    assert "/8" in shown
    assert "8 added, 0 updated, " in shown.splitlines()[-1]


# ---- sounds ------------------------------------------------------------------------------------

needs_sounds = pytest.mark.skipif(
    Modality.AUDIO not in model().modalities, reason="the bundled model knows no sounds yet"
)


def warble(path: Path, *seconds: float) -> Path:
    """Writes stretches of a tone that swells and ebbs, with silence between them."""
    rate = 16_000
    rows = []
    for at, length in enumerate(seconds):
        time_s = np.arange(round(length * rate)) / rate
        swell = np.sin(2 * np.pi * 3 * time_s) ** 2 * (at % 2 == 0)
        rows.append(0.3 * swell * np.sin(2 * np.pi * 1_200 * time_s))
    soundfile.write(path, np.concatenate(rows), rate)
    return path


@pytest.fixture(scope="module")
def sounding(tmp_path_factory: pytest.TempPathFactory) -> Anyseek:
    """Gives the command with an index of two photographs, a text and three sounds."""
    command = Anyseek(tmp_path_factory.mktemp("sounding").resolve())
    command.photos.mkdir()
    for name in PHOTOS[:2]:
        shutil.copy(SAMPLES / "photos" / name, command.photos)
    shutil.copy(SAMPLES / "texts" / TEXTS[0], command.photos)
    warble(command.photos / "short.wav", 3)
    warble(command.photos / "long.flac", 12, 30, 15)
    rumble = np.cumsum(np.random.default_rng(0).normal(size=8 * 16_000))
    soundfile.write(command.photos / "rumble.ogg", 0.5 * rumble / np.abs(rumble).max(), 16_000)
    soundfile.write(command.photos / "silent.wav", np.zeros(9_000), 8_000)
    done = command("index", command.photos)
    assert done.code == 0
    assert done.out.startswith(b"6 added, 0 updated, 0 renamed, 0 removed, 0 unchanged, 1 failed")
    assert done.err == (
        "anyseek: skipped photos/silent.wav: is silent from start to end\n"
        "anyseek: 4 silent window(s) in 1 sound(s) got no vector, the first in "
        f"{command.photos}/long.flac at 15-25 s\n"
    )
    return command


@needs_sounds
def test_sounds_in_json(sounding: Anyseek) -> None:
    """Only sounds are asked for, and every hit says where it is heard."""
    done = sounding("search", "a bird singing", "--in", "audio", "--format", "json")
    assert done.code == 0
    hits = [json.loads(line) for line in done.lines]
    assert {Path(hit["path"]).name for hit in hits} == {"short.wav", "long.flac", "rumble.ogg"}
    for hit in hits:
        assert hit["modality"] == "audio"
        first = hit["spans"][0]
        assert first["start_s"] <= hit["start_s"] < hit["end_s"] <= first["end_s"]
        assert first["relevance"] == pytest.approx(hit["relevance"], abs=1e-3)
        for span in hit["spans"]:
            assert 0 <= span["start_s"] < span["end_s"] <= 57
            if hit["path"].endswith("long.flac"):  # no window hears the silence alone
                assert span["start_s"] < 12 or span["end_s"] > 42


@needs_sounds
def test_every_kind_in_turn(sounding: Anyseek) -> None:
    """`--in each` gives a ranking of every kind, with what `-k` allows of each."""
    done = sounding("search", "a bird", "--in", "each", "-k", "2", "--format", "json")
    assert done.code == 0
    kinds = [json.loads(line)["modality"] for line in done.lines]
    assert sorted(kinds) == ["audio", "audio", "image", "image", "text"]
    assert len([kind for kind, _ in itertools.groupby(kinds)]) == 3
    table = sounding("search", "a bird", "--in", "each", "-k", "2").lines
    assert [line.split("\t")[1] for line in table] == kinds
    heard = [line for line in table if "\taudio\t" in line]
    assert all(re.search(r"\t\d:\d\d-\d:\d\d", line) for line in heard)


@needs_sounds
def test_like_a_sound(sounding: Anyseek, tmp_path: Path) -> None:
    """A sound finds sounds without itself, pictures where they are asked for, and all."""
    own = sounding.photos / "short.wav"
    assert sounding.found("similar", own) == ["long.flac", "rumble.ogg"]
    assert sorted(sounding.found("similar", own, "--in", "image")) == sorted(PHOTOS[:2])
    everything = sounding.found("similar", own, "--in", "each")
    assert len(everything) == 5
    assert sorted(sounding.found("similar", own, "--in", "all")) == sorted(everything)
    photo = sounding.photos / PHOTOS[0]
    assert len(sounding.found("similar", photo, "--in", "audio")) == 3
    copy = tmp_path / "copy.mp3"  # whatever it is called
    shutil.copy(sounding.photos / "rumble.ogg", copy)
    assert sounding.found("similar", copy, "-k", "1") == ["rumble.ogg"]


def test_sounds_that_cannot_be_examples(anyseek: Anyseek, tmp_path: Path) -> None:
    """Folders, pipes, silence and junk with a sound's name say what is wrong, on one line."""
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "junk.mp3").write_bytes(b"junk" * 99)
    soundfile.write(tmp_path / "silent.wav", np.zeros(9_000), 8_000)
    os.mkfifo(tmp_path / "pipe.wav")
    known = Modality.AUDIO in model().modalities
    for name, reason in (
        ("folder.wav", "is a folder"),
        ("junk.mp3", "is not a sound in a format that anyseek knows"),
        ("silent.wav", "is silent from start to end"),
        ("pipe.wav", "is a pipe or a device, not a file"),
    ):
        why = reason if known else "is no kind of file that this index can be searched with"
        said = failed(anyseek.here("similar", tmp_path / name))
        assert said.startswith(f"{tmp_path / name} {why}")
