"""The card of a model with sounds: relevances, mean vectors, identity.

Relevances are fitted on vectors of clips that the embedding model did not hear: each ESC-50 fold is
embedded by the training that left it out.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import sounds
from retrieval.errors import MediaError, ModelError
from retrieval.learn.calibration import fit_logistic
from retrieval.learn.data import Captioned, read_captions, read_pictures
from retrieval.learn.export import PREPROCESSING, toml
from retrieval.learn.sound.bundled import Source
from retrieval.learn.sound.clips import Clip, Report, read_esc50
from retrieval.learn.sound.words import (
    prompts,
    read_vocabulary,
)
from retrieval.towers import bundled
from retrieval.towers.bundled_audio import RATE_HZ, AudioTower
from retrieval.types import Modality, Vectors

SOUND_PREPROCESSING = (
    "mono 32 kHz, windows of 10 s, shorter ones repeated; log-mel 128 bands 0-15 kHz, 25 ms every "
    "10 ms, over the window's mean"
)
"""What happens to a sound before ``audio.onnx``; part of the space's identity."""

FOLDS = (1, 2, 3, 4)
AMONG = 20
PHRASES = 4
"""Phrasings of a class's name that are averaged into its query."""

MIN_PICTURES = 3  # that mention a category, for it to count between pictures and sounds


def embed_clips(tower: AudioTower, clips: Sequence[Clip]) -> tuple[list[Clip], Vectors]:
    """Embeds the first window that is not silent of each clip, read as the indexer reads it.

    Returns:
        The clips that are not silent from start to end, and their vectors ``(n, dim)``.

    Raises:
        MediaError: If a file cannot be decoded, or all are silent.
    """
    kept, rows = [], []
    for clip in clips:
        try:
            parts = [one.content for one in sounds.windows(clip.path, RATE_HZ)]
        except MediaError as error:
            raise MediaError(f"{clip.path}: {error}") from error
        content = next((one for one in parts if one is not None), None)
        if content is not None:
            kept.append(clip)
            rows.append(tower.embed([tower.prepare(content)])[0])
    if not rows:
        raise MediaError("all clips are silent")
    return kept, np.stack(rows)


