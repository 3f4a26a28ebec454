"""``anyseek prompts``, and how a search's words are put, on real files with the bundled model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from retrieval.prompts import bundled, parse
from retrieval.towers import use
from tests.cli.test_cli import Anyseek, failed, on_terminal
from tests.test_layers import loads

SAMPLES = Path(__file__).resolve().parent.parent.parent / "data" / "samples"
MAIN = "from cli.app import main; main()"


@pytest.fixture(scope="module")
def anyseek(tmp_path_factory: pytest.TempPathFactory) -> Anyseek:
    """Gives the command with an index of three photographs and a text, and a set of its own."""
    command = Anyseek(tmp_path_factory.mktemp("home").resolve())
    command.photos.mkdir()
    for name in ("grazing-cow.jpg", "wild-horses.jpg", "wall-clock.jpg"):
        shutil.copy(SAMPLES / "photos" / name, command.photos)
    shutil.copy(SAMPLES / "texts" / "bread-recipe.md", command.photos)
    command.env["XDG_CONFIG_HOME"] = str(command.home / "config")
    own = command.home / "config" / "anyseek" / "prompts.toml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "[farm]\nabout = 'on a farm'\nmodalities = ['image']\n"
        "templates.en = ['{query} on a farm']\ntemplates.ko = ['농장의 {query}']\n"
        "[photo]\ntemplates = ['my {query}']\n",
        "utf-8",
    )
    done = command("index", command.photos)
    assert (done.code, done.err) == (0, "")
    return command


def scores(anyseek: Anyseek, *arguments: str | Path) -> dict[str, float]:
    """Searches, and gives the score of every file."""
    done = anyseek.here("search", *arguments, "--format", "json")
    assert done.code == 0
    hits = [json.loads(line) for line in done.lines]
    return {Path(hit["path"]).name: hit["score"] for hit in hits}


# ---- anyseek prompts -----------------------------------------------------------------------------


def test_all_sets_are_listed(anyseek: Anyseek) -> None:
    """The bundled ones in their order, the person's own in place of the one of the same name."""
    done = anyseek.here("prompts")
    assert (done.code, done.err) == (0, "")
    rows = [line.split("\t") for line in done.lines]
    assert [row[0] for row in rows] == [*bundled(), "farm"]
    own = str(anyseek.home / "config" / "anyseek" / "prompts.toml")
    listed = {row[0]: row[1:] for row in rows}
    assert listed["farm"] == ["image", "1, ko 1", "on a farm", own]
    assert listed["photo"] == ["image, audio, text", "1", "", own]
    assert listed["plain"] == ["image, audio, text", "1", "the query as it is", "bundled"]
    assert listed["sketch"][:2] == ["image", "5, zh 4"]


def test_sets_in_json(anyseek: Anyseek, tmp_path: Path) -> None:
    """All that a set has; those of a file that is named come last."""
    (tmp_path / "more.toml").write_text("[more]\ntemplates = ['more {query}']", "utf-8")
    done = anyseek.here("prompts", "--prompt-file", tmp_path / "more.toml", "--format", "json")
    assert done.code == 0
    rows = [json.loads(line) for line in done.lines]
    assert rows[-1] == {
        "name": "more",
        "about": "",
        "modalities": ["image", "audio", "text"],
        "templates": ["more {query}"],
        "languages": {},
        "repeat": 1,
        "source": str(tmp_path / "more.toml"),
    }
    art = next(row for row in rows if row["name"] == "art")
    assert art["templates"] == list(bundled()["art"].templates)
    assert art["languages"] == {"zh": list(bundled()["art"].languages["zh"])}
    (one,) = anyseek.here("prompts", "art", "--format", "json").lines
    assert json.loads(one) == art


@pytest.mark.parametrize("name", ["art", "plain", "name", "mood", "farm"])
def test_a_set_is_shown_as_it_would_be_written(anyseek: Anyseek, name: str) -> None:
    """What is printed is read as the same set."""
    done = anyseek.here("prompts", name)
    assert (done.code, done.err) == (0, "")
    text = done.out.decode()
    sets = dict(bundled()) | parse(
        (anyseek.home / "config" / "anyseek" / "prompts.toml").read_text("utf-8"), "own"
    )
    assert parse(text, "shown") == {name: sets[name]}


def test_odd_sets_are_shown_safely(anyseek: Anyseek, tmp_path: Path) -> None:
    """Names and templates cannot speak to a terminal, and still come back whole."""
    file = tmp_path / "odd.toml"
    text = (
        "['a \\u001b b']\nabout = '\\u007f \\U0001f415 \\\"'\ntemplates = ['{query} \\u202e\\\\']"
    )
    file.write_text(text.replace("'", '"'), "utf-8")
    done = anyseek.here("prompts", "a \x1b b", "--prompt-file", file)
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", done.out.decode()) is None
    assert parse(done.out.decode(), "shown") == parse(file.read_text("utf-8"), "written")
    shown = on_terminal(anyseek, "prompts", "--prompt-file", str(file))
    assert r"a \x1b b" in shown
    for forbidden in ("\x1b b", "\x7f", "\u202e"):
        assert forbidden not in shown


def test_a_table_on_a_terminal(anyseek: Anyseek) -> None:
    """With a heading."""
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(anyseek, "prompts"))
    assert shown.splitlines()[0].split() == ["name", "for", "templates", "about", "from"]
    assert "drawings in pencil" in shown


def test_sets_that_are_not_there(anyseek: Anyseek) -> None:
    """An unknown name, and the one that is no set."""
    assert "no prompt set 'skech'; did you mean 'sketch'?" in failed(
        anyseek.here("prompts", "skech")
    )
    assert failed(anyseek.here("prompts", "auto")).startswith("auto is no set of its own")


