"""The audio tower's training: values against references, and one tiny training end to end."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from retrieval.errors import MediaError, ModelError
from retrieval.learn.sound.synthetic import WORDS, synthetic
from retrieval.learn.sound.words import Vocabulary, prompts, read_classes, read_vocabulary
from retrieval.towers import bundled_audio
from tests.benchmarks import sounds as benchmark

torch = pytest.importorskip("torch")

RATE_HZ = 16_000


class Letters:
    """A text tower that counts letters: texts with the same letters are near."""

    side_px = None
    rate_hz = None

    def prepare(self, content: str) -> str:
        return content

    def embed(self, batch: Any) -> NDArray[np.float32]:
        rows = np.array(
            [[text.lower().count(chr(97 + i)) + 0.1 for i in range(26)] for text in batch]
        )
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def wave(hz: float, seconds: float) -> NDArray[np.float32]:
    """A tone at 16 kHz."""
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(
        np.float32
    )


def folder(path: Path) -> Path:
    """Eight clips of two categories in four folds, as ESC-50 lies on disk."""
    (path / "audio").mkdir(parents=True)
    rows = ["filename\tfold\tcategory"]
    for index in range(8):
        number, kind = ((0, "dog"), (1, "rooster"))[index % 2]
        name = f"{index // 2 + 1}-{index}-A-{number}.wav"
        soundfile.write(path / "audio" / name, wave((300, 2500)[index % 2], 5.0), RATE_HZ)
        rows.append(f"{name}\t{index // 2 + 1}\t{kind}")
    (path / "esc50.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def extra(path: Path) -> Path:
    """Four short sounds, one from a package that is measured on."""
    path.mkdir()
    rows = ["path\tpackage"]
    for index, package in enumerate(("one", "one", "one", "gcompris-qt-data")):
        name = f"{package}-{index}.wav"
        soundfile.write(path / name, wave(500 + 300 * index, 0.7), RATE_HZ)
        rows.append(f"{name}\t{package}")
    (path / "files.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def state(seed: int) -> dict[str, Any]:
    """Weights of the teacher's shape, at random."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = {}

    def conv(name: str, out: int, per_group: int, kernel: int) -> None:
        shape = (out, per_group, kernel, kernel)
        fan = per_group * kernel * kernel
        weights[f"{name}.0.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        weights[f"{name}.1.weight"] = torch.rand(out, generator=generator) + 0.5
        weights[f"{name}.1.bias"] = 0.1 * torch.randn(out, generator=generator)
        weights[f"{name}.1.running_mean"] = 0.1 * torch.randn(out, generator=generator)
        weights[f"{name}.1.running_var"] = torch.rand(out, generator=generator) + 0.5

    def linear(name: str, out: int, entry: int) -> None:
        weights[f"{name}.weight"] = torch.randn(out, entry, generator=generator) / math.sqrt(entry)
        weights[f"{name}.bias"] = torch.zeros(out)

    from retrieval.learn.sound.teacher import _BLOCKS

    conv("features.0", 8, 1, 3)
    for index, (kernel, stride, _) in enumerate(_BLOCKS, 1):
        name = f"features.{index}.block"
        if index == 1:
            conv(f"{name}.0", 8, 1, kernel)
            conv(f"{name}.1", 8, 8, 1)
            continue
        conv(f"{name}.0", 16, 8, 1)
        conv(f"{name}.1", 16, 1, kernel)
        conv(f"{name}.2", 8, 16, 1)
        assert stride in (1, 2)
    conv("features.16", 384, 8, 1)
    linear("classifier.2", 32, 384)
    linear("classifier.5", 527, 32)
    weights["classifier.5.bias"] -= 9.0  # few classes are heard at once
    return weights


def teachers(path: Path) -> Path:
    """A folder with a teacher of random weights and the list of its classes."""
    path.mkdir()
    torch.save(state(0), path / "mn04_as_mAP_432.pt")
    rows = ["index,mid,display_name", *(f'{i},/m/{i},"Class {i}"' for i in range(527))]
    named = dict.fromkeys(name for names in read_vocabulary().like.values() for name in names)
    for place, name in enumerate(named):
        rows[place + 1] = f'{place},/m/{place},"{name}"'
    (path / "audioset_class_labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_average_precision_by_hand() -> None:
    """Hits at places 1 and 3: the mean of 1/1 and 2/3."""
    scores = np.array([0.9, 0.8, 0.7, 0.1], np.float32)
    truth = np.array([True, False, True, False])
    assert benchmark.average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)


def test_average_precision_equals_its_integral() -> None:
    """It is the sum of precision over steps of recall, whatever the order of the items."""
    generator = np.random.default_rng(0)
    scores = generator.permutation(50).astype(np.float32)
    truth = generator.random(50) < 0.3
    expected, found = 0.0, 0
    for place, item in enumerate(sorted(range(50), key=lambda i: -scores[i]), 1):
        if truth[item]:
            found += 1
            expected += found / place / truth.sum()
    assert benchmark.average_precision(scores, truth) == pytest.approx(expected)


def test_distractors_are_not_those_of_the_training() -> None:
    """Their seeds differ from the recipe's, there are enough, and none is silent."""
    from retrieval.learn.sound.recipe import read_recipe

    made = benchmark.distractors()
    assert read_recipe().sounds.synthetic < benchmark.FIRST_SEED
    assert len(made) >= 100
    assert all(one.shape == (bundled_audio.SAMPLES,) and one.std() > 0 for _, one in made)


@pytest.mark.parametrize("kind", sorted(WORDS))
def test_synthetic_sounds_depend_on_their_seed_alone(kind: str) -> None:
    """Synthetic sounds depend on kind and seed, and are neither silent nor clipped."""
    one = synthetic(kind, 1, 16_000)
    assert one.dtype == np.float32
    assert np.array_equal(one, synthetic(kind, 1, 16_000))
    assert not np.array_equal(one, synthetic(kind, 2, 16_000))
    assert 0.005 < np.abs(one).max() < 0.8


def test_noise_has_the_slope_of_its_colour() -> None:
    """Pink noise falls by 3 dB an octave, brown noise by 6; white noise not at all."""
    for kind, slope in (("white noise", 0.0), ("pink noise", 1.0), ("brown noise", 2.0)):
        power = np.abs(np.fft.rfft(synthetic(kind, 3, 320_000))) ** 2
        hz = np.fft.rfftfreq(320_000, 1 / 32_000)
        bands = [power[(hz >= low) & (hz < 2 * low)].mean() for low in (500, 1000, 2000, 4000)]
        fitted = -np.polyfit(np.arange(4), np.log2(bands), 1)[0]
        assert fitted == pytest.approx(slope, abs=0.15)


def test_words_name_every_category_of_the_data_set() -> None:
    """Fifty categories and the synthetic kinds, each with a name; templates have one slot."""
    vocabulary = read_vocabulary()
    assert len(vocabulary.kinds) == 50 + len(WORDS)
    assert all(template.count("{}") == 1 for template in vocabulary.templates)
    assert set(vocabulary.like) <= set(vocabulary.kinds)


def test_prompts_are_means_of_unit_vectors() -> None:
    """Prompts are means over phrasings of unit vectors, made unit again."""
    vocabulary = Vocabulary(("{}", "the {} z"), {"abc": ("abc",), "de": ("de",)}, {})
    tower = Letters()
    got = prompts(vocabulary, ["de", "abc"], tower, phrases=2)
    mean = tower.embed(["de"])[0] + tower.embed(["the de z"])[0]
    assert got[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert np.linalg.norm(got, axis=1) == pytest.approx(np.ones(2), abs=1e-6)


def test_broken_lists_are_named(tmp_path: Path) -> None:
    """Missing columns, missing lists and broken recipes are named."""
    from retrieval.learn.sound.clips import read_esc50
    from retrieval.learn.sound.recipe import read_recipe

    (tmp_path / "esc50.csv").write_text("filename\tfold\na.wav\t1\n", encoding="utf-8")
    with pytest.raises(MediaError, match="no column named category"):
        read_esc50(tmp_path)
    with pytest.raises(MediaError, match="cannot read the names"):
        read_classes(tmp_path / "none.csv")
    (tmp_path / "recipe.toml").write_text("[network]\nwidth = 3\n", encoding="utf-8")
    with pytest.raises(ModelError, match="not a recipe"):
        read_recipe(tmp_path / "recipe.toml")
    (tmp_path / "words.toml").write_text("templates = []\n", encoding="utf-8")
    with pytest.raises(ModelError, match="not a vocabulary"):
        read_vocabulary(tmp_path / "words.toml")


def test_the_teacher_s_bands_equal_kaldi_s_formula() -> None:
    """Mel powers of a tone: triangles on 1127 ln(1 + f/700) over a direct Fourier sum."""
    from retrieval.learn.sound.teacher import teacher_power

    samples = (0.2 * np.random.default_rng(0).normal(size=32_000)).astype(np.float32)
    got = teacher_power(samples)
    assert got.shape == (100, 128)
    frame = 50
    x = (samples[1:] - np.float32(0.97) * samples[:-1]).astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    piece = x[320 * frame - 400 : 320 * frame + 400] * window
    power = np.abs(np.fft.fft(np.pad(piece, 112)))[:512] ** 2

    def mel(hz: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(1127 * np.log(1 + hz / 700))

    place = mel(np.arange(512) * 31.25) / mel(np.array([15_000.0])) * 129
    for band in (0, 20, 127):
        weight = np.clip(1 - np.abs(place - band - 1), 0, None)
        assert got[frame, band] == pytest.approx(float(weight @ power), rel=1e-3)


def test_the_teacher_is_a_function_of_its_weights(tmp_path: Path) -> None:
    """It reads a state dict, folds batch norms, and refuses other files."""
    from torch import nn

    from retrieval.learn.sound.teacher import Teacher, _conv

    weights = state(1)
    torch.save(weights, tmp_path / "teacher.pt")
    teacher = Teacher(tmp_path / "teacher.pt")
    features, logits = teacher(torch.rand(2, 100, 128))
    assert features.shape == (2, 384)
    assert logits.shape == (2, 527)
    plain = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
    norm = nn.BatchNorm2d(8, eps=1e-3)
    plain.weight.data = weights["features.0.0.weight"]
    norm.load_state_dict(
        {
            **{
                key: weights[f"features.0.1.{key}"]
                for key in ("weight", "bias", "running_mean", "running_var")
            },
            "num_batches_tracked": torch.tensor(0),
        }
    )
    x = torch.rand(1, 1, 20, 20)
    folded = _conv(weights, "features.0", 3, 2)
    with torch.no_grad():
        assert torch.allclose(folded(x), norm.eval()(plain(x)), atol=1e-5)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="not the teacher"):
        Teacher(tmp_path / "other.pt")


def test_orthogonal_steps_are_orthogonal() -> None:
    """Singular values end between 0.6 and 1.3, and the singular directions stay."""
    from retrieval.learn.sound.muon import orthogonal

    torch.manual_seed(0)
    matrix = torch.randn(20, 50)
    got = orthogonal(matrix)
    assert got.shape == matrix.shape
    values = torch.linalg.svdvals(got)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    off = (left.T @ got @ right.T) - torch.diag(torch.diagonal(left.T @ got @ right.T))
    assert float(off.abs().max()) < 0.1


def test_distorted_spectrograms_keep_their_shape_and_their_source() -> None:
    """Distortion depends on the generator alone and leaves its argument as it was."""
    from retrieval.learn.sound.train import distort

    mel = torch.randn(4, 500, 64)
    before = mel.clone()
    one = distort(mel, np.random.default_rng(0))
    assert torch.equal(mel, before)
    assert one.shape == mel.shape
    assert torch.equal(one, distort(mel, np.random.default_rng(0)))
    assert not torch.equal(one, distort(mel, np.random.default_rng(1)))


def test_the_exported_tower_equals_the_trained_one(tmp_path: Path) -> None:
    """The exported tower equals the trained one, for one window and for several."""
    from retrieval.learn.sound.bundled import write_audio_tower
    from retrieval.learn.sound.student import Student

    torch.manual_seed(0)
    student = Student((4, 8, 8, 8, 16), 26, 8, 0.1).eval()
    write_audio_tower(student, tmp_path / "audio.onnx")
    tower = bundled_audio.AudioTower(tmp_path / "audio.onnx")
    mel = np.random.default_rng(0).normal(-4, 4, (3, 1000, 64)).astype(np.float32)
    with torch.no_grad():
        expected = student(torch.from_numpy(mel)).numpy()
    for count in (1, 3):
        got = tower.embed(list(mel[:count]))
        assert got.dtype == np.float32
        assert (got * expected[:count]).sum(1).min() > 0.999
        assert np.linalg.norm(got, axis=1) == pytest.approx(np.ones(count), abs=1e-5)


def test_a_tiny_folder_becomes_a_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way on eight tones, with a teacher of random weights; a fold is left out."""
    from retrieval.learn.sound import bundled as learning
    from retrieval.learn.sound.clips import read_esc50, read_extra
    from retrieval.learn.sound.recipe import read_recipe
    from retrieval.types import Encoder, Modality

    class Loaded:
        @staticmethod
        def load(model: Path) -> Encoder:
            return Encoder("letters", "letters-1", 26, {Modality.TEXT: Letters()})

    monkeypatch.setattr(learning, "bundled", Loaded)
    esc50, others = folder(tmp_path / "esc50"), extra(tmp_path / "extra")
    clips = read_esc50(esc50)
    assert learning.left_out_kinds(clips) == ["dog"]
    kept = read_extra(others, most=2, seed=0)
    assert len(kept) == 2
    assert {clip.group for clip in kept} == {"one"}
    text = (Path(__file__).parents[2] / "retrieval/learn/recipe_sound.toml").read_text("utf-8")
    for old, new in (
        ("[32, 64, 128, 256, 512]", "[4, 8, 8, 8, 16]"),
        ("hidden = 256", "hidden = 8"),
        ("synthetic = 50 ", "synthetic = 1 "),
        ("mixes = 20000", "mixes = 60"),
        ("batches = 4", "batches = 2"),
        ("steps = 600\nbatch = 64", "steps = 2\nbatch = 8"),
        ("steps = 1650\nbatch = 32", "steps = 3\nbatch = 8"),
        ("steps = 600\nbatch = 256", "steps = 5\nbatch = 16"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    assert tomllib.loads(text)
    source = learning.Source(esc50, teachers(tmp_path / "teachers"), others, tmp_path)
    stages: list[str] = []
    runs: tuple[tuple[str, dict[str, Any]], ...] = (
        ("fold1", {"leave_fold": 1}),
        ("classes", {"leave_kinds": True}),
    )
    for out, left in runs:
        path = learning.learn(
            source,
            tmp_path / out,
            read_recipe(tmp_path / "recipe.toml"),
            work=tmp_path / "work",
            report=lambda stage, done, total: stages.append(stage),
            **left,
        )
        vectors = bundled_audio.AudioTower(path).embed(
            [bundled_audio.log_mel(np.resize(wave(440, 5.0), bundled_audio.SAMPLES))]
        )
        assert vectors.shape == (1, 26)
        assert np.linalg.norm(vectors) == pytest.approx(1.0, abs=1e-5)
    assert stages.count("first training") == 2  # steps of one training, shared by both
    assert stages.count("second training") == 6


def test_mixtures_keep_to_their_fold_and_add_powers() -> None:
    """Parts with a fold have the same one; a mixture of one part is that part, shifted."""
    from retrieval.learn.sound.clips import FRAMES, Bank, Clip, Unit
    from retrieval.learn.sound.mixes import draw, mix

    units = [
        Unit(Clip(Path(f"{i}"), "dog" if i < 6 else "", i % 3 + 1 if i < 6 else 0, "x"), 0, 1)
        for i in range(9)
    ]
    generator = np.random.default_rng(0)
    student = generator.normal(size=(9, FRAMES, 64)).astype(np.float16)
    heard = generator.normal(size=(9, FRAMES, 128)).astype(np.float16)
    bank = Bank(units, student, heard, np.full(9, FRAMES))
    parts = draw(bank, 200, generator)
    for row in parts:
        folds = {units[unit].clip.fold for unit in row[row >= 0]} - {0}
        assert len(folds) <= 1
    mel, power, shares = mix(bank, np.array([3, -1, -1]), np.random.default_rng(1))
    assert shares.tolist() == [1, 0, 0]
    linear = np.exp(student[3].astype(np.float64))
    expected = np.log(linear / linear.mean() + bundled_audio.FLOOR)
    shifts = [np.abs(np.roll(expected, by, 0)[:3] - mel[:3]).max() for by in range(FRAMES)]
    assert min(shifts) < 1e-3
    ratio = np.roll(np.exp(heard[3].astype(np.float64)), int(np.argmin(shifts)), 0) / power
    assert ratio.max() / ratio.min() == pytest.approx(1.0, rel=1e-3)
