"""CLAP checkpoints give the vectors that transformers gives, and the same ones every time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval import sounds
from retrieval.errors import ModelError, ModelMissingError
from retrieval.towers import clap, clap_mel
from retrieval.types import Encoder, Modality
from tests import checkpoints

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = ["a dog barks", "", "雪山 🐕", "thunder " * 60, "rain on a roof"]
Floats = np.typing.NDArray[np.float32]


class Made:
    """A checkpoint, what transformers makes of it, and what we do."""

    def __init__(self, folder: Path, *, fused: bool) -> None:
        self.folder = folder
        self.fused = fused
        self.model = checkpoints.clap(folder, fused=fused)
        self.cache = folder.with_name(f"{folder.name}-cache")
        self.encoder: Encoder = clap.load(str(folder), "cpu", cache=self.cache)

    def extractor(self) -> Any:
        from transformers import AutoFeatureExtractor

        kind: Any = AutoFeatureExtractor
        return kind.from_pretrained(self.folder)

    def theirs(self, waves: list[Floats]) -> Floats:
        """Vectors of sounds by transformers alone; no sound counts as longer than the window."""
        import torch

        found = self.extractor()(waves, sampling_rate=48_000, return_tensors="pt")
        longer = torch.zeros((len(waves), 1), dtype=torch.bool)
        with torch.inference_mode():
            vectors = self.model.get_audio_features(
                input_features=found["input_features"].float(), is_longer=longer
            )
        return np.asarray(vectors.pooler_output.numpy(), np.float32)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fused"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Both kinds of checkpoint."""
    return Made(tmp_path_factory.mktemp("clap") / "model", fused=request.param)


def wave(seed: int, count: int) -> Floats:
    """Noise that changes its level, so that every part of it matters."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=count) * np.linspace(0.01, 0.5, count), np.float32)


def window(samples: Floats) -> Floats:
    """A window as sounds are cut: repeated to ten seconds."""
    return np.tile(samples, -(-480_000 // len(samples)))[:480_000]


def test_it_says_what_it_is(made: Made) -> None:
    """Its description agrees with what it gives; the space goes by the weights."""
    told = clap.describe(str(made.folder))
    assert (told.dim, told.modalities) == (checkpoints.DIM, (Modality.AUDIO, Modality.TEXT))
    assert told.size_bytes == (made.folder / "model.safetensors").stat().st_size
    assert (made.encoder.space, made.encoder.dim) == (told.space, told.dim)
    assert made.encoder.towers[Modality.AUDIO].rate_hz == 48_000


def test_texts(made: Made) -> None:
    """Texts have the vectors of transformers, cut off where it cuts them off."""
    import torch
    from transformers import AutoTokenizer

    tower = made.encoder.towers[Modality.TEXT]
    ours = tower.embed([tower.prepare(text) for text in TEXTS])
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=48, return_tensors="pt")
    with torch.inference_mode():
        theirs = made.model.get_text_features(**tokens).pooler_output.numpy()
    assert ours.dtype == np.float32
    assert (ours * theirs).sum(1).min() >= 0.9999
    assert abs(float(ours[0] @ ours[3])) < 0.999  # they differ at all


def test_sounds(made: Made) -> None:
    """Whole windows and short sounds have the vectors of transformers."""
    tower = made.encoder.towers[Modality.AUDIO]
    waves = [wave(0, 480_000), wave(1, 100_000), wave(2, 300_000)]
    ours = tower.embed([tower.prepare(window(one)) for one in waves])
    theirs = made.theirs(waves)
    assert ours.dtype == np.float32
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert (ours * theirs).sum(1).min() >= 0.9999
    assert float(ours[0] @ ours[1]) < 0.9999


def test_spectrograms(made: Made) -> None:
    """The numbers are those of the checkpoint's own feature extractor."""
    recipe, _ = clap._recipe(made.folder)
    for count in (480_000, 479_000, 240_000, 100_001, 2_400):
        samples = wave(count, count)
        theirs = made.extractor()(samples, sampling_rate=48_000)["input_features"][0]
        ours = clap_mel.log_mel(clap_mel.filled(samples, recipe), recipe)
        assert ours.shape == (1_001, 64)
        assert all(np.abs(one - ours).max() < 1e-4 for one in np.asarray(theirs))


@pytest.mark.parametrize("seconds", [0.3, 2.5, 4.0, 7.0])
def test_a_short_file_is_padded_as_in_training(seconds: float, made: Made, tmp_path: Path) -> None:
    """What was repeated to fill a window is told from its samples, and followed by silence."""
    import soundfile

    path = tmp_path / "short.wav"
    samples = wave(5, round(48_000 * seconds))
    samples -= samples.mean()
    soundfile.write(path, samples, 48_000, subtype="FLOAT")
    (part,) = sounds.windows(path, 48_000)
    recipe, _ = clap._recipe(made.folder)
    filled = clap_mel.filled(part.content, recipe)
    repeats = 480_000 // len(samples)
    assert np.array_equal(filled[len(samples) * repeats :], np.zeros(480_000 % len(samples)))
    assert np.allclose(filled[: len(samples)], samples, atol=1e-6)
    tower = made.encoder.towers[Modality.AUDIO]
    ours = tower.embed([tower.prepare(part.content)])
    assert float((ours * made.theirs([part.content[: len(samples)]])).sum()) >= 0.9999


