"""Where a network runs, at which precision, and how many inputs at a time."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from platformdirs import user_cache_path

from retrieval.errors import ModelError
from retrieval.types import Vectors

CPU_BATCHES = (1, 2, 4, 8, 16)
GPU_BATCHES = (8, 16, 32, 64, 128, 256)
PROBE_S = 3.0  # a probe ends after so long, whatever it has not tried yet
BETTER = 1.03  # a larger batch must be so much faster, since it takes more memory

Input = TypeVar("Input")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a network runs.

    Attributes:
        name: As torch calls it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: Of weights and activations, as torch calls it: ``float32``, ``bfloat16`` or
            ``float16``. Vectors are always float32, and normalised as such.
        reason: Why this one, in a few words.
    """

    name: str
    precision: str
    reason: str

    @property
    def on_gpu(self) -> bool:
        """Whether it is not the processor."""
        return self.name != "cpu"

    def dtype(self) -> Any:
        """Gives the precision as a ``torch.dtype``."""
        import torch

        return getattr(torch, self.precision)


CPU = Device("cpu", "float32", "asked for")
"""The processor at full precision."""


def choose(asked: str | None = None) -> Device:
    """Chooses the device and the precision; without a wish, the fastest there is.

    CUDA runs in bfloat16 where the card has it and in float16 otherwise, MPS in float16. The
    processor runs in float32, unless it multiplies bfloat16 in hardware (AMX-BF16, AVX512-BF16):
    elsewhere bfloat16 is emulated, and a product of matrices takes forty times as long.

    Args:
        asked: ``cpu``, ``mps``, ``cuda``, or ``cuda:N``; ``None`` or ``auto`` leave the choice.

    Raises:
        ModelError: If the device that was asked for is not there, or there is no such device.
    """
    wish = (asked or "auto").strip().lower()
    kind, _, number = wish.partition(":")
    if kind not in ("auto", "cpu", "mps", "cuda") or (number and not _is_card(kind, number)):
        raise ModelError(f"there is no device named {asked!r}: use auto, cpu, cuda, cuda:N or mps")
    if kind == "cpu":
        return _processor("asked for")
    if kind == "auto" and not may_have_gpu():
        return _processor("no graphics processor is there")  # known without importing torch
    torch = _torch()
    if kind == "cuda" or (kind == "auto" and torch.cuda.is_available()):
        return _cuda(torch, wish if kind == "cuda" else "cuda", int(number or 0))
    there = bool(torch.backends.mps.is_available())
    if kind == "mps" and not there:
        raise ModelError("there is no mps device here: it needs a Mac with Apple silicon; use cpu")
    if there:
        return Device("mps", "float16", "Apple's graphics processor is there")
    return _processor("no graphics processor is there")


def may_have_gpu() -> bool:
    """Tells whether it is worth asking torch, whose import takes seconds."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and Windows below Linux
    return sys.platform != "linux" or any(Path(one).exists() for one in drivers)


def _is_card(kind: str, number: str) -> bool:
    return kind == "cuda" and number.isascii() and number.isdigit() and len(number) <= 3


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ModelError(
            "a device can only be chosen for models that run on torch: pip install 'anyseek[clip]'"
        ) from None
    return torch


def _cuda(torch: Any, name: str, number: int) -> Device:
    if not torch.cuda.is_available():
        raise ModelError("there is no CUDA device that torch can use here: use --device cpu")
    if number >= torch.cuda.device_count():
        raise ModelError(f"there are {torch.cuda.device_count()} CUDA devices: no {name}")
    # emulated bfloat16, on cards before Ampere, would be slower than float16
    halved = torch.cuda.get_device_capability(number) >= (8, 0)
    card = str(torch.cuda.get_device_name(number))
    return Device(name, "bfloat16" if halved else "float16", card)


def _processor(reason: str) -> Device:
    flag = brain_float()
    if flag is None:
        return Device("cpu", "float32", reason)
    return Device("cpu", "bfloat16", f"{reason}, and it has {flag}")


@functools.cache
def brain_float(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Names the unit of the processor that multiplies bfloat16; ``None`` if there is none.

    Only Linux tells, and only of x86; elsewhere the answer is ``None``.
    """
    with suppress(OSError):
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            name, _, flags = line.partition(":")
            if name.strip() == "flags":
                there = {"amx_bf16", "avx512_bf16"}.intersection(flags.split())
                return min(there, default=None)
    return None


