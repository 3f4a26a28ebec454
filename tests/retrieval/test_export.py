"""Exports: whole or not there, the same vectors as torch's, opened without torch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from retrieval.errors import ModelError
from retrieval.towers import export
from retrieval.towers.export import exported, forget, is_whole, open_onnx, run_onnx, write_onnx


class Words(nn.Module):
    """Tokens into unit vectors, with the attention that text towers have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(3000, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        nn.init.normal_(self.attention.in_proj_bias)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf")).triu(1)
        x = x + self.attention(x, x, x, need_weights=False, attn_mask=mask)[0]
        out: Tensor = nn.functional.normalize(x.mean(dim=1), dim=-1)
        return out


AXES = {"ids": {0: "n", 1: "length"}}


def ids(*shape: int) -> Tensor:
    """Draws tokens, the same for the same shape."""
    return torch.randint(0, 3000, shape, generator=torch.Generator().manual_seed(sum(shape)))


def make(folder: Path) -> None:
    """Exports the words' tower."""
    write_onnx(
        Words(), folder, name="text", examples=[{"ids": ids(2, 5)}, {"ids": ids(3, 9)}], axes=AXES
    )


def test_vectors_are_torchs(tmp_path: Path) -> None:
    """Any number of any length gives what torch gives, within what float16 tables lose."""
    folder = exported("space/text tower", make, cache=tmp_path)
    assert folder == tmp_path / "exports" / "space-text-tower"
    assert sorted(path.name for path in folder.iterdir()) == [
        "files.json",
        "text.data",
        "text.onnx",
    ]
    session, words = open_onnx(folder, "text"), Words().eval()
    for shape in ((1, 1), (2, 5), (7, 3), (4, 77)):
        with torch.inference_mode():
            expected = words(ids(*shape)).numpy()
        given = run_onnx(session, {"ids": ids(*shape).numpy()})
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, expected, atol=2e-3)
    stored = {one.name: one.data_type for one in onnx.load(folder / "text.onnx").graph.initializer}
    assert stored["table.weight"] == onnx.TensorProto.FLOAT16
    assert stored["attention.out_proj.bias"] == onnx.TensorProto.FLOAT
    assert (folder / "text.data").stat().st_size < 3000 * 32 * 2 + 32 * 32 * 4 * 4 + 8192


def test_made_once_and_again_when_damaged(tmp_path: Path) -> None:
    """A whole export is not made again; one that is cut, changed, forgotten or older is."""
    calls: list[Path] = []

    def fake(folder: Path) -> None:
        calls.append(folder)
        (folder / "weights").write_bytes(bytes(range(256)) * 4000)
        (folder / "vocabulary").write_text("words")

    folder = exported("space", fake, cache=tmp_path)
    assert exported("space", fake, cache=tmp_path) == folder
    assert len(calls) == 1
    weights = folder / "weights"
    whole = weights.read_bytes()

    def cut() -> None:
        weights.write_bytes(whole[:-1])

    def blank() -> None:
        weights.write_bytes(whole[:500_000] + bytes(len(whole) - 500_000))

    def remove() -> None:
        (folder / "vocabulary").unlink()

    def scribble() -> None:
        (folder / "files.json").write_text('{"version"')

    def lose() -> None:
        forget(folder)

    for count, damage in enumerate((cut, blank, remove, scribble, lose), start=2):
        damage()
        assert not is_whole(folder)
        exported("space", fake, cache=tmp_path)
        assert len(calls) == count
        assert weights.read_bytes() == whole
        assert sorted(path.name for path in folder.parent.iterdir()) == ["space", "space.lock"]


def test_another_version_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another ONNX Runtime optimised is not used."""
    folder = exported("space", lambda path: None, cache=tmp_path)
    assert is_whole(folder)
    monkeypatch.setattr(export, "LAYOUT", export.LAYOUT + 1)
    assert not is_whole(folder)


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    """What the maker raises is passed on; what was half made is gone."""

    def broken(folder: Path) -> None:
        (folder / "weights").write_bytes(b"half")
        raise ModelError("no such layer")

    with pytest.raises(ModelError, match="no such layer"):
        exported("space", broken, cache=tmp_path)
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["space.lock"]


def test_two_at_once_make_one(tmp_path: Path) -> None:
    """Whoever comes second waits, and takes what the first made."""
    calls: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        calls.append(1)
        entered.set()
        assert go_on.wait(10)
        (folder / "weights").write_bytes(b"whole")

    threads = [
        threading.Thread(target=exported, args=("space", slow), kwargs={"cache": tmp_path})
        for _ in range(2)
    ]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert calls == [1]


def test_no_room(tmp_path: Path) -> None:
    """A cache that cannot be written is an error to act on."""
    (tmp_path / "exports").write_text("a file")
    with pytest.raises(ModelError, match="XDG_CACHE_HOME"):
        exported("space", lambda folder: None, cache=tmp_path)


def test_other_vectors_are_refused(tmp_path: Path) -> None:
    """A graph in which the tracer fixed what must vary is no export."""

    class Fixed(Words):
        def forward(self, ids: Tensor) -> Tensor:
            weights = torch.linspace(-1, 1, int(ids.shape[0]) * 32).reshape(-1, 32)
            return nn.functional.normalize(self.table(ids).mean(dim=1) + weights, dim=-1)

    examples: list[dict[str, Any]] = [{"ids": ids(1, 5)}, {"ids": ids(3, 5)}]
    (tmp_path / "new").mkdir()
    with pytest.raises(ModelError, match="gives other vectors than torch"):
        write_onnx(Fixed(), tmp_path / "new", name="text", examples=examples, axes=AXES)


def test_damaged_graph(tmp_path: Path) -> None:
    """A graph that cannot be opened is named."""
    (tmp_path / "text.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"text\.onnx cannot be read"):
        open_onnx(tmp_path, "text")
