"""The audio tower's training: values against references, and one tiny training end to end."""

from __future__ import annotations

import math
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


RECIPE = """
[network]
wide = 1.5
hidden = 8

[sounds]
most = 100
speeds = 2
dull = 0.4
synthetic = 1
near = 0.1
views = 2

[[stages]]
first = 0
last = 4
chained = false
steps = 2
batch = 4
frames = 64
rate = 4e-3
decay = 1e-4

[[stages]]
first = 0
last = 17
chained = true
steps = 3
batch = 4
frames = 100
rate = 1e-3
decay = 1e-4
still = true

[losses]
hints = 0.3
features = 2.0
classes = 1.0
logits = 0.1

[place]
steps = 5
batch = 16
rate = 1e-3
decay = 0.1
dropout = 0.3
noise = 0.3
scale = 20.0
keep = 2.0
"""


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
    assert [step.stride for step in teacher.steps] == [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1]
    assert [step.widens for step in teacher.steps] == [False] + 14 * [True]
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


def test_log_mels_are_scaled_as_the_teacher_was_trained() -> None:
    """``(log(power + 1e-5) + 4.5) / 5`` of the power at the teacher's level."""
    from retrieval.learn.sound.teacher import LEVEL, scaled

    power = np.random.default_rng(0).gamma(0.3, size=(7, 128)).astype(np.float32)
    got = scaled(torch.from_numpy(bundled_audio.over_mean(power))[None])
    expected = (np.log(power * (LEVEL / power.mean()) + 1e-5) + 4.5) / 5
    assert got.shape == (1, 1, 128, 7)
    assert got[0, 0].T.numpy() == pytest.approx(expected, abs=1e-5)


def student(names: Any, seed: int = 0) -> Any:
    """A student of the tiny teacher's shape."""
    from retrieval.learn.sound.student import Head, Student, Trunk
    from retrieval.learn.sound.teacher import Step

    torch.manual_seed(seed)
    steps = [Step(3, 1, 8, 8, False, False, False), Step(3, 2, 16, 8, True, True, True)]
    return Student(Trunk(steps, 32, 1.5), Head(names, 8)).eval()


def test_the_head_starts_from_the_names_of_classes() -> None:
    """Untrained, it gives the sum of names weighed by probabilities; training may correct it."""
    names = torch.randn(527, 26, generator=torch.Generator().manual_seed(0))
    head = student(names).head
    features, logits = torch.randn(3, 384), torch.randn(3, 527) - 4
    expected = torch.sigmoid(logits).double() @ names.double()
    got = head(features, logits).detach()
    cosine = torch.nn.functional.cosine_similarity(got.double(), expected)
    assert cosine.numpy() == pytest.approx(np.ones(3), abs=1e-6)
    length = expected.norm(dim=1)
    called = head.called(logits).norm(dim=1).numpy()
    assert called == pytest.approx((length / (length + head.SOFT)).numpy(), abs=1e-5)
    head.standardise(features)
    x = head.standardised(features).detach()
    assert x.mean(0).abs().max() < 1e-5
    torch.nn.init.normal_(head.linear.weight)
    assert not torch.allclose(head(features, logits), got)


def test_distances_are_errors_over_the_variance() -> None:
    """By hand: one channel varies by 4 and is off by 1, the other by 1 and is exact."""
    from retrieval.learn.sound.distil import LEAST, _Variances, divergence

    wanted = torch.tensor([[[[2.0, -2.0]], [[1.0, -1.0]]]])
    made = wanted + torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    variances = wanted.var((0, 2, 3))
    expected = float((torch.tensor([1.0, 0.0]) / (variances + LEAST * variances.mean())).mean())
    assert float(_Variances().distance("x", made, wanted)) == pytest.approx(expected)
    logits = torch.randn(4, 527)
    assert float(divergence(logits, logits)) == pytest.approx(0.0, abs=1e-4)
    p, q = 0.8, 0.3
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    one, two = (torch.tensor([[math.log(x / (1 - x))]]) for x in (p, q))
    assert float(divergence(two, one)) == pytest.approx(expected, rel=1e-5)


