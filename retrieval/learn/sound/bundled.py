"""Trains an audio tower into the space of a finished model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.typing import NDArray

from retrieval.errors import MediaError
from retrieval.learn.atomic import digest_of, read_arrays, write_arrays
from retrieval.learn.export import halve, to_onnx
from retrieval.learn.features import Report
from retrieval.learn.sound.clips import (
    Bank,
    Clip,
    Floats,
    listen,
    plan_units,
    read_esc50,
    read_extra,
)
from retrieval.learn.sound.distil import distil
from retrieval.learn.sound.mixes import Mixer
from retrieval.learn.sound.placing import AT_ONCE, Heard, hear, place
from retrieval.learn.sound.recipe import Recipe
from retrieval.learn.sound.student import Head, Student, Trunk
from retrieval.learn.sound.teacher import Teacher
from retrieval.learn.sound.words import Vocabulary, embed_words, read_classes, read_vocabulary
from retrieval.towers import bundled
from retrieval.towers.bundled_audio import FRAMES, MELS, over_mean
from retrieval.types import Modality

TEACHER = "mn04_as_mAP_432.pt"
CLASSES = "audioset_class_labels.csv"
PHRASES = 4
"""Phrasings of the names of AudioSet's classes that are averaged."""

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
        work: Folder for what several trainings share, about 3 GB; reused if there.
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
    teacher = Teacher(source.teachers / TEACHER).to(memory_format=torch.channels_last)
    labelled = read_esc50(source.esc50)
    left_out = left_out_kinds(labelled)
    others = [
        Clip(Path(), kind, 0, "synthetic", number)
        for kind in vocabulary.synthetic
        for number in range(recipe.sounds.synthetic)
    ]
    if source.extra is not None:
        others += read_extra(source.extra, most=recipe.sounds.most, seed=seed)
    sounds = recipe.sounds
    wild = listen(plan_units(others, speeds=0, dull=sounds.dull, seed=seed), work, report=report)
    tame = listen(
        plan_units(labelled, speeds=sounds.speeds, dull=0, seed=seed), work, report=report
    )
    if not len(wild.units):
        raise MediaError("there are no sounds but the labelled ones to learn from")
    opinion = _alike(wild, teacher, vocabulary, classes, left_out, work=work, report=report)
    rows = np.flatnonzero(~_named(wild, left_out) & (opinion < recipe.sounds.near))
    trunk = _trunk(wild, rows, teacher, recipe, seed=seed, work=work, report=report)

    tower = bundled.load(source.model).towers[Modality.TEXT]
    texts = embed_words(vocabulary, classes, tower)
    heard = [
        _heard(trunk, bank, views=views, seed=seed, work=work, report=report)
        for bank, views in ((wild, 1), (tame, sounds.views))
    ]
    kind = [_kinds(bank, vocabulary) for bank in (wild, tame)]
    keep = np.array([unit.clip.fold != leave_fold for unit in tame.units])
    known = list(range(len(vocabulary.kinds)))
    if leave_kinds:
        forbidden = [vocabulary.kinds.index(one) for one in left_out]
        keep &= ~np.isin(kind[1], forbidden)
        known = [one for one in known if one not in forbidden]
    both = Heard(
        np.concatenate([heard[0].unit, heard[1].unit + len(wild.units)]),
        np.concatenate([heard[0].features, heard[1].features]),
        np.concatenate([heard[0].logits, heard[1].logits]),
    )
    used = np.concatenate([np.isin(np.arange(len(wild.units)), rows), keep])[both.unit]
    label = np.concatenate(kind)[both.unit]
    if not (used & (label >= 0)).any():
        raise MediaError(f"{source.esc50}: there is nothing left to learn from")
    names = torch.from_numpy(texts.classes[:PHRASES].mean(axis=0))
    names = F.normalize(names, dim=1)
    told = np.flatnonzero(used & (label >= 0))
    torch.manual_seed(seed)
    head = place(
        Head(names - names.mean(0), recipe.network.hidden),
        both,
        told,
        label[told],
        np.flatnonzero(used & (label < 0)),
        texts,
        known,
        recipe.place,
        seed=seed,
        report=report,
    )
    path = out / "audio.onnx"
    write_audio_tower(Student(trunk, head), path)
    return path


