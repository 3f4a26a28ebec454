"""``anyseek search`` with composed queries, feedback and confidence, on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.options import Fusing, fuse_from
from retrieval.errors import QueryError
from retrieval.fusion import Fusion
from retrieval.types import Source
from tests.cli.test_cli import Anyseek, failed

SAMPLES = Path(__file__).resolve().parent.parent.parent / "data" / "samples"
PHOTOS = (
    "grazing-cow.jpg",
    "wild-horses.jpg",
    "snowy-forest.jpg",
    "snowy-peaks-at-dawn.jpg",
    "german-shepherd.jpg",
    "giant-panda.jpg",
)


@pytest.fixture(scope="module")
def anyseek(tmp_path_factory: pytest.TempPathFactory) -> Anyseek:
    """Gives the command with an index of six photographs, a sound and a text."""
    command = Anyseek(tmp_path_factory.mktemp("home").resolve())
    command.env["XDG_STATE_HOME"] = str(command.home / "state")
    command.photos.mkdir()
    for name in PHOTOS:
        shutil.copy(SAMPLES / "photos" / name, command.photos)
    shutil.copy(SAMPLES / "sounds" / "thunder.ogg", command.photos)
    shutil.copy(SAMPLES / "texts" / "bread-recipe.md", command.photos)
    done = command("index", command.photos)
    assert (done.code, done.err) == (0, "")
    return command


def found(anyseek: Anyseek, *arguments: str | Path) -> list[dict[str, object]]:
    """Searches, and gives the hits as JSON objects with bare names."""
    done = anyseek.here("search", *arguments, "--format", "json")
    assert done.code == 0, done.err
    hits = [json.loads(line) for line in done.lines]
    return [{**hit, "path": Path(hit["path"]).name} for hit in hits]


def names(anyseek: Anyseek, *arguments: str | Path) -> list[object]:
    """The names of the hits, best first."""
    return [hit["path"] for hit in found(anyseek, *arguments)]


def test_words_need_no_quotes(anyseek: Anyseek) -> None:
    """Neighbouring words are one term."""
    assert found(anyseek, "a", "snowy", "forest") == found(anyseek, "a snowy forest")


def test_operators_and_options_are_one(anyseek: Anyseek) -> None:
    """``+`` and ``--add``, ``-`` and ``--not``; a negative term lowers what is like it."""
    image = ("--in", "image")
    dog = str(anyseek.photos / "german-shepherd.jpg")
    assert found(anyseek, dog, "+", "2:snow", *image) == found(
        anyseek, dog, "--add", "2:snow", *image
    )
    without = found(anyseek, "snow", "-", "trees", *image)
    assert without == found(anyseek, "snow", "--not", "trees", *image)
    plain = {hit["path"]: hit["score"] for hit in found(anyseek, "snow", *image)}
    scores = {hit["path"]: hit["score"] for hit in without}
    forest, peaks = "snowy-forest.jpg", "snowy-peaks-at-dawn.jpg"
    assert scores[forest] - scores[peaks] < plain[forest] - plain[peaks]  # type: ignore[operator]
    for way in ("penalty", "difference"):
        assert len(names(anyseek, "snow", "-", "trees", "--negatives", way, *image)) > 0


def test_a_file_finds_its_like_but_not_itself(anyseek: Anyseek) -> None:
    """Balanced with words: snow decides as much as the dog."""
    dog = anyseek.photos / "german-shepherd.jpg"
    hits = names(anyseek, str(dog), "+", "snowy mountains", "--in", "image")
    assert "german-shepherd.jpg" not in hits
    assert hits[0] in ("snowy-forest.jpg", "snowy-peaks-at-dawn.jpg")


def test_and_or(anyseek: Anyseek) -> None:
    """Either finds both kinds first; both is never better than the better of the two."""
    image = ("--in", "image", "-k", "6")
    snow = {hit["path"]: hit["relevance"] for hit in found(anyseek, "snow", *image)}
    trees = {hit["path"]: hit["relevance"] for hit in found(anyseek, "trees", *image)}
    either = {hit["path"]: hit["relevance"] for hit in found(anyseek, "snow OR trees", *image)}
    both = {hit["path"]: hit["relevance"] for hit in found(anyseek, "snow AND trees", *image)}
    for name in snow:
        pair = (float(snow[name]), float(trees[name]))  # type: ignore[arg-type]
        assert either[name] == pytest.approx(max(pair), abs=2e-4)
        assert both[name] == pytest.approx((pair[0] * pair[1]) ** 0.5, abs=2e-2)


def test_noise_has_no_good_match(anyseek: Anyseek) -> None:
    """Said on stderr and in JSON, with exit code 0; words that are there are answered."""
    done = anyseek.here("search", "qwkjdhq wdkjh", "--in", "image")
    assert done.code == 0
    assert "no good match for this query, since it means nothing to the model" in done.err
    assert all(hit["confident"] is False for hit in found(anyseek, "qwkjdhq wdkjh"))
    assert all(hit["confident"] is True for hit in found(anyseek, "a forest in the snow"))


def test_feedback_by_number_and_as_a_concept(anyseek: Anyseek) -> None:
    """The liked hit rises; --save makes a concept of it that a query can name."""
    image = ("--in", "image")
    before = found(anyseek, "an animal", *image)
    place = [hit["path"] for hit in before].index("wild-horses.jpg") + 1
    after = found(anyseek, "an animal", "--like", str(place), "--save", "herd", *image)
    assert after[0]["path"] == "wild-horses.jpg"
    assert names(anyseek, "<herd>", *image)[0] == "wild-horses.jpg"
    assert len(names(anyseek, "<herd> in the snow", *image)) == 6
    horses = str(anyseek.photos / "wild-horses.jpg")
    lower = found(anyseek, "an animal", "--unlike", horses, *image)
    score = {hit["path"]: hit["score"] for hit in lower}["wild-horses.jpg"]
    assert score < before[place - 1]["score"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["(", "dog"], "is not closed"),
        (["0:dog"], "weight"),
        (["nan:dog"], None),  # no number: words
        (["1e9:dog"], None),
        (["1000000:dog"], "weight"),
        (["--not", "dog", "-", "cat"], None),
        (["<nobody>"], "there is no concept nobody"),
        (["./gone.jpg"], "there is no file at"),
        (["dog", "AND"], "AND"),
        (["dog", "-", "dog"], None),
        (["dog", "--save", "x"], "--like"),
        (["dog", "--like", "99"], "hit"),
        ([" "], "empty"),
    ],
)
def test_bad_input(anyseek: Anyseek, arguments: list[str], reason: str | None) -> None:
    """One line that says what is wrong; what only looks odd is searched for."""
    done = anyseek.here("search", *arguments)
    if reason is None:
        assert done.code in (0, 1), done.err
        assert "Traceback" not in done.err
    else:
        assert failed(done)
        assert reason in done.err


def test_a_filter_that_matches_nothing(anyseek: Anyseek) -> None:
    """Exit code 0, and a line that says which filter it was."""
    done = anyseek.here("search", "dog", "--after", "2200")
    assert done.code == 0
    assert "2200" in done.err
    assert not done.lines


def test_ways_of_fusing_are_read() -> None:
    """Weights by source; what is none is refused with what would be one."""
    assert {way.value for way in Fusing} == {way.value for way in Fusion}
    fuse = fuse_from(Fusing.MEAN, ["sidecar=0.5", "content=0"])
    assert fuse.way is Fusion.MEAN
    assert fuse.columns().tolist() == [0.0, 0.5, 1.0, 1.0]
    assert dict(fuse.weights) == {Source.SIDECAR: 0.5, Source.CONTENT: 0.0}
    for text in ("sidecar", "sidecar=", "sidecar=-1", "sidecar=nan", "other=1", "sidecar=1e9"):
        with pytest.raises(QueryError, match="--source takes one of content, sidecar"):
            fuse_from(Fusing.ANY, [text])
    with pytest.raises(QueryError, match="leaves out everything"):
        fuse_from(Fusing.CONTENT, ["content=0"])
