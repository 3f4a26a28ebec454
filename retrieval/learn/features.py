"""What training does not change is computed once and kept in files of a work folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.backbone import SIDES_PX, WIDTH, Classifier, Tail, Trunk, imagenet_state
from retrieval.learn.data import Pixels, random_view
from retrieval.towers.use import Use

Halves = NDArray[np.float16]
Report = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""

BATCH = 16
LEVELS = ("out", "mean", "y0", "y1", "y2")
"""Levels of the sentence encoder, in the order in which their columns are kept."""


@dataclass(frozen=True, slots=True)
class PictureFeatures:
    """Features of the same pictures, views first.

    Attributes:
        activations: One ``(n, 14, 14, 112)`` float16 array a view, mapped from a file: what the
            trunk gives; empty for a teacher.
        pooled: ``(views, n, 1280)`` float16: what the tail makes of it with ImageNet's weights.
        logits: ``(views, n, 1000)`` float16 of ImageNet's classifier.
    """

    activations: list[Halves]
    pooled: Halves
    logits: Halves


class _Whole(nn.Module):
    def __init__(self, variant: int) -> None:
        super().__init__()
        state = imagenet_state(variant)
        self.trunk, self.tail = Trunk(state, variant), Tail(state, variant)
        self.classifier = Classifier(state)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.trunk(pixels)
        pooled = self.tail(x)
        return x.permute(0, 2, 3, 1), pooled, self.classifier(pooled)


def picture_features(
    pixels: Pixels,
    work: Path,
    name: str,
    *,
    report: Report,
    variant: int = 0,
    views: int = 1,
    seed: int = 0,
    activations: bool = True,
) -> PictureFeatures:
    """Runs the backbone with its ImageNet weights over views of pictures, in ONNX Runtime.

    About 100 views a second of variant 0 and 50 of variant 2 on two cores, 44 kB a view on disk.

    Args:
        pixels: ``(n, 224, 224, 3)`` uint8 RGB.
        work: Folder for the files; what is there already is not computed again.
        name: Part of the files' names that tells these pictures from others.
        report: Told after each batch.
        variant: Which EfficientNet-Lite.
        views: The pictures themselves and ``views - 1`` random views of each.
        seed: Of the random views; each depends on the seed, its number and its place alone.
        activations: Whether to keep what the trunk gives.
    """
    kept: list[Halves] = []
    pooled = np.empty((views, len(pixels), WIDTH), np.float16)
    logits = np.empty((views, len(pixels), 1000), np.float16)
    session: Any = None
    for view in range(views):
        stem = work / f"{name}-lite{variant}-seed{seed}-view{view}"
        ends, trunk = stem.with_suffix(".npz"), stem.with_suffix(".npy")
        if not ends.exists() or (activations and not trunk.exists()):
            session = session or _session(variant, work)
            sink = (
                open_memmap(trunk, "w+", np.float16, (len(pixels), 14, 14, 112))
                if activations
                else None
            )
            done = 0
            for batch in _batches(pixels, SIDES_PX[variant], view, seed):
                outputs = [] if activations else ["pooled", "logits"]
                *first, p, z = session.run(outputs or None, {"pixels": batch})
                rows = slice(done, done + len(batch))
                pooled[view, rows], logits[view, rows] = p, z
                if sink is not None:
                    sink[rows] = first[0]
                done = rows.stop
                report(f"view {view + 1} of {views}, Lite{variant}, {name}", done, len(pixels))
            if sink is not None:
                sink.flush()
            np.savez(ends, pooled=pooled[view], logits=logits[view])
        with np.load(ends, allow_pickle=False) as archive:
            pooled[view], logits[view] = archive["pooled"], archive["logits"]
        if activations:
            kept.append(np.load(trunk, mmap_mode="r", allow_pickle=False))
    return PictureFeatures(kept, pooled, logits)


def text_features(
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    texts: Sequence[str],
    work: Path,
    name: str,
    *,
    report: Report,
) -> Halves:
    """Runs a sentence encoder over texts: ``(n, width)`` float16, in order.

    Args:
        embed: Takes up to 1,000 texts and gives one row each.
        texts: What to embed.
        work: Folder for the file; what was computed from the same texts is not computed again.
        name: Part of the file's name that tells encoders apart.
        report: Told after each thousand.
    """
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    path = work / f"{name}-{digest}.npy"
    if path.exists():
        kept: Halves = np.load(path, allow_pickle=False)
        return kept
    rows: list[Halves] = []
    for start in range(0, len(texts), 1000):
        rows.append(embed(texts[start : start + 1000]).astype(np.float16))
        report(f"sentences, {name}", min(start + 1000, len(texts)), len(texts))
    features = np.concatenate(rows)
    np.save(path, features)
    return features


def every_level(encoder: Use) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Makes a function that gives all ``LEVELS`` of the sentence encoder: ``(n, 2176)``."""

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        hidden = encoder.hidden(texts)
        return np.concatenate([hidden[level] for level in LEVELS], axis=1)

    return embed


def _session(variant: int, work: Path) -> Any:
    from retrieval.learn.export import to_onnx  # which imports the training
    from retrieval.towers.onnx_session import runtime

    side_px = SIDES_PX[variant]
    path = work / f"lite{variant}.onnx"
    to_onnx(
        _Whole(variant),
        torch.zeros(2, 3, side_px, side_px),
        path,
        inputs=["pixels"],
        outputs=["activations", "pooled", "logits"],
    )
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _batches(pixels: Pixels, side_px: int, view: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Prepares the next batch in a thread while the caller works on the last."""

    def prepare(start: int) -> NDArray[np.float32]:
        pictures = []
        for index in range(start, min(start + BATCH, len(pixels))):
            one = pixels[index]
            if view:
                one = random_view(one, np.random.default_rng((seed, view, index)))
            if one.shape[0] != side_px:
                image = Image.fromarray(one)
                one = np.asarray(image.resize((side_px, side_px), Image.Resampling.BICUBIC))
            pictures.append(one)
        return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(prepare, 0)
        for start in range(0, len(pixels), BATCH):
            batch = ahead.result()
            if start + BATCH < len(pixels):
                ahead = pool.submit(prepare, start + BATCH)
            yield np.ascontiguousarray(batch)
