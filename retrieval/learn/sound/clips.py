"""Sounds to learn from: the lists, the samples, and their spectra."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile  # noqa: TID253 - this module is only imported to train
import soxr  # noqa: TID253
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from retrieval.errors import MediaError
from retrieval.learn.sound.synthetic import synthetic
from retrieval.towers import bundled_audio

UNIT_S = 5.0
"""Length of what is mixed and trained on; the network pools over time, so windows may be longer."""

FRAMES = 500
DULL_RATE_HZ = 16_000
LOWEST = 1e-12  # power below which a band counts as silent in what is kept on disk
FORBIDDEN = ("gcompris", "tuxpaint")
"""Packages whose sounds are measured on: never trained on, even if a folder holds them."""

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound.

    Attributes:
        path: The file; empty for a synthetic sound.
        kind: ESC-50 category, kind of a synthetic sound, or empty if nobody said.
        fold: ESC-50 fold; 0 for sounds from elsewhere.
        group: The package that it came with, ``esc50`` or ``synthetic``.
        seed: Of a synthetic sound.
    """

    path: Path
    kind: str
    fold: int
    group: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """Five seconds of a clip, maybe at another speed.

    Attributes:
        clip: Where it comes from.
        start_s: Where it starts in the clip.
        speed: 1.1 is ten per cent faster and higher.
        dull: Whether everything above 8 kHz is taken away, as in many recordings.
    """

    clip: Clip
    start_s: float
    speed: float
    dull: bool = False


@dataclass(frozen=True, slots=True)
class Bank:
    """What is heard of all units.

    Attributes:
        units: In the order of the rows.
        power: ``(n, 500, 128)`` float16, logarithms of mel powers; mapped from a file.
        frames: ``(n,)``: how many frames a unit's sound lasts before it repeats.
    """

    units: Sequence[Unit]
    power: Halves
    frames: NDArray[np.int64]


def read_esc50(folder: Path) -> list[Clip]:
    """Reads the list ``esc50.csv`` (tab-separated) of a folder that also holds ``audio``.

    Raises:
        MediaError: If the list is missing or lacks a column.
    """
    rows = _rows(folder / "esc50.csv", ("filename", "fold", "category"))
    return [
        Clip(
            folder / "audio" / row["filename"],
            row["category"].replace("_", " "),
            int(row["fold"]),
            "esc50",
        )
        for row in rows
    ]


def read_extra(folder: Path, *, most: int, seed: int) -> list[Clip]:
    """Reads the list ``files.tsv`` of other sounds; nothing is known of them but their names.

    Args:
        folder: Paths in the column ``path`` may be relative to it.
        most: At most so many sounds of one package, drawn at random: some hold hundreds of
            spoken sentences.
        seed: Of that draw.

    Raises:
        MediaError: If the list is missing or lacks a column.
    """
    rows = _rows(folder / "files.tsv", ("path", "package"))
    order = np.random.default_rng(seed).permutation(len(rows))
    seen: Counter[str] = Counter()
    clips = []
    for row in (rows[index] for index in order):
        package = row["package"]
        if any(word in row["path"].lower() for word in FORBIDDEN):
            continue
        seen[package] += 1
        if seen[package] <= most:
            clips.append(Clip(folder / row["path"], "", 0, package))
    return sorted(clips, key=lambda clip: str(clip.path))


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := [one for one in columns if one not in (reader.fieldnames or ())]:
                raise MediaError(f"{path}: no column named {' or '.join(missing)}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{path}: cannot read the list of sounds ({error})") from error


def plan_units(clips: Sequence[Clip], *, speeds: int, dull: float, seed: int) -> list[Unit]:
    """Chooses what is heard of each clip.

    Args:
        clips: Labelled ones are taken as they are and at other speeds; of the others, those longer
            than 7 s at one more place, those longer than 30 s at three.
        speeds: How many other speeds.
        dull: Share of units of unlabelled clips whose high frequencies are taken away.
        seed: Of places, speeds and what is taken away.
    """
    generator = np.random.default_rng(seed)
    units = []
    for clip in clips:
        if clip.group in ("esc50", "synthetic"):
            units.append(Unit(clip, 0.0, 1.0))
            for _ in range(speeds if clip.group == "esc50" else 0):
                units.append(Unit(clip, 0.0, float(np.exp(generator.uniform(-0.22, 0.22)))))
            continue
        units.append(Unit(clip, 0.0, 1.0, bool(generator.random() < dull)))
        length_s = soundfile.info(clip.path).duration
        for _ in range((length_s > 7.0) + 2 * (length_s > 30.0)):
            place = float(generator.uniform(2.0, length_s - 4.0))
            speed = float(np.exp(generator.uniform(-0.15, 0.15)))
            units.append(Unit(clip, place, speed, bool(generator.random() < dull)))
    return units


def read_samples(unit: Unit) -> tuple[Floats, int]:
    """Reads a unit: ``(160000,)`` at 32 kHz, and how many frames it lasts.

    Shorter sounds are repeated, as they are in use.

    Raises:
        MediaError: If the file cannot be decoded.
    """
    wanted = bundled_audio.RATE_HZ
    length = round(UNIT_S * wanted)
    if unit.clip.group == "synthetic":
        return synthetic(unit.clip.kind, unit.clip.seed, length), FRAMES
    try:
        with soundfile.SoundFile(unit.clip.path) as file:
            rate = file.samplerate
            file.seek(min(round(unit.start_s * rate), max(0, file.frames - 1)))
            read = file.read(round(UNIT_S * rate * unit.speed) + 1, "float32", always_2d=True)
    except (OSError, soundfile.SoundFileError, RuntimeError) as error:
        raise MediaError(f"{unit.clip.path}: cannot be decoded ({error})") from error
    samples = read.mean(axis=1) if len(read) else np.zeros(1, np.float32)
    samples = samples - samples.mean()
    rate = rate * unit.speed
    if unit.dull:
        samples, rate = soxr.resample(samples, rate, DULL_RATE_HZ), DULL_RATE_HZ
    samples = soxr.resample(samples, rate, wanted).astype(np.float32)
    lasts = max(1, min(len(samples), length))
    samples = np.resize(samples, length) if len(samples) else np.zeros(length, np.float32)
    return samples, min(FRAMES, -(-lasts // bundled_audio.HOP))


def listen(units: Sequence[Unit], work: Path, *, report: Report) -> Bank:
    """Computes the spectra of units, 130 a second on two cores.

    Args:
        units: What to hear.
        work: Folder for the files, 128 kB a unit; what is there already is not computed again.
        report: Told about progress.
    """
    name = hashlib.sha256("\n".join(map(str, units)).encode()).hexdigest()[:16]
    power_path, frames_path = work / f"bank-{name}.npy", work / f"bank-{name}-frames.npy"
    if not frames_path.exists():
        shape = (len(units), FRAMES, bundled_audio.MELS)
        power = open_memmap(power_path, "w+", np.float16, shape)
        frames = np.zeros(len(units), np.int64)

        def one(index: int) -> None:
            samples, frames[index] = read_samples(units[index])
            power[index] = np.log(np.maximum(bundled_audio.mel_power(samples), LOWEST))

        with ThreadPoolExecutor(2) as pool:
            for done, _ in enumerate(pool.map(one, range(len(units))), 1):
                if done % 100 == 0 or done == len(units):
                    report("listening", done, len(units))
        power.flush()
        np.save(frames_path, frames)
    return Bank(
        units,
        np.load(power_path, mmap_mode="r", allow_pickle=False),
        np.load(frames_path, allow_pickle=False),
    )
