"""Figures on real files, against rankings made one by one; and what may not change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from retrieval.calibrate import Background, Calibration
from retrieval.errors import EvaluationError
from retrieval.evaluation import evaluate as module
from retrieval.evaluation.evaluate import evaluate
from retrieval.evaluation.runs import Result, Way
from retrieval.evaluation.tasks import read
from retrieval.fusion import Fuse, Fusion
from retrieval.models import ModelSpec
from retrieval.prompts import PromptSet
from retrieval.rivals import Rivals
from retrieval.types import Encoder, Modality
from tests.fakes import COLOURS, DIM, RATE_HZ, colour_encoder, pitch_hz

NAMES = list(COLOURS)
BOLD = Calibration(10.0, -3.0)
BLUE = PromptSet("blue", "", ("{query} blue",))
SAME = PromptSet("same", "", ("{query}",))


def spec_of(encoder: Encoder, name: str = "colours") -> ModelSpec:
    """A model of colours, as a row."""
    return ModelSpec(
        name=name,
        space=encoder.space,
        dim=DIM,
        modalities=tuple(encoder.towers),
        size_bytes=0,
        licence="none",
        here=True,
        calibrations={(Modality.TEXT, Modality.IMAGE): Calibration(6.0, -4.0, z=0.5)},
        load=lambda: replace(encoder, model=name),
    )


def painted(path: Path, *colours: str, height: int = 16) -> None:
    """Writes a picture with a stripe of each colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width = 16 // len(colours)
    image = Image.new("RGB", (width * len(colours), height))
    for number, colour in enumerate(colours):
        image.paste(COLOURS[colour], (number * width, 0, (number + 1) * width, height))
    image.save(path)


def tone(path: Path, *colours: str) -> None:
    """Writes a sound of ten seconds for each colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(10 * RATE_HZ) / RATE_HZ
    waves = [0.5 * np.sin(2 * np.pi * pitch_hz(colour) * time) for colour in colours]
    soundfile.write(path, np.concatenate(waves).astype(np.float32), RATE_HZ)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures of one to four colours with captions, some of which are wrong."""
    folder = tmp_path / "data"
    rng = np.random.default_rng(2)
    lines = []
    for number in range(24):
        colours = rng.choice(NAMES, rng.choice([1, 2, 4]), replace=False).tolist()
        painted(folder / f"{number:02}.png", *colours, height=16 + number)
        for _ in range(rng.integers(1, 4)):
            said = rng.choice(NAMES if rng.random() < 0.3 else colours, 2).tolist()
            lines.append(f"{number:02}.png\tsomething {' and '.join(said)} number {number}\n")
    (folder / "captions.tsv").write_text("".join(lines), "utf-8")
    return folder


def measured(data: Path, ways: Sequence[Way], ks: Sequence[int] = (1, 3)) -> dict[str, Result]:
    """Measures without a cache."""
    results, remarks = evaluate(read(data).tasks, ways, ks)
    assert remarks == []
    return {result.task: result for result in results}


