"""Where networks run, and how many inputs at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retrieval.errors import ModelError
from retrieval.towers import device
from retrieval.towers.device import CPU, Batches, Device, best_batch, brain_float, choose
from retrieval.types import Vectors


def test_the_processor_is_always_there() -> None:
    """It is what one gets without a wish where there is nothing else, and by asking."""
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert choose().name == choose("auto").name == "cpu"
    asked = choose(" CPU ")
    assert (asked.name, asked.on_gpu) == ("cpu", False)
    assert asked.precision == ("float32" if brain_float() is None else "bfloat16")


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        ("fpu sse2 avx2 fma", None),
        ("fpu avx512f avx512_bf16", "avx512_bf16"),
        ("amx_tile amx_bf16 avx512_bf16", "amx_bf16"),
        ("avx512_bf16x", None),
    ],
)
def test_bfloat16_only_in_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, unit: str | None
) -> None:
    """A processor computes in bfloat16 only if its flags name a unit for it."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: amx_bf16\nflags\t\t: {flags}\n")
    found = brain_float(cpuinfo)
    assert found == unit
    monkeypatch.setattr(device, "brain_float", lambda: found)
    assert choose("cpu").precision == ("bfloat16" if unit else "float32")
    assert brain_float(tmp_path / "none") is None


@pytest.mark.parametrize("asked", ["tpu", "cuda:", "cuda:x", "cpu:0", "cuda:-1", "cuda:٣", "mps:1"])
def test_no_such_device(asked: str) -> None:
    """What no device is called is refused; `cuda:` alone is cuda."""
    with pytest.raises(ModelError, match=r"there is no (device named|CUDA device)"):
        choose(asked)


def pretend(monkeypatch: pytest.MonkeyPatch, *, cards: int, capability: tuple[int, int]) -> None:
    """Has torch tell of cards that are not there."""
    monkeypatch.setattr(device, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"card {number}")


def test_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card is taken without a wish; bfloat16 from Ampere on, float16 before."""
    pretend(monkeypatch, cards=2, capability=(8, 0))
    assert choose() == Device("cuda", "bfloat16", "card 0")
    assert choose("cuda:1") == Device("cuda:1", "bfloat16", "card 1")
    with pytest.raises(ModelError, match="2 CUDA devices: no cuda:2"):
        choose("cuda:2")
    pretend(monkeypatch, cards=1, capability=(7, 5))
    assert choose("cuda").precision == "float16"
    assert choose("cpu").name == "cpu"
    pretend(monkeypatch, cards=0, capability=(0, 0))
    with pytest.raises(ModelError, match="no CUDA device"):
        choose("cuda")


def test_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's is taken where it is there, and missed where it is asked for in vain."""
    pretend(monkeypatch, cards=0, capability=(0, 0))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose().name == choose("mps").name == "mps"
    assert choose("mps").dtype() is torch.float16
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match="no mps device"):
        choose("mps")


# ---- batches -------------------------------------------------------------------------------------


def clocked(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]
) -> tuple[Callable[[int], None], list[int]]:
    """Gives something to run and a list of what was run, on a clock that only running moves."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("retrieval.towers.device.time.monotonic", lambda: clock.now)
    ran: list[int] = []

    def run(size: int) -> None:
        if size not in seconds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        ran.append(size)
        clock.now += seconds[size]

    return run, ran


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 0.1, 2: 0.1, 4: 0.1, 8: 0.2, 16: 0.4}, 4),  # no faster from 8 on
        ({1: 0.1, 2: 0.1}, 2),  # out of memory
        ({1: 0.1, 2: 0.4}, 1),
        ({1: 1.2, 2: 1.2, 4: 1.2}, 2),  # no time to go on
        ({1: 0.01, 2: 0.01, 4: 0.01, 8: 0.01, 16: 0.01}, 16),
    ],
)
def test_best_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], best: int
) -> None:
    """The probe stops where it pays no more, and is not repeated."""
    run, ran = clocked(monkeypatch, seconds)
    assert best_batch("space", CPU, run, cache=tmp_path) == best
    count = len(ran)
    assert best_batch("space", CPU, run, cache=tmp_path) == best
    assert len(ran) == count
    best_batch("another", CPU, run, cache=tmp_path)
    assert len(ran) == 2 * count
    for file in tmp_path.iterdir():
        file.write_text("a million")
    assert best_batch("space", CPU, run, cache=tmp_path) == best
    assert len(ran) == 3 * count


def test_probe_lets_other_errors_through(tmp_path: Path) -> None:
    """Only a lack of memory ends the probe quietly."""

    def run(size: int) -> None:
        if size > 1:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        best_batch("space", CPU, run, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fits", "tried"), [(8, [8, 2]), (3, [8, 4, 2, 2, 2, 2, 2]), (1, [8, 4, 2] + [1] * 10)]
)
def test_batches_shrink(caplog: pytest.LogCaptureFixture, fits: int, tried: list[int]) -> None:
    """What does not fit is halved until it does; the rows stay in order, and it is said once."""
    sizes: list[int] = []

    def embed(some: Sequence[int]) -> Vectors:
        sizes.append(len(some))
        if len(some) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return np.array([[number] for number in some], np.float32)

    batches = Batches(8)
    with caplog.at_level(logging.WARNING):
        rows = batches.run(range(10), embed)
    assert rows.ravel().tolist() == list(range(10))
    assert sizes == tried
    assert batches.size == max(size for size in sizes if size <= fits)
    assert [record.message for record in caplog.records] == (
        ["out of memory with 8 inputs at a time: going on with fewer"] if fits < 8 else []
    )


def test_batches_give_up() -> None:
    """One input that does not fit is an error to act on; other errors stay what they are."""

    def full(some: Sequence[int]) -> Vectors:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)")

    def broken(some: Sequence[int]) -> Vectors:
        raise RuntimeError("no kernel image")

    with pytest.raises(ModelError, match="use --device cpu"):
        Batches(4).run(range(4), full)
    with pytest.raises(RuntimeError, match="no kernel"):
        Batches(4).run(range(4), broken)
