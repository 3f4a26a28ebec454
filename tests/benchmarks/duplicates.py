"""What of copies is found, and what of different files is taken for them; prints JSON.

    python -m tests.benchmarks.duplicates --data DIR --work DIR

``--data`` and ``--work`` are those of ``prompts.py``. Copies are made of every fourth photograph of
Flickr8k's split ``dev`` (250 of 1,000, each 224 pixels wide and high, so that a picture at half or
a quarter of its side has little left), and of every sixteenth clip of ESC-50 (100 of 1,600) in two
qualities of Ogg Vorbis. What is found goes through ``retrieval.duplicates.grouped``, one pair of
files after the other.

``recall``     copies in % that are found as ``near``, and as ``near`` or ``scene``; with the
               median of differing bits and the median cosine
``different``  pairs of all photographs of ``dev`` and ``train``, 24 million, of which none is a
               copy: how many hashes and vectors would take for one, alone and together.
               Photographers of Flickr often give two pictures of one scene, so pairs beyond
               ``scene`` are not all wrong.
``sounds``     the same for clips. ESC-50 has several clips of some recordings, so that only pairs
               of different recordings count, by the id of freesound.org.
``precision``  of ``near``: the copies found, as a share of them and of all wrong pairs
``hundred_thousand``  seconds of processor time and pairs of the search in random hashes, a tenth
               of them copies with up to eight bits changed
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageEnhance

from retrieval import sounds
from retrieval.duplicates import (
    NEAR_BITS,
    NEAR_COSINE,
    SCENE_COSINE,
    SOUND_COSINE,
    Tier,
    grouped,
)
from retrieval.learn.data import read_captions
from retrieval.learn.sound.clips import read_esc50
from retrieval.models import model
from retrieval.phash import distance, near_pairs, phash
from retrieval.store import Entry
from retrieval.types import Encoder, Fingerprint, Modality, Vectors
from tests.benchmarks.prompts import kept, listened

EVERY = 4
EVERY_CLIP = 16
BLOCK = 1_000


def saved(picture: Image.Image, *, quality: int = 85, form: str = "JPEG") -> Image.Image:
    """Gives a picture as it comes back from a file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """Gives a picture larger or smaller."""
    return saved(picture.resize((round(picture.width * factor), round(picture.height * factor))))