def ranked_by_kind(
    queries: Vectors, targets: Vectors, match: NDArray[np.bool_], *, among: int = AMONG
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gives the cosines that a person meets: all matches of a query, and its nearest others.

    Args:
        queries: ``(n, dim)`` unit rows.
        targets: ``(m, dim)`` unit rows.
        match: ``(n, m)``: whether a target belongs to a query.
        among: How many others a query.

    Returns:
        Cosines of matches and of others, query after query.
    """
    cosines = queries @ targets.T
    others = []
    for row, belongs in zip(cosines, match, strict=True):
        rest = np.sort(row[~belongs])[::-1]
        others.append(rest[:among])
    return cosines[match], np.concatenate(others)


def some_pictures(pictures: Sequence[Captioned], kinds: Sequence[str]) -> list[Captioned]:
    """Takes every eighth picture, and a few that mention each kind, in the order of the list."""
    shown = mentioning(pictures, kinds)
    chosen = set(range(0, len(pictures), 8))
    for row in shown:
        chosen.update(np.flatnonzero(row)[:MIN_PICTURES].tolist())
    return [pictures[index] for index in sorted(chosen)]


def mentioning(pictures: Sequence[Captioned], kinds: Sequence[str]) -> NDArray[np.bool_]:
    """Tells which pictures have a caption with a kind's name in it: ``(kinds, pictures)``."""
    patterns = [re.compile(rf"\b{re.escape(kind)}s?\b", re.IGNORECASE) for kind in kinds]
    said = [" / ".join(one.captions) for one in pictures]
    return np.array([[bool(pattern.search(text)) for text in said] for pattern in patterns])


def write_model(
    out: Path,
    source: Source,
    folds: Path,
    *,
    captions: Path,
    images: Path,
    name: str,
    report: Report,
) -> dict[str, Any]:
    """Completes a folder that holds a new ``audio.onnx`` to a whole model.

    The other towers' files are copied from ``source.model``; ``model.toml`` keeps what stands
    there and gains relevances from and to sounds; ``means.npz`` holds the mean vector of each
    modality, ``(512,)`` float32 each, not of unit length.

    Args:
        out: The folder.
        source: Training data, and the model that was joined.
        folds: Folder with ``fold1`` to ``fold4``, each with the ``audio.onnx`` that left that fold
            out.
        captions: Captioned pictures; see ``retrieval.learn.data.read_captions``.
        images: Folder of the pictures.
        name: What the model is called.
        report: Told about progress.

    Returns:
        What ``model.toml`` holds.

    Raises:
        MediaError: If sounds, captions or pictures cannot be read.
        ModelError: If a fold's model or the joined model is missing.
    """
    encoder = bundled.load(source.model)
    text_tower = encoder.towers[Modality.TEXT]
    vocabulary = read_vocabulary()
    clips = read_esc50(source.esc50)
    everyday = sorted({clip.kind for clip in clips})
    pictures = some_pictures(read_captions(captions).get("train", []), everyday)
    pixels = read_pictures(images, [one.image for one in pictures])
    image_tower = encoder.towers[Modality.IMAGE]
    seen = np.concatenate(
        [image_tower.embed(list(pixels[start : start + 16])) for start in range(0, len(pixels), 16)]
    )
    report("pictures of the card", len(pixels), len(pixels))
    cosines: dict[tuple[str, str], list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
    for fold in FOLDS:
        weights = folds / f"fold{fold}" / "audio.onnx"
        if not weights.exists():
            raise ModelError(f"there is no {weights}: train it with --leave-fold {fold}")
        own = [clip for clip in clips if clip.fold == fold]
        if not own:
            raise MediaError(f"{source.esc50}: there are no clips of fold {fold}")
        own, heard = embed_clips(AudioTower(weights), own)
        present = sorted({clip.kind for clip in own})
        asked = prompts(vocabulary, present, text_tower, phrases=PHRASES)
        for kinds, pair in _pairs(own, heard, present, asked, pictures, seen).items():
            cosines.setdefault(kinds, []).append(pair)
        report("folds of the card", fold, len(FOLDS))
    for file in ("image.onnx", "text.npz"):
        if (source.model / file).resolve() != (out / file).resolve():
            shutil.copyfile(source.model / file, out / file)
    table = tomllib.loads((source.model / "model.toml").read_text(encoding="utf-8"))
    for (query, target), pairs in cosines.items():
        matches, others = (np.concatenate(side) for side in zip(*pairs, strict=True))
        a, b = fit_logistic(matches, others)
        if {query, target} == {"image", "audio"}:  # fitted against all others, see ``_pairs``
            b -= math.log(AMONG)  # one match among so many
        table["calibration"].setdefault(query, {})[target] = {"a": round(a, 3), "b": round(b, 3)}
    table["name"] = name
    table["audio_preprocessing"] = SOUND_PREPROCESSING
    table["space"] = identity(name, [out / file for file in bundled.FILES])
    (out / "model.toml").write_text(toml(table), encoding="utf-8")
    _, heard = embed_clips(AudioTower(out / "audio.onnx"), clips)
    said = [text for one in pictures for text in one.captions]
    spoken = [text_tower.embed(said[start : start + 1000]) for start in range(0, len(said), 1000)]
    for template in vocabulary.templates:
        names = [name for several in vocabulary.names.values() for name in several]
        spoken.append(text_tower.embed([template.format(name) for name in names]))
    np.savez(
        out / "means.npz",
        allow_pickle=False,
        image=seen.mean(axis=0, dtype=np.float64).astype(np.float32),
        text=np.concatenate(spoken).mean(axis=0, dtype=np.float64).astype(np.float32),
        audio=heard.mean(axis=0, dtype=np.float64).astype(np.float32),
    )
    report("means", 1, 1)
    return table


def _pairs(
    clips: Sequence[Clip],
    heard: Vectors,
    kinds: Sequence[str],
    asked: Vectors,
    pictures: Sequence[Captioned],
    seen: Vectors,
) -> dict[tuple[str, str], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Gives cosines of matches and others for each kind of query and target with sound in it."""
    own = np.array([kinds.index(clip.kind) for clip in clips])
    belongs = np.arange(len(kinds))[:, None] == own
    same = own[:, None] == own
    itself = np.eye(len(own), dtype=bool)
    cosines = heard @ heard.T
    rest = [np.sort(row[~one])[::-1][:AMONG] for row, one in zip(cosines, same, strict=True)]
    pairs = {
        ("text", "audio"): ranked_by_kind(asked, heard, belongs),
        ("audio", "text"): ranked_by_kind(heard, asked, belongs.T),
        ("audio", "audio"): (cosines[same & ~itself], np.concatenate(rest)),
    }
    shown = mentioning(pictures, kinds)
    enough = [row for row, one in enumerate(shown) if one.sum() >= MIN_PICTURES]
    if enough:
        shown, belongs = shown[enough], belongs[enough]
        # a few pictures a kind, so that what is often photographed does not outweigh the rest
        few = np.unique([np.flatnonzero(one)[:MIN_PICTURES] for one in shown])
        match = (shown[:, few].T.astype(int) @ belongs.astype(int)) > 0
        # All others, not the nearest: pictures and sounds meet too loosely for those. Fitted
        # against the nearest, relevance fell with the cosine.
        pairs["image", "audio"] = ranked_by_kind(seen[few], heard, match, among=len(heard))
        targets = np.concatenate([few, np.flatnonzero(~shown.any(axis=0))])
        known = np.flatnonzero(belongs.any(axis=0))
        match = (belongs[:, known].T.astype(int) @ shown[:, targets].astype(int)) > 0
        pairs["audio", "image"] = ranked_by_kind(
            heard[known], seen[targets], match, among=len(targets)
        )
    return pairs


def identity(name: str, files: Sequence[Path]) -> str:
    """Gives a space's identity: it changes whenever weights or preprocessing change."""
    digest = hashlib.sha256(f"{PREPROCESSING}\n{SOUND_PREPROCESSING}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return f"{name}-{digest.hexdigest()[:12]}"
