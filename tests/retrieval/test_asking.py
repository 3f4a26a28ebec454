"""How terms become directions: balanced by their spread, calibrated by what they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval.asking import Asker, Manner, Piece, blended, deciding
from retrieval.calibrate import Background, Calibration
from retrieval.errors import QueryError
from retrieval.query import Blend, Kind, Term, parse
from retrieval.rivals import Rivals
from retrieval.scoring import AVOIDED, Both, Either, Fed, Leaf, Negatives, Scorer
from retrieval.sense import Sense
from retrieval.store import Batch, Concept, Space, Store
from retrieval.types import Encoder, Modality, Vectors
from tests.conftest import make_record, unit_rows
from tests.fakes import COLOURS, DIM, colour_encoder

AUDIO, IMAGE, TEXT = Modality.AUDIO, Modality.IMAGE, Modality.TEXT
WORDS_TO_PICTURES = Calibration(a=4.0, b=-1.0, z=0.5, n=-0.2, mean=0.1, spread=0.2)
SOUNDS_TO_PICTURES = Calibration(a=7.0, b=-2.0, z=0.0, n=0.0, mean=0.0, spread=0.1)
PICTURES_TO_PICTURES = Calibration(a=9.0, b=-3.0, z=0.1, n=0.0, mean=0.3, spread=0.3)
SIZE = 300


@pytest.fixture
def encoder() -> Encoder:
    """Words and pictures in a space of colours."""
    return colour_encoder()


@pytest.fixture
def store(tmp_path: Path, encoder: Encoder) -> Iterator[Store]:
    """An index of three hundred pictures."""
    rows = unit_rows(np.random.default_rng(2), SIZE, DIM)
    with Store(tmp_path / "i.db", write=True) as store:
        records = [make_record(b"/%d.png" % at, row[None]) for at, row in enumerate(rows)]
        store.write(Batch(records=records), store.add_space(encoder))
        yield store


@pytest.fixture
def asker(store: Store, encoder: Encoder) -> Asker:
    """With maps for words and for pictures."""
    maps = {(TEXT, IMAGE): WORDS_TO_PICTURES, (IMAGE, IMAGE): PICTURES_TO_PICTURES}
    return Asker(store, store.spaces()[0], encoder, calibrations=maps)


def colour(name: str) -> Vectors:
    """The vector of a word."""
    row = np.array([float(one == name) for one in COLOURS]) + 1e-3
    return np.asarray(row / np.linalg.norm(row), np.float32)


def every(store: Store) -> Vectors:
    """All vectors of the index."""
    (space,) = store.spaces()
    return store.vectors(space, IMAGE)[1].astype(np.float32)


def settled(store: Store, vector: Vectors, usual: Calibration) -> tuple[float, float]:
    """Mean and spread of cosines over the whole index, mixed with 32 usual items."""
    cosines = every(store) @ vector
    mean = (SIZE * cosines.mean() + 32 * usual.mean) / (SIZE + 32)
    variance = (SIZE * cosines.var() + 32 * usual.spread**2) / (SIZE + 32)
    return float(mean), float(variance**0.5)


@pytest.mark.parametrize(
    ("examples", "expected"),
    [
        (("/a.png",), WORDS_TO_PICTURES),
        (("/a.wav", "/b.wav", "/c.png"), WORDS_TO_PICTURES),
        (("/a.wav",), SOUNDS_TO_PICTURES),
        (("/a.txt", "/a.wav", "/b.ogg"), SOUNDS_TO_PICTURES),
        (("/a.wav", "/a.txt", "/b.txt"), WORDS_TO_PICTURES),
        (("/no kind of file",), WORDS_TO_PICTURES),
    ],
)
def test_a_concept_is_judged_by_its_examples(
    store: Store, encoder: Encoder, examples: tuple[str, ...], expected: Calibration
) -> None:
    """Among things of their kind as words are, among others as most of the examples are."""
    maps = {
        (TEXT, IMAGE): WORDS_TO_PICTURES,
        (IMAGE, IMAGE): PICTURES_TO_PICTURES,
        (AUDIO, IMAGE): SOUNDS_TO_PICTURES,
    }
    (space,) = store.spaces()
    paths = tuple(map(os.fsencode, examples))
    store.put_concept(Concept("it", colour("red"), paths, (b"/x.png",), 0), space)
    asker = Asker(store, space, encoder, calibrations=maps)
    leaf = asker.scorer(parse(["<it>"]), IMAGE, SIZE).tree
    assert isinstance(leaf, Leaf)
    mean, spread = settled(store, colour("red"), expected)
    assert leaf.calibration.a == pytest.approx(expected.a + expected.z / spread, rel=1e-4)
    assert (leaf.mean, leaf.spread) == pytest.approx((mean, spread), rel=1e-4)


def test_a_word_is_one_column(store: Store, asker: Asker) -> None:
    """Its vector, and its map against the index."""
    scorer = asker.scorer(parse(["red"]), IMAGE, SIZE)
    assert scorer.plain
    np.testing.assert_allclose(scorer.vectors[0], colour("red"), atol=1e-5)
    mean, spread = settled(store, colour("red"), WORDS_TO_PICTURES)
    leaf = scorer.tree
    assert isinstance(leaf, Leaf)
    assert leaf.calibration.a == pytest.approx(4.0 + 0.5 / spread, rel=1e-4)
    offset = -1.0 - 0.5 * mean / spread - 0.2 * np.log(SIZE)
    assert leaf.calibration.b == pytest.approx(offset, rel=1e-4)


def test_rivals_lower_what_is_thought_of_words(
    store: Store, encoder: Encoder, tmp_path: Path
) -> None:
    """Of words for pictures alone, by the map's slope; examples and texts have none."""
    from tests.retrieval.test_search import paint

    typical = Rivals(colour("red")[None], np.zeros(1, np.float32), -1.0, 0.5)
    (space,) = store.spaces()
    maps = {
        (TEXT, IMAGE): Calibration(a=4.0, b=-1.0, r=-3.0),
        (TEXT, TEXT): Calibration(a=4.0, b=-1.0, r=-3.0),
        (IMAGE, IMAGE): Calibration(a=4.0, b=-1.0, r=-3.0),
    }
    asker = Asker(store, space, encoder, calibrations=maps, rivals=typical)
    without = Asker(store, space, encoder, calibrations=maps)

    def offset(asker: Asker, words: list[str], target: Modality = IMAGE) -> float:
        leaf = asker.scorer(parse(words), target, SIZE).tree
        assert isinstance(leaf, Leaf)
        return leaf.calibration.b

    both = colour("red") + colour("blue")
    near = float(colour("red") @ both / np.linalg.norm(both))
    assert offset(asker, ["red"]) == pytest.approx(-1.0 - 3.0 * 0.5, abs=1e-4)
    assert offset(asker, ["blue"]) == pytest.approx(-1.0 + 3.0 * 0.5, abs=0.02)
    assert offset(asker, ["red blue"]) == pytest.approx(-1.0 - 3.0 * (near - 0.5), abs=1e-4)
    picture = str(paint(tmp_path / "a.png", red=256))
    for words, target in ((["red"], TEXT), ([picture], IMAGE), (["red", "+", picture], IMAGE)):
        assert offset(asker, words, target) == offset(without, words, target)


