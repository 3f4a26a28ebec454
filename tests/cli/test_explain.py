"""Explanations as they are written, and the command that gives them, on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.explain import BARS, COLUMNS, fields, lines
from retrieval import heat
from retrieval.explain import Explanation, Share, Term, Window
from retrieval.vocabulary.nearest import Word
from tests.cli.test_cli import SAMPLES, Anyseek

PHOTOS = ("giraffe-pair.jpg", "grazing-cow.jpg", "kitten-with-wool.jpg")
KEYS = {"terms", "changes", "near", "passage", "windows", "map"}
CHANGES = (Share("- people", -0.12),)
NEAR = (Word("sea", 0.412345), Word("beach", 0.3))


def windows(*relevances: float) -> tuple[Window, ...]:
    """Windows of ten seconds, every five, with these relevances."""
    return tuple(
        Window(5.0 * number, 5.0 * number + 10, relevance / 2, relevance)
        for number, relevance in enumerate(relevances)
    )


# ---- writing -----------------------------------------------------------------------------------


def test_a_plain_query_has_few_lines() -> None:
    """One term in one rendering is the score itself, which the hit's own line gives."""
    told = Explanation((Term("the sea", 1.0, 0.4, (Share("the sea", 0.4),)),), NEAR)
    assert lines(told, (), None) == ("near      sea, beach",)


def test_all_lines() -> None:
    """Everything there is to say, each in its line, and nothing that would break one."""
    renderings = tuple(
        Share(f"{name} dog", share) for name, share in zip("abcd", (1, 4, 3, 2), strict=True)
    )
    terms = (
        Term("dog", 1.0, 10.0, renderings),
        Term("pe\nople", -0.5, -0.123, (Share("pe\nople", -0.123),)),
    )
    passage = (Share("wet", 0.052), Share("fur", 0.011))
    told = Explanation(terms, NEAR, windows(0.0, 0.5, 1.0), passage)
    assert lines(told, CHANGES, Path("/maps/01-a\n.png")) == (
        "terms     dog +10.00, pe\\nople -0.12",
        "templates b dog +4.00, c dog +3.00, d dog +2.00, …",
        "changed   - people -0.12",
        "near      sea, beach",
        "passage   wet +0.05, fur +0.01",
        "windows   ▁▅█ over 0:00-0:20, best 1.00 at 0:10-0:20",
        "map       /maps/01-a\\n.png",
    )


def test_long_recordings_show_the_best_of_several_windows() -> None:
    """A column stands for several windows, and the best one is not lost between them."""
    relevances = [0.0] * 1_000
    relevances[357] = 0.99
    (bars,) = lines(Explanation((), (), windows(*relevances)), (), None)
    drawn = bars.split()[1]
    assert len(drawn) == COLUMNS
    assert drawn.index(BARS[-1]) == 357 * COLUMNS // 1_000
    assert set(drawn) == {BARS[0], BARS[-1]}
    assert bars.endswith("over 0:00-1:23:25, best 0.99 at 29:45-29:55")


def test_fields() -> None:
    """Programs get every key, numbers, and the map's place in full."""
    terms = (Term("dog", 2.0, 0.25, (Share("a dog", 0.15), Share("one dog", 0.1))),)
    told = Explanation(terms, NEAR, windows(0.5)[:1], (Share("wet", 0.052),))
    assert fields(told, CHANGES, Path("maps/01-a.png")) == {
        "terms": [
            {
                "term": "dog",
                "weight": 2.0,
                "share": 0.25,
                "templates": [
                    {"template": "a dog", "share": 0.15},
                    {"template": "one dog", "share": 0.1},
                ],
            }
        ],
        "changes": [{"by": "- people", "share": -0.12}],
        "near": [{"word": "sea", "score": 0.4123}, {"word": "beach", "score": 0.3}],
        "passage": [{"word": "wet", "loss": 0.052}],
        "windows": [{"start_s": 0.0, "end_s": 10.0, "score": 0.25, "relevance": 0.5}],
        "map": str(Path.cwd() / "maps" / "01-a.png"),
    }
    assert fields(Explanation((), ()), (), None) == {
        "terms": [],
        "changes": [],
        "near": [],
        "passage": [],
        "windows": [],
        "map": None,
    }


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def anyseek(tmp_path_factory: pytest.TempPathFactory) -> Anyseek:
    """Gives the command with an index of three photographs, a recording and a text."""
    command = Anyseek(tmp_path_factory.mktemp("home").resolve())
    command.photos.mkdir()
    for name in PHOTOS:
        shutil.copy(SAMPLES / "photos" / name, command.photos)
    shutil.copy(SAMPLES / "sounds" / "walk-on-a-farm.ogg", command.photos)
    shutil.copy(SAMPLES / "texts" / "bread-recipe.md", command.photos)
    assert command("index", command.photos).out.startswith(b"5 added")
    return command


