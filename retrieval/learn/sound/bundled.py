"""Trains an audio tower into the space of a finished model and writes the model's files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
from numpy.typing import NDArray

from retrieval.errors import MediaError
from retrieval.learn.export import halve, to_onnx
from retrieval.learn.sound import mixes, train
from retrieval.learn.sound.clips import (
    Bank,
    Clip,
    Report,
    listen,
    plan_units,
    read_esc50,
    read_extra,
)
from retrieval.learn.sound.mixes import Mixes
from retrieval.learn.sound.polish import choose, polish
from retrieval.learn.sound.recipe import Recipe
from retrieval.learn.sound.student import Student
from retrieval.learn.sound.words import (
    Texts,
    Vocabulary,
    embed_words,
    read_classes,
    read_vocabulary,
)
from retrieval.towers import bundled
from retrieval.towers.bundled_audio import FRAMES, MELS
from retrieval.types import Modality

TEACHER = "mn04_as_mAP_432.pt"
CLASSES = "audioset_class_labels.csv"
LEFT_OUT_EVERY = 5
"""Of ESC-50's categories in the data set's order, every fifth can be left out, from the first."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the training data lies.

    Attributes:
        esc50: Folder with ``esc50.csv`` and ``audio``.
        teachers: Folder with the teacher's weights and the list of AudioSet's classes.
        extra: Folder with ``files.tsv`` and other sounds, of which nothing is known.
        model: Folder of the model whose texts and pictures the sounds shall join.
    """

    esc50: Path
    teachers: Path
    extra: Path | None = None
    model: Path = bundled.WEIGHTS


@dataclass(frozen=True, slots=True)
class Corpus:
    """Mixtures with everything known of them, row by row.

    Attributes:
        lessons: What the student is taught.
        fold: ``(m,)``: the ESC-50 fold that a mixture's sounds are from, or 0.
        alone: ``(m,)``: whether it is of one sound only.
        near: ``(m,)``: whether a sound without a label seems to be of a left-out category.
    """

    lessons: train.Lessons
    fold: NDArray[np.int64]
    alone: NDArray[np.bool_]
    near: NDArray[np.bool_]


def left_out_kinds(clips: Sequence[Clip]) -> list[str]:
    """Gives the categories that can be left out: every fifth of the data set's numbers.

    ESC-50's file names end in a category's number: ``1-100032-A-0.ogg`` is of category 0.
    """
    numbers = {
        int(clip.path.stem.rsplit("-", 1)[1]): clip.kind for clip in clips if clip.group == "esc50"
    }
    return [numbers[number] for number in sorted(numbers) if number % LEFT_OUT_EVERY == 0]


def learn(
    source: Source,
    out: Path,
    recipe: Recipe,
    *,
    leave_fold: int = 0,
    leave_kinds: bool = False,
    seed: int = 0,
    work: Path,
    report: Report,
) -> Path:
    """Trains an audio tower and writes ``audio.onnx`` into ``out``.

    Args:
        source: The training data.
        out: Folder of the model.
        recipe: Every number of the training.
        leave_fold: An ESC-50 fold whose sounds are not heard, or 0.
        leave_kinds: Whether every fifth category is not heard, and nothing like it.
        seed: Of everything random. The same seed, versions and number of threads give the same
            model; other machines differ in the last bits.
        work: Folder for what several trainings share, about 8 GB; reused if there.
        report: Told about progress.

    Returns:
        The file.

    Raises:
        MediaError: If a list or a sound cannot be read, or there is nothing to learn from.
        ModelError: If the teacher, or the model to join, is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    vocabulary = read_vocabulary()
    classes = read_classes(source.teachers / CLASSES)
    clips = read_esc50(source.esc50)
    left_out = left_out_kinds(clips)
    if source.extra is not None:
        clips += read_extra(source.extra, most=recipe.sounds.most, seed=seed)
    clips += [
        Clip(Path(), kind, 0, "synthetic", number)
        for kind in vocabulary.synthetic
        for number in range(recipe.sounds.synthetic)
    ]
    bank = listen(plan_units(clips, speeds=recipe.sounds.speeds, seed=seed), work, report=report)
    made = [
        mixes.make(
            bank,
            source.teachers / TEACHER,
            work,
            count=recipe.sounds.mixes,
            seed=seed + batch,
            report=report,
        )
        for batch in range(recipe.sounds.batches)
    ]
    corpus = gather(bank, made, vocabulary, classes, left_out, near=recipe.sounds.near)
    tower = bundled.load(source.model).towers[Modality.TEXT]
    texts = embed_words(vocabulary, classes, tower)
    every = list(range(len(vocabulary.kinds)))
    forbidden = [vocabulary.kinds.index(kind) for kind in left_out]

    start = _first(corpus, texts, vocabulary, recipe, seed=seed, work=work, report=report)
    keep = corpus.fold != leave_fold if leave_fold else np.ones(len(corpus.fold), bool)
    known = every
    if leave_kinds:
        keep &= ~corpus.near
        keep &= (corpus.lessons.kinds[:, forbidden].sum(1) == 0).numpy()
        known = [kind for kind in every if kind not in forbidden]
    place = corpus.lessons.place[:, 1]
    keep &= (corpus.fold > 0) | (place % recipe.second.every == 0)
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise MediaError(f"{source.esc50}: there is nothing left to learn from")
    student = train.train(
        start,
        corpus.lessons,
        rows,
        texts,
        known,
        recipe.second,
        recipe.losses,
        seed=seed,
        report=report,
        name="second training",
    )
    chosen = choose(corpus.lessons, corpus.alone, corpus.fold > 0, rows, recipe.polish, seed=seed)
    student = polish(
        student, corpus.lessons, chosen, texts, known, recipe.polish, seed=seed, report=report
    )
    path = out / "audio.onnx"
    write_audio_tower(student, path)
    return path


