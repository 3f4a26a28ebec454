"""Mixtures of sounds with the teacher's opinion of each, made once and used by every training.

The powers of independent sounds add, so mixing happens on mel powers: no Fourier transform is
needed after ``clips.listen``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from retrieval.learn.export import to_onnx
from retrieval.learn.sound import teacher
from retrieval.learn.sound.clips import FRAMES, Bank, Floats, Halves, Report
from retrieval.towers.bundled_audio import FLOOR, MELS

PARTS = 3
"""At most so many sounds in a mixture."""

BATCH = 32
_COUNT_SHARES = (0.3, 0.5, 0.2)  # of mixtures with one, two and three sounds


@dataclass(frozen=True, slots=True)
class Mixes:
    """Mixtures and what the teacher thinks of them.

    Attributes:
        mel: ``(n, 500, 64)`` float16, as ``bundled_audio.log_mel`` gives; mapped from a file.
        features: ``(n, 384)`` float16 of the teacher.
        logits: ``(n, 527)`` float16 of the teacher.
        parts: ``(n, 3)`` int64: units of the bank, -1 where there are fewer.
        shares: ``(n, 3)`` float32: each part's share of the sum of amplitudes.
    """

    mel: Halves
    features: Halves
    logits: Halves
    parts: NDArray[np.int64]
    shares: Floats


def make(bank: Bank, weights: Path, work: Path, *, count: int, seed: int, report: Report) -> Mixes:
    """Makes ``count`` mixtures, 200 a second on two cores, 66 kB each on disk.

    Sounds of an ESC-50 fold are mixed with each other and with sounds from elsewhere, never with
    another fold's, so that a training can leave a fold out.

    Args:
        bank: Sounds to draw from.
        weights: State dict of the teacher.
        work: Folder for the files; what is there already is not made again.
        count: How many.
        seed: Of the draw.
        report: Told about progress.
    """
    names = "\n".join(map(str, bank.units))
    key = hashlib.sha256(f"{count} {seed} {names}".encode()).hexdigest()[:16]
    mel_path, rest_path = work / f"mixes-{key}-mel.npy", work / f"mixes-{key}.npz"
    if not rest_path.exists():
        mel = open_memmap(mel_path, "w+", np.float16, (count, FRAMES, MELS))
        features = np.empty((count, teacher.FEATURES), np.float16)
        logits = np.empty((count, teacher.CLASSES), np.float16)
        parts = draw(bank, count, np.random.default_rng(seed))
        shares = np.zeros(parts.shape, np.float32)
        session = _session(weights, work)
        done = 0
        for heard in _ahead(bank, parts, seed, mel, shares):
            rows = slice(done, done + len(heard))
            features[rows], logits[rows] = session.run(None, {"power": heard})
            done = rows.stop
            report("mixing", done, count)
        mel.flush()
        np.savez(rest_path, features=features, logits=logits, parts=parts, shares=shares)
    with np.load(rest_path, allow_pickle=False) as archive:
        return Mixes(
            np.load(mel_path, mmap_mode="r", allow_pickle=False),
            archive["features"],
            archive["logits"],
            archive["parts"],
            archive["shares"],
        )


def draw(bank: Bank, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draws which units make up each mixture: ``(count, 3)``, -1 where there are fewer.

    Of the mixtures, 55 % have a first sound of ESC-50, 38 % one from elsewhere, 7 % a synthetic
    one; where a kind is missing, the others take its place. Further sounds are of the same fold
    as often as from elsewhere.
    """
    folds = np.array([unit.clip.fold for unit in bank.units])
    made = np.array([unit.clip.group == "synthetic" for unit in bank.units])
    pools = [np.flatnonzero(folds > 0), np.flatnonzero((folds == 0) & ~made), np.flatnonzero(made)]
    weights = np.array([0.55, 0.38, 0.07]) * [len(pool) > 0 for pool in pools]
    kinds = generator.choice(3, count, p=weights / weights.sum())
    sounds = generator.choice(PARTS, count, p=_COUNT_SHARES) + 1
    same = {fold: np.flatnonzero(folds == fold) for fold in set(folds[folds > 0].tolist())}
    parts = np.full((count, PARTS), -1, np.int64)
    for row in range(count):
        first = generator.choice(pools[kinds[row]])
        parts[row, 0] = first
        for place in range(1, sounds[row] if kinds[row] < 2 else 1):
            own = folds[first] > 0 and (generator.random() < 0.5 or not len(pools[1]))
            pool = same[int(folds[first])] if own else pools[1]
            if len(pools[2]) and generator.random() < 0.08:
                pool = pools[2]
            if len(pool):
                parts[row, place] = generator.choice(pool)
    return parts


def mix(
    bank: Bank, parts: NDArray[np.int64], generator: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Mixes units at random times and levels.

    Returns:
        Log-mel ``(500, 64)`` of the student, mel powers ``(500, 128)`` of the teacher, and shares
        ``(3,)`` of the amplitudes, all float32.
    """
    shares = np.zeros(PARTS, np.float32)
    low = np.zeros((FRAMES, MELS), np.float32)
    high = np.zeros((FRAMES, teacher.MELS), np.float32)
    reference = 0.0
    for place, unit in enumerate(parts):
        if unit < 0:
            continue
        one = np.exp(bank.student[unit].astype(np.float32))
        two = np.exp(bank.teacher[unit].astype(np.float32))
        lasts = int(bank.frames[unit])
        if lasts < 0.9 * FRAMES and generator.random() < 0.5:
            one[lasts:] = two[lasts:] = 0.0  # heard once instead of again and again
        shift = int(generator.integers(FRAMES))
        one, two = np.roll(one, shift, 0), np.roll(two, shift, 0)
        power = float(two.mean()) + 1e-9
        if place == 0:
            gain = 10 ** (generator.uniform(-12, 6) / 10)
            reference = power * gain
        else:
            gain = reference / power * 10 ** (generator.uniform(-14, 8) / 10)
        low += np.float32(gain) * one
        high += np.float32(gain) * two
        shares[place] = np.sqrt(power * gain)
    mel = np.log(low / max(float(low.mean()), 1e-30) + FLOOR)
    return mel.astype(np.float32), high, shares / max(float(shares.sum()), 1e-30)


def _ahead(
    bank: Bank, parts: NDArray[np.int64], seed: int, mel: Halves, shares: Floats
) -> Iterator[Floats]:
    """Mixes the next batch in a thread while the teacher listens to the last."""

    def batch(start: int) -> Floats:
        rows = range(start, min(start + BATCH, len(parts)))
        heard = np.empty((len(rows), FRAMES, teacher.MELS), np.float32)
        for row in rows:
            generator = np.random.default_rng((seed, row))
            mel[row], heard[row - start], shares[row] = mix(bank, parts[row], generator)
        return heard

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batch, 0)
        for start in range(0, len(parts), BATCH):
            heard = ahead.result()
            if start + BATCH < len(parts):
                ahead = pool.submit(batch, start + BATCH)
            yield heard


def _session(weights: Path, work: Path) -> Any:
    import torch

    from retrieval.towers.onnx_session import runtime

    path = work / "teacher.onnx"
    example = torch.ones(2, FRAMES, teacher.MELS)
    to_onnx(
        teacher.Teacher(weights), example, path, inputs=["power"], outputs=["features", "logits"]
    )
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