def piece(vector: Vectors, weight: float, spread: float) -> Piece:
    """A term with a background."""
    term = Term(Kind.WORDS, "x", weight)
    return Piece(term, TEXT, vector, None, Background(0.0, spread, 100))


def test_terms_are_divided_by_their_spread() -> None:
    """Weight over spread, half of it for what is looked away from, brought to length 1."""
    one, other, third = np.eye(3, dtype=np.float32)
    got = blended([piece(one, 2.0, 0.1), piece(other, 1.0, 0.4), piece(third, -3.0, 0.2)])
    want = np.array([2 / 0.1, 1 / 0.4, -AVOIDED * 3 / 0.2])
    np.testing.assert_allclose(got, want / np.linalg.norm(want), rtol=1e-6)


def test_terms_that_cancel() -> None:
    """Nothing would be left to look for."""
    (one,) = unit_rows(np.random.default_rng(0), 1, 5)
    with pytest.raises(QueryError, match="cancel each other out"):
        blended([piece(one, 1.0, 0.2), piece(one, -1 / AVOIDED, 0.2)])


def test_negatives_are_columns_of_their_own_unless_subtracted(asker: Asker) -> None:
    """With the weight as written, and falling."""
    query = parse(["red", "-", "2:blue"])
    assert asker.scorer(query, IMAGE, SIZE).plain
    for way, drop in ((Negatives.PENALTY, False), (Negatives.DIFFERENCE, True)):
        scorer = asker.scorer(query, IMAGE, SIZE, Manner(negatives=way))
        assert scorer.rising.tolist() == [True, False]
        leaf = scorer.tree
        assert isinstance(leaf, Leaf)
        assert (leaf.drop, leaf.avoided[0].weight, leaf.avoided[0].column) == (drop, 2.0, 1)
        np.testing.assert_allclose(scorer.vectors[1], colour("blue"), atol=1e-5)


