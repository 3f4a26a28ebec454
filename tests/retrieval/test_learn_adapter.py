"""Adapters: values against definitions, and whole trainings over an encoder that really works."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval import models
from retrieval.calibrate import Calibration
from retrieval.errors import MediaError, ModelError
from retrieval.models import ModelSpec
from retrieval.towers import adapted
from retrieval.types import Encoder, Modality
from tests.conftest import unit_rows
from tests.fakes import COLOURS, DIM, colour_encoder, only

torch = pytest.importorskip("torch")

from retrieval.learn import loop  # noqa: E402
from retrieval.learn.adapter import heads, keys, measures  # noqa: E402
from retrieval.learn.adapter.adapter import learn  # noqa: E402
from retrieval.learn.adapter.fitting import fitted  # noqa: E402
from retrieval.learn.adapter.kept import Kept, digest  # noqa: E402
from retrieval.learn.adapter.material import (  # noqa: E402
    divide,
    groups_of,
    read_captioned,
    read_classes,
)
from retrieval.learn.adapter.measures import Pairs  # noqa: E402
from retrieval.learn.adapter.methods import loss_of  # noqa: E402
from retrieval.learn.adapter.request import Request  # noqa: E402
from retrieval.learn.losses import group_nce, info_nce  # noqa: E402

NAMES = list(COLOURS)
USUAL = Calibration(10.0, -3.0)
OTHER = dict(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True))
"""A language in which every colour is called like the next one."""


def quiet(stage: str, done: int, total: int) -> None:
    """Says nothing."""


def use_colours(monkeypatch: pytest.MonkeyPatch, space: str = "colours-1") -> Encoder:
    """Makes the colour encoder the only model."""
    encoder = colour_encoder(space)
    spec = ModelSpec(
        name="colours",
        space=space,
        dim=DIM,
        modalities=tuple(encoder.towers),
        size_bytes=0,
        licence="none",
        here=True,
        calibrations={(Modality.IMAGE, Modality.IMAGE): USUAL},
        load=lambda: encoder,
    )
    only(monkeypatch, spec)
    return encoder


def paint(path: Path, colour: str, seed: int) -> None:
    """Writes a picture of one colour with a corner of chance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((16, 16, 3), COLOURS[colour], np.uint8)
    pixels[:3, :3] = np.random.default_rng(seed).integers(0, 256, (3, 3, 3))
    Image.fromarray(pixels).save(path)


def captioned(folder: Path, *, each: int = 6, said: dict[str, str] = OTHER) -> Path:
    """Writes pictures of all colours, and a table that calls them by other names."""
    rows = ["image\tsplit\tcaption"]
    for index, colour in enumerate(NAMES * each):
        paint(folder / f"{index}.png", colour, index)
        split = "dev" if index >= DIM * (each - 2) else "train"
        rows.append(f"{index}.png\t{split}\tsomething {said[colour]}, number {index}")
    path = folder / "captions.tsv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def some_pairs(rng: np.random.Generator) -> Pairs:
    """Five items with two texts each; items 0 and 3 are of one group."""
    return Pairs(
        modality=Modality.IMAGE,
        items=unit_rows(rng, 5, 6),
        texts=unit_rows(rng, 10, 6),
        owner=np.repeat(np.arange(5), 2),
        groups=np.array([7, 1, 2, 7, 4]),
        kinds=np.array([0, 1, 2, 3, 4, 5, 0, 6, 7, 8]),
    )


# ---- values --------------------------------------------------------------------------------------


def test_group_loss_is_the_plain_one_where_all_groups_differ() -> None:
    """Without groups in common, nothing is left out."""
    rng = np.random.default_rng(0)
    texts, items = torch.tensor(unit_rows(rng, 6, 5)), torch.tensor(unit_rows(rng, 6, 5))
    scale = torch.tensor(9.0)
    plain = info_nce(texts, items, scale)
    assert float(group_nce(texts, items, scale, torch.arange(6))) == pytest.approx(float(plain))


def test_captions_of_one_group_are_no_negatives_of_each_other() -> None:
    """By hand: rows 0 and 2 mean the same, so neither is in the other's sum."""
    rng = np.random.default_rng(1)
    texts, items = unit_rows(rng, 4, 5), unit_rows(rng, 4, 5)
    groups = np.array([3, 1, 3, 2])
    logits = 5.0 * texts.astype(np.float64) @ items.T
    total = 0.0
    for row in range(4):
        rest = [n for n in range(4) if n == row or groups[n] != groups[row]]
        for some in (logits[row, rest], logits[rest, row]):
            total += np.log(np.exp(some).sum()) - logits[row, row]
    loss = group_nce(
        torch.tensor(texts), torch.tensor(items), torch.tensor(5.0), torch.tensor(groups)
    )
    assert float(loss) == pytest.approx(total / 8, rel=1e-5)


