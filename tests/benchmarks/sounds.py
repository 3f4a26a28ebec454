r"""What audio towers hear, measured with the class names as texts; prints JSON.

    for n in 1 2 3 4; do
        anyseek learn sound --esc50 DIR --teachers DIR --extra DIR --leave-fold $n \
            --work WORK --out FOLDS/fold$n
    done
    anyseek learn sound --esc50 DIR --teachers DIR --extra DIR --leave-classes \
        --work WORK --out FOLDS/classes
    python tests/benchmarks/sounds.py --esc50 DIR --folds FOLDS

Every clip is embedded by a model that did not hear it: those of a fold by the model that left the
fold out, those of every fifth class by the model that left these classes out. A class is asked for
by its name in four phrasings, whose unit vectors are averaged.

Measures:
``top_1``        share of clips whose nearest class is their own
``map``          mean over classes of the average precision of the fold's clips, ranked by cosine
                 with the class; equal to scikit-learn's ``average_precision_score`` without ties
``distractors``  noises and tones among the ten nearest of 400 clips and all distractors, summed
                 over the 50 classes; seeds differ from those trained on, and five kinds are made
                 here alone
``shifted``      mean cosine of a window with itself later by 0.5 to 2.5 s, ``rolled`` round its
                 end, or ``cut`` off at its start and repeated
``repeated``     mean cosine of a clip repeated to ten seconds with the clip followed by silence
``louder``       least cosine of a window with itself at a hundredth of the level
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import sounds
from retrieval.learn.sound.bundled import left_out_kinds
from retrieval.learn.sound.card import FOLDS, PHRASES
from retrieval.learn.sound.clips import Clip, read_esc50
from retrieval.learn.sound.synthetic import WORDS, synthetic
from retrieval.learn.sound.words import Vocabulary, prompts, read_vocabulary
from retrieval.towers import bundled
from retrieval.towers.bundled_audio import RATE_HZ, SAMPLES, AudioTower
from retrieval.types import Modality, Vectors

Samples = NDArray[np.float32]

FIRST_SEED = 10_000
EACH = 9
SHIFTS_S = (0.5, 1.0, 1.5, 2.0, 2.5)
TOP = 10


def average_precision(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Gives the mean, over true items, of the precision at their place in the ranking."""
    hits = truth[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def distractors() -> list[tuple[str, Samples]]:
    """Makes noises and tones that no training heard: windows of ten seconds at 32 kHz."""
    made = []
    for kind in WORDS:
        for seed in range(FIRST_SEED, FIRST_SEED + EACH):
            made.append((kind, synthetic(kind, seed, SAMPLES)))
    time_s = np.arange(SAMPLES) / RATE_HZ
    generator = np.random.default_rng(FIRST_SEED)
    white = generator.normal(size=SAMPLES)
    own = {
        "violet noise": np.diff(white, prepend=0.0),
        "gated noise": white * (time_s % 0.7 < 0.2),
        "breathing level noise": white * (1.1 + np.sin(2 * np.pi * 0.4 * time_s)),
        "telephone keys": np.sin(2 * np.pi * 770 * time_s) + np.sin(2 * np.pi * 1336 * time_s),
        "sawtooth": 2 * ((220 * time_s) % 1.0) - 1,
    }
    made.extend((kind, (0.1 * wave).astype(np.float32)) for kind, wave in own.items())
    return made


def windows(clips: Sequence[Clip]) -> tuple[list[Clip], list[Samples]]:
    """Reads each clip's first window, as the indexer does; leaves out clips that are silent."""
    pairs = [(clip, next(iter(sounds.windows(clip.path, RATE_HZ))).content) for clip in clips]
    heard = [(clip, content) for clip, content in pairs if content is not None]
    return [clip for clip, _ in heard], [content for _, content in heard]


def embed(tower: AudioTower, contents: Sequence[Samples]) -> Vectors:
    """Embeds windows one by one, as a search does."""
    return np.concatenate([tower.embed([tower.prepare(one)]) for one in contents])


def classified(heard: Vectors, asked: Vectors, own: NDArray[np.int64]) -> tuple[float, float]:
    """Gives top-1 and mAP in per cent; ``own`` numbers each clip's row of ``asked``."""
    cosines = heard @ asked.T
    top = float((cosines.argmax(axis=1) == own).mean())
    precisions = [average_precision(cosines[:, row], own == row) for row in range(len(asked))]
    return round(100 * top, 2), round(100 * float(np.mean(precisions)), 2)


def crowding(clips: Vectors, others: Vectors, kinds: Sequence[str], asked: Vectors) -> Counter[str]:
    """Counts distractors among the ten nearest of each class, by kind."""
    cosines = asked @ np.concatenate([clips, others]).T
    nearest = np.argsort(-cosines, axis=1)[:, :TOP]
    return Counter(kinds[place - len(clips)] for place in nearest[nearest >= len(clips)].tolist())


def steadiness(tower: AudioTower, contents: Sequence[Samples]) -> dict[str, float]:
    """Measures how little shifting, repeating and gain change a vector."""
    base = embed(tower, contents)
    rolled, cut = [], []
    for shift_s in SHIFTS_S:
        by = round(shift_s * RATE_HZ)
        rolled.append(embed(tower, [np.roll(one, by) for one in contents]))
        late = [np.resize(one[by : SAMPLES // 2], SAMPLES) for one in contents]
        cut.append(embed(tower, late))
    silent = [np.concatenate([one[: SAMPLES // 2], 0 * one[SAMPLES // 2 :]]) for one in contents]
    softer = embed(tower, [one * np.float32(0.01) for one in contents])
    return {
        "rolled": round(float(np.mean([(base * one).sum(1).mean() for one in rolled])), 4),
        "cut": round(float(np.mean([(base * one).sum(1).mean() for one in cut])), 4),
        "repeated": round(float((base * embed(tower, silent)).sum(1).mean()), 4),
        "louder": round(float((base * softer).sum(1).min()), 5),
    }


def measure(esc50: Path, folds: Path, model: Path, *, every: int) -> dict[str, Any]:
    """Measures everything; ``every`` thins out the clips that are shifted."""
    vocabulary: Vocabulary = read_vocabulary()
    text_tower = bundled.load(model).towers[Modality.TEXT]
    clips = read_esc50(esc50)
    kinds = sorted({clip.kind for clip in clips})
    asked = prompts(vocabulary, kinds, text_tower, phrases=PHRASES)
    report: dict[str, Any] = {"folds": {}, "classes": len(kinds)}
    noises = distractors()
    crowd: Counter[str] = Counter()
    for fold in FOLDS:
        tower = AudioTower(folds / f"fold{fold}" / "audio.onnx")
        own = [clip for clip in clips if clip.fold == fold]
        own, contents = windows(own)
        heard = embed(tower, contents)
        truth = np.array([kinds.index(clip.kind) for clip in own])
        top, precision = classified(heard, asked, truth)
        found = crowding(
            heard, embed(tower, [one for _, one in noises]), [k for k, _ in noises], asked
        )
        crowd += found
        report["folds"][fold] = {
            "clips": len(own),
            "top_1": top,
            "map": precision,
            "distractors": found.total(),
            **steadiness(tower, contents[::every]),
        }
    for name in ("top_1", "map", "distractors", "rolled", "cut", "repeated"):
        values = [one[name] for one in report["folds"].values()]
        report[f"mean_{name}"] = round(float(np.mean(values)), 4)
    report["distractors_by_kind"] = dict(crowd)
    report["distractors"] = len(noises)
    left_out = folds / "classes" / "audio.onnx"
    if left_out.exists():
        names = left_out_kinds(clips)
        own = [clip for clip in clips if clip.kind in names]
        own, read = windows(own)
        truth = np.array([names.index(clip.kind) for clip in own])
        heard = embed(AudioTower(left_out), read)
        some = prompts(vocabulary, names, text_tower, phrases=PHRASES)
        top, precision = classified(heard, some, truth)
        right = (heard @ some.T).argmax(axis=1) == truth
        report["left_out"] = {
            "clips": len(own),
            "top_1": top,
            "map": precision,
            "by_class": {
                name: round(100 * float(right[truth == row].mean()), 1)
                for row, name in enumerate(names)
            },
        }
    tower = AudioTower(folds / "fold1" / "audio.onnx")
    mel = tower.prepare(contents[0])
    tower.embed([mel])
    began_s = time.perf_counter()
    for _ in range(50):
        tower.embed([mel])
    report["ms_per_window"] = round(20 * (time.perf_counter() - began_s), 2)
    return report


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--esc50", type=Path, required=True)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=bundled.WEIGHTS)
    parser.add_argument("--every", type=int, default=10, help="shift one clip in so many")
    arguments = parser.parse_args()
    figures = measure(arguments.esc50, arguments.folds, arguments.model, every=arguments.every)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
