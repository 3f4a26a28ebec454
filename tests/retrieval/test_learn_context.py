"""Contexts before the words: against open_clip's own arithmetic, and whole trainings."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from retrieval import models  # noqa: E402
from retrieval.asking import USUAL, Asker  # noqa: E402
from retrieval.classify import Classifier  # noqa: E402
from retrieval.errors import MediaError, ModelError  # noqa: E402
from retrieval.labels import typed  # noqa: E402
from retrieval.learn import loop  # noqa: E402
from retrieval.learn.adapter import contexts  # noqa: E402
from retrieval.learn.adapter.adapter import learn  # noqa: E402
from retrieval.learn.adapter.measures import Pairs  # noqa: E402
from retrieval.learn.adapter.request import Request  # noqa: E402
from retrieval.learn.losses import choice  # noqa: E402
from retrieval.store import Store  # noqa: E402
from retrieval.towers import adapted, open_clip, open_clip_files  # noqa: E402
from retrieval.towers.open_clip_context import Steering  # noqa: E402
from retrieval.towers.open_clip_network import build  # noqa: E402
from retrieval.types import Encoder, Modality  # noqa: E402
from tests.conftest import unit_rows  # noqa: E402
from tests.retrieval.open_clip_checkpoints import make  # noqa: E402
from tests.retrieval.test_learn_adapter import (  # noqa: E402
    OTHER,
    captioned,
    paint,
    quiet,
    use_colours,
)

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a dog", "", "Two cats, asleep!", "雪山和狗", "fish and chips " * 40]
BEGIN, END, LONGEST = 49406, 49407, 77  # of CLIP's tokens


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for exports that the module's tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints whose text towers differ: where they look, where they end, how they pool."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {one: make(one, folder) for one in ("vit", "custom", "siglip", "multilingual")}


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def steering(folder: Path, count: int = 4) -> Steering:
    """Reads a checkpoint's text tower."""
    found = open_clip_files.find(f"local-dir:{folder}")
    return Steering(build(found), found, count)


def by_hand(network: Any, ids: list[int], context: Any) -> Any:
    """What CLIP makes of a begin mark, a context, and the rest of the tokens of one text."""
    table = network.token_embedding.weight
    rows = torch.cat([table[ids[:1]], context, table[ids[1:]]])
    x = (rows + network.positional_embedding[: len(rows)])[None]
    mask = torch.full((len(rows), len(rows)), float("-inf")).triu(1)
    x = network.ln_final(network.transformer(x, attn_mask=mask))[0, -1] @ network.text_projection
    return x / x.norm()


# ---- the tower -----------------------------------------------------------------------------------


def test_a_context_stands_between_the_begin_mark_and_the_words(
    checkpoints: dict[str, Path], cache: Path
) -> None:
    """Against the tower's layers one by one; a long text ends at the last place, 76."""
    from open_clip import tokenize

    own = steering(checkpoints["vit"])
    context = torch.randn((4, 32), generator=torch.Generator().manual_seed(0)) * 0.1
    tower = open_clip.load(f"local-dir:{checkpoints['vit']}", cache=cache).towers[Modality.TEXT]
    assert isinstance(tower, open_clip.TextTower)
    exported = tower.steered("vit+by-hand", context.numpy)
    with torch.inference_mode():
        together = own.embed(own.ids(TEXTS), context).numpy()
        for text, row in zip(TEXTS, together, strict=True):
            ids = [one for one in tokenize([text])[0].tolist() if one]
            if len(ids) + 4 > LONGEST:
                ids = [*ids[: LONGEST - 5], END]
            assert ids[0] == BEGIN
            expected = by_hand(own.network, ids, context).numpy()
            assert float(expected @ row) >= 0.9999
            assert float(expected @ exported.embed([text])[0]) >= 0.9999
    longest = own.whole(own.ids(TEXTS))[-1]
    assert (len(longest), int(longest.argmax())) == (LONGEST, LONGEST - 1)
    short = own.whole(own.ids(["a dog"]))[0]
    assert int(short.argmax()) == 1 + 4 + 2


