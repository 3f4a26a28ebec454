"""The words that come with the package, their vectors, and which of them something is near to."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import vocabulary as package
from retrieval.models import model
from retrieval.store import Batch, Store
from retrieval.towers.bundled import WEIGHTS
from retrieval.types import Modality
from retrieval.vocabulary import vocabulary
from retrieval.vocabulary.nearest import FEWEST, HELD_BACK, SAMPLE, Word, mean_of, nearest_words
from tests.conftest import make_record, unit_rows
from tests.fakes import WordTower, colour_encoder

WORDS = (WEIGHTS.parent / "vocabulary" / "words.txt").read_text("utf-8").splitlines()


def test_the_list_is_in_order() -> None:
    """Sorted, without doubles, in lower case, at most five words each."""
    assert list(package.words()) == WORDS == sorted(set(WORDS))
    assert len(WORDS) > 2_500
    for word in WORDS:
        assert re.fullmatch(r"[a-z][a-z'-]*( [a-z'-]+){0,4}", word), word


def test_words_that_are_only_heard() -> None:
    """They are some of the words, in order; things that make sounds are not among them."""
    listed = (WEIGHTS.parent / "vocabulary" / "heard.txt").read_text("utf-8").splitlines()
    assert listed == sorted(package.heard())
    assert package.heard() < set(WORDS)
    assert {"dog barking", "noise", "purring"} <= package.heard()
    assert not {"dog", "guitar", "thunderstorm", "siren", "singing"} & package.heard()


def test_the_shipped_vectors_are_of_this_model_and_these_words() -> None:
    """`python -m retrieval.vocabulary` was run since the model or the words last changed."""
    spec = model()
    with np.load(package.SHIPPED, allow_pickle=False) as archive:
        assert str(archive["space"]) == spec.space
        joined = "\n".join(WORDS).encode()
        assert str(archive["digest"]) == hashlib.blake2b(joined, digest_size=8).hexdigest()
        assert archive["vectors"].dtype == np.float16
    unread = mock.Mock(spec=[])  # a tower that cannot embed
    words, vectors = vocabulary(spec.space, unread)
    assert list(words) == WORDS
    assert vectors.shape == (len(WORDS), spec.dim)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 0.0005
    some = [0, 1000, len(WORDS) - 1]
    own = spec.load().towers[Modality.TEXT].embed([WORDS[index] for index in some])
    assert np.abs(vectors[some] - own).max() < 0.0005


def test_other_words_are_not_given_the_shipped_vectors(tmp_path: Path) -> None:
    """After a change of the list, the vectors that came with the old one no longer count."""
    some = ("red", "blue")
    with mock.patch.object(package, "words", return_value=some):
        words, vectors = vocabulary(model().space, WordTower(), cache=tmp_path)
    assert words == some
    assert np.abs(vectors - WordTower().embed(some)).max() < 0.0005


def test_shipping_again_gives_the_same_file(tmp_path: Path) -> None:
    """The file depends on the words and the space alone."""
    encoder = colour_encoder()
    for name in ("one.npz", "two.npz"):
        package.ship(encoder.space, encoder.towers[Modality.TEXT], tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.npz", "two.npz"))
    assert one == two
    with mock.patch.object(package, "SHIPPED", tmp_path / "one.npz"):
        _, vectors = vocabulary(encoder.space, mock.Mock(spec=[]), cache=tmp_path)
    assert np.abs(vectors - WordTower().embed(WORDS)).max() < 0.0005


def test_other_spaces_are_embedded_once(tmp_path: Path) -> None:
    """The second time, the vectors come from the cache; another space has a file of its own."""
    tower = WordTower()
    words, vectors = vocabulary("colours-1", tower, cache=tmp_path)
    assert tower.embedded == len(words) == len(vectors)
    assert np.abs(vectors - tower.embed(WORDS)).max() < 0.0005
    before = tower.embedded
    _, again = vocabulary("colours-1", tower, cache=tmp_path)
    assert tower.embedded == before
    assert np.array_equal(again, vectors.astype(np.float16).astype(np.float32))
    vocabulary("colours-2", tower, cache=tmp_path)
    assert tower.embedded == before + len(words)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"no array", None, np.zeros((3, 8), np.float16)])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, content: bytes | None) -> None:
    """Whatever stands in the cache's place, the vectors are right."""
    _, vectors = vocabulary("colours-1", WordTower(), cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if content is None:
        path.write_bytes(whole[:-100])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    tower = WordTower()
    _, again = vocabulary("colours-1", tower, cache=tmp_path)
    assert np.array_equal(again, vectors)
    assert tower.embedded == len(WORDS)
    assert path.read_bytes() == whole


def test_without_a_cache_it_works(tmp_path: Path) -> None:
    """A cache that cannot be written is no error."""
    (tmp_path / "file").write_bytes(b"")
    words, vectors = vocabulary("colours-1", WordTower(), cache=tmp_path / "file" / "below")
    assert len(words) == len(vectors)


# ---- near words --------------------------------------------------------------------------------


def test_what_all_share_is_held_back() -> None:
    """A word near to everything loses against one near to this."""
    vectors = np.array([[0.8, 0.6, 0.0], [0.0, 0.6, 0.8], [0.6, 0.0, 0.8]], np.float32)
    item = np.array([0.6, 0.8, 0.0], np.float32)
    mean = np.array([0.5, 0.5, 0.0], np.float32)
    names = ("a", "b", "c")
    plain = nearest_words(item, names, vectors)
    assert [word.text for word in plain] == ["a", "b", "c"]
    assert [word.score for word in plain] == pytest.approx([0.96, 0.48, 0.36])
    held = nearest_words(item, names, vectors, mean=mean)
    assert [word.score for word in held] == pytest.approx(
        [0.96 - HELD_BACK * 0.7, 0.48 - HELD_BACK * 0.3, 0.36 - HELD_BACK * 0.3]
    )
    far = np.array([0.9, 0.0, 0.0], np.float32)  # most of what "a" has
    assert [word.text for word in nearest_words(item, names, vectors, mean=far)] == ["b", "a", "c"]


def test_words_that_are_not_wanted() -> None:
    """They leave their places to others, and keep nothing else out."""
    names = ("purring", "purring cat", "cat")
    vectors = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.6, 0, 0.8]], np.float32)
    item = np.array([1, 0, 0], np.float32)
    found = nearest_words(item, names, vectors, without={"purring"})
    assert [word.text for word in found] == ["purring cat"]
    assert [word.text for word in nearest_words(item, names, vectors)] == ["purring", "cat"]


