"""Explanations against sums and leave-outs that are worked out one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.explain import Explainer, Piece, Share, Window, blend, shares, without_each
from retrieval.prompts import bundled
from retrieval.scoring import Judged
from retrieval.search import Hit, Searcher, Wanted
from retrieval.store import Batch, Store
from retrieval.types import WHOLE, Encoder, Modality, Place, Vectors
from tests.conftest import make_record, unit_rows
from tests.fakes import COLOURS, WordTower, colour_encoder

NAMES = list(COLOURS)


def colour(**parts: float) -> Vectors:
    """A unit row ``(1, 8)`` with so much of each colour."""
    row = np.array([[parts.get(name, 0.0) for name in NAMES]], np.float32)
    return np.asarray(row / np.linalg.norm(row), np.float32)


@st.composite
def queries(draw: st.DrawFn) -> tuple[list[Piece], Vectors]:
    """A query of up to four pieces with up to five renderings each, and an item."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(st.sampled_from([2, 8, 512]))
    pieces = []
    for number in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 5))
        weights = rng.uniform(0.01, 1, count).astype(np.float32)
        weight = draw(st.floats(0.01, 100)) * draw(st.sampled_from([1, 1, -1]))
        names = tuple(f"{number}.{one}" for one in range(count))
        pieces.append(Piece(f"piece {number}", unit_rows(rng, count, dim), weights, names, weight))
    return pieces, unit_rows(rng, 1, dim)[0]


@given(queries())
def test_shares_add_up(query: tuple[list[Piece], Vectors]) -> None:
    """Renderings add up to their piece, pieces to the cosine, and each is what it should be."""
    pieces, item = query
    total = np.zeros(len(item))
    for piece in pieces:
        vector = (piece.weights[:, None].astype(float) * piece.vectors).sum(axis=0)
        total += piece.weight * vector / np.linalg.norm(vector)
    if np.linalg.norm(total) < 1e-3:
        return  # cancelled out but for rounding
    cosine = float(total @ item / np.linalg.norm(total))
    terms = shares(pieces, item)
    assert [term.label for term in terms] == [piece.label for piece in pieces]
    assert sum(term.share for term in terms) == pytest.approx(cosine, abs=1e-6)
    assert float(blend(pieces)[0] @ item) == pytest.approx(cosine, abs=1e-5)
    for piece, term in zip(pieces, terms, strict=True):
        vector = (piece.weights[:, None].astype(float) * piece.vectors).sum(axis=0)
        alone = float(vector @ item) / np.linalg.norm(vector)
        assert term.share == pytest.approx(
            piece.weight * alone / np.linalg.norm(total), rel=1e-4, abs=1e-6
        )
        assert [one.label for one in term.templates] == list(piece.renderings)
        assert sum(one.share for one in term.templates) == pytest.approx(term.share, abs=1e-9)
        assert term.weight == piece.weight


def test_negative_terms_take() -> None:
    """What is looked away from has a share below zero where the item has it."""
    pieces = [Piece.example("red", colour(red=1)), Piece.example("blue", colour(blue=1), weight=-1)]
    red, blue = shares(pieces, colour(red=3, blue=4)[0])
    assert (red.share, blue.share) == pytest.approx((0.6 / 2**0.5, -0.8 / 2**0.5))
    assert (red.templates, blue.templates) == ((), ())


def test_cancelled_pieces_are_an_error() -> None:
    """A piece against itself leaves nothing to look for."""
    red = colour(red=1)
    with pytest.raises(QueryError, match="cancel each other out"):
        shares([Piece.example("a", red), Piece.example("b", red, weight=-1)], red[0])
    with pytest.raises(QueryError, match="pieces of odd cancel"):
        blend([Piece("odd", np.concatenate([red, -red]), np.ones(2, np.float32))])


# ---- passages ----------------------------------------------------------------------------------


def test_words_of_a_passage() -> None:
    """The word without which the cosine falls most comes first; words that do not help are left."""
    tower = WordTower()
    query = colour(red=3, blue=1)[0]
    text = "Red, the red boat's blue sail -- red? And a GREEN one."

    def score(words: str) -> float:
        return float(tower.embed([words])[0] @ query)

    losses = {
        word: score(text) - score(re.sub(rf"(?i)\b{word}\b", "", text)) for word in ("red", "blue")
    }
    assert losses["red"] > losses["blue"] > 0
    found = without_each(text, tower, query)
    assert [share.label for share in found[:2]] == ["red", "blue"]
    assert [share.share for share in found[:2]] == pytest.approx(
        [losses["red"], losses["blue"]], abs=1e-6
    )
    assert {share.label for share in found} <= {"red", "blue", "boat's", "the", "sail", "and", "a"}
    assert "green" not in {share.label for share in found}
    assert without_each(text, tower, query, k=1) == found[:1]


def test_scripts_without_spaces() -> None:
    """Chinese is taken in pairs of characters, and mixes with other scripts."""

    class Counting(WordTower):
        def prepare(self, content: str) -> str:
            return content.replace("红色", "red")

    (share,) = without_each("一只红色的狗blue", Counting(), colour(red=1)[0])[:1]
    assert share.label != "blue"
    tower = Counting()
    assert [one.label for one in without_each("红色blue", tower, colour(red=1)[0])] == ["红色"]


def test_one_word_cannot_be_left_out() -> None:
    """Of one word, nothing would be left to compare; of none, nothing either."""
    tower = WordTower()
    assert without_each("Red.", tower, colour(red=1)[0]) == ()
    assert without_each("...", tower, colour(red=1)[0]) == ()
    assert tower.embedded == 0


