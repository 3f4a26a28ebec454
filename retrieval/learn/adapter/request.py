"""What is asked of a training: material, base, method and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

METHODS = ("linear", "mlp", "cache", "context")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be learned, and how.

    Attributes:
        out: Folder of the adapter.
        work: Folder for vectors and checkpoints; reused if there, by other trainings too.
        captions: File of captions; this or ``classes``.
        classes: Folder of folders of examples.
        files: Folder that captions name files in; the file's own by default.
        model: The base, as ``--model`` takes it; of ``start``, or the default model.
        start: Folder of an adapter to start from.
        keep: File of captions that must be found as before: its ``train`` is trained on too, its
            ``dev`` says how much of the learning is taken.
        keep_files: Folder that ``keep`` names files in.
        margin: Points of R@10 that ``keep`` may lose.
        name: Of the adapter; that of its folder by default.
        method: One of ``METHODS``.
        context: Vectors that are learned by the method of that name; ``start`` has its own number.
        seed: Of everything random.
        epochs: At most; ``None`` for what the number of files asks for.
        batch: Files of a step; ``None`` for what the method usually takes.
        rate: Fixed; by default the best of ``RATES``.
        command: What was typed, for the card.
    """

    out: Path
    work: Path
    captions: Path | None = None
    classes: Path | None = None
    files: Path | None = None
    model: str | None = None
    start: Path | None = None
    keep: Path | None = None
    keep_files: Path | None = None
    margin: float = 2.0
    name: str | None = None
    method: str = "linear"
    context: int = 4
    seed: int = 0
    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    command: str = ""
