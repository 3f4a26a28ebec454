"""``anyseek evaluate`` with the bundled model on the samples, and what it writes."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli import plots
from cli.evaluation_page import page
from cli.figures import as_csv, as_json, cell, lines, shown_names
from retrieval.evaluation.evaluate import evaluate
from retrieval.evaluation.metrics import Bin
from retrieval.evaluation.runs import Result, Way
from retrieval.evaluation.significance import Interval
from retrieval.evaluation.tasks import read
from tests.cli.test_cli import Anyseek, failed, on_terminal
from tests.fakes import colour_encoder
from tests.retrieval.evaluation.test_evaluate import BLUE, SAME, painted, spec_of

SAMPLES = Path(__file__).resolve().parent.parent.parent / "data" / "samples"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>.png',
    "a\u202eb&amp;\x1b[31m.png",
)


@pytest.fixture(scope="module")
def anyseek(tmp_path_factory: pytest.TempPathFactory) -> Anyseek:
    """Gives the command with some photographs, their captions, and an index of them."""
    command = Anyseek(tmp_path_factory.mktemp("home").resolve())
    command.photos.mkdir()
    rows = (SAMPLES / "captions.tsv").read_text("utf-8").splitlines()
    kept = [rows[0]]
    for name in ("grazing-cow.jpg", "wall-clock.jpg", "taj-mahal.jpg", "wild-horses.jpg"):
        shutil.copy(SAMPLES / "photos" / name, command.photos)
        kept += [row.removeprefix("photos/") for row in rows if row.startswith(f"photos/{name}")]
    (command.photos / "captions.tsv").write_text("\n".join(kept), "utf-8")
    return command


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Two prompts on pictures and captions with hostile names."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for name, colour in zip(HOSTILE, ("red", "green", "cyan"), strict=True):
        name = name.replace("/", "") + ("" if name.endswith(".png") else ".png")
        painted(folder / name, colour)
        rows += [f"{name}\t{colour}", f"{name}\tblack </td><script>x</script> & more, at all"]
    (folder / "captions.tsv").write_text("\n".join(rows), "utf-8")
    painted(folder / "classes" / "red" / "1.png", "red")
    painted(folder / "classes" / "<b>blue" / "1.png", "red")
    spec = spec_of(colour_encoder(), "<i>model")
    ways = [Way(spec, "same", SAME), Way(spec, "blue", BLUE)]
    tasks = [*read(folder).tasks, *read(folder / "classes").tasks]
    return evaluate(tasks, ways, [1, 2])[0]


# ---- the command ---------------------------------------------------------------------------------


def test_a_table_of_the_samples(anyseek: Anyseek) -> None:
    """Two tasks, four pictures, eight captions; the second time from the cache, with no change."""
    first = anyseek.here("evaluate", anyseek.photos, "--k", "1", "-k", "2")
    assert first.code == 0
    assert first.err == ""
    assert first.lines[0] == "text to image: 8 queries, 4 items"
    assert first.lines[1].split("\t") == "model prompt hit@1 hit@2 ndcg@2 mrr relevance".split()
    row = first.lines[2].split("\t")
    assert row[:2] == ["anyseek-1", "auto"]
    assert re.fullmatch(r"\d+\.\d \(\d+\.\d-\d+\.\d\)", row[2])
    assert float(row[3].split()[0]) >= 75  # cows, clocks, palaces and horses are easily told
    assert first.lines[4] == "image to text: 4 queries, 8 items"
    assert "bootstrap" in first.lines[-1]
    assert list((anyseek.home / "cache").rglob("features-*.bin")) or list(
        anyseek.home.rglob("features-*.bin")
    )
    again = anyseek.here("evaluate", anyseek.photos, "--k", "1", "-k", "2")
    without = anyseek.here("evaluate", anyseek.photos, "--k", "1", "-k", "2", "--no-cache")
    assert again.out == without.out == first.out


def test_prompts_and_formats(anyseek: Anyseek, tmp_path: Path) -> None:
    """Several prompts give several runs; a file is written instead of stdout."""
    out = tmp_path / "figures.json"
    asked = ("evaluate", anyseek.photos, "-k", "1", "--prompt", "plain", "--prompt", "photo")
    done = anyseek.here(*asked, "--format", "json", "-o", out)
    assert (done.code, done.out, done.err) == (0, b"", "")
    content = json.loads(out.read_text("utf-8"))
    assert content["method"]["resamples"] == 2_000
    forth, back = content["results"]
    assert [run["prompt"] for run in forth["runs"]] == ["plain", "photo"]
    assert [run["prompt"] for run in back["runs"]] == [None]
    done = anyseek.here(*asked, "--format", "html")
    assert done.out.startswith(b"<!doctype html>")
    assert list(tmp_path.iterdir()) == [out]


def test_errors(anyseek: Anyseek, tmp_path: Path) -> None:
    """One line and exit code 1; wrong usage is 2."""
    assert "there is no file or folder" in failed(anyseek.here("evaluate", tmp_path / "none"))
    message = failed(anyseek.here("evaluate", anyseek.photos, "-o", tmp_path / "no" / "where"))
    assert "cannot write" in message
    assert "no prompt set 'no'" in failed(
        anyseek.here("evaluate", anyseek.photos, "--prompt", "no")
    )
    assert anyseek.here("evaluate").code == 2
    assert anyseek.here("evaluate", anyseek.photos, "--index-recall").code == 2
    assert anyseek.here("evaluate", anyseek.photos, "--queries", tmp_path / "x").code == 2


def test_what_is_left_out_is_said(anyseek: Anyseek, tmp_path: Path) -> None:
    """On stderr, while the figures go on."""
    shutil.copytree(anyseek.photos, tmp_path / "photos")
    (tmp_path / "photos" / "wall-clock.jpg").unlink()
    message = failed(anyseek.here("evaluate", tmp_path / "photos"))
    assert "1 file(s) that" in message
    assert "'wall-clock.jpg'; name their folder with --files" in message
    done = anyseek.here("evaluate", tmp_path / "photos", "--skip-missing", "-k", "1", "-k", "9")
    assert done.code == 0
    assert done.err.splitlines() == [
        "anyseek: left out 1 file(s) that are not there",
        "anyseek: text to image: k = 9 is left out, since there are only 3",
        "anyseek: image to text: k = 9 is left out, since there are only 6",
    ]


def test_the_index(anyseek: Anyseek, tmp_path: Path) -> None:
    """An exact index finds all, asked with its own vectors or with words."""
    assert anyseek.here("index", anyseek.photos).code == 0
    done = anyseek.here("evaluate", "--index-recall", "--k", "2", "--format", "json")
    (row,) = json.loads(done.out)
    assert (row["kind"], row["vectors"], row["queries"], row["k"]) == ("image", 4, 4, 2)
    assert row["recall"] == 1.0
    words = tmp_path / "words.txt"
    words.write_text("a cow\n\nclock\na cow\n", "utf-8")
    done = anyseek.here("evaluate", "--index-recall", "--queries", words)
    assert done.lines[1].split("\t")[:5] == ["image", "4", "2", "4", "1.0"]


# ---- figures -------------------------------------------------------------------------------------


def test_marks_and_columns(results: list[Result]) -> None:
    """The best is marked, what cannot be told from it too; recall appears where it says more."""
    forth, back, classes = results
    assert shown_names(forth) == ["hit@1", "hit@2", "ndcg@2", "mrr"]
    assert shown_names(back) == ["hit@1", "hit@2", "recall@1", "recall@2", "ndcg@2", "mrr", "map"]
    assert "macro f1" in shown_names(classes)
    same, blue = forth.runs
    assert cell(same, "mrr").endswith(" *")
    assert cell(blue, "mrr").endswith(" =")
    assert cell(back.runs[0], "mrr").endswith(")")
    text = lines(results)
    assert "\x1b" not in text
    assert "red classes" not in text
    assert "image classes: 2 files of 2 classes" in text


def test_csv_and_json_say_the_same(results: list[Result]) -> None:
    """Every figure of every run, once."""
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    flat = [
        (result["task"], run["prompt"] or "", name, round(one["value"], 6), one.get("best"))
        for result in as_json(results)["results"]
        for run in result["runs"]
        for name, one in run["figures"].items()
    ]
    assert flat == [
        (
            row["task"],
            row["prompt"],
            row["figure"],
            float(row["value"]),
            {"yes": True, "no": False, "": None}[row["best"]],
        )
        for row in rows
    ]
    assert len({one[:3] for one in flat}) == len(flat)


class Tags(HTMLParser):
    """Lists what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.sources: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_page_is_safe_and_alone(results: list[Result]) -> None:
    """Foreign names are words and nothing else; pictures are within; nothing is fetched."""
    text = page(results)
    parser = Tags()
    parser.feed(text)
    assert parser.tags == set(
        "html head meta title style body h1 h2 h3 p table tr th td figure figcaption "
        "svg path rect text circle polyline img span".split()
    )
    assert not [name for name in parser.attributes if name.startswith("on")]
    assert parser.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in parser.sources)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    shown = "\n".join(parser.words)
    assert "black </td><script>x</script> & more" in shown
    assert "<b>blue" in shown
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_thumbnails_are_small_jpegs(results: list[Result]) -> None:
    """Of at most 96 pixels a side, without metadata."""
    import base64

    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page(results))
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source, validate=True))) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 96
            assert not image.getexif()