def gather(
    bank: Bank,
    made: Sequence[Mixes],
    vocabulary: Vocabulary,
    classes: Sequence[str],
    left_out: Sequence[str],
    *,
    near: float,
) -> Corpus:
    """Brings together what is known of all mixtures.

    Args:
        bank: The sounds.
        made: Batches of mixtures of them.
        vocabulary: Names of kinds, and the AudioSet classes that are like them.
        classes: AudioSet's classes in the teacher's order.
        left_out: Categories that a training may leave out.
        near: The teacher's probability of a class like those from which on a mixture counts as
            one that holds such a sound.
    """
    unit_kind = np.array(
        [vocabulary.kinds.index(unit.clip.kind) if unit.clip.kind else -1 for unit in bank.units]
        + [-1]
    )
    unit_fold = np.array([unit.clip.fold for unit in bank.units] + [0])
    words = {word for kind in left_out for word in kind.split()}
    named = [
        not unit.clip.kind and any(word in unit.clip.path.stem.lower() for word in words)
        for unit in bank.units
    ]
    unit_named = np.array([*named, False])
    parts = np.concatenate([batch.parts for batch in made])
    shares = np.concatenate([batch.shares for batch in made])
    features = np.concatenate([batch.features for batch in made]).astype(np.float32)
    logits = np.concatenate([batch.logits for batch in made]).astype(np.float32)
    kinds = np.zeros((len(parts), len(vocabulary.kinds)), np.float32)
    for column in range(parts.shape[1]):
        kind = unit_kind[parts[:, column]]  # -1, where there is no part, is the last
        rows = np.flatnonzero(kind >= 0)
        kinds[rows, kind[rows]] += shares[rows, column]
    alike = [classes.index(name) for kind in left_out for name in vocabulary.like.get(kind, ())]
    logit = np.log(near / (1 - near))
    suspect = (logits[:, alike] > logit).any(axis=1) if alike else np.zeros(len(parts), bool)
    place = [(array, row) for array, batch in enumerate(made) for row in range(len(batch.parts))]
    spread = features.std(axis=0) + 1e-3
    return Corpus(
        train.Lessons(
            [batch.mel for batch in made],
            np.array(place),
            torch.from_numpy((features - features.mean(axis=0)) / spread),
            torch.from_numpy(logits),
            torch.from_numpy(kinds),
        ),
        unit_fold[parts].max(axis=1),
        np.asarray((parts[:, 1:] < 0).all(axis=1)),
        suspect | unit_named[parts].any(axis=1),
    )


def _first(
    corpus: Corpus,
    texts: Texts,
    vocabulary: Vocabulary,
    recipe: Recipe,
    *,
    seed: int,
    work: Path,
    report: Report,
) -> Student:
    """Trains on sounds of no ESC-50 fold and of no left-out category; all trainings go on there."""
    torch.manual_seed(seed)
    network = recipe.network
    dim = texts.kinds.shape[2]
    student = Student(network.widths, dim, network.hidden, network.dropout)
    student.to(memory_format=torch.channels_last)
    rows = np.flatnonzero((corpus.fold == 0) & ~corpus.near)
    if not recipe.first.steps or not len(rows):
        return student
    lessons = corpus.lessons
    key = hashlib.sha256(f"{recipe} {seed} {lessons.place.shape}".encode())
    for values in (lessons.features, lessons.kinds):
        key.update(values.numpy().tobytes())
    path = work / f"first-{key.hexdigest()[:16]}.pt"
    if path.exists():
        student.load_state_dict(torch.load(path, weights_only=True))
        return student
    known = [vocabulary.kinds.index(kind) for kind in vocabulary.synthetic]
    trained = train.train(
        student,
        lessons,
        rows,
        texts,
        known,
        recipe.first,
        recipe.losses,
        seed=seed,
        report=report,
        name="first training",
    )
    torch.save(trained.state_dict(), path)
    return trained


def write_audio_tower(student: Student, path: Path) -> None:
    """Writes ``audio.onnx``: input ``mel`` ``(n, 1000, 64)``, output ``embedding``."""
    plain = student.to(memory_format=torch.contiguous_format).eval()
    to_onnx(plain, torch.zeros(2, FRAMES, MELS), path, inputs=["mel"], outputs=["embedding"])
    halve(path)