def explained(anyseek: Anyseek, *arguments: str | Path) -> list[dict[str, Any]]:
    """The hits of a command as JSON."""
    done = anyseek.here(*arguments, "--format", "json")
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.lines]


def test_search_in_json(anyseek: Anyseek) -> None:
    """Every hit has an explanation whose terms and templates add up to its score."""
    search = ("search", "giraffes", "-k", "5", "--prompt", "photo")
    plain = explained(anyseek, *search)
    hits = explained(anyseek, *search, "--explain")
    told = [hit.pop("explanation") for hit in hits]
    assert hits == plain
    assert {hit["modality"] for hit in hits} == {"image", "audio", "text"}
    for hit, one in zip(hits, told, strict=True):
        assert one.keys() == KEYS
        (term,) = one["terms"]
        assert (term["term"], term["weight"]) == ("giraffes", 1.0)
        assert term["share"] == pytest.approx(hit["score"], abs=1e-5)
        shares = [template["share"] for template in term["templates"]]
        assert len(shares) == (7 if hit["modality"] == "image" else 1)
        assert sum(shares) == pytest.approx(hit["score"], abs=1e-5)
        assert len(one["near"]) == 5
        assert one["map"] is None
        assert (len(one["windows"]) > 1) == (hit["modality"] == "audio")
        assert bool(one["passage"]) == (hit["modality"] == "text")
    for hit, one in zip(hits, told, strict=True):
        if hit["path"].endswith("kitten-with-wool.jpg"):
            assert "kitten" in [word["word"] for word in one["near"]]
        if hit["modality"] == "audio":
            best = max(one["windows"], key=lambda window: float(window["relevance"]))
            assert best["relevance"] == hit["relevance"]
            assert (best["start_s"], best["end_s"]) == (hit["start_s"], hit["end_s"])


def test_changes_lead_from_the_cosine_to_the_score(anyseek: Anyseek) -> None:
    """Terms are what the cosine is made of; penalties and feedback are named apart."""
    asked = ("search", "a kitten", "-k", "4", "--in", "image", "--prompt", "photo", "--explain")
    lowered = (*asked, "--not", "wool", "--negatives", "penalty")
    for hit in explained(anyseek, *lowered):
        (term,), (change,) = hit["explanation"]["terms"], hit["explanation"]["changes"]
        assert (term["term"], change["by"]) == ("a kitten", "- wool")
        assert change["share"] <= 0
        assert term["share"] + change["share"] == pytest.approx(hit["score"], abs=1e-5)
    liked = next(iter(explained(anyseek, *asked)))["path"]
    for hit in explained(anyseek, *asked, "--like", liked):
        (term,), (change,) = hit["explanation"]["terms"], hit["explanation"]["changes"]
        assert change["by"] == "feedback"
        assert change["share"] > 0
        assert term["share"] + change["share"] == pytest.approx(hit["score"], abs=1e-4)
    done = anyseek.here(*lowered)
    assert sum(line.startswith("    changed   - wool -0.") for line in done.lines) == 3


def test_lines_stand_below_their_hits(anyseek: Anyseek) -> None:
    """In a pipe, indented lines come after each hit; without them the output is what it was."""
    search = ("search", "a horse neighing", "-k", "5", "--prompt", "photo")
    plain = anyseek.here(*search)
    done = anyseek.here(*search, "--explain")
    assert (done.code, done.err) == (0, "")
    assert [line for line in done.lines if not line.startswith("    ")] == plain.lines
    assert done.lines[0] == plain.lines[0]
    assert done.lines[1].startswith("    ")
    counts = {"templates": 3, "near": 5, "windows": 1, "passage": 1}
    for name, count in counts.items():
        assert sum(line.startswith(f"    {name:<9} ") for line in done.lines) == count


