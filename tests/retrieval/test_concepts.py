"""Concepts: the direction against its formula, storage, and what a person asks of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrieval.concepts import AWAY, FIRM, SHRINKAGE, centred, find, learn, made, nearest
from retrieval.errors import QueryError
from retrieval.examples import Example, example
from retrieval.store import Batch, Concept, Space, Store, schema
from retrieval.types import Encoder, Fingerprint, Modality, Place, Vectors
from tests.conftest import make_record, rows_of, run_sql, unit_rows
from tests.fakes import COLOURS, DIM, RATE_HZ, ColourTower, WordTower, colour_encoder, pitch_hz

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


# ---- the direction -----------------------------------------------------------------------------


def reference(positives: Vectors, negatives: Vectors, background: Vectors) -> Vectors:
    """The formula, element by element and through the eigenvectors of the covariance."""
    dim = positives.shape[1]
    own = np.array([sum(float(row[i]) for row in positives) / len(positives) for i in range(dim)])
    if len(negatives):
        away = np.array([sum(float(r[i]) for r in negatives) / len(negatives) for i in range(dim)])
        share = sum(a * b for a, b in zip(away, own, strict=True)) / sum(a * a for a in own)
        own = own - AWAY * (away - share * own)
    if len(background):
        covariance = sum(np.outer(row, row) for row in background.astype(float)) / len(background)
        values, axes = np.linalg.eigh(covariance)
        floor = SHRINKAGE / len(positives) * values.sum() / dim
        own = axes @ ((axes.T @ own) / (values + floor))
    return np.asarray(own / np.sqrt((own**2).sum()), np.float32)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 4), st.sampled_from([0, 1, 40]))
def test_learn_follows_its_formula(seed: int, n: int, m: int, b: int) -> None:
    """With and without counter-examples and background."""
    rng = np.random.default_rng(seed)
    positives, negatives, background = (unit_rows(rng, count, 12) for count in (n, m, b))
    direction = learn(positives, negatives, background)
    assert direction.dtype == np.float32
    assert direction.shape == (12,)
    np.testing.assert_allclose(
        direction, reference(positives, negatives, background), rtol=0, atol=2e-5
    )
    if not m and not b:
        np.testing.assert_array_equal(direction, learn(positives, None, None))


def test_one_example_without_an_index_is_itself() -> None:
    """There is nothing else that it could mean."""
    (row,) = rows = unit_rows(np.random.default_rng(0), 1, 8)
    np.testing.assert_allclose(learn(rows), row, atol=1e-6)


def test_counter_examples_are_told_apart_and_the_thing_is_kept() -> None:
    """What the two have in common is not turned away from."""
    thing, detail, other = np.eye(3, dtype=np.float32)
    positives = np.array([thing + detail], np.float32) / np.sqrt(np.float32(2))
    negatives = np.array([thing + other], np.float32) / np.sqrt(np.float32(2))
    without, with_them = learn(positives), learn(positives, negatives)
    assert with_them @ negatives[0] < without @ negatives[0]
    assert with_them @ other < 0 < with_them @ thing
    assert with_them @ positives[0] > 0.95


def test_common_directions_of_the_background_count_less() -> None:
    """What everything shows tells little about the examples."""
    rng = np.random.default_rng(1)
    spread = np.array([30, 1, 1, 1, 1, 1], np.float32)
    background = rng.normal(size=(500, 6)).astype(np.float32) * spread
    example = np.full((1, 6), 6**-0.5, np.float32)
    direction = learn(example, None, background)
    assert abs(direction[0]) < direction[1:].min()


def test_examples_that_cancel_out() -> None:
    """No direction is made up."""
    with pytest.raises(QueryError, match="the examples cancel each other out"):
        learn(np.array([[1, 0], [-1, 0]], np.float32))


def test_centred_rows() -> None:
    """The mean is gone, the length is 1, and the mean itself stays at 0."""
    rows = np.array([[3, 4], [0, 1], [0, 0]], np.float32)
    found = centred(rows, np.array([0, 1], np.float32))
    half = 0.5**0.5
    expected = np.array([[half, half], [0, 0], [0, -1]], np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ---- out of an index ---------------------------------------------------------------------------


@pytest.fixture
def encoder() -> Encoder:
    """Colours."""
    return colour_encoder()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty index."""
    with Store(tmp_path / "i.db", write=True) as opened:
        yield opened