def test_drawings_are_whole_and_true() -> None:
    """Each is well-formed; bars, points and dots lie where the figures say."""
    space = "{http://www.w3.org/2000/svg}"
    bars = ET.fromstring(plots.bars(["a", "b"], [Interval(0.5, 0.4, 0.6), Interval(1, 0.9, 1)]))
    assert [float(one.attrib["width"]) for one in bars.iter(space + "rect")] == [150, 300]
    curve = ET.fromstring(plots.curves(["a"], [[(1, 0.25), (10, 1.0), (100, 1.0)]]))
    (line,) = curve.iter(space + "polyline")
    points = np.array([[float(x) for x in one.split(",")] for one in line.attrib["points"].split()])
    left, top, side = plots.LEFT, plots.TOP, plots.SIDE
    want = [[left, top + 0.75 * side], [left + side / 2, top], [left + side, top]]
    assert points.tolist() == want
    one = ET.fromstring(plots.reliability([Bin(0, 0.1, 4, 0.05, 0.5), Bin(0.9, 1, 1, 1.0, 1.0)]))
    dots = [dot.attrib for dot in one.iter(space + "circle")]
    assert [float(dot["cx"]) for dot in dots] == [left + 0.05 * side, left + side]
    assert [float(dot["cy"]) for dot in dots] == [top + side / 2, top]
    assert (float(dots[0]["r"]) - 2) / (float(dots[1]["r"]) - 2) == 2  # four times the area
    ET.fromstring(plots.curves(["one k"], [[(1, 0.5)]]))


def test_a_terminal_gets_a_drawn_table(anyseek: Anyseek) -> None:
    """With headings, and what relevance is worth below."""
    shown = on_terminal(anyseek, "evaluate", anyseek.photos, "-k", "1")
    assert "text to image: 8 queries, 4 items" in shown
    assert re.search(r"anyseek-1 +auto +\d+\.\d \(", shown)
    assert "relevance of the first hit, auto: calibration error 0." in shown