# ---- searching -----------------------------------------------------------------------------------


def test_templates_are_searched_with(anyseek: Anyseek) -> None:
    """One template is the query that it makes; a set by name and its templates are the same."""
    plain = scores(anyseek, "a cow on a farm", "--prompt", "plain")
    assert len(plain) == 4
    near = pytest.approx(plain, abs=2e-6)
    assert scores(anyseek, "a cow", "--template", "{query} on a farm") == near
    farm = scores(anyseek, "a cow", "--prompt", "farm")
    bread = farm.pop("bread-recipe.md")  # which the set is not for
    assert farm == pytest.approx({name: plain[name] for name in farm}, abs=2e-6)
    assert bread == pytest.approx(scores(anyseek, "a cow")["bread-recipe.md"], abs=2e-6)
    sketch = bundled()["sketch"].templates
    given = [part for one in sketch for part in ("--template", one)]
    image = ("--in", "image")
    by_name = scores(anyseek, "cow", "--prompt", "sketch", *image)
    assert scores(anyseek, "cow", *given, *image) == pytest.approx(by_name, abs=2e-6)
    assert by_name != pytest.approx(scores(anyseek, "cow", *image), abs=1e-3)


def test_own_sets_replace_bundled_ones(anyseek: Anyseek, tmp_path: Path) -> None:
    """By name; what is chosen by the query stays what was measured."""
    mine = scores(anyseek, "cow", "--prompt", "photo")
    assert mine == pytest.approx(scores(anyseek, "my cow", "--prompt", "plain"), abs=2e-6)
    (tmp_path / "one.toml").write_text("[x]\ntemplates = ['{query} in the rain']", "utf-8")
    wet = scores(anyseek, "cow", "--prompt-file", tmp_path / "one.toml")
    assert wet == pytest.approx(scores(anyseek, "cow in the rain", "--prompt", "plain"), abs=2e-6)
    chosen = scores(anyseek, "cow")
    assert chosen == pytest.approx(scores(anyseek, "cow cow", "--prompt", "plain"), abs=2e-6)


def test_weighed_templates(anyseek: Anyseek) -> None:
    """They give other scores through several templates, and the same through one."""
    sketch = ("--prompt", "sketch", "--in", "image")
    weighed = scores(anyseek, "cow", "--weigh-templates", *sketch)
    assert weighed != pytest.approx(scores(anyseek, "cow", *sketch), abs=1e-4)
    plain = ("--prompt", "plain", "--in", "image")
    one = scores(anyseek, "cow", "--weigh-templates", *plain)
    assert one == pytest.approx(scores(anyseek, "cow", *plain), abs=2e-6)


def test_prompts_that_mean_nothing(anyseek: Anyseek, tmp_path: Path) -> None:
    """Each on one line, before anything is searched."""
    for arguments, reason in (
        (("--prompt", "skech"), "there is no prompt set 'skech'; did you mean 'sketch'?"),
        (("--template", "a sketch"), "the query: the template 'a sketch' must have {query}"),
        (("--template", "{query}{query}"), "must have {query} exactly once"),
        (("--template", "{query}", "--prompt", "art"), "templates replace the prompt set"),
        (("--prompt-file", str(tmp_path / "no.toml")), "cannot read the prompt sets in"),
        (("--prompt", "sound", "--in", "image"), "the prompt set 'sound' is for audio; search"),
    ):
        assert reason in failed(anyseek.here("search", "cow", *arguments))


# ---- the cache -----------------------------------------------------------------------------------


@pytest.fixture
def fresh(anyseek: Anyseek, tmp_path: Path) -> Iterator[Path]:
    """Gives an empty cache folder, for commands in this process."""
    with mock.patch.dict(anyseek.env, {"XDG_CACHE_HOME": str(tmp_path)}):
        yield tmp_path / "anyseek"


def test_a_repeated_query_needs_no_tower(anyseek: Anyseek, fresh: Path) -> None:
    """No tokenizer is loaded for it, neither early nor late, and the answer is the same."""
    with mock.patch.object(use, "preload", wraps=use.preload) as preload:
        first = scores(anyseek, "a cow")
        assert preload.called
        preload.reset_mock()
        assert scores(anyseek, "  a  cow ") == first
        assert not preload.called
        scores(anyseek, "a cow", "--no-cache")
        assert preload.called
        preload.reset_mock()
        scores(anyseek, "another cow")
        assert preload.called
    (file,) = fresh.glob("texts-*.bin")
    assert b"cow" not in file.read_bytes()


def test_a_repeated_query_in_a_fresh_process(anyseek: Anyseek, tmp_path: Path) -> None:
    """Where the tokenizer cannot even be imported."""
    arguments = ["search", "a cow", "--index", str(anyseek.index), "--format", "json"]
    first = loads(MAIN, tmp_path, *arguments, forbidden={"onnxruntime"})
    again = loads(MAIN, tmp_path, *arguments, forbidden={"onnxruntime", "sentencepiece"})
    assert again == first
    with pytest.raises(AssertionError, match="tencepiece"):
        loads(MAIN, tmp_path, *arguments, "--no-cache", forbidden={"sentencepiece"})


def test_the_cache_is_switched_off(anyseek: Anyseek, fresh: Path) -> None:
    """By the option or the variable; the option goes first."""
    for arguments, variable, kept in (
        (["--no-cache"], "1", 0),
        ([], "0", 0),
        (["--cache"], "0", 1),
    ):
        done = anyseek.here("search", "a cow", *arguments, env={"ANYSEEK_CACHE": variable})
        assert (done.code, done.err) == (0, "")
        assert len(list(fresh.glob("texts-*.bin"))) == kept
    assert anyseek.here("search", "a cow", env={"ANYSEEK_CACHE": "perhaps"}).code == 2