def test_the_same_window_gives_the_same_bits(made: Made) -> None:
    """Nothing is drawn at random, whatever has been drawn before."""
    tower = made.encoder.towers[Modality.AUDIO]
    first = tower.embed([tower.prepare(wave(3, 480_000))])
    for seed in range(3):
        np.random.seed(seed)
        again = tower.embed([tower.prepare(wave(3, 480_000))])
        assert again.tobytes() == first.tobytes()
    longer = tower.embed([tower.prepare(np.concatenate([wave(3, 480_000), wave(4, 9_999)]))])
    assert longer.tobytes() == first.tobytes()


def test_paddings() -> None:
    """The three ways to fill, by hand."""

    def recipe(padding: str) -> clap_mel.Recipe:
        return clap_mel.recipe(
            {"sampling_rate": 8_000, "max_length_s": 1, "padding": padding}, Path("p")
        )

    sound = wave(0, 3_000)
    zeros = np.zeros(2_000, np.float32)
    assert np.array_equal(
        clap_mel.filled(sound, recipe("repeatpad")), np.concatenate([sound, sound, zeros])
    )
    assert np.array_equal(
        clap_mel.filled(sound, recipe("repeat")), np.concatenate([sound, sound, sound[:2_000]])
    )
    assert np.array_equal(
        clap_mel.filled(sound, recipe("pad")), np.concatenate([sound, np.zeros(5_000)])
    )


# ---- what cannot be loaded -----------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A checkpoint that may be spoilt."""
    folder = tmp_path / "copy"
    source = tmp_path_factory.getbasetemp() / "clap-to-spoil"
    if not source.exists():
        checkpoints.clap(source)
    shutil.copytree(source, folder)
    return folder


def edit(path: Path, **changes: object) -> None:
    """Changes a JSON file; ``None`` removes a key."""
    table = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))


def test_other_weights_are_another_space(copy: Path) -> None:
    """So is another preparation; another folder is not."""
    space = clap.describe(str(copy)).space
    moved = copy.rename(copy.with_name("moved"))
    assert clap.describe(str(moved)).space == space
    edit(moved / "preprocessor_config.json", frequency_max=8_000)
    other = clap.describe(str(moved)).space
    assert other != space
    data = bytearray((moved / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (moved / "model.safetensors").write_bytes(data)
    assert clap.describe(str(moved)).space not in (space, other)


def test_missing_models() -> None:
    """A name that was never pulled says how to pull it."""
    with pytest.raises(ModelMissingError, match="anyseek models pull clap:laion/never-pulled"):
        clap.describe("laion/never-pulled")
    with pytest.raises(ModelError, match="neither a folder nor a name"):
        clap.describe("no such thing")
    with pytest.raises(ModelError, match="neither a folder nor a name"):
        clap.describe("../nowhere")


def test_a_cut_file(copy: Path) -> None:
    """Weights that break off are told at once."""
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(ModelError, match="cut short"):
        clap.describe(str(copy))


def test_a_pickle(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles are refused, and taken if the user says so."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="ANYSEEK_ALLOW_PICKLE=1"):
        clap.describe(str(copy))
    monkeypatch.setenv("ANYSEEK_ALLOW_PICKLE", "1")
    tower = clap.load(str(copy), "cpu").towers[Modality.AUDIO]
    assert tower.embed([tower.prepare(wave(0, 480_000))]).shape == (1, checkpoints.DIM)


def test_missing_tensors(copy: Path) -> None:
    """A model of which a part would be random is not loaded."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["audio_projection.linear1.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    tower = clap.load(str(copy), "cpu").towers[Modality.AUDIO]
    with pytest.raises(ModelError, match=r"audio_projection.linear1.weight"):
        tower.embed([tower.prepare(wave(0, 480_000))])


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("config.json", {"model_type": "bert"}, "not of CLAP"),
        ("config.json", {"projection_dim": "many"}, "projection_dim"),
        ("preprocessor_config.json", {"truncation": "elsewhere"}, "does not know"),
        ("preprocessor_config.json", {"feature_extractor_type": "EncodecExtractor"}, "not know"),
        ("preprocessor_config.json", {"max_length_s": 5}, "hears less than 10 s"),
        ("preprocessor_config.json", {"hop_length": "x"}, "damaged"),
        ("preprocessor_config.json", {"fft_window_size": 0}, "does not know"),
    ],
)
def test_other_settings(name: str, changes: dict[str, object], says: str, copy: Path) -> None:
    """What was made for another model is refused in one line."""
    edit(copy / name, **changes)
    with pytest.raises(ModelError, match=says) as caught:
        clap.describe(str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_and_damaged_files(name: str, copy: Path) -> None:
    """Each file that is needed is named when it is damaged, and when it is gone."""
    (copy / name).write_bytes(b"{")
    with pytest.raises(ModelError, match=name):
        clap.describe(str(copy))
    (copy / name).unlink()
    with pytest.raises(ModelError, match=r"config|safetensors"):
        clap.describe(str(copy))


# ---- cold ------------------------------------------------------------------------------------

COLD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "huggingface_hub", "onnx", "PIL"}:
            raise RuntimeError("loads " + name)
sys.meta_path.insert(0, Guard())
from pathlib import Path
from retrieval.towers import clap
from retrieval.types import Modality
encoder = clap.load(sys.argv[1], cache=Path(sys.argv[2]))
tower = encoder.towers[Modality.TEXT]
print(encoder.space, tower.embed([tower.prepare("a dog barks")]).tobytes().hex())
"""


def test_cold_texts_import_no_torch(made: Made) -> None:
    """After the export, a new process embeds texts without torch or transformers."""
    tower = made.encoder.towers[Modality.TEXT]
    expected = tower.embed([tower.prepare("a dog barks")]).tobytes().hex()
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(made.folder), str(made.cache)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [made.encoder.space, expected]