def test_stages_learn_and_those_before_stay(tmp_path: Path) -> None:
    """Errors fall, a frozen stage keeps its weights and statistics, and the given trunk its own."""
    from retrieval.learn.sound.clips import FRAMES, Bank, Clip, Unit
    from retrieval.learn.sound.distil import distil
    from retrieval.learn.sound.mixes import Mixer
    from retrieval.learn.sound.recipe import Stage, Weights
    from retrieval.learn.sound.student import Trunk
    from retrieval.learn.sound.teacher import Teacher

    torch.save(state(0), tmp_path / "teacher.pt")
    teacher = Teacher(tmp_path / "teacher.pt")
    torch.manual_seed(0)
    trunk = Trunk(teacher.steps, 32, 1.5)
    generator = np.random.default_rng(0)
    power = generator.normal(size=(3, FRAMES, 128)).astype(np.float16)
    units = [Unit(Clip(Path(str(i)), "", 0, "x"), 0, 1) for i in range(3)]
    mixer = Mixer(Bank(units, power, np.full(3, FRAMES)), np.arange(3), seed=0)
    before = {name: one.clone() for name, one in trunk.state_dict().items()}
    said: list[str] = []
    trained = distil(
        trunk,
        teacher,
        mixer,
        Stage(1, 3, True, 30, 4, 40, 5e-2, 0.0),
        Weights(1.0, 1.0, 1.0, 1.0),
        first_number=0,
        work=tmp_path,
        report=lambda stage, done, total: said.append(stage),
        name="part",
    )
    errors = [[float(one) for one in line.split("errors ")[1].split()] for line in said]
    assert len(said) == 30
    assert sum(errors[-1]) < 0.7 * sum(errors[0])
    after = trained.state_dict()
    for name, one in trunk.state_dict().items():
        assert torch.equal(one, before[name])
        stage = int(name.split(".")[1]) if name.startswith("stages") else -1
        if stage not in (1, 2):
            assert torch.equal(after[name], one)
    assert not torch.equal(after["stages.1.parts.3.0.weight"], before["stages.1.parts.3.0.weight"])
    still = distil(
        trained,
        teacher,
        mixer,
        Stage(1, 3, True, 2, 4, 40, 1e-3, 0.0, still=True),
        Weights(1.0, 1.0, 1.0, 1.0),
        first_number=0,
        work=tmp_path,
        report=lambda stage, done, total: None,
        name="part",
    ).state_dict()
    statistics = [name for name in after if "running" in name and name.startswith("stages.1.")]
    assert statistics
    assert all(torch.equal(still[name], after[name]) for name in statistics)
    assert not torch.equal(still["stages.1.parts.3.0.weight"], after["stages.1.parts.3.0.weight"])
    assert any(not torch.equal(after[name], before[name]) for name in statistics)


def test_the_exported_tower_equals_the_trained_one(tmp_path: Path) -> None:
    """The exported tower equals the trained one, for one window and for several."""
    from retrieval.learn.sound.bundled import write_audio_tower

    trained = student(torch.randn(527, 26, generator=torch.Generator().manual_seed(1)))
    torch.nn.init.normal_(trained.head.linear.weight, std=0.02)
    for module in trained.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics of some training
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    write_audio_tower(trained, tmp_path / "audio.onnx")
    tower = bundled_audio.AudioTower(tmp_path / "audio.onnx")
    mel = np.random.default_rng(0).normal(-4, 4, (3, 1000, 128)).astype(np.float32)
    with torch.no_grad():
        expected = trained(torch.from_numpy(mel)).numpy()
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
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
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
    told = [stage.partition(",")[0] for stage in stages]
    assert told.count("trunk part 1 of 2") == 2  # steps of one training, shared by both
    assert told.count("trunk part 2 of 2") == 3
    assert told.count("head") == 10


def test_mixtures_depend_on_their_number_and_add_powers() -> None:
    """A mixture is the sum of its parts' powers, shifted; the same number gives the same."""
    from retrieval.learn.sound.clips import FRAMES, Bank, Clip, Unit
    from retrieval.learn.sound.mixes import Mixer, distort, mix

    units = [Unit(Clip(Path(f"{i}"), "", 0, "x"), 0, 1) for i in range(4)]
    power = np.random.default_rng(0).normal(size=(4, FRAMES, 128)).astype(np.float16)
    bank = Bank(units, power, np.full(4, FRAMES))
    got = mix(bank, np.array([3]), np.random.default_rng(1))
    linear = np.exp(power[3].astype(np.float64))
    shifts = [np.abs(np.roll(linear, by, 0) / linear.mean() - got).max() for by in range(FRAMES)]
    assert min(shifts) < 1e-3
    both = mix(bank, np.array([3, 0]), np.random.default_rng(1))
    assert (both - got).min() > 0
    loudness = float((both - got).mean())
    assert 10**-1.4 <= loudness <= 10**0.8
    mixer = Mixer(bank, np.array([1, 2]), seed=5)
    one = mixer.batch(np.array([7, 8]), frames=40)
    assert one.shape == (2, 40, 128)
    assert np.array_equal(one[1], mixer.batch(np.array([8]), frames=40)[0])
    assert not np.array_equal(one[0], one[1])
    before = got.copy()
    changed = [distort(got, np.random.default_rng(seed)) for seed in range(8)]
    assert np.array_equal(got, before)
    assert 0 < sum(np.array_equal(one, got) for one in changed) < 8


def test_units_are_read_as_they_will_be_in_use(tmp_path: Path) -> None:
    """Short sounds are repeated; a dull unit has nothing above 8 kHz; another speed is higher."""
    from retrieval.learn.sound.clips import FRAMES, Clip, Unit, read_samples

    samples = np.random.default_rng(0).normal(0, 0.1, 22_050).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44_100)
    clip = Clip(tmp_path / "a.wav", "", 0, "x")
    plain, frames = read_samples(Unit(clip, 0.0, 1.0))
    assert plain.shape == (160_000,)
    assert frames == FRAMES // 10
    assert plain[16_000:32_000] == pytest.approx(plain[:16_000], abs=1e-6)

    def above(one: NDArray[np.float32]) -> float:
        power = np.abs(np.fft.rfft(one)) ** 2
        return float(power[len(power) * 9 // 16 :].sum() / power.sum())

    dull, _ = read_samples(Unit(clip, 0.0, 1.0, dull=True))
    assert above(plain) > 0.2
    assert above(dull) < 0.01
    assert read_samples(Unit(clip, 0.0, 1.25))[1] == FRAMES // 10 * 4 // 5