@pytest.fixture
def space(store: Store, encoder: Encoder) -> Space:
    """Its space."""
    return store.add_space(encoder)


def picture(path: Path, *colours: str) -> Path:
    """A picture in stripes."""
    pixels = np.array([COLOURS[colour] for colour in colours], np.uint8)
    Image.fromarray(np.repeat(pixels, 16 // len(colours), axis=0)[:, None].repeat(16, 1)).save(path)
    return path


def filled(store: Store, space: Space, rng: np.random.Generator) -> dict[Modality, Vectors]:
    """An index of random items, three parts to each sound."""
    rows = {IMAGE: unit_rows(rng, 40, DIM), AUDIO: unit_rows(rng, 30, DIM)}
    batch = Batch([make_record(b"/i%d" % n, row[None]) for n, row in enumerate(rows[IMAGE])])
    for n in range(10):
        places = [Place(start_s=5.0 * i, end_s=5.0 * i + 10) for i in range(3)]
        parts = rows[AUDIO][3 * n : 3 * n + 3]
        batch.records.append(make_record(b"/a%d" % n, parts, modality=AUDIO, places=places))
    store.write(batch, space)
    return {kind: some.astype(np.float16).astype(np.float32) for kind, some in rows.items()}


def test_made_centres_each_modality(store: Store, space: Space) -> None:
    """A concept of a picture and a sound, worked out from the vectors by hand."""
    rows = filled(store, space, np.random.default_rng(2))
    one, other, third = unit_rows(np.random.default_rng(3), 3, DIM)
    means = {kind: some.sum(0) / (len(some) + FIRM) for kind, some in rows.items()}
    concept = made(
        store,
        space,
        "x",
        [Example(b"/p", IMAGE, one[None]), Example(b"/q", AUDIO, other[None])],
        [Example(b"/r", TEXT, third[None])],
    )
    unit = [row / np.linalg.norm(row) for row in (one - means[IMAGE], other - means[AUDIO])]
    background = np.concatenate([centred(some, means[kind]) for kind, some in rows.items()])
    expected = reference(np.array(unit), third[None], background)
    np.testing.assert_allclose(concept.vector, expected, atol=1e-5)
    assert (concept.name, concept.positives, concept.negatives) == ("x", (b"/p", b"/q"), (b"/r",))


def test_made_counts_a_file_once(store: Store, space: Space) -> None:
    """A file given twice weighs no more than another."""
    one, other = (
        Example(b"/%d" % n, IMAGE, row[None])
        for n, row in enumerate(unit_rows(np.random.default_rng(4), 2, DIM))
    )
    twice, once = (
        made(store, space, "x", given, []) for given in ([one, other, one], [one, other])
    )
    assert twice.positives == (b"/0", b"/1")
    np.testing.assert_array_equal(twice.vector, once.vector)


def test_made_refuses(store: Store, space: Space) -> None:
    """No example at all, or one on both sides."""
    one = Example(b"/\xff.jpg", IMAGE, np.eye(1, DIM, dtype=np.float32))
    with pytest.raises(QueryError, match="the concept x needs at least one example"):
        made(store, space, "x", [], [one])
    with pytest.raises(QueryError, match="cannot be an example and a counter-example"):
        made(store, space, "x", [one], [one])


def test_nearest_items(store: Store, space: Space) -> None:
    """The best part of each of the best items, for every modality, as counted by hand."""
    rows = filled(store, space, np.random.default_rng(5))
    (vector,) = unit_rows(np.random.default_rng(6), 1, DIM)
    images = sorted(((float(row @ vector), n) for n, row in enumerate(rows[IMAGE])), reverse=True)
    sounds = sorted(
        ((float((rows[AUDIO][3 * n : 3 * n + 3] @ vector).max()), n) for n in range(10)),
        reverse=True,
    )
    found = nearest(store, space, vector, k=7)
    assert [path for path, _ in found[IMAGE]] == [b"/i%d" % n for _, n in images[:7]]
    assert [path for path, _ in found[AUDIO]] == [b"/a%d" % n for _, n in sounds[:7]]
    np.testing.assert_allclose([s for _, s in found[AUDIO]], [s for s, _ in sounds[:7]], atol=1e-5)
    passed = {b"/a%d" % sounds[0][1], b"/i%d" % images[1][1]}
    found = nearest(store, space, vector, k=2, without=passed)
    assert [path for path, _ in found[IMAGE]] == [b"/i%d" % images[n][1] for n in (0, 2)]
    assert [path for path, _ in found[AUDIO]] == [b"/a%d" % sounds[n][1] for n in (1, 2)]
    assert {kind: len(some) for kind, some in nearest(store, space, vector, k=99).items()} == {
        IMAGE: 40,
        AUDIO: 10,
    }


def test_sample_of_few(store: Store, space: Space) -> None:
    """All of them where there are fewer."""
    rows = filled(store, space, np.random.default_rng(7))[IMAGE]
    np.testing.assert_array_equal(store.sample(space, IMAGE, 40), rows.astype(np.float16))
    assert store.sample(space, TEXT, 5).shape == (0, DIM)


# ---- storage -----------------------------------------------------------------------------------


def concept(name: str, seed: int = 0) -> Concept:
    """A concept of odd paths."""
    (vector,) = unit_rows(np.random.default_rng(seed), 1, DIM)
    return Concept(name, vector, (b"/a b", b"/\xff\n"), (), 1_700_000_000 + seed)


def same(one: Concept, other: Concept) -> bool:
    """Whether two concepts are equal, bit for bit."""
    fields = ("name", "positives", "negatives", "created_s")
    return one.vector.tobytes() == other.vector.tobytes() and all(
        getattr(one, field) == getattr(other, field) for field in fields
    )


def test_concepts_are_kept(store: Store, space: Space) -> None:
    """Bit for bit, by name, replaced under the same name, and removed alone."""
    for name in ("b", "a", "雪"):
        store.put_concept(concept(name), space)
    store.put_concept(concept("a", 5), space)
    kept = store.concepts(space)
    assert [one.name for one in kept] == ["a", "b", "雪"]
    assert same(kept[0], concept("a", 5))
    assert same(kept[1], concept("b"))
    store.remove_concept("b", space)
    store.remove_concept("nobody", space)
    assert [one.name for one in store.concepts(space)] == ["a", "雪"]


def test_items_and_concepts_leave_each_other_alone(store: Store, space: Space) -> None:
    """Removing and replacing items keeps concepts, and a concept changes no other table."""
    filled(store, space, np.random.default_rng(8))
    before = rows_of(store.path)
    store.put_concept(concept("a"), space)
    after = rows_of(store.path)
    assert {table for table in after if after[table] != before[table]} == {"concepts"}
    ids = [row[0] for row in run_sql(store.path, "SELECT id FROM items")]
    store.write(Batch(removed=ids), space)
    (kept,) = store.concepts(space)
    assert same(kept, concept("a"))


def test_a_reader_sees_its_snapshot(store: Store, space: Space) -> None:
    """A search that is running goes on as it began."""
    store.put_concept(concept("a"), space)
    with Store(store.path) as reader:
        assert [one.name for one in reader.concepts(space)] == ["a"]
        store.put_concept(concept("b"), space)
        store.remove_concept("a", space)
        assert [one.name for one in reader.concepts(space)] == ["a"]
    with Store(store.path) as reader:
        assert [one.name for one in reader.concepts(space)] == ["b"]


def test_an_index_from_before_concepts(tmp_path: Path, encoder: Encoder) -> None:
    """Opening it for writing adds the table, and keeps everything else."""
    path = tmp_path / "old.db"
    with Store(path, write=True) as store:
        space = store.add_space(encoder)
        filled(store, space, np.random.default_rng(9))
    before = rows_of(path)
    with closing(sqlite3.connect(path)) as connection:
        version = schema.MIGRATIONS.index(schema._concepts)
        connection.executescript(
            "DROP TABLE concepts; DROP TABLE tags; ALTER TABLE parts DROP COLUMN source; "
            "ALTER TABLE seals DROP COLUMN kind; ALTER TABLE seals DROP COLUMN bytes; "
            f"ALTER TABLE items DROP COLUMN beside; PRAGMA user_version = {version}"
        )
    with Store(path, write=True) as store:
        assert store.concepts(space) == []
    assert rows_of(path) == before | {"concepts": []}


def test_find(store: Store, space: Space) -> None:
    """By its exact name, with near ones named, and never from another space."""
    other = store.add_space(colour_encoder("colours-2"))
    for name in ("rex", "rexy", "snow"):
        store.put_concept(concept(name), space)
    store.put_concept(concept("felix"), other)
    assert same(find(store, space, "rex"), concept("rex"))
    with pytest.raises(QueryError, match=r"there is no concept rexi; did you mean rex or rexy\?"):
        find(store, space, "rexi")
    with pytest.raises(QueryError, match="no concept zzz; `anyseek concept list` shows"):
        find(store, space, "zzz")
    with pytest.raises(
        QueryError, match=r"felix was made with another model, colours \(colours-2\); make it again"
    ):
        find(store, space, "felix")


# ---- examples ----------------------------------------------------------------------------------


def test_an_indexed_file_is_not_embedded(
    store: Store, space: Space, encoder: Encoder, tmp_path: Path
) -> None:
    """As long as it is what was indexed; then its present content counts."""
    path = picture(tmp_path / "p.png", "red")
    stat = path.stat()
    rows = np.eye(2, DIM, dtype=np.float32)
    record = make_record(bytes(path), rows, fingerprint=Fingerprint(stat.st_size, stat.st_mtime_ns))
    store.write(Batch([record]), space)
    tower = encoder.towers[IMAGE]
    assert isinstance(tower, ColourTower)
    stored = example(store, space, encoder, path)
    assert (stored.path, stored.modality, tower.embedded) == (bytes(path), IMAGE, 0)
    np.testing.assert_allclose(stored.vector, rows.sum(0)[None] / np.sqrt(2), atol=1e-3)
    picture(path, "blue", "green", "blue", "blue")
    fresh = example(store, space, encoder, path)
    assert tower.embedded == 1
    assert int(fresh.vector.argmax()) == list(COLOURS).index("blue")


def test_examples_of_every_modality(
    store: Store, space: Space, encoder: Encoder, tmp_path: Path
) -> None:
    """None is indexed; each lands at its colour."""
    image = picture(tmp_path / "p.png", "red")
    text = tmp_path / "t.txt"
    text.write_text("green, nothing but green")
    sound = tmp_path / "s.wav"
    wave = np.sin(2 * np.pi * pitch_hz("cyan") * np.arange(RATE_HZ) / RATE_HZ)
    soundfile.write(sound, wave, RATE_HZ)
    link = tmp_path / "l.png"
    link.symlink_to(image)
    for path, modality, colour in (
        (image, IMAGE, "red"),
        (link, IMAGE, "red"),
        (text, TEXT, "green"),
        (sound, AUDIO, "cyan"),
    ):
        one = example(store, space, encoder, path)
        assert (one.path, one.modality) == (bytes(path), modality)
        assert one.vector.shape == (1, DIM)
        assert list(COLOURS)[int(one.vector.argmax())] == colour
    words = encoder.towers[TEXT]
    assert isinstance(words, WordTower)
    assert words.embedded == 1


def test_examples_that_cannot_be_used(
    store: Store, space: Space, encoder: Encoder, tmp_path: Path
) -> None:
    """Missing, a folder, of no known kind, damaged, silent: each says so with its path."""
    (tmp_path / "d.jpg").mkdir()
    (tmp_path / "x.bin").write_bytes(b"x")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    soundfile.write(tmp_path / "s.wav", np.zeros(RATE_HZ), RATE_HZ)
    for name, reason in {
        "gone.jpg": r"there is no file at .*gone\.jpg",
        "d.jpg": r"d\.jpg is a folder",
        "x.bin": r"x\.bin is no kind of file",
        "b.jpg": r"b\.jpg is not a picture",
        "s.wav": r"s\.wav is silent from start to end",
    }.items():
        with pytest.raises(QueryError, match=reason):
            example(store, space, encoder, tmp_path / name)
