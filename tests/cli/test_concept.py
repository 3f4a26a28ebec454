"""Concepts at the command line, on real pictures with the bundled model."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer.main

from cli.concept import app
from indexer.lock import exclusive
from retrieval.store import Store
from tests.cli.test_cli import COMMAND, SAMPLES, Anyseek
from tests.conftest import rows_of, run_sql

INDEXED = ("grazing-cow.jpg", "wild-horses.jpg", "wall-clock.jpg", "espresso-cup.jpg")
OUTSIDE = ("standing-sheep.jpg", "camel-and-calf.jpg", "giraffe-pair.jpg")


@pytest.fixture
def anyseek(tmp_path: Path) -> Anyseek:
    """The command with an index of four photographs, and three more that are not indexed."""
    command = Anyseek(tmp_path.resolve())
    for folder, names in (("photos", INDEXED), ("more", OUTSIDE)):
        (command.home / folder).mkdir()
        for name in names:
            shutil.copy(SAMPLES / "photos" / name, command.home / folder)
    done = command.here("index", "photos")
    assert done.out.startswith(b"4 added")
    return command


def test_a_concept_from_start_to_end(anyseek: Anyseek) -> None:
    """Learned, listed, shown, replaced, forgotten; the files themselves are left alone."""
    before = rows_of(anyseek.index)
    cow, sheep = anyseek.photos / "grazing-cow.jpg", anyseek.home / "more" / "standing-sheep.jpg"
    horses = anyseek.photos / "wild-horses.jpg"
    add = ("concept", "add", "cattle", "photos/grazing-cow.jpg", "more/standing-sheep.jpg")
    done = anyseek.here(*add, "--not", "photos/wild-horses.jpg")
    assert (done.code, done.err) == (0, "")
    assert done.out == b"learned <cattle> from 2 examples, 1 of what it is not\n"

    (line,) = anyseek.here("concept", "list").lines
    name, what, _ = line.split("\t")
    assert (name, what) == ("cattle", "2 examples, 1 of what it is not")
    (line,) = anyseek.here("concept", "list", "--format", "json").lines
    listed = json.loads(line)
    with Store(anyseek.index) as store:
        (space,) = store.spaces()
        (stored,) = store.concepts(space)
    assert listed == {
        "name": "cattle",
        "space": space.name,
        "created_s": stored.created_s,
        "positives": [str(cow), str(sheep)],
        "negatives": [str(horses)],
    }
    np.testing.assert_allclose(np.linalg.norm(stored.vector), 1, atol=1e-5)

    sheep.unlink()
    done = anyseek.here("concept", "show", "cattle")
    assert done.lines[0] == "concept    cattle"
    assert done.lines[2:6] == [
        f"space      {space.name}",
        "like       photos/grazing-cow.jpg",
        "like       more/standing-sheep.jpg (gone)",
        "not        photos/wild-horses.jpg",
    ]
    others = {"photos/wild-horses.jpg", "photos/wall-clock.jpg", "photos/espresso-cup.jpg"}
    assert {line.removeprefix("near image ") for line in done.lines[6:]} == others
    (line,) = anyseek.here("concept", "show", "cattle", "--format", "json").lines
    shown = json.loads(line)
    near = shown.pop("nearest")
    assert shown == listed
    assert {one["path"] for one in near} == {str(anyseek.home / other) for other in others}
    scores = [one["score"] for one in near]
    assert scores == sorted(scores, reverse=True)
    assert {one["modality"] for one in near} == {"image"}

    done = anyseek.here("concept", "add", "cattle", "photos/wild-horses.jpg")
    assert (done.code, done.out) == (1, b"")
    assert done.err == "anyseek: there is a concept cattle already; replace it with --force\n"
    done = anyseek.here("concept", "add", "cattle", "photos/wild-horses.jpg", "--force")
    assert done.out == b"learned <cattle> from 1 example\n"
    assert len(anyseek.here("concept", "list").lines) == 1

    done = anyseek.here("concept", "remove", "cattle")
    assert (done.code, done.out) == (0, b"forgot <cattle>\n")
    done = anyseek.here("concept", "list")
    assert (done.code, done.out) == (0, b"")
    assert "there are no concepts yet; make one with `anyseek concept add NAME FILE...`" in done.err
    assert rows_of(anyseek.index) == before


@pytest.mark.parametrize(
    ("arguments", "likes", "others"),
    [
        ("a b --not c d", "a b", "c d"),
        ("--not c d --force a b", "", ""),
        ("--not c d -- a b", "a b", "c d"),
        ("a --not c --not d e --force", "a", "c d e"),
        ("a --not=c b", "a b", "c"),
        ("a b --not c d --index i.db", "a b", "c d"),
    ],
)
def test_not_takes_what_a_shell_expands(arguments: str, likes: str, others: str) -> None:
    """Every file up to the next option belongs to --not; `--` ends options as everywhere."""
    command = typer.main.get_command(app)
    add = command.commands["add"]  # type: ignore[attr-defined]
    words = arguments.split()
    at = words.index("--") + 1 if "--" in words else 0
    words.insert(at, "x")
    context = add.make_context("add", words)
    if likes:
        assert [str(path) for path in context.params["files"]] == likes.split()
        assert [str(path) for path in context.params["other"]] == others.split()
    else:  # an option with no value ends the list, and what follows is an example
        assert [str(path) for path in context.params["files"]] == ["a", "b"]
    assert context.params["name"] == "x"


def test_not_alone_is_wrong_usage(anyseek: Anyseek) -> None:
    """With nothing after it, or an option, it is the usual complaint."""
    for rest in (("--not",), ("--not", "--force")):
        done = anyseek.here("concept", "add", "x", "photos/grazing-cow.jpg", *rest)
        assert (done.code, done.out) == (2, b"")
        assert "Option '--not' needs a file" in done.err


def test_bad_input(anyseek: Anyseek, tmp_path: Path) -> None:
    """One line each, exit code 1, and nothing is stored."""
    soundfile.write(anyseek.home / "silent.wav", np.zeros(16_000), 16_000)
    cow = "photos/grazing-cow.jpg"
    for arguments, message in {
        ("add", "a b", cow): "'a b' cannot be the name of a concept: names have letters, digits",
        ("add", "x", "photos/gone.jpg"): "there is no file at photos/gone.jpg",
        ("add", "x", "photos"): "photos is a folder; name a picture, a sound or a text",
        ("add", "x", "silent.wav"): "silent.wav is silent from start to end",
        ("add", "x", cow, "--not", cow): "cannot be an example and a counter-example; leave out",
        ("show", "x"): "there is no concept x; `anyseek concept list` shows those that there are",
        ("remove", "x"): "there is no concept x; `anyseek concept list`",
    }.items():
        done = anyseek.here("concept", *arguments)
        assert (done.code, done.out) == (1, b"")
        assert message in done.err
        assert done.err.count("\n") == 1
    assert run_sql(anyseek.index, "SELECT count(*) FROM concepts") == [(0,)]


def test_a_concept_of_another_model(anyseek: Anyseek) -> None:
    """It is listed, but neither shown nor taken for this model's."""
    anyseek.here("concept", "add", "cattle", "photos/grazing-cow.jpg")
    run_sql(
        anyseek.index,
        "INSERT INTO spaces (name, model, dim) VALUES ('old-1', 'old', 512)",
        "UPDATE concepts SET space_id = (SELECT id FROM spaces WHERE name = 'old-1')",
    )
    assert len(anyseek.here("concept", "list").lines) == 1
    done = anyseek.here("concept", "show", "cattle")
    assert done.code == 1
    assert "the concept cattle was made with another model, old (old-1); make it again" in done.err


@pytest.mark.parametrize(
    "command", [["add", "x", "photos/grazing-cow.jpg"], ["list"], ["show", "x"], ["remove", "x"]]
)
def test_without_an_index(anyseek: Anyseek, command: list[str]) -> None:
    """None is made by the way."""
    done = anyseek.here("concept", *command, "--index", "none.db")
    assert done.code == 1
    assert "there is no index at" in done.err
    assert "make one with `anyseek index FOLDER`" in done.err
    assert not list(anyseek.home.glob("none*"))


def test_waits_for_another_writer(anyseek: Anyseek) -> None:
    """While the index is being written, a concept waits and is then stored."""
    with exclusive(anyseek.index, on_wait=lambda: None):
        process = subprocess.Popen(
            [*COMMAND, "concept", "add", "x", "photos/grazing-cow.jpg"],
            env=anyseek.env,
            cwd=anyseek.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        assert b"waiting for another process on" in process.stderr.readline()
        assert run_sql(anyseek.index, "SELECT count(*) FROM concepts") == [(0,)]
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, b"learned <x> from 1 example\n", b"")
    assert run_sql(anyseek.index, "SELECT name FROM concepts") == [("x",)]
