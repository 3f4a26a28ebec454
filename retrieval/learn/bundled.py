"""Trains towers from a folder of captioned pictures and writes the files of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
from numpy.typing import NDArray
from torch import Tensor  # noqa: TID253

from retrieval.errors import MediaError
from retrieval.learn import calibration, export, train
from retrieval.learn.backbone import Tail, Trunk, imagenet_state
from retrieval.learn.data import SIDE_PX, Captioned, read_captions, read_pictures
from retrieval.learn.features import Report, every_level, picture_features, text_features
from retrieval.learn.minilm import MiniLM
from retrieval.learn.recipe import Losses, Recipe
from retrieval.learn.vocabulary import NAME_TEMPLATES, class_names, parallel_names
from retrieval.towers import bundled_text
from retrieval.towers.onnx_session import runtime
from retrieval.towers.use import Use

STUDENT_COLUMNS = 1024  # the levels of ``bundled_text.LEVELS`` come first
MIN_PICTURES = 16


@dataclass(frozen=True, slots=True)
class Source:
    """Where the training data lies.

    Attributes:
        captions: Tab-separated file, see ``data.read_captions``.
        images: Folder of the pictures that it names.
        annotations: Folder with names of things in other languages, see
            ``vocabulary.parallel_names``; without it the space is aligned less between languages.
    """

    captions: Path
    images: Path
    annotations: Path | None = None


def learn(
    source: Source, out: Path, recipe: Recipe, *, name: str, seed: int, work: Path, report: Report
) -> dict[str, Any]:
    """Trains and writes ``image.onnx``, ``text.npz`` and ``model.toml`` into ``out``.

    Args:
        source: The training data; the split ``dev`` is only measured and calibrated on.
        out: Folder of the model.
        recipe: Every number of the training.
        name: What the model is called.
        seed: Of everything random. The same seed, versions and number of threads give the same
            model; other machines differ in the last bits.
        work: Folder for features, about 270 MB for each view of 6,000 pictures, and for
            checkpoints; what is there is taken up again.
        report: Told about progress.

    Returns:
        What ``model.toml`` holds.

    Raises:
        MediaError: If captions or pictures cannot be read, or are too few.
        ModelError: If ImageNet weights are missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    splits = read_captions(source.captions)
    pictures, dev = splits.get("train", []), splits.get("dev", [])
    if len(pictures) < MIN_PICTURES or len(dev) < 2:
        raise MediaError(
            f"{source.captions}: {len(pictures)} pictures to train on and {len(dev)} to measure; "
            f"at least {MIN_PICTURES} and 2 are needed"
        )
    report("pictures", 0, len(pictures) + len(dev))
    encoder = Use()
    student, teacher, shift, scale = _corpora(
        source, pictures, recipe, encoder, seed=seed, work=work, report=report
    )
    lesson = None
    if recipe.losses.teacher and recipe.teacher.epochs:
        lesson = _lesson(teacher, recipe, work, report)
    towers = train.train_heads(
        student,
        recipe.space.dim,
        recipe.heads,
        recipe.losses,
        report=report,
        stage="heads",
        lesson=lesson,
        work=work,
    )
    if recipe.tail.epochs:
        towers = train.train_tail(student, towers, recipe, report=report, lesson=lesson, work=work)
    state = imagenet_state(0)
    tail = towers.tail or Tail(state)
    tower = export.ImageTower(Trunk(state), tail, towers.image).eval()
    export.write_image_tower(tower, out / "image.onnx")
    export.write_text_head(towers.text, shift, scale, out / "text.npz")
    return _describe(source, dev, encoder, out, name=name, dim=recipe.space.dim, report=report)