def cache_folder(cache: Path | None = None) -> Path:
    """Gives the folder for what is made once and can be made again: the platform's, by default."""
    return cache or user_cache_path("anyseek", appauthor=False)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a small file so that it is there whole or not at all; gives up quietly, as a cache."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def best_batch(
    key: str,
    device: Device,
    run: Callable[[int], object],
    *,
    cache: Path | None = None,
) -> int:
    """Gives the number of inputs at a time that goes fastest; measured once and then remembered.

    Sizes are tried from the smallest on, until one is no faster than the one before, memory runs
    out, or ``PROBE_S`` have passed.

    Args:
        key: The space, and whatever else the answer depends on; the device, its precision and the
            number of threads are added.
        device: Where ``run`` runs.
        run: Embeds so many inputs of the usual shape, and returns when they are done.
        cache: Folder that remembers; the platform's cache folder by default.
    """
    threads = os.cpu_count() or 1
    told = "\0".join((key, device.name, device.precision, device.reason, str(threads)))
    name = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
    path = cache_folder(cache) / f"batch-{name}"
    sizes = GPU_BATCHES if device.on_gpu else CPU_BATCHES
    with suppress(OSError, ValueError):
        known = int(path.read_bytes()[:8])
        if known in sizes:
            return known
    best = _probed(sizes, run)
    write_whole(path, str(best).encode())
    return best


def _probed(sizes: Sequence[int], run: Callable[[int], object]) -> int:
    started = time.monotonic()
    best, rate = sizes[0], 0.0
    run(sizes[0])  # the first call loads what it needs, and is not representative
    for size in sizes:
        try:
            begun = time.monotonic()
            run(size)
        except Exception as error:
            if not out_of_memory(error):
                raise
            return best
        found = size / max(time.monotonic() - begun, 1e-6)
        if found <= rate * BETTER:
            return best
        best, rate = size, found
        if time.monotonic() - started > PROBE_S:
            return best
    return best


def out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that a graphics processor's memory did not suffice."""
    # torch.OutOfMemoryError is a RuntimeError; MPS raises the bare one with this text
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )


class Batches:
    """Splits inputs into batches of a size that shrinks where memory does not suffice.

    ``run`` must not be called from two threads at once.
    """

    def __init__(self, size: int) -> None:
        """Starts with a size, at least 1."""
        self.size = size
        self._told = False

    def run(self, inputs: Sequence[Input], embed: Callable[[Sequence[Input]], Vectors]) -> Vectors:
        """Embeds all inputs: ``(len(inputs), dim)`` float32, in order.

        A batch that is out of memory is halved and tried again; the smaller size stays. That is
        logged once, as a warning.

        Raises:
            ModelError: If a single input does not fit.
        """
        rows: list[Vectors] = []
        at = 0
        while at < len(inputs):
            some = inputs[at : at + self.size]
            try:
                rows.append(embed(some))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._shrink(len(some))
                continue
            at += len(some)
        return np.concatenate(rows)

    def _shrink(self, failed: int) -> None:
        _free()
        if failed == 1:
            raise ModelError(
                "the graphics processor's memory does not hold even one input: use --device cpu"
            )
        self.size = failed // 2
        if not self._told:
            self._told = True
            _log.warning("out of memory with %d inputs at a time: going on with fewer", failed)


def _free() -> None:
    """Has torch give back what it keeps of a graphics processor's memory."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
