"""Sounds to learn from: the lists, the samples, and what student and teacher hear of them."""

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
from retrieval.learn.sound import teacher
from retrieval.learn.sound.synthetic import synthetic
from retrieval.towers import bundled_audio

UNIT_S = 5.0
"""Length of what is mixed and trained on; the network pools over time, so windows may be longer."""

FRAMES = 500
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
    """

    clip: Clip
    start_s: float
    speed: float


@dataclass(frozen=True, slots=True)
class Bank:
    """What student and teacher hear of all units.

    Attributes:
        units: In the order of the rows.
        student: ``(n, 500, 64)`` float16, logarithms of mel powers; mapped from a file.
        teacher: ``(n, 500, 128)`` float16, likewise.
        frames: ``(n,)``: how many frames a unit's sound lasts before it repeats.
    """

    units: Sequence[Unit]
    student: Halves
    teacher: Halves
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


def plan_units(clips: Sequence[Clip], *, speeds: int, seed: int) -> list[Unit]:
    """Chooses what is heard of each clip.

    ESC-50 clips are taken as they are and at ``speeds`` other speeds; longer ones of the others at
    two random places.
    """
    generator = np.random.default_rng(seed)
    units = []
    for clip in clips:
        units.append(Unit(clip, 0.0, 1.0))
        if clip.group == "esc50":
            for _ in range(speeds):
                units.append(Unit(clip, 0.0, float(np.exp(generator.uniform(-0.22, 0.22)))))
        elif clip.group != "synthetic":
            length_s = soundfile.info(clip.path).duration
            if length_s > 1.5 * UNIT_S:
                place = float(generator.uniform(0.5 * UNIT_S, length_s - UNIT_S))
                units.append(Unit(clip, place, float(np.exp(generator.uniform(-0.1, 0.1)))))
    return units


def read_samples(unit: Unit) -> tuple[Floats, Floats, int]:
    """Reads a unit: ``(80000,)`` at 16 kHz and ``(160000,)`` at 32 kHz, and how long it lasts.

    Shorter sounds are repeated, as they are in use.

    Raises:
        MediaError: If the file cannot be decoded.
    """
    if unit.clip.group == "synthetic":
        high = synthetic(unit.clip.kind, unit.clip.seed, round(UNIT_S * teacher.RATE_HZ))
        rate = teacher.RATE_HZ
    else:
        try:
            with soundfile.SoundFile(unit.clip.path) as file:
                rate = file.samplerate
                file.seek(min(round(unit.start_s * rate), max(0, file.frames - 1)))
                high = file.read(round(UNIT_S * rate * unit.speed) + 1, "float32", always_2d=True)
        except (OSError, soundfile.SoundFileError, RuntimeError) as error:
            raise MediaError(f"{unit.clip.path}: cannot be decoded ({error})") from error
        high = high.mean(axis=1)
        if not len(high):
            high = np.zeros(1, np.float32)
    high = high - high.mean()
    pair = []
    for wanted in (bundled_audio.RATE_HZ, teacher.RATE_HZ):
        samples = soxr.resample(high, rate * unit.speed, wanted).astype(np.float32)
        length = round(UNIT_S * wanted)
        lasts = min(len(samples), length)
        pair.append(np.tile(samples, -(-length // max(1, lasts)))[:length])
    frames = max(1, min(FRAMES, -(-lasts // teacher.HOP)))
    return pair[0], pair[1], frames


def listen(units: Sequence[Unit], work: Path, *, report: Report) -> Bank:
    """Computes what student and teacher hear, 200 units a second on two cores.

    Args:
        units: What to hear.
        work: Folder for the files, 192 kB a unit; what is there already is not computed again.
        report: Told about progress.
    """
    name = hashlib.sha256("\n".join(map(str, units)).encode()).hexdigest()[:16]
    paths = [work / f"bank-{name}-{part}.npy" for part in ("student", "teacher", "frames")]
    if not paths[2].exists():
        student = open_memmap(paths[0], "w+", np.float16, (len(units), FRAMES, bundled_audio.MELS))
        heard = open_memmap(paths[1], "w+", np.float16, (len(units), FRAMES, teacher.MELS))
        frames = np.zeros(len(units), np.int64)

        def one(index: int) -> None:
            low, high, frames[index] = read_samples(units[index])
            student[index] = np.log(np.maximum(bundled_audio.mel_power(low), LOWEST))
            heard[index] = np.log(np.maximum(teacher.teacher_power(high), LOWEST))

        with ThreadPoolExecutor(2) as pool:
            for done, _ in enumerate(pool.map(one, range(len(units))), 1):
                if done % 100 == 0 or done == len(units):
                    report("listening", done, len(units))
        student.flush()
        heard.flush()
        np.save(paths[2], frames)
    student, heard, frames = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
    return Bank(units, student, heard, np.asarray(frames))