def cut(picture: Image.Image, share: float) -> Image.Image:
    """Cuts a share of width and height off, half on each side."""
    x, y = int(picture.width * share / 2), int(picture.height * share / 2)
    return saved(picture.crop((x, y, picture.width - x, picture.height - y)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 30": lambda one: saved(one, quality=30),
    "WebP, quality 50": lambda one: saved(one, quality=50, form="WEBP"),
    "half the side": lambda one: scaled(one, 0.5),
    "a quarter of the side": lambda one: scaled(one, 0.25),
    "twice the side": lambda one: scaled(one, 2),
    "20 % brighter": lambda one: saved(ImageEnhance.Brightness(one).enhance(1.2)),
    "20 % less contrast": lambda one: saved(ImageEnhance.Contrast(one).enhance(0.8)),
    "grey": lambda one: saved(one.convert("L").convert("RGB")),
    "cut by 4 %": lambda one: cut(one, 0.04),
    "cut by 10 %": lambda one: cut(one, 0.10),
    "cut by 20 %": lambda one: cut(one, 0.20),
    "mirrored": lambda one: saved(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    encoder = model().load()
    folder = options.data / "flickr8k"
    captions = read_captions(folder / "captions.tsv")
    report: dict[str, Any] = {"space": encoder.space, "python": platform.python_version()}
    files = {
        split: [folder / "images" / one.image for one in captions[split]]
        for split in ("dev", "train")
    }
    vectors = {
        split: kept(
            options.work / f"{split}_images.npy",
            lambda split=split: embedded(encoder, [opened(path) for path in files[split]]),  # type: ignore[misc]
        )
        for split in files
    }
    report["recall"] = recall(encoder, files["dev"][::EVERY], vectors["dev"][::EVERY])
    report["different"] = different(
        [*files["dev"], *files["train"]], np.concatenate([vectors["dev"], vectors["train"]])
    )
    copies = len(files["dev"][::EVERY])
    found = sum(row["near, %"] / 100 * copies for row in report["recall"].values())
    report["precision"] = round(found / (found + report["different"]["near"]), 4)
    report["sounds"] = heard(encoder, options.data / "esc50", options.work)
    report["hundred_thousand"] = large()
    print(json.dumps(report, indent=2))


def opened(path: Path) -> Image.Image:
    """Reads a photograph."""
    return Image.open(path).convert("RGB")


def embedded(encoder: Encoder, pictures: list[Image.Image]) -> Vectors:
    """Embeds pictures."""
    tower = encoder.towers[Modality.IMAGE]
    return np.concatenate([tower.embed([tower.prepare(one)]) for one in pictures])


def recall(encoder: Encoder, files: list[Path], vectors: Vectors) -> dict[str, Any]:
    """Copies pictures in every way, and asks of each pair whether it is found."""
    pictures = [opened(path) for path in files]
    hashes = [phash(picture) for picture in pictures]
    figures = {}
    for name, copied in COPIES.items():
        copies = [copied(picture) for picture in pictures]
        their_vectors = embedded(encoder, copies)
        bits, cosines = [], (their_vectors * vectors).sum(axis=1)
        tiers: list[Tier | None] = []
        for one, other, own, its in zip(
            hashes, map(phash, copies), vectors, their_vectors, strict=True
        ):
            assert one is not None
            if other is not None:
                bits.append((one ^ other).bit_count())
            tiers.append(tier_of(Modality.IMAGE, one, other, np.stack([own, its]), 0.0, 0.0))
        figures[name] = {
            "near, %": percent(np.mean([tier is Tier.NEAR for tier in tiers])),
            "scene, %": percent(np.mean([tier is not None for tier in tiers])),
            "bits": float(np.median(bits)),
            "cosine": round(float(np.median(cosines)), 3),
        }
    return figures


def tier_of(
    modality: Modality,
    one: int | None,
    other: int | None,
    rows: Vectors,
    first_s: float,
    second_s: float,
) -> Tier | None:
    """Asks for the tier in which two files are the same."""
    entries = [
        Entry(1, b"/1", Fingerprint(2, 1), b"1" * 16, duration_s=first_s),
        Entry(2, b"/2", Fingerprint(1, 1), b"2" * 16, duration_s=second_s),
    ]
    groups = grouped(
        entries,
        modality,
        tier=Tier.SCENE,
        hashes={b"1" * 16: one, b"2" * 16: other},
        vectors={1: 0, 2: 1},
        matrix=rows.astype(np.float16),
    )
    return groups[0].others[0].tier if groups else None


def different(files: list[Path], vectors: Vectors) -> dict[str, Any]:
    """Counts the pairs of different photographs that hashes and vectors would take for copies."""
    hashes = np.array([phash(opened(path)) or 0 for path in files], np.uint64)
    pairs = np.concatenate([np.empty((0, 2), np.int64), *near_pairs(hashes, 12)])
    bits = distance(hashes[pairs[:, 0]], hashes[pairs[:, 1]])
    cosines = (vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(axis=1)
    by_cosine = dict.fromkeys((0.90, 0.93, 0.95, 0.97), 0)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK] @ vectors.T
        later = np.arange(len(vectors)) > np.arange(start, start + len(block))[:, None]
        for least in by_cosine:
            by_cosine[least] += int(((block >= least) & later).sum())
    return {
        "pairs": len(files) * (len(files) - 1) // 2,
        "by bits alone": {str(most): int((bits <= most).sum()) for most in (4, 6, 8, 10, 12)},
        "near": int(((bits <= NEAR_BITS) & (cosines >= NEAR_COSINE)).sum()),
        "by cosine alone": {str(least): count for least, count in by_cosine.items()},
        "scene": by_cosine[SCENE_COSINE],
    }


def heard(encoder: Encoder, folder: Path, work: Path) -> dict[str, Any]:
    """Copies clips in two qualities, and counts different recordings that pass for copies."""
    clips = read_esc50(folder)
    vectors = kept(work / "esc50.npy", lambda: listened([clip.path for clip in clips], encoder))
    tower = encoder.towers[Modality.AUDIO]
    assert tower.rate_hz is not None
    figures: dict[str, Any] = {}
    for quality in (0.2, 0.8):  # of libsndfile's compression: 1 is smallest
        found = []
        for clip, own in list(zip(clips, vectors, strict=True))[::EVERY_CLIP]:
            samples, rate = soundfile.read(clip.path, dtype="float32")
            copy = work / "copy.ogg"
            soundfile.write(copy, samples, rate, format="OGG", compression_level=quality)
            rows = sounds.embed(sounds.windows(copy, tower.rate_hz), tower).vectors.mean(axis=0)
            pair = np.stack([own, rows / np.linalg.norm(rows)])
            found.append(tier_of(Modality.AUDIO, None, None, pair, 5.0, 5.0) is Tier.NEAR)
        figures[f"compression {quality}, near, %"] = percent(np.mean(found))
    recordings = np.array([clip.path.name.split("-")[1] for clip in clips])
    other = np.triu(recordings[:, None] != recordings, 1)
    figures["pairs of different recordings"] = int(other.sum())
    figures["taken for copies"] = {
        str(least): int(((vectors @ vectors.T >= least) & other).sum())
        for least in (0.95, 0.97, SOUND_COSINE)
    }
    return figures


def large() -> dict[str, Any]:
    """Searches a hundred thousand hashes."""
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 100_000, dtype=np.uint64, endpoint=False)
    for copy in range(90_000, 100_000):
        changed = generator.permutation(64)[: generator.integers(0, NEAR_BITS + 1)]
        hashes[copy] = hashes[copy - 90_000] ^ np.uint64(sum(1 << int(bit) for bit in changed))
    start = time.process_time()
    pairs = sum(len(some) for some in near_pairs(hashes, NEAR_BITS))
    return {"seconds": round(time.process_time() - start, 1), "pairs": pairs}


def percent(share: Any) -> float:
    """Writes a share with a decimal."""
    return round(100 * float(share), 1)


if __name__ == "__main__":
    main()
