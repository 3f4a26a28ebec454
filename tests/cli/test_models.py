"""``anyseek models``, and the commands that take ``--model``, with models of colours."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cli import render
from cli.app import main
from retrieval import models
from retrieval.catalogue import OFFERS
from retrieval.models import FAMILIES
from retrieval.towers.device import Device
from retrieval.types import Modality
from tests.conftest import run_sql
from tests.fakes import COLOURS, RATE_HZ, ColourFamily, pitch_hz
from tests.retrieval.test_search import paint, write

ROOT = Path(__file__).resolve().parent.parent.parent
SEEN, HEARD = "hf-hub:a/seen", "clap:a/heard"

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ColourFamily:
    """Models that see and that hear, which are not here yet."""
    made = ColourFamily(
        tmp_path / "cache",
        {
            "hf-hub:a/seen": (Modality.IMAGE, Modality.TEXT),
            "a/heard": (Modality.AUDIO, Modality.TEXT),
        },
    )
    for module in FAMILIES.values():
        monkeypatch.setitem(sys.modules, module, made)
    monkeypatch.setattr(models, "choose", lambda asked: Device(asked or "cpu", "float32", "so"))
    return made


def runs(*names: str, on: str = "cpu") -> list[str]:
    """What is said of models that index."""
    return [f"anyseek: {name} runs on {on} in float32: so" for name in names]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A picture, a sound and a text of each colour."""
    folder = (tmp_path / "files").resolve()
    seconds = np.arange(RATE_HZ) / RATE_HZ
    for name in COLOURS:
        paint(folder / f"{name}.png", **{name: 256})
        write(folder / f"{name}.md", f"something {name}")
        soundfile.write(
            folder / f"{name}.wav", 0.5 * np.sin(2 * np.pi * pitch_hz(name) * seconds), RATE_HZ
        )
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command within this process: exit code, lines of stdout, lines of stderr."""
    for name in ("DATA", "CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANYSEEK_INDEX", str(tmp_path / "i.db"))

    def run(*arguments: str | Path) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["anyseek", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return code or 0, captured.out.splitlines(), captured.err.splitlines()

    return run


def hits(lines: list[str]) -> list[str]:
    """Gives the names of the files in a list of hits."""
    return [Path(line.split("\t")[2]).name for line in lines]


def test_the_table_of_models(run: Run, family: ColourFamily) -> None:
    """One row each, the default first; JSON tells the same."""
    code, lines, _ = run("models")
    assert code == 0
    assert [line.split("\t")[0] for line in lines] == ["anyseek-1", *(o.name for o in OFFERS)]
    assert {len(line.split("\t")) for line in lines} == {len(render.MODEL_HEADINGS)}
    _, told, _ = run("models", "--format", "json")
    rows = [json.loads(line) for line in told]
    assert [row["name"] for row in rows] == [line.split("\t")[0] for line in lines]
    assert [row["here"] for row in rows] == [True] + [False] * len(OFFERS)


def test_pulling(run: Run, family: ColourFamily) -> None:
    """It says before what it costs and after where it lies; a second time it is here."""
    code, out, err = run("models", "pull", "clap-htsat")
    where = family.place("laion/clap-htsat-unfused")
    assert (code, out) == (0, [f"clap-htsat fetched: 100 bytes in {where}"])
    assert err == ["anyseek: fetching clap-htsat (about 615.0 MB, Apache-2.0)"]
    code, out, err = run("models", "pull", "clap:laion/clap-htsat-unfused")
    assert (code, out, err) == (0, [f"clap-htsat is here already: 100 bytes in {where}"], [])
    assert run("models", "pull", "clap-htsad")[2] == [
        "anyseek: there is no model named 'clap-htsad'; did you mean clap-htsat?"
    ]
    family.cache = Path("/proc/nowhere")  # where nobody can write
    code, out, err = run("models", "pull", HEARD)
    assert (code, out) == (1, [])
    assert "can be written and the network reached, and try again" in err[-1]


def test_spaces_side_by_side(run: Run, family: ColourFamily, files: Path) -> None:
    """A model is added to an index; afterwards all of them are brought up to date."""
    code, out, err = run("index", files, "--model", SEEN)
    assert (code, out) == (1, [])
    assert err == [
        f"anyseek: the weights of {SEEN} are not on this machine; "
        f"get them with `anyseek models pull {SEEN}`"
    ]
    assert not (files.parent / "i.db").exists()
    for name in (SEEN, HEARD):
        assert run("models", "pull", name)[0] == 0
    code, out, err = run("index", files, "--model", SEEN, "--device", "cuda:1")
    assert (code, err) == (0, runs(SEEN, on="cuda:1"))
    assert family.devices == ["cuda:1"]
    assert out[0].startswith("16 added, 0 updated")
    _, out, err = run("index", files, "--model", HEARD)
    assert (out[0][:20], err) == ("8 added, 8 updated, ", runs(HEARD))
    write(files / "more.txt", "blue and green")
    _, out, err = run("index", files)
    assert [line[: len(name) + 9] for line, name in zip(out, (SEEN, HEARD), strict=True)] == [
        f"{SEEN}: 1 added",
        f"{HEARD}: 0 added",
    ]
    assert run_sql(files.parent / "i.db", "SELECT count(*) FROM items") == [(25,)]
    _, out, _ = run("search", "red", "-k", "3")
    assert sorted(hits(out)) == ["red.md", "red.png", "red.wav"]
    _, out, _ = run("search", "red", "--model", HEARD, "--in", "each", "-k", "1")
    assert hits(out) == ["red.wav", "red.md"]
    _, out, _ = run("similar", files / "red.wav", "--model", HEARD, "--in", "text", "-k", "1")
    assert hits(out) == ["red.md"]
    code, out, err = run("search", "red", "--model", "clip-b32")
    assert (code, out) == (1, [])
    assert err[0].endswith("add it with `anyseek index --model clip-b32 FOLDER`")


def test_a_file_of_an_unknown_kind(run: Run, family: ColourFamily, files: Path) -> None:
    """A sound alone is nothing for a model that sees: said, but no failure."""
    run("models", "pull", SEEN)
    code, out, err = run("index", files / "red.wav", "--model", SEEN, "--strict")
    assert (code, out[0][:8]) == (0, "0 added,")
    remark = "anyseek: 1 file(s) there are of kinds that the model does not embed"
    assert err == [*runs(SEEN), remark]


def test_failures_are_named_once(run: Run, family: ColourFamily, files: Path) -> None:
    """A damaged text fails for both models, and is counted by both."""
    for name in (SEEN, HEARD):
        run("models", "pull", name)
        run("index", files, "--model", name)
    (files / "bad.txt").write_bytes(bytes(range(256)))
    _, out, err = run("index", files)
    (named,) = [line for line in err if "bad.txt" in line]
    assert sorted(err) == sorted([named, *runs(SEEN, HEARD)])
    assert ["1 failed" in line for line in out] == [True, True]


def test_status_and_pruning(
    run: Run, family: ColourFamily, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status tells what lacks vectors and which model is gone; a space can be dropped."""
    for name in (SEEN, HEARD):
        run("models", "pull", name)
        run("index", files, "--model", name)
    write(files / "more.txt", "blue")
    run("index", files, "--model", SEEN)
    family.place("hf-hub:a/seen").unlink()
    _, out, _ = run("status")
    told = "\n".join(out)
    assert "space         colours of a/heard (8 dimensions): 8 audio, 8 text" in told
    assert "without vectors yet: 1 text; run `anyseek index` again" in told
    assert f"{SEEN}, which made colours of hf-hub:a/seen, cannot be used: the weights" in told
    assert out[-1] == 'next          anyseek search "a dog at the sea"'
    heard = family.place("a/heard")
    heard.rename(heard.with_suffix(".away"))
    told = "\n".join(run("status")[1])
    assert f"`anyseek models pull {HEARD}`" in told
    assert told.endswith("anyseek similar FILE, for a file that is indexed; words need the model")
    assert run("search", "red")[0] == 1
    assert hits(run("similar", files / "red.png", "-k", "1")[1])[0].endswith(".png")
    heard.with_suffix(".away").rename(heard)
    _, out, err = run("index", files)
    assert len(out) == 1
    assert err[0].startswith(f"anyseek: not brought up to date: {SEEN}, which made colours of")

    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # nobody answers
    code, out, err = run("index", "--prune", SEEN)
    assert (code, "".join(out).strip()) == (1, "")
    assert "Forget colours of hf-hub:a/seen of hf-hub:a/seen, with 17 vectors" in "".join(err)
    code, out, _ = run("index", "--prune", SEEN, "--yes")
    assert (code, out) == (0, ["dropped colours of hf-hub:a/seen: 17 vectors"])
    assert not [line for line in run("status")[1] if "seen" in line or "image" in line]
    assert hits(run("search", "red", "-k", "2")[1]) in (
        ["red.wav", "red.md"],
        ["red.md", "red.wav"],
    )
    code, _, err = run("index", "--prune", HEARD, "--yes")
    assert code == 1
    assert "is the only space" in err[0]
    assert run("index")[0] == 2