@pytest.mark.parametrize("branch", [False, True])
def test_a_new_head_is_the_identity(branch: bool) -> None:
    """Step 0 equals the base, in torch and in numpy."""
    rows = unit_rows(np.random.default_rng(2), 7, 12)
    torch.manual_seed(0)
    adapter = heads.Adapter(12, [Modality.IMAGE], branch=branch)
    with torch.no_grad():
        mapped = adapter.embed(Modality.IMAGE, torch.tensor(rows)).numpy()
    assert np.allclose(mapped, rows, atol=1e-6)
    assert np.allclose(adapted.apply(adapter.arrays()[Modality.TEXT], rows), rows, atol=1e-6)


@pytest.mark.parametrize("branch", [False, True])
def test_numpy_and_torch_compute_the_same_head(branch: bool) -> None:
    """What a search computes is what was trained."""
    rows = unit_rows(np.random.default_rng(3), 9, 12)
    torch.manual_seed(0)
    head = heads.Head(12, branch=branch)
    for one in head.parameters():
        torch.nn.init.normal_(one, std=0.5)
    with torch.no_grad():
        mapped = head(torch.tensor(rows)).numpy()
    assert np.allclose(adapted.apply(head.arrays(), rows), mapped, atol=1e-5)


def test_a_share_of_a_head_moves_rows_by_that_share() -> None:
    """Before rows are brought to length 1, half the weights move a row half as far."""
    rng = np.random.default_rng(4)
    rows = unit_rows(rng, 4, 6)
    head = {"linear": rng.normal(size=(6, 6)).astype(np.float32), "bias": np.ones(6, np.float32)}
    half = heads.mixed({Modality.TEXT: head}, 0.5)[Modality.TEXT]
    by_hand = rows + 0.5 * (rows @ head["linear"] + 1)
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    assert np.allclose(adapted.apply(half, rows), by_hand, atol=1e-6)
    none = heads.mixed({Modality.TEXT: head}, 0.0)[Modality.TEXT]
    assert np.allclose(adapted.apply(none, rows), rows, atol=1e-6)


def test_places_count_what_lies_before_the_best_answer() -> None:
    """Against a loop over all queries and items."""
    pairs = some_pairs(np.random.default_rng(5))
    got = measures.places(pairs.texts, pairs.items, pairs)
    for text, own in enumerate(pairs.owner):
        cosines = [float(pairs.texts[text] @ item) for item in pairs.items]
        right = [n for n in range(5) if pairs.groups[n] == pairs.groups[own]]
        best = max(cosines[n] for n in right)
        wrong = [n for n in range(5) if n not in right and cosines[n] > best]
        assert got[text] == len(wrong)


def test_names_are_counted_once_however_often_they_are_said() -> None:
    """Items are told by the best of their own texts, among all different ones."""
    pairs = some_pairs(np.random.default_rng(6))
    texts = pairs.texts.copy()
    texts[6] = texts[0]  # the same words are the same vector
    got = measures.named(texts, pairs.items, pairs)
    for item in range(5):
        own = {int(kind) for kind in pairs.kinds[pairs.owner == item]}
        best = {int(k): float(texts[n] @ pairs.items[item]) for n, k in enumerate(pairs.kinds)}
        highest = max(best[kind] for kind in own)
        assert got[item] == sum(best[k] > highest for k in best if k not in own)


def test_cache_logits_equal_the_paper_s_sum() -> None:
    """Against a loop over examples."""
    rng = np.random.default_rng(7)
    cache = keys.Cache(unit_rows(rng, 3, 6), unit_rows(rng, 5, 6), np.array([0, 1, 1, 2, 0]))
    items = unit_rows(rng, 4, 6)
    got = cache.logits(items, 0.7, 5.5)
    for row, item in enumerate(items):
        for kind in range(3):
            near = sum(
                np.exp(-5.5 * (1 - float(item @ cache.examples[n])))
                for n in range(5)
                if cache.classes[n] == kind
            )
            expected = 100 * float(item @ cache.names[kind]) + 0.7 * near
            assert got[row, kind] == pytest.approx(expected, rel=1e-4)