def test_maps(anyseek: Anyseek, tmp_path: Path) -> None:
    """A PNG for each picture, named by rank, in its proportions; `--explain-dir` is enough."""
    folder = tmp_path / "not yet" / "there"
    hits = explained(anyseek, "search", "two giraffes", "-k", "5", "--explain-dir", folder)
    names = {}
    for rank, hit in enumerate(hits, start=1):
        path = hit["explanation"]["map"]
        assert (path is not None) == (hit["modality"] == "image")
        if path is not None:
            names[Path(path).name] = hit["path"]
            assert Path(path) == folder / f"{rank:02}-{Path(hit['path']).stem}.png"
    assert {path.name for path in folder.iterdir()} == set(names)
    assert len(names) == 3
    for name, original in names.items():
        with Image.open(folder / name) as image, Image.open(original) as picture:
            assert image.format == "PNG"
            assert max(image.size) <= heat.LONGEST_PX
            assert image.width / image.height == pytest.approx(
                picture.width / picture.height, rel=0.01
            )
            assert np.asarray(image).std() > 5
    lines_of = anyseek.here(
        "search", "giraffes", "--in", "image", "-k", "1", "--explain-dir", folder
    ).lines
    assert lines_of[-1] == f"    map       {folder}/01-giraffe-pair.png"
    before = anyseek.here("search", "two giraffes", "-k", "5", "--format", "paths")
    bare = anyseek.here(
        "search", "two giraffes", "-k", "5", "--format", "paths", "--explain-dir", folder
    )
    assert (bare.out, bare.err) == (before.out, "")


def test_similar(anyseek: Anyseek, tmp_path: Path) -> None:
    """An example is one term without renderings, and maps show where a picture is like it."""
    example = SAMPLES / "photos" / "wild-horses.jpg"
    hits = explained(
        anyseek, "similar", example, "--in", "all", "-k", "5", "--explain-dir", tmp_path
    )
    assert len(hits) == 5
    for hit in hits:
        (term,) = hit["explanation"]["terms"]
        assert (term["term"], term["templates"]) == (str(example), [])
        assert term["share"] == pytest.approx(hit["score"], abs=1e-5)
        assert (hit["explanation"]["map"] is not None) == (hit["modality"] == "image")
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_files_of_others_are_kept(anyseek: Anyseek, tmp_path: Path) -> None:
    """Where a map's name is taken by something else, the command stops before it writes hits."""
    taken = tmp_path / "01-giraffe-pair.png"
    taken.write_bytes(b"mine")
    search = ("search", "giraffes", "--in", "image", "-k", "1", "--explain-dir", tmp_path)
    done = anyseek.here(*search)
    assert (done.code, done.out) == (1, b"")
    assert done.err == (
        f"anyseek: {taken} is there already and not a heat map of anyseek; "
        "choose another --explain-dir\n"
    )
    assert taken.read_bytes() == b"mine"
    taken.unlink()
    assert [anyseek.here(*search).code for _ in range(2)] == [0, 0]


def test_a_picture_that_is_gone(anyseek: Anyseek, tmp_path: Path) -> None:
    """A hit whose file vanished since is explained without a map, and the reason is said."""
    home = Anyseek(tmp_path / "home")
    home.photos.mkdir(parents=True)
    photo = shutil.copy(SAMPLES / "photos" / PHOTOS[0], home.photos)
    assert home.here("index", home.photos).code == 0
    Path(photo).unlink()
    done = home.here("search", "giraffe", "--explain-dir", tmp_path / "maps", "--format", "json")
    assert done.code == 0
    assert done.err == (
        "anyseek: no map of photos/giraffe-pair.jpg: it vanished before it could be read\n"
    )
    (hit,) = [json.loads(line) for line in done.lines]
    assert hit["explanation"]["map"] is None
    assert len(hit["explanation"]["near"]) == 5


def test_nothing_found_is_nothing_explained(anyseek: Anyseek, tmp_path: Path) -> None:
    """Without hits there is neither a line nor a folder."""
    done = anyseek.here("search", "dog", "--min-relevance", "1", "--explain-dir", tmp_path / "maps")
    assert (done.code, done.out) == (0, b"")
    assert done.err == "anyseek: nothing in the index answers this\n"
    assert not (tmp_path / "maps").exists()