# ---- hits --------------------------------------------------------------------------------------


@pytest.fixture
def encoder() -> Encoder:
    """Pictures, sounds and words in a space of colours."""
    return colour_encoder()


@pytest.fixture
def store(tmp_path: Path, encoder: Encoder) -> Iterator[Store]:
    """A picture, a recording of three windows and a text of two passages."""
    passages = [Place(line=1, text="nothing blue"), Place(line=9, text="A red sail, a blue sea.")]
    towers = encoder.towers[Modality.TEXT]
    texts = towers.embed([place.text for place in passages])
    stretches = [Place(0.0, 10.0), Place(5.0, 15.0), Place(20.0, 30.0)]
    sounds = np.concatenate([colour(red=1), colour(red=1, blue=2), colour(blue=1)])
    records = [
        make_record(b"/a/sail.png", colour(red=2, white=2, green=0.5)),
        make_record(b"/a/sea.wav", sounds, modality=Modality.AUDIO, places=stretches),
        make_record(b"/a/log.txt", texts, modality=Modality.TEXT, places=passages),
    ]
    with Store(tmp_path / "i.db", write=True) as store:
        store.write(Batch(records=records), store.add_space(encoder))
        yield store


def hit(path: bytes, modality: Modality, place: Place = WHOLE) -> Hit:
    """A hit, of which explanations read no more than this."""
    return Hit(path, modality, 0.0, 0.0, place, "colours-1")


def test_picture(store: Store, encoder: Encoder, tmp_path: Path) -> None:
    """A picture has terms that add up to its score, and the words of its colours."""
    query = "red"
    found = Searcher(store, encoder).by_text(query, Wanted(k=1, modalities=(Modality.IMAGE,)))
    templates = bundled()["photo"]
    renderings = tuple(templates.render(query))
    vectors = encoder.towers[Modality.TEXT].embed(renderings)
    piece = Piece(query, vectors, np.full(len(vectors), 1 / 7, np.float32), renderings)
    told = Explainer(store, encoder, cache=tmp_path).explain(found[0], [piece])
    (term,) = told.terms
    assert term.share == pytest.approx(found[0].score, abs=1e-4)
    assert len(term.templates) == 7
    assert told.words[0].text == "red and white"
    assert told.words[0].score == pytest.approx(4 / (8.25 * 2) ** 0.5, abs=2e-3)
    assert len(told.words) == 5
    assert (told.windows, told.passage) == ((), ())


def halved(rows: NDArray[np.float32]) -> Judged:
    """Cosines with blue, and half of them as relevances."""
    cosines = (rows @ colour(blue=1)[0]).astype(np.float64)
    with np.errstate(divide="ignore"):
        return Judged(cosines, np.log(np.maximum(cosines, 0) / 2))


def test_recording(store: Store, encoder: Encoder, tmp_path: Path) -> None:
    """A recording says how each window answers, and its best one gives the words."""
    place = Place(20.0, 30.0)
    told = Explainer(store, encoder, cache=tmp_path).explain(
        hit(b"/a/sea.wav", Modality.AUDIO, place),
        [Piece.example("blue.png", colour(blue=1))],
        judge=halved,
    )
    assert [(window.start_s, window.end_s) for window in told.windows] == [
        (0.0, 10.0),
        (5.0, 15.0),
        (20.0, 30.0),
    ]
    cosines = [0.0, 2 / 5**0.5, 1.0]
    assert [window.score for window in told.windows] == pytest.approx(cosines, abs=1e-3)
    assert [window.relevance for window in told.windows] == pytest.approx(
        [cosine / 2 for cosine in cosines], abs=1e-3
    )
    assert isinstance(told.windows[0], Window)
    assert "blue" in told.words[0].text
    assert told.terms[0].share == pytest.approx(1.0, abs=1e-3)


def test_text(store: Store, encoder: Encoder, tmp_path: Path) -> None:
    """A text is explained by the passage that was hit, not by its first."""
    place = Place(line=9, text="A red sail, a blue sea.")
    told = Explainer(store, encoder, cache=tmp_path).explain(
        hit(b"/a/log.txt", Modality.TEXT, place), [Piece.example("red.png", colour(red=1))]
    )
    assert [share.label for share in told.passage] == ["red"]
    assert isinstance(told.passage[0], Share)
    assert told.terms[0].share == pytest.approx(1 / 2**0.5, abs=2e-3)
    assert told.windows == ()


def test_what_cannot_be_explained(store: Store, encoder: Encoder) -> None:
    """A hit that the index does not have, and a space that it does not have, are named."""
    pieces = [Piece.example("red", colour(red=1))]
    with pytest.raises(QueryError, match=r"gone\.png is not in the index; run `anyseek index"):
        Explainer(store, encoder).explain(hit(b"/a/gone.png", Modality.IMAGE), pieces)
    with pytest.raises(QueryError, match="the index has nothing of colours-2"):
        Explainer(store, colour_encoder("colours-2"))


def test_reading_changes_nothing(store: Store, encoder: Encoder, tmp_path: Path) -> None:
    """Explaining leaves the index as it was; what it keeps goes into the cache."""
    before = store.generation(), {path.name for path in tmp_path.iterdir()}
    Explainer(store, encoder, cache=tmp_path / "cache").explain(
        hit(b"/a/sail.png", Modality.IMAGE), [Piece.example("red", colour(red=1))]
    )
    assert store.generation() == before[0]
    assert {path.name for path in tmp_path.iterdir()} - before[1] == {"cache"}