def test_folded_cache_adds_a_class_s_mean_near_its_name() -> None:
    """At a name, the mean of its examples is added whole; other names add a little."""
    rng = np.random.default_rng(8)
    names = np.eye(6, dtype=np.float32)[:2]
    examples = unit_rows(rng, 4, 6)
    cache = keys.Cache(names, examples, np.array([0, 0, 1, 1]))
    got = adapted.apply(cache.folded(2.0, 10.0), names[:1])[0]
    means = [examples[:2].sum(0), examples[2:].sum(0)]
    means = [one / np.linalg.norm(one) for one in means]
    by_hand = names[0] + 2.0 * (means[0] + np.exp(-10.0) * means[1])
    assert np.allclose(got, by_hand / np.linalg.norm(by_hand), atol=1e-5)


def test_cache_is_tuned_to_what_tells_the_classes_apart() -> None:
    """Names say nothing here, so only the examples can."""
    rng = np.random.default_rng(9)
    middles = unit_rows(rng, 3, 16)
    names = np.tile(unit_rows(rng, 1, 16), (3, 1)) + 0.01 * unit_rows(rng, 3, 16)
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    classes = np.arange(30) % 3
    items = middles[classes] + 0.3 * unit_rows(rng, 30, 16)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    cache = keys.Cache(names.astype(np.float32), items[:15], classes[:15])
    single, fold = keys.tune(cache, items[15:], classes[15:])
    assert keys.accuracy(cache.logits(items[15:], *single), classes[15:]) == 100
    assert fold[0] > 0
    assert keys.tune(cache, items[:0], classes[:0]) == (keys.USUAL, keys.FOLD_USUAL)


def test_loss_and_its_error_by_hand() -> None:
    """Two items with two texts each: one loses both, the other gains one."""
    before = np.array([True, True, False, True])
    after = np.array([False, False, True, True])
    mean, error = loss_of(before, after, np.array([5, 5, 8, 8]))
    assert mean == pytest.approx(25)
    # sums of deviations: 200 - 50 = 150, and -100 - 50 = -150
    assert error == pytest.approx(np.sqrt(2 * 150**2) / 4)


def test_relevance_of_answers_is_fitted_above_that_of_others() -> None:
    """A fitted map gives what answers more than what does not, and needs enough items."""
    rng = np.random.default_rng(10)
    items = unit_rows(rng, 80, 32)
    texts = items + 0.6 * unit_rows(rng, 80, 32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    numbers = np.arange(80)
    pairs = Pairs(Modality.IMAGE, items, texts, numbers, numbers, numbers)
    maps = fitted(pairs, texts, items, seed=0)
    one = maps[Modality.TEXT, Modality.IMAGE]
    assert one.a > 0
    assert set(maps) == {(Modality.TEXT, Modality.IMAGE), (Modality.IMAGE, Modality.TEXT)}
    assert fitted(pairs, texts[:30], items[:30], seed=0) == {}


# ---- material ------------------------------------------------------------------------------------


def table(folder: Path, *rows: str) -> Path:
    """Writes a table of captions."""
    path = folder / "captions.tsv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["image\tcaption", "a.png\tred", "gone.png\tblue"], r"1 file \(gone\.png\) not in"),
        (["image\tcaption", "../a.png\tred"], r"line 2: '\.\./a\.png' names no file in"),
        (["image\tcaption", "/etc/passwd\tred"], "line 2: .* names no file in"),
        (["image\tcaption", "a.png\t "], r"1 file \(a\.png\) without a caption"),
        (["image\tcaption", "a.png"], r"without a caption"),
        (["image\tcaption", "a.txt\tred"], "neither a picture nor a sound"),
        (["image\tcaption", "a.png\tred"], "1 captioned files are too few .* at least 16"),
        (["image\tsplit\tcaption", "a.png\tdev\tred", "a.png\ttrain\tred"], "in two splits"),
        (["file\tcaption", "a.png\tred"], "no column named image"),
    ],
)
def test_bad_captions_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    """Each mistake is one line that says where it is."""
    paint(tmp_path / "a.png", "red", 0)
    (tmp_path / "a.txt").write_text("red")
    with pytest.raises(MediaError, match=message) as caught:
        read_captioned(table(tmp_path, *rows))
    assert "\n" not in str(caught.value)