def _kinds(bank: Bank, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Gives each unit's number in the vocabulary, or -1."""
    numbers = {kind: number for number, kind in enumerate(vocabulary.kinds)}
    return np.array([numbers.get(unit.clip.kind, -1) for unit in bank.units], np.int64)


def _named(bank: Bank, left_out: Sequence[str]) -> NDArray[np.bool_]:
    """Tells which units may be of a left-out category by their file's name."""
    words = {word for kind in left_out for word in kind.split()}
    return np.array(
        [
            not unit.clip.kind and any(word in unit.clip.path.stem.lower() for word in words)
            for unit in bank.units
        ]
    )


@torch.no_grad()
def _alike(
    bank: Bank,
    teacher: Teacher,
    vocabulary: Vocabulary,
    classes: Sequence[str],
    left_out: Sequence[str],
    *,
    work: Path,
    report: Report,
) -> Floats:
    """Gives the teacher's highest probability of a left-out category's classes, for each unit.

    No training hears what is likely, so that one trunk serves those that leave categories out, too.
    """
    alike = [classes.index(name) for kind in left_out for name in vocabulary.like.get(kind, ())]
    key = f"{alike} {bank.units}"
    path = work / f"alike-{digest_of(key.encode())}.npz"
    saved = read_arrays(path)
    if saved:
        return saved["opinion"]
    opinion = np.empty(len(bank.units), np.float32)
    for start in range(0, len(opinion), AT_ONCE):
        power = bank.power[start : start + AT_ONCE].astype(np.float32)
        mel = np.stack([over_mean(np.exp(one)) for one in power])
        answers = teacher(torch.from_numpy(mel))[1].sigmoid()[:, alike]
        opinion[start : start + AT_ONCE] = answers.amax(1).numpy()
        report("asking the teacher", min(start + AT_ONCE, len(opinion)), len(opinion))
    write_arrays(path, {"opinion": opinion})
    return opinion


def _trunk(
    bank: Bank,
    rows: NDArray[np.int64],
    teacher: Teacher,
    recipe: Recipe,
    *,
    seed: int,
    work: Path,
    report: Report,
) -> Trunk:
    """Trains the trunk, or takes up what an earlier training left in the work folder."""
    torch.manual_seed(seed)
    trunk = Trunk(teacher.steps, teacher.hidden.out_features, recipe.network.wide)
    mixer = Mixer(bank, rows, seed=seed)
    number = 0
    told = f"{recipe.network} {recipe.losses} {seed} {[str(bank.units[row]) for row in rows]}"
    key = hashlib.sha256(told.encode())
    for part, stage in enumerate(recipe.stages, 1):
        key.update(str(stage).encode())
        path = work / f"trunk-{key.hexdigest()[:16]}.npz"
        saved = read_arrays(path)
        if saved:
            trunk.load_state_dict({name: torch.from_numpy(one) for name, one in saved.items()})
        else:
            trunk = distil(
                trunk,
                teacher,
                mixer,
                stage,
                recipe.losses,
                first_number=number,
                work=work,
                report=report,
                name=f"trunk part {part} of {len(recipe.stages)}",
            )
            write_arrays(path, {name: one.numpy() for name, one in trunk.state_dict().items()})
        if not stage.mixtures:  # what is heard again may serve the next part, too
            number += stage.steps * stage.batch
    return trunk.eval()


def _heard(trunk: Trunk, bank: Bank, *, views: int, seed: int, work: Path, report: Report) -> Heard:
    """Hears a bank, or takes up what an earlier training heard."""
    key = hashlib.sha256(f"{views} {seed} {bank.units}".encode())
    for one in trunk.state_dict().values():
        key.update(one.numpy().tobytes())
    path = work / f"heard-{key.hexdigest()[:16]}.npz"
    saved = read_arrays(path)
    if saved:
        return Heard(saved["unit"], saved["features"], saved["logits"])
    heard = hear(trunk, bank, views=views, seed=seed, report=report)
    write_arrays(path, {"unit": heard.unit, "features": heard.features, "logits": heard.logits})
    return heard


def write_audio_tower(student: Student, path: Path) -> None:
    """Writes ``audio.onnx``: input ``mel`` ``(n, 1000, 128)``, output ``embedding``."""
    plain = student.to(memory_format=torch.contiguous_format).eval()
    to_onnx(plain, torch.zeros(2, FRAMES, MELS), path, inputs=["mel"], outputs=["embedding"])
    halve(path)