def test_searches_one_by_one(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks, hits and relevances of every caption, worked out without the code that is tested."""
    monkeypatch.setattr(module, "BLOCK", 7)  # blocks must not show
    encoder = colour_encoder()
    reds = Rivals(np.eye(DIM, dtype=np.float32)[:1], np.zeros(1, np.float32), -1.0, 0.1)
    maps = {(Modality.TEXT, Modality.IMAGE): Calibration(6.0, -4.0, z=0.5, r=-2.0)}
    spec = replace(spec_of(encoder), calibrations=maps, rivals=lambda: reds)
    found = measured(data, [Way(spec, "same", SAME)])
    lines = [line.split("\t") for line in (data / "captions.tsv").read_text("utf-8").splitlines()]
    names = list(dict.fromkeys(name for name, _ in lines))
    image, text = encoder.towers[Modality.IMAGE], encoder.towers[Modality.TEXT]
    pictures = image.embed([image.prepare(Image.open(data / name)) for name in names])
    pictures = pictures.astype(np.float64)
    pairs = list(dict.fromkeys((name, words) for name, words in lines))
    pairs.sort(key=lambda pair: names.index(pair[0]))
    captions = text.embed([words for _, words in pairs]).astype(np.float64)
    (run,) = found["text to image"].runs
    assert found["text to image"].queries == len(pairs)
    assert found["text to image"].items == 24
    ranks = []
    for at, ((name, _), vector) in enumerate(zip(pairs, captions, strict=True)):
        cosines = (pictures @ vector).astype(np.float32).tolist()
        order = sorted(range(24), key=lambda item: (-cosines[item], item))
        ranks.append(order.index(names.index(name)) + 1)
        assert run.values["mrr"][at] == pytest.approx(1 / ranks[-1])
    assert run.values["hit@3"].tolist() == [rank <= 3 for rank in ranks]
    assert run.figures["hit@1"].value == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert dict(run.curve)[5] == pytest.approx(np.mean([rank <= 5 for rank in ranks]))
    assert [miss.rank for miss in run.worst] == sorted(ranks, reverse=True)[: len(run.worst)]
    worst = run.worst[0]
    assert (worst.right.name, worst.query.name) == pairs[ranks.index(max(ranks))]
    assert run.confidence is not None
    usual = Calibration(6.0, -4.0, z=0.5, r=-2.0)
    claims = []
    for vector in captions:
        cosines_ = pictures @ vector
        seen = Background(float(cosines_.mean()), float(cosines_.std()), 24, vector[0] - 0.1)
        usual_here = usual.against(seen)
        claims.append(float(usual_here.relevance(cosines_.max(keepdims=True))[0]))
    assert sum(one.count * one.confidence for one in run.confidence.bins) == pytest.approx(
        sum(claims), rel=1e-5
    )
    (back,) = found["image to text"].runs
    assert back.prompt == ""
    cosines_ = (pictures @ captions.T).astype(np.float32)
    best = [
        min(
            1
            + sum((cosines_[at] > cosines_[at, other]).tolist())
            + sum((cosines_[at, :other] == cosines_[at, other]).tolist())
            for other, (owner, _) in enumerate(pairs)
            if owner == name
        )
        for at, name in enumerate(names)
    ]
    np.testing.assert_allclose(back.values["mrr"], 1 / np.array(best))


def test_nothing_is_embedded_twice(data: Path, tmp_path: Path) -> None:
    """Another prompt embeds words alone; the next run nothing; and no figure depends on it."""
    encoder = colour_encoder()
    image, text = encoder.towers[Modality.IMAGE], encoder.towers[Modality.TEXT]
    spec = spec_of(encoder)
    ways = [Way(spec, "same", SAME), Way(spec, "blue", BLUE)]
    tasks = read(data).tasks
    first, _ = evaluate(tasks, ways, [1], cache=tmp_path / "cache")
    captions = len(set((data / "captions.tsv").read_text("utf-8").splitlines()))
    assert image.embedded == 24  # type: ignore[attr-defined]
    assert text.embedded == 2 * captions  # type: ignore[attr-defined]
    again, _ = evaluate(tasks, ways[::-1], [1], cache=tmp_path / "cache")
    assert image.embedded == 24  # type: ignore[attr-defined]
    assert text.embedded == 2 * captions  # type: ignore[attr-defined]
    without, _ = evaluate(tasks, ways, [1])
    for one, other, third in zip(first, again, without, strict=True):
        by_prompt = {run.prompt: run for run in other.runs}
        for run, fresh in zip(one.runs, third.runs, strict=True):
            assert run.figures == fresh.figures == by_prompt[run.prompt].figures
            assert run.confidence == fresh.confidence
            assert run.p == fresh.p


def test_the_worse_prompt_is_told_from_the_better(tmp_path: Path) -> None:
    """The best has no p-value, the same words are no difference, and blue words are one."""
    for number in range(24):
        painted(tmp_path / f"{number:02}.png", NAMES[number // 3], height=16 + number)
    rows = [f"{number:02}.png\t{NAMES[number // 3]} number {number}" for number in range(24)]
    (tmp_path / "captions.tsv").write_text("\n".join(rows), "utf-8")
    spec = spec_of(colour_encoder())
    twice = PromptSet("twice", "", ("{query}",), repeat=2)
    ways = [Way(spec, "blue", BLUE), Way(spec, "same", SAME), Way(spec, "twice", twice)]
    runs = measured(tmp_path, ways)["text to image"].runs
    means = [run.figures["mrr"].value for run in runs]
    # blue pictures come first where the colour itself has a later number
    assert means[1:] == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3] * 2)
    assert means[0] == pytest.approx(3 / 8 * means[1] + 5 / 8 * (1 / 4 + 1 / 5 + 1 / 6) / 3)
    p = [run.p["mrr"] for run in runs]
    assert p[0] is not None
    assert p[0] < 0.01
    assert p[1:] == [None, 1.0]
    assert [run.p["hit@3"] for run in runs[1:]] == [None, 1.0]


def test_sounds_count_by_their_best_window_and_ask_by_their_mean(tmp_path: Path) -> None:
    """A sound of two colours is found by either; as a query it lies between both."""
    tone(tmp_path / "both.wav", "red", "blue")
    tone(tmp_path / "green.wav", "green")
    painted(tmp_path / "blue.png", "blue")
    painted(tmp_path / "mixed.png", "blue", "red")
    painted(tmp_path / "green.png", "green")
    (tmp_path / "captions.tsv").write_text(
        "both.wav\ta red thing\nboth.wav\ta blue thing\ngreen.wav\tgreen, all of it\n", "utf-8"
    )
    (tmp_path / "pairs.tsv").write_text(
        "mixed.png\tboth.wav\ngreen.png\tgreen.wav\nblue.png\tgreen.wav\n", "utf-8"
    )
    found = measured(tmp_path, [Way(spec_of(colour_encoder()), "auto")], [1])
    assert found["text to audio"].runs[0].values["hit@1"].tolist() == [1, 1, 1]
    sounds = found["audio to image"].runs[0]
    assert sounds.values["hit@1"].tolist() == [1, 1]
    assert found["image to audio"].runs[0].values["hit@1"].tolist() == [1, 1, 0]


def test_several_kinds_are_ranked_by_relevance(tmp_path: Path) -> None:
    """Texts and pictures in one ranking, each with its own map from cosines."""
    painted(tmp_path / "red.png", "red")
    (tmp_path / "red.txt").write_text("red red red", "utf-8")
    (tmp_path / "queries.tsv").write_text("red\tred.png\t2\nred\tred.txt\t1\n", "utf-8")
    spec = spec_of(colour_encoder())
    texts = {(Modality.TEXT, Modality.TEXT): Calibration(1.0, -9.0)}
    shy = replace(spec, calibrations={**texts, (Modality.TEXT, Modality.IMAGE): BOLD})
    bold = replace(
        spec,
        name="bold",
        calibrations={
            (Modality.TEXT, Modality.TEXT): BOLD,
            (Modality.TEXT, Modality.IMAGE): Calibration(1.0, -9.0),
        },
    )
    (result,) = measured(tmp_path, [Way(shy, "auto"), Way(bold, "auto")], [1, 2]).values()
    assert result.task == "text to image and text"
    assert [run.values["ndcg@1"].tolist() for run in result.runs] == [[1.0], [0.5]]


def test_words_beside_the_files_can_count(tmp_path: Path) -> None:
    """A red picture with "blue cyan" beside it answers that by its words alone."""
    for name, colour in (("a", "white"), ("green", "green"), ("z", "red")):
        painted(tmp_path / f"{name}.png", colour)
    (tmp_path / "z.txt").write_text("blue cyan", "utf-8")
    (tmp_path / "queries.tsv").write_text("blue cyan\tz.png\ngreen\tgreen.png\n", "utf-8")
    maps = {(Modality.TEXT, kind): BOLD for kind in (Modality.IMAGE, Modality.TEXT)}
    spec = replace(spec_of(colour_encoder()), calibrations=maps)
    ways = [Way(spec, "auto"), *(Way(spec, "auto", None, Fuse(way)) for way in Fusion)]
    (result,) = measured(tmp_path, ways, [1]).values()
    hits = {run.prompt: run.values["hit@1"].tolist() for run in result.runs}
    assert hits.pop("auto") == hits.pop("auto content") == [0, 1]
    assert hits["auto max"][1] == 1
    assert {way: found[0] for way, found in hits.items() if found[0] != 1} in (
        {},
        {"auto concat": 0},  # where a source that is missing says nothing
    )
    assert set(hits) == {f"auto {way}" for way in Fusion if way is not Fusion.CONTENT}


def test_classes(tmp_path: Path) -> None:
    """Two files of three are told; macro and confusion by hand."""
    painted(tmp_path / "red" / "1.png", "red")
    painted(tmp_path / "red" / "2.png", "red", "blue", "blue", "blue")
    painted(tmp_path / "blue" / "1.png", "blue")
    painted(tmp_path / "green" / "1.png", "green")
    (result,) = measured(tmp_path, [Way(spec_of(colour_encoder()), "auto")], [2]).values()
    (run,) = result.runs
    (plain,), _ = evaluate(read(tmp_path).tasks, [Way(spec_of(colour_encoder()), "auto")], [9])
    assert "accuracy@9" not in plain.runs[0].values
    assert plain.runs[0].figures["accuracy"] == run.figures["accuracy"]
    assert (result.queries, result.items) == (4, 3)
    assert run.classes is not None
    assert run.classes.names == ("blue", "green", "red")
    assert run.classes.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert run.figures["accuracy"].value == 0.75
    assert run.figures["accuracy@2"].value == 1.0
    assert run.figures["macro precision"].value == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert run.figures["macro recall"].value == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert run.figures["macro f1"].value == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert run.figures["macro f1"].low < run.figures["macro f1"].value


def test_damaged_files(data: Path) -> None:
    """They stop the run, or leave with their captions and nothing else."""
    (data / "03.png").write_bytes(b"no picture")
    ways = [Way(spec_of(colour_encoder()), "same", SAME)]
    with pytest.raises(EvaluationError, match=r"1 file.s. cannot be used: '03.png' is not a pict"):
        evaluate(read(data).tasks, ways, [1])
    results, remarks = evaluate(read(data).tasks, ways, [1], skip_missing=True)
    assert remarks == ["left out '03.png': is not a picture in a format that anyseek knows"]
    table = data / "captions.tsv"
    rows = [row for row in table.read_text("utf-8").splitlines(True) if "03.png" not in row]
    table.write_text("".join(rows), "utf-8")
    want, _ = evaluate(read(data).tasks, ways, [1])
    for one, other in zip(results, want, strict=True):
        assert (one.queries, one.items) == (other.queries, other.items)
        assert one.runs[0].figures == other.runs[0].figures


def test_too_few(data: Path) -> None:
    """A k beyond the collection is left out and said; if none is left, that is an error."""
    ways = [Way(spec_of(colour_encoder()), "same", SAME)]
    results, remarks = evaluate(read(data).tasks[:1], ways, [1, 25, 30])
    assert remarks == ["text to image: k = 25, 30 is left out, since there are only 24"]
    assert [name for name in results[0].runs[0].values if "hit" in name] == ["hit@1"]
    with pytest.raises(EvaluationError, match="only 24 to find, fewer than any --k"):
        evaluate(read(data).tasks[:1], ways, [25])


def test_a_model_without_ears(tmp_path: Path) -> None:
    """What it cannot do is left out and said; if that is all, it is an error."""
    tone(tmp_path / "red.wav", "red")
    tone(tmp_path / "blue.wav", "blue")
    painted(tmp_path / "red.png", "red")
    rows = "red.wav\tred\nblue.wav\tblue\n"
    (tmp_path / "captions.tsv").write_text(rows + "red.png\tred\n", "utf-8")
    encoder = colour_encoder()
    deaf = replace(spec_of(encoder), modalities=(Modality.IMAGE, Modality.TEXT))
    results, remarks = evaluate(read(tmp_path).tasks, [Way(deaf, "auto")], [1])
    assert [result.task for result in results] == ["text to image", "image to text"]
    assert remarks[0] == "text to audio: colours has no way for audio; left out"
    (tmp_path / "captions.tsv").write_text(rows, "utf-8")
    with pytest.raises(EvaluationError, match="nothing could be measured: text to audio: colours"):
        evaluate(read(tmp_path).tasks, [Way(deaf, "auto")], [1])