def test_the_tree_follows_the_query(asker: Asker) -> None:
    """AND and OR become nodes with the columns from left to right; feedback is around all."""
    scorer = asker.scorer(parse(["red AND blue OR green"]), IMAGE, SIZE)
    tree = scorer.tree
    assert isinstance(tree, Either)
    first, last = tree.parts
    assert isinstance(first, Both)
    assert isinstance(last, Leaf)
    assert [one.column for one in first.parts if isinstance(one, Leaf)] == [0, 1]
    assert last.column == 2
    for row, name in enumerate(("red", "blue", "green")):
        np.testing.assert_allclose(scorer.vectors[row], colour(name), atol=1e-5)


def test_the_part_that_decides(asker: Asker) -> None:
    """Of AND the worst answered, of OR the best."""
    item = 0.9 * colour("red") + 0.3 * colour("blue")
    for text, want in (("red AND blue", "blue"), ("red OR blue", "red"), ("red", "red")):
        query = parse([text])
        got = deciding(query, asker.scorer(query, IMAGE, SIZE), item)
        assert got.blend == Blend((Term(Kind.WORDS, want),))
        assert (got.penalties, got.gain) == ((), None)


def test_what_changed_a_score(asker: Asker) -> None:
    """Cosine, penalties and feedback add up to the score; what is subtracted is in the cosine."""
    item = 0.9 * colour("red") + 0.3 * colour("blue") - 0.1 * colour("green")
    query = parse(["red", "-", "2:blue", "-", "green"])
    penalised = asker.scorer(query, IMAGE, SIZE, Manner(negatives=Negatives.PENALTY))
    got = deciding(query, penalised, item)
    assert got.penalties == pytest.approx((float(colour("blue") @ item), 0.0), abs=1e-6)
    cosines = (penalised.vectors @ item)[None]
    score = float(penalised.tree.judge(cosines).score[0])
    assert score == pytest.approx(float(colour("red") @ item) - got.penalties[0], abs=1e-6)
    assert deciding(query, asker.scorer(query, IMAGE, SIZE), item).penalties == ()
    fed = Scorer(
        np.concatenate([penalised.vectors, [colour("red")]]).astype(np.float32),
        np.array([*penalised.rising, False]),
        Fed(penalised.tree, (), (len(penalised.vectors),)),
    )
    after = deciding(query, fed, item)
    assert after.penalties == got.penalties
    near = np.exp(-4 * (1 - float(colour("red") @ item)))
    assert after.gain == pytest.approx(-0.4 * near, abs=1e-6)


def test_what_means_something(store: Store, encoder: Encoder, tmp_path: Path) -> None:
    """Any positive words on the right side of the plane do, and so does any file."""
    plane = Sense(colour("red") - colour("blue"), 0.0)
    (space,) = store.spaces()
    asker = Asker(store, space, encoder, calibrations={}, sense=plane)
    assert asker.meant(parse(["red"]))
    assert not asker.meant(parse(["blue"]))
    assert asker.meant(parse(["blue OR red"]))
    assert not asker.meant(parse(["blue", "-", "red"]))
    assert asker.meant(parse([os.fsdecode(tmp_path / "x.png")]))
    assert Asker(store, space, encoder, calibrations={}).meant(parse(["blue"]))


def test_feedback_is_around_the_whole_query(
    asker: Asker, store: Store, encoder: Encoder, tmp_path: Path
) -> None:
    """Liked examples are rising columns, others falling ones."""
    from tests.retrieval.test_search import paint

    liked = paint(tmp_path / "a.png", red=256)
    unliked = paint(tmp_path / "b.png", blue=256)
    scorer = asker.scorer(parse(["green"]), IMAGE, SIZE, Manner(liked=(liked,), unliked=(unliked,)))
    assert isinstance(scorer.tree, Fed)
    assert (scorer.tree.liked, scorer.tree.unliked) == ((1,), (2,))
    assert scorer.rising.tolist() == [True, True, False]
    space: Space = store.spaces()[0]
    assert space.name == encoder.space
    np.testing.assert_allclose(scorer.vectors[1], colour("red"), atol=2e-3)