@pytest.mark.parametrize("family", ["vit", "custom", "siglip"])
def test_a_context_of_words_is_a_prompt_of_these_words(
    checkpoints: dict[str, Path], cache: Path, family: str
) -> None:
    """At its start, a name is read as "a photo of a" name; exported as in torch."""
    own = steering(checkpoints[family])
    start = own.start(0)
    base = open_clip.load(f"local-dir:{checkpoints[family]}", cache=cache).towers[Modality.TEXT]
    assert isinstance(base, open_clip.TextTower)
    tower = base.steered(f"{family}+start", lambda: start)
    names = ["dog", "red sofa", "fish"]
    given = tower.embed(names)
    assert (given * base.embed([f"a photo of a {name}" for name in names])).sum(1).min() >= 0.9999
    moved = start + np.float32(0.3) * unit_rows(np.random.default_rng(1), 4, 32)
    steered = base.steered(f"{family}+moved", lambda: moved)
    with torch.inference_mode():
        expected = own.embed(own.ids(TEXTS), torch.from_numpy(moved)).numpy()
    assert (steered.embed(TEXTS) * expected).sum(1).min() >= 0.9999
    assert (tower.embed(TEXTS) * expected).sum(1).max() < 0.9999
    longer = steering(checkpoints[family], 6).start(0)
    np.testing.assert_array_equal(longer[2:], start)
    np.testing.assert_array_equal(steering(checkpoints[family], 2).start(0), start[2:])


def test_gradients_reach_the_context_alone(checkpoints: dict[str, Path]) -> None:
    """The tower stays as it is, and its table gives what it gave."""
    own = steering(checkpoints["vit"])
    before = copy.deepcopy(own.network.state_dict())
    ids = own.ids(["dog", "cat", "fish"])
    plain = own.network.encode_text(own.whole(ids))
    model = contexts.Contexts(own.start(0))
    rng = np.random.default_rng(0)
    names = tuple("dog cat fish dog".split())
    pairs = Pairs(
        Modality.IMAGE,
        unit_rows(rng, 4, 32),
        unit_rows(rng, 4, 32),
        np.arange(4),
        np.array([0, 1, 2, 0]),
        np.array([0, 1, 2, 0]),
        names,
    )
    for made in (contexts.among_classes, contexts.by_captions):
        model.zero_grad()
        made(pairs, own)(model, torch.arange(4)).backward()  # type: ignore[no-untyped-call]
        assert model.vectors.grad is not None
        assert (model.vectors.grad.abs().sum(1) > 0).all()
    assert all(one.grad is None for one in own.network.parameters())
    assert torch.equal(own.network.encode_text(own.whole(ids)), plain)
    for name, one in own.network.state_dict().items():
        assert torch.equal(one, before[name])


def test_the_loss_of_classes_is_the_cross_entropy_among_their_names(
    checkpoints: dict[str, Path],
) -> None:
    """Each name once, however many files, at the model's own temperature."""
    own = steering(checkpoints["vit"])
    rng = np.random.default_rng(2)
    items, classes = unit_rows(rng, 4, 32), np.array([1, 0, 1, 2])
    names = ["cat", "dog", "fish"]
    said = tuple(names[one] for one in classes)
    pairs = Pairs(Modality.IMAGE, items, items, np.arange(4), classes, classes, said)
    model = contexts.Contexts(own.start(0))
    rows = torch.tensor([0, 1, 3])
    with torch.inference_mode():
        given = float(contexts.among_classes(pairs, own)(model, rows))
        vectors = own.embed(own.ids(names), model.vectors).numpy().astype(np.float64)
    logits = np.exp(float(own.network.logit_scale)) * items[rows].astype(np.float64) @ vectors.T
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert given == pytest.approx(-np.log(chances[np.arange(3), classes[rows]]).mean(), rel=1e-4)
    flat = choice(torch.ones(2, 3), torch.ones(5, 3), torch.tensor(7.0), torch.tensor([0, 4]))
    assert float(flat) == pytest.approx(np.log(5))


# ---- whole trainings -----------------------------------------------------------------------------


