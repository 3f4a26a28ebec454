"""Adapters at run time: numpy heads over a base that must still be the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval import models
from retrieval.errors import ModelError
from retrieval.models import ModelSpec
from retrieval.towers import adapted
from retrieval.types import Modality
from tests.fakes import DIM, colour_encoder, only

ROOT = Path(__file__).resolve().parents[2]

Arrays = dict[str, NDArray[np.float32]]


def swap() -> Arrays:
    """A head that turns every colour into the next one."""
    turned = np.roll(np.eye(DIM, dtype=np.float32), 1, axis=1)
    return {"linear": turned - np.eye(DIM, dtype=np.float32), "bias": np.zeros(DIM, np.float32)}


def write(
    folder: Path,
    heads: Mapping[Modality, Arrays],
    *,
    base: str = "colours",
    base_space: str = "colours-1",
    dim: int = DIM,
) -> Path:
    """Writes an adapter by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    content = adapted.packed(heads)
    (folder / "heads.npz").write_bytes(content)
    space = adapted.identity(base_space, content)
    (folder / "model.toml").write_text(
        f'kind = "adapter"\nname = "mine"\nspace = "{space}"\ndim = {dim}\nbase = "{base}"\n'
        f'base_space = "{base_space}"\nlicence = "own"\n',
        encoding="utf-8",
    )
    adapted.card.cache_clear()
    return folder


@pytest.fixture
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the colour encoder the only model."""
    encoder = colour_encoder()
    spec = ModelSpec(
        "colours",
        encoder.space,
        DIM,
        tuple(encoder.towers),
        0,
        "none",
        here=True,
        calibrations={},
        load=lambda: encoder,
    )
    only(monkeypatch, spec)


@pytest.mark.usefixtures("_colours")
def test_a_head_turns_its_own_modality_alone(tmp_path: Path) -> None:
    """Texts are turned, sounds and pictures stay as the base has them."""
    folder = write(tmp_path / "one", {Modality.TEXT: swap()})
    described = adapted.describe(folder)
    encoder = adapted.load(folder)
    assert (encoder.space, encoder.dim) == (described.space, described.dim)
    assert encoder.model == str(folder)
    assert described.modalities == tuple(colour_encoder().towers)
    base = colour_encoder().towers
    red = base[Modality.TEXT].embed(["red"])
    assert np.allclose(encoder.towers[Modality.TEXT].embed(["red"]), np.roll(red, 1), atol=1e-6)
    tone = np.sin(np.arange(400, dtype=np.float32))
    sound = encoder.towers[Modality.AUDIO]
    assert np.array_equal(sound.embed([tone]), base[Modality.AUDIO].embed([tone]))
    assert (sound.rate_hz, encoder.towers[Modality.IMAGE].side_px) == (4_000, 16)
    assert models.model(str(folder)).space == described.space


@pytest.mark.usefixtures("_colours")
def test_other_heads_are_another_space(tmp_path: Path) -> None:
    """The space says what the vectors are, and the heads' file must be that one."""
    one = write(tmp_path / "one", {Modality.TEXT: swap()})
    other = write(tmp_path / "other", {Modality.IMAGE: swap()})
    assert adapted.describe(one).space != adapted.describe(other).space
    (one / "heads.npz").write_bytes((other / "heads.npz").read_bytes())
    with pytest.raises(ModelError, match=r"heads\.npz cannot be used \(not those of"):
        adapted.load(one).towers[Modality.TEXT].embed(["red"])


@pytest.mark.usefixtures("_colours")
@pytest.mark.parametrize(
    ("base", "base_space", "message"),
    [
        ("gone", "colours-1", "needs the model gone, which is not here"),
        ("colours", "colours-0", "was learned on colours-0, but colours is colours-1 now"),
    ],
)
def test_a_base_that_is_gone_or_changed(
    tmp_path: Path, base: str, base_space: str, message: str
) -> None:
    """Vectors of another base would mean nothing."""
    folder = write(tmp_path, {Modality.TEXT: swap()}, base=base, base_space=base_space)
    for look in (adapted.describe, adapted.load, lambda one: models.model(str(one))):
        with pytest.raises(ModelError, match=message) as caught:
            look(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_colours")
def test_an_adapter_over_an_adapter_is_refused(tmp_path: Path) -> None:
    """Least of all over itself."""
    folder = write(tmp_path, {Modality.TEXT: swap()}, base=str(tmp_path))
    with pytest.raises(ModelError, match="names another adapter as its base"):
        models.model(str(folder))


@pytest.mark.usefixtures("_colours")
@pytest.mark.parametrize(
    "head",
    [
        {"linear": np.zeros((3, 3), np.float32), "bias": np.zeros(3, np.float32)},
        {"linear": np.zeros((DIM, DIM), np.float32)},
        {"bias": np.full(DIM, np.nan, np.float32), "linear": np.zeros((DIM, DIM), np.float32)},
        {"strange": np.zeros(DIM, np.float32)},
    ],
)
def test_heads_that_do_not_fit_are_refused(tmp_path: Path, head: Arrays) -> None:
    """Wrong shapes, halves of a head, numbers that are none, names that nobody knows."""
    folder = write(tmp_path, {Modality.TEXT: head})
    with pytest.raises(ModelError, match=r"heads\.npz cannot be used"):
        adapted.load(folder).towers[Modality.TEXT].embed(["red"])


def test_a_card_that_is_none(tmp_path: Path) -> None:
    """Missing, of another kind, or not to be read."""
    assert not adapted.is_adapter(tmp_path)
    with pytest.raises(ModelError, match="there is no adapter in"):
        adapted.card(tmp_path)
    (tmp_path / "model.toml").write_text('kind = "adapter"\nname = "x"\n')
    assert adapted.is_adapter(tmp_path)
    with pytest.raises(ModelError, match="is not an adapter's: 'space'"):
        adapted.card(tmp_path)


def test_a_cold_search_imports_no_torch(tmp_path: Path) -> None:
    """Texts of an adapter over the bundled model need numpy alone."""
    from retrieval.towers import bundled

    space = bundled.card().space
    head = {"linear": np.zeros((512, 512), np.float32), "bias": np.zeros(512, np.float32)}
    folder = write(
        tmp_path / "mine", {Modality.TEXT: head}, base="anyseek-1", base_space=space, dim=512
    )
    text = tmp_path / "note.txt"
    text.write_text("A dog runs over the beach.")
    code = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise RuntimeError("loads " + name)
sys.meta_path.insert(0, Guard())
from cli.app import main
main()
"""
    index = str(tmp_path / "index.db")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    training = {"torch", "transformers", "onnx"}
    for forbidden, arguments in (
        (training, ["index", str(text), "--model", str(folder), "--index", index]),
        (
            training | {"onnxruntime", "PIL"},
            ["search", "dog", "--index", index, "--format", "paths"],
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"FORBIDDEN = {forbidden}\n{code}", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == f"{text}\n"