def _corpora(
    source: Source,
    pictures: Sequence[Captioned],
    recipe: Recipe,
    encoder: Use,
    *,
    seed: int,
    work: Path,
    report: Report,
) -> tuple[train.Corpus, train.Corpus, Tensor, Tensor]:
    """Computes all features; the teacher's corpus has wider pictures and texts."""
    pixels = read_pictures(source.images, [one.image for one in pictures])
    views = recipe.pictures.views
    small = picture_features(pixels, work, "train", report=report, views=views, seed=seed)
    large = picture_features(
        pixels,
        work,
        "train",
        report=report,
        variant=recipe.pictures.teacher_variant,
        activations=False,
    )
    captions = [text for one in pictures for text in one.captions]
    first = _offsets([len(one.captions) for one in pictures])
    classes = class_names() if recipe.losses.posterior else [("thing",)]
    names = [
        template.format(name)
        for synonyms in classes
        for name in synonyms
        for template in NAME_TEMPLATES
    ]
    things = parallel_names(source.annotations) if source.annotations else []
    spoken = [text for thing in things for text in thing]

    levels = every_level(encoder)

    def sentences(texts: Sequence[str]) -> Tensor:
        return _floats(text_features(levels, texts, work, "use", report=report))

    raw = sentences(captions)
    shift, scale = raw.mean(0), 2 * raw.std(0) + 0.01
    said = (raw - shift) / scale
    named = ((sentences(names) - shift) / scale).view(-1, len(NAME_TEMPLATES), raw.shape[1])
    width = STUDENT_COLUMNS
    spoken_features = torch.empty(0, 1, width)
    if things:
        spoken_features = ((sentences(spoken) - shift) / scale)[:, :width]
        spoken_features = spoken_features.view(len(things), -1, width)

    # The posterior of the picture itself also serves its views: small and blurry ones should
    # look like the whole.
    opinions = _floats(small.logits[0]).log_softmax(1) + _floats(large.logits[0]).log_softmax(1)
    pooled = _floats(small.pooled)
    pooled_large = _floats(large.pooled).expand(views, -1, -1)
    first_name = _offsets([len(synonyms) for synonyms in classes])
    posterior = (opinions / 2).softmax(1)
    student = train.Corpus(
        pooled=pooled,
        activations=small.activations,
        captions=said[:, :width],
        first=first,
        names=named[..., :width],
        first_name=first_name,
        things=spoken_features,
        posterior=posterior,
    )
    english = _floats(text_features(MiniLM().embed, captions, work, "minilm", report=report))
    also = 20 * english  # about one a column, as the others
    teacher = train.Corpus(
        pooled=torch.cat([pooled, pooled_large], 2),
        activations=[],
        captions=torch.cat([said, also], 1),
        first=first,
        names=named,
        first_name=first_name,
        things=torch.empty(0, 1, width),
        posterior=posterior,
    )
    return student, teacher, shift[:width], scale[:width]


def _lesson(teacher: train.Corpus, recipe: Recipe, work: Path, report: Report) -> train.Lesson:
    """Trains the teacher and embeds the pictures and captions with it."""
    losses = Losses(
        posterior=0.0,
        imagined=0.0,
        alignment=0.0,
        teacher=0.0,
        teacher_scale=1.0,
        average=recipe.losses.average,
    )
    towers = train.train_heads(
        teacher,
        recipe.space.dim,
        recipe.teacher,
        losses,
        report=report,
        stage="teacher",
        work=work,
    )
    with torch.no_grad():
        return train.Lesson(
            towers.image(train.rooted(teacher.pooled[0])), towers.text(teacher.captions)
        )


def _describe(
    source: Source,
    dev: Sequence[Captioned],
    encoder: Use,
    out: Path,
    *,
    name: str,
    dim: int,
    report: Report,
) -> dict[str, Any]:
    """Measures the written files on the split ``dev``, fits the calibration, writes the card."""
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(out / "image.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def embedded(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = [
            session.run(None, {"image": pixels[start : start + 16]})[0]
            for start in range(0, len(pixels), 16)
        ]
        return np.concatenate(rows)

    pixels = read_pictures(source.images, [one.image for one in dev])
    images = embedded(pixels)
    report("measuring", 1, 3)
    report("measuring", 2, 3)
    captions = [text for one in dev for text in one.captions]
    owner = np.repeat(np.arange(len(dev)), [len(one.captions) for one in dev])
    head = bundled_text.read(out / "text.npz")
    hidden = encoder.hidden(captions)
    texts = bundled_text.embed(hidden, head)
    # text to text: each picture's first caption is looked for with its other captions
    starts = np.searchsorted(owner, np.arange(len(dev)))
    later = np.setdiff1d(np.arange(len(captions)), starts)
    if not len(later):
        later = starts
    pairs = {
        ("text", "image"): (texts, images, owner),
        ("text", "text"): (texts[later], texts[starts], owner[later]),
        ("image", "text"): (images, texts[starts], np.arange(len(dev))),
    }
    cosines = {
        kinds: calibration.ranked_pairs(queries, targets, truth)
        for kinds, (queries, targets, truth) in pairs.items()
    }
    cosines["image", "image"] = calibration.alike_pairs(images, hidden["out"], owner)
    fitted: dict[str, dict[str, dict[str, float]]] = {}
    for (query, target), (matches, others) in cosines.items():
        a, b = calibration.fit_logistic(matches, others)
        fitted.setdefault(query, {})[target] = {"a": round(a, 3), "b": round(b, 3)}
    ranks = calibration.places(texts, images, owner)
    card: dict[str, Any] = {
        "name": name,
        "space": export.identity(name, [out / "image.onnx", out / "text.npz"]),
        "dim": dim,
        "image_size": SIDE_PX,
        "preprocessing": export.PREPROCESSING,
        "licence": "weights: research use (trained on Flickr8k); see README.md",
        "dev": {
            "pictures": len(dev),
            "captions": len(captions),
            **{f"r{k}": round(100 * float((ranks < k).mean()), 1) for k in (1, 5, 10)},
        },
        "calibration": fitted,
    }
    (out / "model.toml").write_text(export.toml(card), encoding="utf-8")
    report("measuring", 3, 3)
    return card


def _offsets(counts: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.concatenate(([0], np.cumsum(counts))).astype(np.int64))


def _floats(halves: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(halves.astype(np.float32))