def request(folder: Path, base: Path, **values: Any) -> Request:
    """Asks for classes of colours that are called like the next colour."""
    for colour, name in OTHER.items():
        for index in range(4):
            paint(folder / "data" / name / f"{index}.png", colour, index)
    asked = Request(
        out=folder / "mine",
        work=folder / "work",
        classes=folder / "data",
        method="context",
        model=f"local-dir:{base}",
        rate=3e-2,
        epochs=60,
        batch=8,
    )
    return replace(asked, **values)


def test_classes_are_told_apart_by_a_context(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of random weights; the same from a training that was interrupted, and from --from."""
    asked = request(tmp_path, checkpoints["vit"])
    losses: list[float] = []

    def report(stage: str, done: int, total: int) -> None:
        if "loss" in stage:
            losses.append(float(stage.partition("loss ")[2].partition(",")[0]))

    card = learn(asked, report)
    assert losses[-1] < 0.7 * losses[0]
    assert (card["method"], card["context"], card["share"]) == ("context", 4, 1.0)
    assert card["dev"]["after"]["mrr"] > 1.5 * card["dev"]["before"]["mrr"]
    assert card["dev"]["after"]["mrr"] > 1.5 * card["dev"]["base"]["mrr"]
    assert "behind 4 learned vectors" in (asked.out / "README.md").read_text("utf-8")

    spec = models.model(str(asked.out))
    base = models.model(asked.model)
    assert spec.space == card["space"]
    assert spec.space.startswith(f"{base.space}+")
    encoder, below = spec.load(), base.load()
    picture = below.towers[Modality.IMAGE]
    pixels = [picture.prepare(one) for one in pictures(tmp_path / "data")]
    seen = encoder.towers[Modality.IMAGE].embed(pixels)
    np.testing.assert_array_equal(seen, picture.embed(pixels))
    names = sorted(OTHER.values())
    told = (seen @ encoder.towers[Modality.TEXT].embed(names).T).argmax(1)
    right = np.array([names.index(name) for name in OTHER.values()])
    assert (told == right).mean() >= 0.75

    class Stop(BaseException):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if "epoch 7:" in stage:
            raise Stop

    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    parts = replace(asked, out=tmp_path / "parts", work=tmp_path / "other")
    with pytest.raises(Stop):
        learn(parts, stop)
    epochs: list[str] = []
    learn(parts, lambda stage, done, total: epochs.append(stage.partition(":")[0]))
    assert "rate 0.03, epoch 8" in epochs
    assert "rate 0.03, epoch 7" not in epochs
    assert (parts.out / "heads.npz").read_bytes() == (asked.out / "heads.npz").read_bytes()

    more = replace(asked, out=tmp_path / "more", start=asked.out, model=None, epochs=1, rate=1e-6)
    again = learn(more, quiet)
    assert again["dev"]["before"] == card["dev"]["after"]
    with pytest.raises(ModelError, match="of another method than linear"):
        learn(replace(more, method="linear"), quiet)


def pictures(folder: Path) -> list[Any]:
    """One picture of each colour, in the order of ``OTHER``."""
    from PIL import Image

    return [Image.open(folder / name / "0.png").convert("RGB") for name in OTHER.values()]


def test_captions_are_learned_and_a_search_needs_no_torch(
    checkpoints: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    """A context from captions; a cold search reads words behind it, and puts them plainly."""
    path = captioned(tmp_path / "data")
    asked = request(tmp_path / "none", checkpoints["custom"], captions=path, classes=None)
    asked = replace(asked, context=2, batch=None, epochs=8)
    card = learn(asked, quiet)
    assert (card["context"], card["share"]) == (2, 1.0)
    assert card["dev"]["after"]["mrr"] > card["dev"]["base"]["mrr"]

    encoder = models.model(str(asked.out)).load()
    assert encoder.plain
    with Store(tmp_path / "plain.db", write=True) as store:
        asker = Asker(store, store.add_space(encoder), encoder, calibrations={})
        assert asker.phrased("red", Modality.IMAGE, USUAL).templates == ("red",)
    classifier = Classifier(encoder, typed("red, green"))
    assert classifier.prompt_for("red", Modality.IMAGE).name == "plain"
    code = """
import sys
from retrieval import models
print(models.model(sys.argv[1]).load().towers["text"].embed(["something red"]).tolist())
heavy = ("torch", "open_clip", "transformers", "timm", "onnx", "PIL")
assert not [name for name in heavy if name in sys.modules]
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(asked.out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = encoder.towers[Modality.TEXT].embed(["something red"])
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), expected, atol=1e-6)


