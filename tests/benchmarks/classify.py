"""How often labels are right, whether their probabilities are, and what fits none; prints JSON.

    python -m tests.benchmarks.classify --data DIR --pairs DIR --work DIR

``--data`` and ``--pairs`` are those of ``prompts.py``, and vectors of media are kept in ``--work``
under the same names. Everything goes through ``retrieval.classify.Classifier``.

What is told apart
    ``image``: photographs of Flickr8k's split ``dev`` by twenty nouns. A photograph counts if three
    of its five captions hold one of the nouns, and none holds another. ``text``: the captions of
    these photographs that hold the noun. ``esc50``: the clips of ESC-50 by the names of its 50
    classes, on which the model was trained, so the figures flatter. ``pairs``: 102 sounds of
    ``tri_modal.py``, on which it was not trained, by their 102 names.

``temperature, fitted`` has the least mean negative log likelihood over all files, and a tenth of
the files that have a label fall below ``threshold, fitted``. Of sounds, what is used lies between
those of ``esc50`` and ``pairs``. For ``unknown``, half of the classes are taken out, eight times;
the threshold is fitted on every other file, and the figures are of the rest.

Measures
    ``top_1``, ``top_3``: files in % whose label is the first, or among three. ``said``: the mean
    probability of the first label in %. ``ece``: expected calibration error in %, the mean
    difference between what is said and what is right over ten bins of equal width, weighted by
    their files; ``crossed`` with the temperature fitted on the other half of the files. ``auroc``:
    that a file of a known class fits better than one of a class taken out, by the odds against
    plain words (``fit``), by the greatest probability, or by the greatest cosine. ``flagged``:
    files of classes taken out that ``--unknown`` calls so, in %; ``known_kept``: files of other
    classes that it does not, in %.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import classify
from retrieval.classify import Classifier
from retrieval.labels import Label, LabelSet
from retrieval.learn.data import Captioned, read_captions, read_picture
from retrieval.learn.sound.clips import read_esc50
from retrieval.models import model
from retrieval.prompts import bundled
from retrieval.types import Encoder, Modality, Vectors
from tests.benchmarks.prompts import kept, listened

NOUNS = (
    "dog snow bicycle skateboard surfer beach car horse soccer basketball motorcycle climber "
    "swimming_pool crowd boat football tent mountain grass baby"
).split()
SAID = 3  # captions of five
DRAWS = 8
KEPT = 0.9  # of what has a label
SETS = {
    Modality.IMAGE: ("plain", "name", "photo", "scene"),
    Modality.TEXT: ("plain", "name", "passage"),
    Modality.AUDIO: ("plain", "name", "sound"),
}

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Task:
    """Files with their classes.

    Attributes:
        modality: Of the files.
        vectors: ``(n, dim)`` unit rows.
        truth: ``(n,)``, the number of each file's label.
        labels: Names.
    """

    modality: Modality
    vectors: Vectors
    truth: NDArray[np.int64]
    labels: tuple[str, ...]

    def half(self, which: int) -> Task:
        """Gives every other file."""
        return Task(self.modality, self.vectors[which::2], self.truth[which::2], self.labels)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("data", "pairs", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    encoder = model().load()
    tasks = read(encoder, options.data, options.pairs, options.work)
    report: dict[str, Any] = {"space": encoder.space}
    for name, task in tasks.items():
        report[name] = measured(encoder, task)
    print(json.dumps(report, indent=2))


def read(encoder: Encoder, data: Path, pairs: Path, work: Path) -> dict[str, Task]:
    """Reads and embeds everything."""
    folder = data / "flickr8k"
    said = read_captions(folder / "captions.tsv")["dev"]
    tower = encoder.towers[Modality.IMAGE]
    pictures = kept(
        work / "dev_images.npy",
        lambda: np.concatenate(
            [tower.embed([read_picture(folder / "images" / one.image)]) for one in said]
        ),
    )
    nouns = tuple(noun.replace("_", " ") for noun in NOUNS)
    rows, truth, texts, spoken = single(said, nouns)
    words = encoder.towers[Modality.TEXT]
    clips = read_esc50(data / "esc50")
    kinds = sorted({clip.kind for clip in clips})
    names = tuple(kind.replace("_", " ") for kind in kinds)
    heard = kept(work / "esc50.npy", lambda: listened([clip.path for clip in clips], encoder))
    with (pairs / "pairs.tsv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    others = kept(
        work / "pairs.npy", lambda: listened([pairs / row["sound"] for row in table], encoder)
    )
    return {
        "image": Task(Modality.IMAGE, pictures[rows], truth, nouns),
        "text": Task(
            Modality.TEXT, words.embed([words.prepare(text) for text in texts]), spoken, nouns
        ),
        "esc50": Task(
            Modality.AUDIO, heard, np.array([kinds.index(clip.kind) for clip in clips]), names
        ),
        "pairs": Task(
            Modality.AUDIO, others, np.arange(len(table)), tuple(row["name"] for row in table)
        ),
    }


def single(
    said: Sequence[Captioned], nouns: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str], NDArray[np.int64]]:
    """Finds the photographs of one noun alone, and their captions that say it."""
    patterns = [re.compile(rf"\b{noun}", re.IGNORECASE) for noun in nouns]
    counts = np.array(
        [[sum(bool(p.search(text)) for text in one.captions) for p in patterns] for one in said]
    )
    rows = np.flatnonzero((counts.max(axis=1) >= SAID) & ((counts > 0).sum(axis=1) == 1))
    truth = counts[rows].argmax(axis=1)
    spoken = [
        (text, noun)
        for row, noun in zip(rows.tolist(), truth.tolist(), strict=True)
        for text in said[row].captions
        if patterns[noun].search(text)
    ]
    return rows, truth, [text for text, _ in spoken], np.array([noun for _, noun in spoken])


def measured(encoder: Encoder, task: Task) -> dict[str, Any]:
    """Gives all figures of one task."""
    figures: dict[str, Any] = {"files": len(task.truth), "labels": len(task.labels)}
    figures["top_1 by prompt set"] = {
        name: accuracy(judge(encoder, task.labels, name), task) for name in SETS[task.modality]
    }
    judging = judge(encoder, task.labels)
    labels = judging.label_vectors(task.modality)
    figures["temperature, fitted"] = round(fitted(task, labels), 4)
    figures["temperature, used"] = classify.TEMPERATURES[task.modality]
    probabilities = judging.probabilities(task.vectors, task.modality)
    order = np.argsort(-probabilities, axis=1)
    figures["top_1"] = percent((order[:, 0] == task.truth).mean())
    figures["top_3"] = percent((order[:, :3] == task.truth[:, None]).any(axis=1).mean())
    figures["said"] = percent(probabilities.max(axis=1).mean())
    figures["ece"] = percent(ece(probabilities, task.truth))
    crossed = np.empty(probabilities.shape)
    for which in (0, 1):
        temperature = fitted(task.half(1 - which), labels)
        crossed[which::2] = softmax(task.half(which).vectors @ labels.T / temperature)
    figures["ece, crossed"] = percent(ece(crossed, task.truth))
    return figures | unknown(encoder, task)


def fitted(task: Task, labels: Vectors) -> float:
    """Gives the temperature with the least mean negative log likelihood."""
    cosines = task.vectors @ labels.T
    rows = np.arange(len(task.truth))
    steps = [float(step) for step in np.geomspace(0.01, 0.2, 121)]
    losses = [-np.log(softmax(cosines / t)[rows, task.truth] + 1e-12).mean() for t in steps]
    return steps[int(np.argmin(losses))]


def unknown(encoder: Encoder, task: Task) -> dict[str, Any]:
    """Takes out half of the classes, and asks what is left about all files."""
    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for _ in range(DRAWS):
        stay = np.sort(generator.permutation(len(task.labels))[: len(task.labels) // 2])
        judging = judge(encoder, [task.labels[at] for at in stay])
        fits = {}
        for which in (0, 1):
            half = task.half(which)
            known = np.isin(half.truth, stay)
            fits[which] = judging.fits(half.vectors, task.modality), known, half
        fit, known, _ = fits[0]
        threshold = float(np.quantile(fit[known], 1 - KEPT))
        fit, known, half = fits[1]
        used = classify.UNKNOWN_BELOW[task.modality]
        best = judging.probabilities(half.vectors, task.modality).max(axis=1)
        cosine = (half.vectors @ judging.label_vectors(task.modality).T).max(axis=1)
        for name, value in (
            ("threshold, fitted", threshold),
            ("auroc, fit", auroc(fit, known)),
            ("auroc, probability", auroc(best, known)),
            ("auroc, cosine", auroc(cosine, known)),
            ("flagged", float((fit[~known] < used).mean())),
            ("known_kept", float((fit[known] >= used).mean())),
        ):
            found.setdefault(name, []).append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return {
        "unknown": {
            "threshold, used": classify.UNKNOWN_BELOW[task.modality],
            **{
                name: percent(mean) if name in ("flagged", "known_kept") else round(mean, 3)
                for name, mean in means.items()
            },
        }
    }


def judge(encoder: Encoder, names: Sequence[str], prompt: str | None = None) -> Classifier:
    """Makes a classifier of bare names."""
    labels = LabelSet("labels", tuple(Label(name, (name,)) for name in names))
    return Classifier(encoder, labels, prompt=bundled()[prompt] if prompt else None)


def accuracy(judging: Classifier, task: Task) -> float:
    """Gives the files in % whose nearest label is their own."""
    nearest = (task.vectors @ judging.label_vectors(task.modality).T).argmax(axis=1)
    return percent((nearest == task.truth).mean())


def softmax(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Gives rows that add up to 1."""
    powers = np.exp(rows - rows.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def ece(probabilities: NDArray[np.floating], truth: NDArray[np.int64], bins: int = 10) -> float:
    """Gives the expected calibration error of the first label (Guo et al. 2017)."""
    said = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    places = np.minimum((said * bins).astype(int), bins - 1)
    total = 0.0
    for place in range(bins):
        some = places == place
        if some.any():
            total += some.mean() * abs(said[some].mean() - right[some].mean())
    return float(total)


def auroc(scores: NDArray[np.floating], positive: Flags) -> float:
    """Gives the chance that a positive one has the higher score; ties count half."""
    high, low = scores[positive], scores[~positive]
    wins = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    return float(wins)


def percent(share: Any) -> float:
    """Writes a share with a decimal."""
    return round(100 * float(share), 1)


if __name__ == "__main__":
    main()
