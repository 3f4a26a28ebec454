r"""Fits the plane that tells words from keyboard noise; see ``retrieval.sense``.

    python -m retrieval.learn.sense --captions flickr8k/captions.tsv \
        --sounds audio_captions/audiocaps_train.csv --model retrieval/weights

writes ``sense.npz`` into the model's folder. Words are captions of pictures and of sounds, and the
names of ImageNet's classes, bare and in a phrase; noise is made by formula. Linear discriminant
analysis with a shrunken covariance (Friedman 1989, "Regularized discriminant analysis").
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval.learn.data import read_captions
from retrieval.sense import Sense
from retrieval.towers import bundled
from retrieval.types import Modality, Tower, Vectors

NOISE = 2_000
PICTURES, SOUNDS = 1_000, 600  # captions of each
SHRINKAGE = 0.1  # towards a sphere; between 0.05 and 0.3 what is flagged hardly changes
AT_ONCE = 200

KEYS = (
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertyuiopasdfghjklzxcvbnm",
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789",
    "!@#$%^&*()_+-=[]{};:,.<>?",
)
SCRIPTS = (
    (0x1780, 0x17B3),  # Khmer
    (0x0905, 0x0939),  # Devanagari
    (0x05D0, 0x05EA),  # Hebrew
    (0x10D0, 0x10F0),  # Georgian
    (0x0B85, 0x0BB9),  # Tamil
    (0x1200, 0x1250),  # Ethiopic
    (0x0D85, 0x0DC6),  # Sinhala
    (0x0530, 0x0556),  # Armenian
    (0x0E80, 0x0EB0),  # Lao
    (0x0980, 0x09B0),  # Bengali
)
"""Scripts of languages that the bundled text tower does not know."""


def noise(count: int, seed: int) -> list[str]:
    """Makes texts that mean nothing: three of four from keys, the others in unknown scripts."""
    generator = random.Random(seed)
    texts = []
    for number in range(count):
        if number % 4 == 3:
            low, high = generator.choice(SCRIPTS)
            letters = "".join(map(chr, range(low, high)))
        else:
            letters = generator.choice(KEYS)
        words = [
            "".join(generator.choice(letters) for _ in range(generator.randint(2, 11)))
            for _ in range(generator.randint(1, 5))
        ]
        texts.append(" ".join(words))
    return texts


def embed(tower: Tower, texts: Sequence[str]) -> Vectors:
    """Embeds many texts: ``(n, dim)`` unit rows."""
    rows = []
    for start in range(0, len(texts), AT_ONCE):
        rows.append(tower.embed([tower.prepare(one) for one in texts[start : start + AT_ONCE]]))
    return np.concatenate(rows)


def fit(words: Vectors, gibberish: Vectors) -> Sense:
    """Fits the plane half-way between two clouds of texts, both ``(n, dim)``.

    Both count alike, whatever their numbers.
    """
    one, other = words.astype(np.float64), gibberish.astype(np.float64)
    middle = (one.mean(0) + other.mean(0)) / 2
    covariance = (np.cov(one, rowvar=False) + np.cov(other, rowvar=False)) / 2
    dim = len(covariance)
    round_ = np.trace(covariance) / dim * np.eye(dim)
    normal = np.linalg.solve(
        (1 - SHRINKAGE) * covariance + SHRINKAGE * round_, one.mean(0) - other.mean(0)
    )
    length = np.linalg.norm(normal)
    return Sense((normal / length).astype(np.float32), float(-(middle @ normal) / length))


def words_of(captions: Path, sounds: Path | None, seed: int) -> list[str]:
    """Draws what people say: captions of split ``train``, and names of ImageNet's classes."""
    generator = random.Random(seed)
    said = [text for one in read_captions(captions)["train"] for text in one.captions]
    texts = generator.sample(said, min(PICTURES, len(said)))
    if sounds is not None:
        with sounds.open(encoding="utf-8", newline="") as file:
            heard = [row["caption"] for row in csv.DictReader(file)]
        texts += generator.sample(heard, min(SOUNDS, len(heard)))
    names = class_words()
    return [*texts, *names, *(f"a photo of a {name}" for name in names)]


def class_words() -> list[str]:
    """Lists the commonest names of ImageNet's classes."""
    listed = Path(__file__).with_name("imagenet.txt").read_text("utf-8").splitlines()
    return [line.split(",")[0].strip() for line in listed]


def write(sense: Sense, folder: Path) -> None:
    """Writes ``sense.npz`` into a model's folder."""
    offset = np.float64(sense.offset)
    np.savez(folder / "sense.npz", allow_pickle=False, normal=sense.normal, offset=offset)


def main() -> None:
    """Reads the arguments, fits and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--sounds", type=Path)
    parser.add_argument("--model", type=Path, default=bundled.WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tower = bundled.load(options.model).towers[Modality.TEXT]
    words = embed(tower, words_of(options.captions, options.sounds, options.seed))
    write(fit(words, embed(tower, noise(NOISE, options.seed))), options.model)


if __name__ == "__main__":
    main()