def test_a_context_that_is_worse_than_the_base_is_not_taken(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is the base then, and says so."""
    asked = request(tmp_path, checkpoints["vit"], epochs=1, rate=1e-9)
    monkeypatch.setattr(Steering, "start", lambda own, seed: np.full((4, 32), 9.0, np.float32))
    card = learn(asked, quiet)
    assert (card["context"], card["share"]) == (0, 0.0)
    assert card["dev"]["after"] == card["dev"]["base"]
    assert card["dev"]["before"]["mrr"] < card["dev"]["base"]["mrr"]
    encoder = models.model(str(asked.out)).load()
    base = models.model(asked.model).load()
    assert not encoder.plain
    same, plain = (one.towers[Modality.TEXT].embed(["red"]) for one in (encoder, base))
    np.testing.assert_array_equal(same, plain)


# ---- what is refused -----------------------------------------------------------------------------


def test_bases_and_numbers_that_cannot_be(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names what works, before any file is embedded."""
    asked = request(tmp_path, checkpoints["vit"])
    wrong: list[tuple[Request, str]] = [
        (replace(asked, model=None), "no text tower of open_clip.*use --method linear, mlp or"),
        (
            replace(asked, model=f"local-dir:{checkpoints['multilingual']}"),
            "is one of transformers.*use --method linear, mlp or cache",
        ),
        (replace(asked, context=39), "give --context from 1 to 38"),
        (replace(asked, context=0), "give --context from 1 to 38"),
        (replace(asked, keep=tmp_path / "keep.tsv"), "leave out --keep"),
    ]
    for one, message in wrong:
        with pytest.raises((ModelError, MediaError), match=message) as caught:
            learn(one, quiet)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "mine").exists()
    use_colours(monkeypatch)
    with pytest.raises(ModelError, match="colours has no text tower of open_clip"):
        learn(replace(asked, model="colours"), quiet)


def written(folder: Path, base: str, context: Any, *, count: int) -> Encoder:
    """Writes an adapter with a context by hand, and loads it."""
    folder.mkdir(parents=True)
    content = adapted.packed({Modality.TEXT: {"context": context}})
    (folder / "heads.npz").write_bytes(content)
    spec = models.model(base)
    (folder / "model.toml").write_text(
        f'kind = "adapter"\nname = "mine"\nspace = "{adapted.identity(spec.space, content)}"\n'
        f'dim = {spec.dim}\nbase = "{base}"\nbase_space = "{spec.space}"\nlicence = "own"\n'
        f"context = {count}\n",
        encoding="utf-8",
    )
    return models.model(str(folder)).load()


def test_contexts_that_do_not_fit(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another width or number, or before a tower that reads none."""
    base = f"local-dir:{checkpoints['vit']}"
    made = np.zeros((4, 32), np.float32)
    with pytest.raises(ModelError, match="of 31 numbers does not fit the text tower"):
        written(tmp_path / "a", base, made[:, 1:], count=4).towers[Modality.TEXT].embed(["a"])
    with pytest.raises(ModelError, match="holds no context of 3 vectors"):
        written(tmp_path / "b", base, made, count=3).towers[Modality.TEXT].embed(["a"])
    good = written(tmp_path / "c", base, made, count=4)
    other = written(tmp_path / "d", base, made + 1, count=4)
    assert good.space != other.space
    good.towers[Modality.TEXT].embed(["a"])
    (tmp_path / "c" / "heads.npz").write_bytes((tmp_path / "d" / "heads.npz").read_bytes())
    with pytest.raises(ModelError, match=r"heads\.npz cannot be used"):
        models.model(str(tmp_path / "c")).load().towers[Modality.TEXT].embed(["a"])
    use_colours(monkeypatch)
    with pytest.raises(ModelError, match="which the text tower of colours cannot read"):
        written(tmp_path / "e", "colours", made, count=4)