def test_doubles_are_left_out() -> None:
    """A word that says the same, or the same and more, does not take another's place."""
    names = ("black dog", "dog", "hot dog", "lake", "puppy", "dog black")
    vectors = np.eye(6, dtype=np.float32)
    vectors[4] = [0.0, 0.95, 0.0, 0.0, (1 - 0.95**2) ** 0.5, 0.0]  # a puppy is a dog here
    item = np.array([0.5, 0.6, 0.3, 0.2, 0.4, 0.31], np.float32)
    found = nearest_words(item / np.linalg.norm(item), names, vectors)
    assert [word.text for word in found] == ["puppy", "black dog", "hot dog", "lake"]
    assert isinstance(found[0], Word)


@given(st.integers(0, 2**32 - 1), st.integers(0, 7))
def test_near_words_against_a_plain_loop(seed: int, k: int) -> None:
    """Words without anything in common come in the order of their scores."""
    rng = np.random.default_rng(seed)
    names = [f"word{number}" for number in range(6)]
    vectors, item = unit_rows(rng, 6, 64), unit_rows(rng, 1, 64)[0]
    mean = unit_rows(rng, 1, 64)[0] * np.float32(0.3)
    scores = [float(row @ item - HELD_BACK * (row @ mean)) for row in vectors]
    expected = sorted(range(6), key=lambda index: -scores[index])[:k]
    found = nearest_words(item, names, vectors, mean=mean, k=k)
    assert [word.text for word in found] == [names[index] for index in expected]
    assert [word.score for word in found] == pytest.approx(
        [scores[index] for index in expected], abs=1e-6
    )


def test_means(tmp_path: Path) -> None:
    """The bundled model's come with it; of another space, the index gives one if it has enough."""
    rng = np.random.default_rng(4)
    encoder = colour_encoder()
    rows = unit_rows(rng, SAMPLE + 10, 8)
    few = unit_rows(rng, FEWEST - 1, 8)
    places = {Modality.IMAGE: rows, Modality.AUDIO: few}
    records = [
        make_record(f"/{modality}/{number}".encode(), row[None], modality=modality)
        for modality, block in places.items()
        for number, row in enumerate(block)
    ]
    with Store(tmp_path / "i.db", write=True) as store:
        space = store.add_space(encoder)
        store.write(Batch(records=records), space)
        mean = mean_of(Modality.IMAGE, store, space)
        assert mean is not None
        assert mean == pytest.approx(rows[:SAMPLE].mean(axis=0), abs=1e-3)
        assert mean_of(Modality.AUDIO, store, space) is None
        spec = model()
        own = store.add_space(spec.load())
        with np.load(WEIGHTS / "means.npz", allow_pickle=False) as archive:
            for modality in Modality:
                known = mean_of(modality, store, own)
                assert known is not None
                assert np.array_equal(known, archive[modality.value].astype(np.float32))
