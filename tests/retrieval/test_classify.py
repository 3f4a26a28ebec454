"""Labels and what they say of vectors, in the space of colours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval import labels
from retrieval.classify import TEMPERATURES, USUAL_TEMPERATURE, Classifier
from retrieval.errors import QueryError
from retrieval.labels import Label, LabelSet
from retrieval.prompts import LANGUAGES, bundled
from retrieval.types import Encoder, Modality
from tests.fakes import COLOURS, PALETTE, colour_encoder

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """Colours, whose vocabulary is kept here."""
    monkeypatch.setattr("retrieval.vocabulary.user_cache_path", lambda *_, **__: tmp_path)
    return colour_encoder()


def pictures(encoder: Encoder, *colours: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Vectors of pictures of one colour, or of two halves (``red blue``)."""
    contents = []
    for colour in colours:
        rows = [PALETTE[list(COLOURS).index(name)] for name in colour.split()]
        contents.append(np.repeat(np.array(rows, np.float32), 128 // len(rows), axis=0))
    return encoder.towers[IMAGE].embed(contents)


def test_probabilities_are_a_softmax_of_cosines(encoder: Encoder) -> None:
    """Of all labels, the likeliest first, over the temperature of models that nobody measured."""
    classifier = Classifier(encoder, labels.typed("red,green,blue"))
    rows = pictures(encoder, "red", "green blue", "blue")
    assert not classifier.measured
    cosines = rows @ classifier.label_vectors(IMAGE).T
    powers = np.exp(cosines.astype(np.float64) / USUAL_TEMPERATURE)
    wanted = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.probabilities(rows, IMAGE), wanted, atol=1e-4)
    verdicts = classifier.judge(rows, IMAGE, k=2)
    assert [one.labels[0][0] for one in verdicts] == ["red", "green", "blue"]
    assert [name for name, _ in verdicts[1].labels] == ["green", "blue"]
    assert verdicts[1].labels[0][1] == pytest.approx(0.5, abs=1e-3)
    assert verdicts[0].labels[0][1] == pytest.approx(wanted[0, 0], abs=1e-4)


def test_wordings_are_averaged_and_stand_for_their_label(encoder: Encoder) -> None:
    """The label's own name is not looked for then."""
    warm = Label("green", ("red", "yellow"))
    classifier = Classifier(encoder, LabelSet("x", (warm, Label("blue", ("blue",)))))
    tower = encoder.towers[TEXT]
    mean = tower.embed(["red", "yellow"]).mean(axis=0)
    np.testing.assert_allclose(
        classifier.label_vectors(IMAGE)[0], mean / np.linalg.norm(mean), atol=1e-5
    )
    (verdict,) = classifier.judge(pictures(encoder, "yellow"), IMAGE)
    assert verdict.labels[0][0] == "green"


def test_prompt_sets_count_where_they_are_for_the_modality(encoder: Encoder) -> None:
    """The one asked for, else the label set's, else photo for pictures, plain for texts."""
    plain = labels.typed("a,b")
    mood = LabelSet("m", plain.labels, prompt="mood")
    cases = [
        (plain, None, IMAGE, "photo"),
        (plain, None, TEXT, "plain"),
        (plain, None, Modality.AUDIO, "name"),
        (plain, "sketch", IMAGE, "sketch"),
        (plain, "sketch", TEXT, "plain"),
        (mood, None, TEXT, "mood"),
        (mood, "sketch", IMAGE, "sketch"),
        (mood, "sketch", TEXT, "mood"),
    ]
    for given, prompt, modality, wanted in cases:
        one = Classifier(encoder, given, prompt=bundled()[prompt] if prompt else None)
        assert one.prompt_for("a", modality).name == wanted


def test_what_no_label_fits_is_unknown(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The odds of the labels against all words decide, not the probability among the labels."""
    words = ("red", "green", "blue", "yellow")
    monkeypatch.setattr("retrieval.vocabulary.words", lambda: words)
    classifier = Classifier(encoder, labels.typed("red,green"))
    red, blue = pictures(encoder, "red", "blue")
    known, unknown = classifier.judge(np.stack([red, blue]), IMAGE)
    assert known.known
    assert not unknown.known
    ours = np.exp(np.float64(classifier.label_vectors(IMAGE) @ red) / USUAL_TEMPERATURE).sum()
    tower = encoder.towers[TEXT]
    theirs = np.exp(np.float64(tower.embed(list(words)) @ red) / USUAL_TEMPERATURE).sum()
    assert known.fit == pytest.approx(np.log(ours / theirs), abs=0.05)


def test_no_labels_are_wanted(encoder: Encoder) -> None:
    """At least one."""
    with pytest.raises(QueryError, match="at least 1"):
        Classifier(encoder, labels.typed("a,b")).judge(pictures(encoder, "red"), IMAGE, k=0)


# ---- labels --------------------------------------------------------------------------------------


def test_typed_labels() -> None:
    """With commas between them; spaces around do not count."""
    assert [one.name for one in labels.typed(" cat ,big  dog").labels] == ["cat", "big dog"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", "one label, 'cat', which tells nothing apart"),
        ("cat,dog,CAT", "'CAT' twice"),
        ("cat,,dog", "is empty"),
        ("", "is empty"),
        ("cat,a\x1bb", "cannot be shown"),
    ],
)
def test_labels_that_mean_nothing(text: str, message: str) -> None:
    """Each is told in one line."""
    with pytest.raises(QueryError, match=message) as caught:
        labels.typed(text)
    assert "\n" not in str(caught.value)


def test_labels_from_a_file(tmp_path: Path) -> None:
    """With a mark of byte order, comments, empty lines, Windows' ends of lines, other wordings."""
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeff# mine\r\n\r\npet\ta dog\ta cat\r\n猫\r\n".encode())
    assert labels.read(path).labels == (Label("pet", ("a dog", "a cat")), Label("猫", ("猫",)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no labels"),
        (b"# only this\n\n", "holds no labels"),
        (b"cat\n", "one label"),
        (b"cat\ndog\ncat\n", "twice"),
        ("Hund\nK\u00e4fer\n".encode("latin-1"), "is not UTF-8"),
        ("cat\ndog\n".encode("utf-16"), "is not UTF-8"),
        (b"cat\ndo\0g\n", "cannot be shown"),
        (b"cat\n" * 300_000, "over 1000000 bytes"),
    ],
)
def test_files_that_are_no_labels(tmp_path: Path, content: bytes, message: str) -> None:
    """Each is told in one line that names the file, or the label."""
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(QueryError, match=message):
        labels.read(path)
    with pytest.raises(QueryError, match="cannot read the labels"):
        labels.read(tmp_path / "none.txt")


def test_bundled_sets_are_whole() -> None:
    """Each has as many labels in English and Chinese, in one order, and a known prompt set."""
    assert len(labels.names()) == 6
    for name in labels.names():
        english, chinese = labels.bundled(name), labels.bundled(name, "zh")
        assert english.languages == ("en", "zh")
        assert len(english.labels) == len(chinese.labels)
        for one, other in zip(english.labels, chinese.labels, strict=True):
            assert len(one.wordings) == len(other.wordings)
        assert set(english.languages) <= set(LANGUAGES)
        assert english.modalities == chinese.modalities
        assert english.prompt is None or english.prompt in bundled()
    with pytest.raises(QueryError, match="no label set 'nouns'"):
        labels.bundled("nouns")
    with pytest.raises(QueryError, match="there are en, zh"):
        labels.bundled("scenes", "ru")


def test_constants_are_those_of_the_benchmark() -> None:
    """What is used is what was measured."""
    path = Path(__file__).parent.parent / "benchmarks" / "results" / "classify.json"
    measured = json.loads(path.read_text("utf-8"))
    for name, modality in (("image", IMAGE), ("text", TEXT), ("esc50", Modality.AUDIO)):
        assert measured[name]["temperature, used"] == TEMPERATURES[modality]
    for name in ("image", "text"):
        used = measured[name]["temperature, used"]
        assert measured[name]["temperature, fitted"] == pytest.approx(used, rel=0.1)