def test_concepts_in_a_second_space(run: Run, family: ColourFamily, files: Path) -> None:
    """Sounds make a concept where sounds are known; it is listed, shown, asked and removed."""
    for name in (SEEN, HEARD):
        run("models", "pull", name)
        run("index", files, "--model", name)
    assert run("concept", "add", "tone", files / "red.wav")[1] == ["learned <tone> from 1 example"]
    assert len(run("concept", "list")[1]) == 1
    assert "space      colours of a/heard" in run("concept", "show", "tone")[1]
    code, out, err = run("search", "<tone>", "-k", "1")
    assert (code, hits(out)) == (0, ["red.wav"])
    assert len(err) == 1
    assert run("concept", "add", "tone", files / "red.png", "--model", SEEN)[0] == 0
    assert "space      colours of hf-hub:a/seen" in run("concept", "show", "tone")[1]
    assert run("concept", "remove", "tone", "--model", HEARD)[1] == ["forgot <tone>"]
    assert len(run("concept", "list")[1]) == 1


def test_explaining_hits_of_two_spaces(run: Run, family: ColourFamily, files: Path) -> None:
    """Each in the words of its own space."""
    for name in (SEEN, HEARD):
        run("models", "pull", name)
        run("index", files, "--model", name)
    _, out, _ = run("search", "red", "-k", "3", "--explain", "--format", "json")
    rows = [json.loads(line) for line in out]
    assert {row["space"] for row in rows} == {"colours of a/heard", "colours of hf-hub:a/seen"}
    for row in rows:
        (term,) = row["explanation"]["terms"]
        assert term["share"] == pytest.approx(row["score"], abs=2e-3)
        assert "red" in row["explanation"]["near"][0]["word"]


def test_the_readme_has_the_table() -> None:
    """Generated from the rows: name, kinds, size, licence, figure, what for."""
    readme = (ROOT / "README.md").read_text("utf-8")
    for offer in OFFERS:
        cells = (
            f"`{offer.name}`",
            f"`{offer.source}`" + (f" + `{offer.text}`" if offer.text else ""),
            ", ".join(offer.modalities),
            render.size(offer.download_bytes),
            offer.licence,
            offer.quality,
            offer.about,
        )
        assert f"| {' | '.join(cells)} |" in readme