def test_captions_of_another_encoding_are_named(tmp_path: Path) -> None:
    """Latin-1 is not guessed."""
    path = tmp_path / "captions.tsv"
    path.write_bytes("image\tcaption\na.png\tein Kätzchen\n".encode("latin-1"))
    with pytest.raises(MediaError, match=r"not UTF-8 .*: save the file as UTF-8"):
        read_captioned(path)


def test_captions_with_a_mark_of_utf_8_are_read(tmp_path: Path) -> None:
    """What spreadsheets write first is no part of a name."""
    captioned(tmp_path)
    path = tmp_path / "captions.tsv"
    path.write_text(path.read_text("utf-8"), encoding="utf-8-sig")
    assert len(read_captioned(path).things) == 48


def test_bad_classes_are_named(tmp_path: Path) -> None:
    """One class, an empty class, no folder."""
    paint(tmp_path / "red" / "a.png", "red", 0)
    with pytest.raises(MediaError, match="has 1 folder: at least two classes"):
        read_classes(tmp_path)
    (tmp_path / "blue").mkdir()
    with pytest.raises(MediaError, match=r"the class .*blue is empty"):
        read_classes(tmp_path)
    with pytest.raises(MediaError, match="cannot be opened"):
        read_classes(tmp_path / "none")


def test_copies_and_shared_captions_stay_in_one_split(tmp_path: Path) -> None:
    """Nothing is measured on what was learned, whatever its name."""
    rows = ["image\tcaption"]
    for index in range(40):
        paint(tmp_path / f"{index}.png", NAMES[index % 8], index // 2)  # pairs of copies
        (tmp_path / f"{index}.png").write_bytes((tmp_path / f"{index // 2 * 2}.png").read_bytes())
        rows.append(f"{index}.png\tcaption {index % 20}")
    material = read_captioned(table(tmp_path, *rows))
    digests = {thing.path: digest(thing.path) for thing in material.things}
    for seed in range(5):
        things = divide(material, digests, seed=seed).things
        for one in things:
            for other in things:
                alike = digests[one.path] == digests[other.path] or one.texts == other.texts
                assert not alike or one.split == other.split
        assert {thing.split for thing in things} == {"train", "dev"}
    assert len(set(groups_of(material, digests))) < 40


def test_every_class_of_three_has_one_to_measure(tmp_path: Path) -> None:
    """A class of two is all learned from."""
    for count, colour in enumerate(NAMES[:4], 1):
        for index in range(count):
            paint(tmp_path / colour / f"{index}.png", colour, index)
    material = read_classes(tmp_path)
    digests = {thing.path: digest(thing.path) for thing in material.things}
    things = divide(material, digests, seed=1).things
    dev = [thing.texts[0] for thing in things if thing.split == "dev"]
    assert sorted(dev) == sorted([NAMES[2], NAMES[3]])


def test_vectors_are_computed_once_and_a_torn_end_again(tmp_path: Path) -> None:
    """A kill in the middle of a record costs that record."""
    encoder = colour_encoder()
    words = ["red", "blue", "green"]
    first = Kept(tmp_path, encoder).texts(words, report=quiet)
    tower: Any = encoder.towers[Modality.TEXT]
    again = Kept(tmp_path, encoder)
    assert np.array_equal(again.texts(words, report=quiet), first)
    assert tower.embedded == 3
    again.path.write_bytes(again.path.read_bytes()[:-5])
    torn = Kept(tmp_path, encoder)
    assert np.array_equal(torn.texts(words, report=quiet), first)
    assert tower.embedded == 4
    assert np.array_equal(Kept(tmp_path, encoder).texts(words, report=quiet), first)
    assert tower.embedded == 4


# ---- whole trainings -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "mlp"])
def test_an_adapter_learns_a_language_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Colours that are called by other names are found by these, in a space of its own."""
    use_colours(monkeypatch)
    path = captioned(tmp_path / "data")
    out = tmp_path / "mine"
    card = learn(
        Request(out=out, work=tmp_path / "work", captions=path, method=method, rate=3e-2), quiet
    )
    assert tomllib.loads((out / "model.toml").read_text("utf-8")) == card
    assert card["dev"]["base"]["r1"] == 0
    assert card["dev"]["after"]["r1"] == 50  # of two pictures of a colour, either may be first
    spec = models.model(str(out))
    assert spec.space == card["space"]
    assert spec.space.startswith("colours-1+")
    assert spec.calibrations[Modality.IMAGE, Modality.IMAGE] == USUAL
    encoder = spec.load()
    assert set(encoder.towers) == set(Modality)
    tower = encoder.towers[Modality.IMAGE]
    picture = tower.embed([tower.prepare(Image.new("RGB", (16, 16), "red"))])
    words = encoder.towers[Modality.TEXT].embed([f"something {name}" for name in NAMES])
    assert NAMES[int((words @ picture[0]).argmax())] == OTHER["red"]
    assert np.linalg.norm(words, axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    assert "| mrr |" in (out / "README.md").read_text("utf-8")


def test_the_same_request_gives_the_same_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, from new work folders; another seed gives others."""
    use_colours(monkeypatch)
    path = captioned(tmp_path / "data")
    made = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"out{number}"
        request = Request(out=out, work=out / "work", captions=path, seed=seed, rate=1e-3, batch=8)
        learn(request, quiet)
        made.append((out / "heads.npz").read_bytes())
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_an_interrupted_training_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some epochs and run again, it takes fewer steps and gives the same bytes."""
    use_colours(monkeypatch)
    path = captioned(tmp_path / "data")
    whole = Request(out=tmp_path / "whole", work=tmp_path / "w1", captions=path, rate=1e-2, batch=8)
    steps: list[int] = []
    learn(whole, lambda stage, done, total: steps.append(done))

    class Stop(BaseException):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if "epoch 1:" in stage:  # the best is the second
            raise Stop

    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    parts = replace(whole, out=tmp_path / "parts", work=tmp_path / "w2")
    with pytest.raises(Stop):
        learn(parts, stop)
    assert not (tmp_path / "parts" / "model.toml").exists()
    fewer: list[int] = []
    learn(parts, lambda stage, done, total: fewer.append(done))
    assert 0 < len(fewer) < len(steps)
    heads_ = [(tmp_path / name / "heads.npz").read_bytes() for name in ("whole", "parts")]
    assert heads_[0] == heads_[1]


def test_a_rate_is_chosen_on_the_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that were tried, the best is taken."""
    use_colours(monkeypatch)
    request = Request(
        out=tmp_path / "out", work=tmp_path / "work", captions=captioned(tmp_path / "data")
    )
    training = learn(request, quiet)["training"]
    assert training["rates"] == [3e-4, 1e-3, 3e-3]
    assert training["rate"] == training["rates"][int(np.argmax(training["mrr"]))]


@pytest.mark.parametrize("method", ["linear", "cache"])
def test_classes_are_told_apart_after_a_few_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Folders that are called like the next colour."""
    use_colours(monkeypatch)
    for colour, name in OTHER.items():
        for index in range(4):
            paint(tmp_path / "data" / name / f"{index}.png", colour, index)
    request = Request(
        out=tmp_path / "out",
        work=tmp_path / "work",
        classes=tmp_path / "data",
        method=method,
        rate=3e-2,
    )
    card = learn(request, quiet)
    assert card["data"]["train"] == 24
    assert card["dev"]["base"]["accuracy"] == 0
    assert card["dev"]["after"]["accuracy"] == 100
    if method == "cache":
        assert card["cache"]["classifier_accuracy"] == 100
        tower = models.model(str(tmp_path / "out")).load().towers[Modality.IMAGE]
        picture = tower.prepare(Image.new("RGB", (16, 16), "red"))
        base = colour_encoder().towers[Modality.IMAGE].embed([picture])
        assert np.array_equal(tower.embed([picture]), base)  # files stay where they are


def test_one_example_of_a_class_is_learned_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to measure on, and the card says so."""
    use_colours(monkeypatch)
    for colour in NAMES[:3]:
        paint(tmp_path / "data" / colour / "a.png", colour, 0)
    request = Request(out=tmp_path / "out", work=tmp_path / "work", classes=tmp_path / "data")
    card = learn(request, quiet)
    assert card["data"] | {"train": 3, "dev": 0} == card["data"]
    assert "too little to keep a validation split" in (tmp_path / "out/README.md").read_text()


def test_what_is_to_be_kept_limits_what_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other language contradicts the general set: next to nothing of it can be taken."""
    use_colours(monkeypatch)
    path = captioned(tmp_path / "data")
    same = {name: name for name in NAMES}
    general = captioned(tmp_path / "general", each=12, said=same)
    request = Request(
        out=tmp_path / "free", work=tmp_path / "work", captions=path, rate=3e-2, keep=general
    )
    bound = learn(request, quiet)
    keep = bound["keep"]
    assert keep["base"]["r10"] == 100
    assert keep["after"]["r10"] >= 98
    loose = learn(replace(request, out=tmp_path / "loose", margin=100.0), quiet)
    assert loose["share"] >= bound["share"]
    assert loose["dev"]["after"]["mrr"] >= bound["dev"]["after"]["mrr"]


def test_an_adapter_goes_on_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures before are those of the adapter it starts from."""
    use_colours(monkeypatch)
    path = captioned(tmp_path / "data")
    first = Request(out=tmp_path / "one", work=tmp_path / "work", captions=path, rate=3e-2)
    one = learn(first, quiet)
    second = replace(first, out=tmp_path / "two", start=tmp_path / "one", rate=1e-4)
    two = learn(second, quiet)
    assert two["dev"]["before"] == one["dev"]["after"]
    assert two["dev"]["after"]["mrr"] >= two["dev"]["before"]["mrr"]
    with pytest.raises(ModelError, match="another method than mlp"):
        learn(replace(second, method="mlp"), quiet)
    with pytest.raises(ModelError, match="is an adapter itself: start from it with --from"):
        learn(replace(first, model=str(tmp_path / "one")), quiet)


def test_files_that_cannot_be_decoded_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a class of nothing else is an error."""
    use_colours(monkeypatch)
    for colour in NAMES[:2]:
        for index in range(2):
            paint(tmp_path / "data" / colour / f"{index}.png", colour, index)
    broken = tmp_path / "data" / NAMES[0] / "broken.png"
    broken.write_bytes(b"no picture")
    said: list[str] = []
    request = Request(out=tmp_path / "out", work=tmp_path / "work", classes=tmp_path / "data")
    card = learn(request, lambda stage, done, total: said.append(stage))
    assert card["data"]["files"] == 4
    assert any("left out" in stage and "broken.png" in stage for stage in said)
    for index in range(2):
        (tmp_path / "data" / NAMES[0] / f"{index}.png").unlink()
    with pytest.raises(MediaError, match=f"no file of the class {NAMES[0]} can be used"):
        learn(request, quiet)


def test_a_folder_of_another_model_is_not_written_over(tmp_path: Path) -> None:
    """Nor are both kinds of material, or a cache of captions, taken."""
    (tmp_path / "model.toml").write_text('name = "precious"\n')
    request = Request(out=tmp_path, work=tmp_path / "work", captions=tmp_path / "c.tsv")
    with pytest.raises(ModelError, match="belongs to another model"):
        learn(request, quiet)
    with pytest.raises(MediaError, match="a cache needs classes"):
        learn(replace(request, out=tmp_path / "new", method="cache"), quiet)


def test_a_killed_process_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed between two epochs leaves a checkpoint that the next one takes up."""
    captioned(tmp_path / "data", each=3)
    program = f"""
import os, signal, sys
from pathlib import Path
from tests.retrieval.test_learn_adapter import use_colours
import pytest
from retrieval.learn import loop
from retrieval.learn.adapter.adapter import learn
from retrieval.learn.adapter.request import Request
if sys.argv[1] == "die":
    loop.SAVE_EVERY_S = 0.0
with pytest.MonkeyPatch.context() as patch:
    use_colours(patch)
    root = Path({str(tmp_path)!r})
    def report(stage, done, total):
        if sys.argv[1] == "die" and "epoch 1:" in stage:
            os.kill(os.getpid(), signal.SIGKILL)
        print(stage, done)
    learn(Request(out=root / sys.argv[2], work=root / sys.argv[3], rate=1e-2, batch=8,
                  captions=root / "data" / "captions.tsv"), report)
"""
    run: Callable[..., Any] = lambda *arguments: subprocess.run(  # noqa: E731
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run("die", "out", "work").returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "model.toml").exists()
    again = run("live", "out", "work")
    assert (again.returncode, again.stderr) == (0, "")
    assert "epoch 2:" in again.stdout
    assert "epoch 1:" not in again.stdout
    use_colours(monkeypatch)
    whole = Request(
        out=tmp_path / "whole",
        work=tmp_path / "other",
        rate=1e-2,
        batch=8,
        captions=tmp_path / "data" / "captions.tsv",
    )
    learn(whole, quiet)
    first, second = (tmp_path / one / "heads.npz" for one in ("out", "whole"))
    assert first.read_bytes() == second.read_bytes()
