"""Searches over real files in a space of colours, against scores that are worked out one by one."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from retrieval import asking, media, search, sounds
from retrieval import index as index_module
from retrieval.asking import Manner
from retrieval.calibrate import Calibration
from retrieval.errors import IndexMissingError, ModelError, QueryError
from retrieval.filters import Filters
from retrieval.index import folder_of, seal
from retrieval.models import ModelSpec
from retrieval.phrasing import contrasts, weigh
from retrieval.prompts import PromptSet
from retrieval.search import Hit, Searcher, Span, Wanted, usable_space
from retrieval.store import Batch, ItemRecord, Store
from retrieval.types import Encoder, Fingerprint, Modality, Place
from tests.conftest import run_sql
from tests.fakes import (
    COLOURS,
    PALETTE,
    RATE_HZ,
    ColourTower,
    PitchTower,
    WordTower,
    colour_encoder,
    pitch_hz,
)

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT
CLOSE = 1e-5

Row = NDArray[np.float64]


def paint(path: Path, **shares: int) -> Path:
    """A picture of 16 x 16 pixels with so many pixels of each colour, white elsewhere."""
    pixels = np.full((256, 3), 255, np.uint8)
    start = 0
    for name, count in shares.items():
        pixels[start : start + count] = COLOURS[name]
        start += count
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.reshape(16, 16, 3)).save(path, "PNG")
    return path


def write(path: Path, text: str) -> Path:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def put(store: Store, encoder: Encoder, *paths: Path) -> None:
    """Indexes files."""
    records = []
    for path in paths:
        own = os.fsencode(path)
        content = media.read(own)
        item = media.decode(content.data, own)
        tower = encoder.towers[item.modality]
        records.append(
            ItemRecord(
                path=own,
                fingerprint=content.fingerprint,
                content_hash=content.content_hash,
                modality=item.modality,
                places=tuple(part.place for part in item.parts),
                vectors=tower.embed([tower.prepare(part.content) for part in item.parts]),
            )
        )
    store.write(Batch(records=records), store.add_space(encoder))


UNFITTED = Calibration(10, -3)


@pytest.fixture(autouse=True)
def plain_relevance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relevance is a map of the cosine alone here, so that it can be worked out by hand."""
    monkeypatch.setattr(asking, "unfitted", lambda source, target: UNFITTED)


@pytest.fixture
def encoder() -> Encoder:
    """Pictures and words in a space of colours."""
    return colour_encoder()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty index."""
    with Store(tmp_path / "i.db", write=True) as store:
        yield store


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder of the files, as the indexer would name it."""
    folder = (tmp_path / "files").resolve()
    folder.mkdir()
    return folder


@pytest.fixture
def mixed(store: Store, encoder: Encoder, files: Path) -> Store:
    """Forty pictures in two folders and a dozen texts, all different."""
    rng = np.random.default_rng(3)
    paths = []
    for number in range(40):
        counts = rng.multinomial(250, rng.dirichlet([0.4] * 8))
        folder = files / ("a" if number % 2 else "ab")
        shares = dict(zip(COLOURS, counts.tolist(), strict=True))
        paths.append(paint(folder / f"{number}.png", **shares))
    for number in range(12):
        names = rng.choice(list(COLOURS), 6 + number)
        paths.append(write(files / "a" / f"{number}.txt", "A text of " + " ".join(names) + "."))
    put(store, encoder, *paths)
    return store


def words(*names: str) -> Row:
    """The vector that a query naming these colours should have."""
    row = np.array([names.count(name) for name in COLOURS], np.float64) + 1e-3
    return np.asarray(row / np.linalg.norm(row))


def brute_force(store: Store, query: Row) -> dict[bytes, tuple[Modality, float]]:
    """The best cosine of every item, from the rows of the file."""
    best: dict[bytes, tuple[Modality, float]] = {}
    for path, modality, blob in run_sql(
        store.path,
        "SELECT path, items.modality, vector FROM vectors"
        " JOIN parts ON part_id = parts.id JOIN items ON item_id = items.id",
    ):
        score = float(np.frombuffer(blob, "<f2").astype(np.float64) @ query)
        if path not in best or score > best[path][1]:
            best[path] = (Modality(modality), score)
    return best


def assert_best(
    hits: list[Hit],
    reference: Mapping[bytes, tuple[Modality, float]],
    k: int,
    relevance: Callable[[Modality, float], float] | None = None,
) -> None:
    """Compares hits with the best `k` of all items, except for the order of equals."""

    def unfitted(_: Modality, score: float) -> float:
        return 1 / (1 + math.exp(-(10 * score - 3)))

    relevance = relevance or unfitted
    want = sorted((relevance(*row) for row in reference.values()), reverse=True)[:k]
    np.testing.assert_allclose([hit.relevance for hit in hits], want, rtol=0, atol=1e-4)
    assert len({hit.path for hit in hits}) == len(hits)
    for hit in hits:
        modality, score = reference[hit.path]
        assert hit.modality is modality
        assert hit.score == pytest.approx(min(score, 1.0), abs=CLOSE)
        assert hit.relevance == pytest.approx(relevance(modality, score), abs=1e-4)
        assert hit.space == "colours-1"
        assert hit.score <= 1
    assert [hit.relevance for hit in hits] == sorted((hit.relevance for hit in hits), reverse=True)


# ---- ranking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 10, 51, 52, 1000, 10**9])
@pytest.mark.parametrize("names", [("red",), ("blue", "white"), ("green", "green", "black")])
@pytest.mark.parametrize("sealed", [False, True])
def test_the_ranking_is_that_of_all_scores(
    sealed: bool,
    k: int,
    names: tuple[str, ...],
    mixed: Store,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pictures, texts and both together, with and without segments."""
    if sealed:
        monkeypatch.setattr(index_module, "SEAL_FROM", 5)
        monkeypatch.setattr(index_module, "SEGMENT", 16)
        for modality in (IMAGE, TEXT):
            assert seal(mixed, mixed.spaces()[0], modality)
    reference = brute_force(mixed, words(*names))
    searcher = Searcher(mixed, encoder)
    query = "  " + "\t".join(names) + "\n"
    assert_best(searcher.by_text(query, Wanted(k)), reference, k)
    for modality in (IMAGE, TEXT):
        own = {path: row for path, row in reference.items() if row[0] is modality}
        hits = searcher.by_text(query, Wanted(k, (modality,)))
        assert len(hits) == min(k, len(own))
        assert_best(hits, own, k)
    assert searcher.by_text(query, Wanted(k, (Modality.AUDIO,))) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_only_items_under_the_path_are_found(
    sealed: bool, mixed: Store, encoder: Encoder, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders by whole names, single files, and places where nothing is."""
    if sealed:
        monkeypatch.setattr(index_module, "SEAL_FROM", 5)
        for modality in (IMAGE, TEXT):
            assert seal(mixed, mixed.spaces()[0], modality)
    reference = brute_force(mixed, words("red"))
    searcher = Searcher(mixed, encoder)
    for name in ("a", "ab", "a/3.png", "", "none", "a/3", "A"):
        under = os.fsencode(files / name)
        own = {
            path: row
            for path, row in reference.items()
            if path == under or path.startswith(under + b"/")
        }
        assert bool(own) == (name not in ("none", "a/3", "A"))
        for k in (1, 5, 100):
            assert_best(searcher.by_text("red", Wanted(k, filters=Filters(under=under))), own, k)


def test_the_least_relevance_cuts_the_list(mixed: Store, encoder: Encoder) -> None:
    """The same hits as without it, up to the first that has less."""
    searcher = Searcher(mixed, encoder)
    every = searcher.by_text("red", Wanted(1000))
    assert 0 < every[20].relevance < 1
    for least in (0.0, every[20].relevance, 0.5, 0.9, 1.0):
        hits = searcher.by_text("red", Wanted(1000, min_relevance=least))
        assert hits == [hit for hit in every if hit.relevance >= least]


def test_one_item_is_one_hit_with_its_best_passage(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """The place says which passage it was."""
    filler = "word " * 70
    text = f"{filler} red green.\n\n{filler} red.\n\n{filler} blue.\n\n{filler} black white."
    put(store, encoder, write(files / "a.txt", text))
    searcher = Searcher(store, encoder)
    for query, line, end in (
        ("red", 3, "red."),
        ("blue", 5, "blue."),
        ("white", 7, "black white."),
        ("green", 1, "red green."),
    ):
        (hit,) = searcher.by_text(query, Wanted(10))
        assert hit.place.line == line
        assert hit.place.text is not None
        assert hit.place.text.endswith(end)
        assert (hit.path, hit.modality) == (os.fsencode(files / "a.txt"), TEXT)


def test_a_long_text_does_not_starve_the_others(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """Its two hundred passages fill the first places, and still k items are found."""
    long = "\n\n".join("word " * 60 + "red." for _ in range(200))
    others = [
        write(files / f"{number}.txt", "red and " + "blue " * (number + 1)) for number in range(9)
    ]
    put(store, encoder, write(files / "long.txt", long), *others)
    searcher = Searcher(store, encoder)
    for k in (1, 2, 5, 10, 50):
        hits = searcher.by_text("red", Wanted(k))
        want = ["long.txt", *(f"{number}.txt" for number in range(9))][:k]
        assert [Path(os.fsdecode(hit.path)).name for hit in hits] == want


def test_templates_are_chosen_by_target_or_given(
    mixed: Store, encoder: Encoder, files: Path
) -> None:
    """A set that is given is used for every modality."""
    blue = PromptSet("blue", "", ("{query} and blue",))
    searcher = Searcher(mixed, encoder)
    hits = searcher.by_text("red", Wanted(20), prompt=blue)
    assert_best(hits, brute_force(mixed, words("red", "blue")), 20)
    tower = encoder.towers[TEXT]
    assert isinstance(tower, WordTower)
    before = tower.embedded
    searcher.by_text("red", Wanted(1))
    assert tower.embedded - before == 2  # one for pictures, one for texts


def test_a_set_is_for_its_modalities(mixed: Store, encoder: Encoder) -> None:
    """Elsewhere the query chooses; where it is for nothing that is wanted, that is an error."""
    blue = PromptSet("blue", "", ("{query} and blue",), (TEXT,))
    searcher = Searcher(mixed, encoder)
    manner = Manner(prompt=blue)
    assert searcher.asker.phrased("red", TEXT, manner).templates == ("red and blue",)
    elsewhere = searcher.asker.phrased("red", IMAGE, manner)
    assert elsewhere.templates == ("red red",)
    with pytest.raises(QueryError, match="the prompt set 'blue' is for text; search there, or"):
        searcher.by_text("red", Wanted(1, (IMAGE,)), prompt=blue)


def test_templates_are_weighed_by_the_index(mixed: Store, encoder: Encoder) -> None:
    """With its own vectors as the pool, for each modality apart."""
    prompt = PromptSet("t", "", ("{query}", "blue {query}", "white white {query}"))
    searcher = Searcher(mixed, encoder)
    (space,) = mixed.spaces()
    for target in (IMAGE, TEXT):
        before = searcher.asker.phrased("red", target, Manner(prompt))
        got = searcher.asker.phrased("red", target, Manner(prompt, weighed=True))
        _, pool = mixed.vectors(space, target)
        words = contrasts("red", prompt, encoder.towers[TEXT])
        want = weigh(before, words, pool.astype(np.float32))
        np.testing.assert_allclose(got.weights, want.weights, rtol=1e-5)
        assert got.templates == ("red", "blue red", "white white red")
    hits = searcher.by_text("red", Wanted(1, (TEXT,)), prompt=prompt, weighed=True)
    row = mixed.vectors(space, TEXT)[1].astype(np.float32)
    best = float((row @ got.vector[0]).max())
    assert hits[0].score == pytest.approx(min(best, 1), abs=CLOSE)


def test_words_are_kept_where_a_folder_is_given(
    mixed: Store, encoder: Encoder, tmp_path: Path
) -> None:
    """The second time, and for another searcher, the tower is not asked."""
    tower = encoder.towers[TEXT]
    assert isinstance(tower, WordTower)
    before = tower.embedded
    first = Searcher(mixed, encoder, cache=tmp_path / "cache").by_text("red", Wanted(20))
    assert tower.embedded == before + 1  # which pictures and texts share
    again = Searcher(mixed, encoder, cache=tmp_path / "cache").by_text("red", Wanted(20))
    assert (again, tower.embedded) == (first, before + 1)
    Searcher(mixed, encoder).by_text("red", Wanted(20))
    assert tower.embedded > before + 1


def test_white_space_in_a_query_does_not_matter(
    mixed: Store, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tower sees words with one space between them, in every template."""
    seen: list[str] = []

    def prepare(text: str) -> str:
        seen.append(text)
        return text

    monkeypatch.setattr(encoder.towers[TEXT], "prepare", prepare)
    prompt = PromptSet("t", "", ("{query}", "a {query}!"))
    Searcher(mixed, encoder).by_text(
        " \t big\n\n red\u3000dog ", Wanted(1, (IMAGE,)), prompt=prompt
    )
    assert seen == ["big red dog", "a big red dog!"]


# ---- calibration and models --------------------------------------------------------------------


def _spec(encoder: Encoder) -> ModelSpec:
    return ModelSpec(
        name=encoder.model,
        space=encoder.space,
        dim=encoder.dim,
        modalities=(IMAGE, TEXT),
        size_bytes=0,
        licence="none",
        here=True,
        calibrations={(TEXT, IMAGE): Calibration(30, -25), (TEXT, TEXT): Calibration(2, -0.2)},
        load=lambda: encoder,
    )


@pytest.fixture
def known_models(monkeypatch: pytest.MonkeyPatch, encoder: Encoder) -> ModelSpec:
    """The colours are the only model that there is."""
    spec = _spec(encoder)

    def model(name: str | None = None) -> ModelSpec:
        if name in (None, spec.name):
            return spec
        raise ModelError(f"no {name}")

    monkeypatch.setattr(search, "model", model)
    return spec


def test_modalities_are_merged_by_relevance(mixed: Store, known_models: ModelSpec) -> None:
    """The model's calibrations decide between pictures and texts, not their cosines."""

    def relevance(modality: Modality, score: float) -> float:
        a, b = (30, -25) if modality is IMAGE else (2, -0.2)
        return 1 / (1 + math.exp(-(a * score + b)))

    reference = brute_force(mixed, words("red"))
    searcher = Searcher(mixed)
    hits = searcher.by_text("red", Wanted(52))
    assert_best(hits, reference, 52, relevance)
    assert [hit.score for hit in hits] != sorted((hit.score for hit in hits), reverse=True)
    example = searcher.by_example(Path(os.fsdecode(hits[0].path)), Wanted(5, (TEXT, IMAGE)))
    for hit in example:  # a kind of query without figures
        (want,) = UNFITTED.relevance(np.array([hit.score], np.float32))
        assert hit.relevance == pytest.approx(want, abs=2e-3)  # the score is cut at 1


def test_the_model_is_that_of_the_index(
    store: Store, known_models: ModelSpec, encoder: Encoder, files: Path
) -> None:
    """The oldest space that can be used is; without one, it says what to do."""
    with pytest.raises(IndexMissingError, match=r"is empty; fill it with"):
        Searcher(store)
    with pytest.raises(IndexMissingError, match=r"is empty; fill it with"):
        Searcher(store, encoder)
    foreign = store.add_space(Encoder("lost-model", "lost-3", 5, {}))
    with pytest.raises(ModelError, match=r"made with lost-model \(lost-3\).*anyseek index FOLDER"):
        Searcher(store)
    put(store, encoder, paint(files / "a.png", red=100))
    spec, space = usable_space(store)
    assert (spec, space.name) == (known_models, "colours-1")
    assert space.id > foreign.id
    searcher = Searcher(store)
    assert searcher.encoder is encoder
    (hit,) = searcher.by_text("red", Wanted(3))
    assert hit.space == "colours-1"


def test_spaces_are_searched_apart(store: Store, encoder: Encoder, files: Path) -> None:
    """Vectors of another model in the same index are never compared."""
    other = colour_encoder("colours-2")
    put(store, encoder, paint(files / "a.png", red=256))
    put(store, other, paint(files / "b.png", red=256))
    for one, name in ((encoder, "a.png"), (other, "b.png")):
        (hit,) = Searcher(store, one).by_text("red", Wanted(10))
        assert (hit.path, hit.space) == (os.fsencode(files / name), one.space)


# ---- by example --------------------------------------------------------------------------------


def _colour_of(*shares: float) -> Row:
    row = np.array(shares, np.float64) + 1e-3
    return np.asarray(row / np.linalg.norm(row))


def _embedded(encoder: Encoder, modality: Modality = IMAGE) -> int:
    tower = encoder.towers[modality]
    assert isinstance(tower, ColourTower | WordTower)
    return tower.embedded


def _names(hits: list[Hit]) -> list[str]:
    return [Path(os.fsdecode(hit.path)).name for hit in hits]


def test_similar_pictures_without_the_example_itself(mixed: Store, encoder: Encoder) -> None:
    """Every other picture, best first, from the stored vector: nothing is embedded."""
    rows = run_sql(
        mixed.path,
        "SELECT path, vector FROM vectors JOIN parts ON part_id = parts.id"
        " JOIN items ON item_id = items.id WHERE items.modality = 'image'",
    )
    before = _embedded(encoder)
    searcher = Searcher(mixed, encoder)
    for path, blob in rows[:8]:
        query = np.frombuffer(blob, "<f2").astype(np.float64)
        reference = brute_force(mixed, query / np.linalg.norm(query))
        del reference[path]
        pictures = {key: row for key, row in reference.items() if row[0] is IMAGE}
        for k in (1, 5, 39, 40, 100):
            hits = searcher.by_example(Path(os.fsdecode(path)), Wanted(k))
            assert len(hits) == min(k, 39)
            assert_best(hits, pictures, k)
        both = searcher.by_example(Path(os.fsdecode(path)), Wanted(51, (IMAGE, TEXT)))
        assert_best(both, reference, 51)
    assert _embedded(encoder) == before


def test_a_file_that_is_not_indexed_is_embedded(
    mixed: Store, encoder: Encoder, files: Path, tmp_path: Path
) -> None:
    """It may lie anywhere, and the index stays as it is."""
    path = paint(tmp_path / "elsewhere" / "new.png", red=64, blue=64)
    before, generation = _embedded(encoder), mixed.generation()
    hits = Searcher(mixed, encoder).by_example(path, Wanted(40))
    assert _embedded(encoder) == before + 1
    query = _colour_of(0.25, 0, 0.25, 0, 0, 0, 0.5, 0)
    reference = brute_force(mixed, query)
    assert_best(hits, {key: row for key, row in reference.items() if row[0] is IMAGE}, 40)
    assert mixed.generation() == generation
    assert mixed.item(os.fsencode(path)) is None


def test_an_indexed_file_that_changed_is_looked_at_anew(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """The old vector would find what the file no longer shows; its entry is still left out."""
    changed = paint(files / "x.png", red=256)
    put(
        store,
        encoder,
        changed,
        paint(files / "red.png", red=256),
        paint(files / "blue.png", blue=256),
    )
    searcher = Searcher(store, encoder)
    assert _names(searcher.by_example(changed, Wanted(5))) == ["red.png", "blue.png"]
    before = _embedded(encoder)
    paint(changed, blue=256)
    os.utime(changed, ns=(1, 1))
    assert _names(searcher.by_example(changed, Wanted(5))) == ["blue.png", "red.png"]
    assert _embedded(encoder) == before + 1


def test_copies_of_the_example_are_found(store: Store, encoder: Encoder, files: Path) -> None:
    """Only the entry of the very file is left out, and a perfect match has a score of 1."""
    one, two = paint(files / "1.png", red=200), paint(files / "2.png", red=200)
    put(store, encoder, one, two)
    searcher = Searcher(store, encoder)
    for path, other in ((one, "2.png"), (two, "1.png")):
        (hit,) = searcher.by_example(path, Wanted(5))
        assert _names([hit]) == [other]
        assert hit.score == pytest.approx(1.0, abs=1e-3)
        assert hit.score <= 1.0


def test_links_are_known_by_their_own_names(
    store: Store, encoder: Encoder, files: Path, tmp_path: Path
) -> None:
    """An indexed link leaves itself out; a link to an indexed file leaves that file out."""
    target = paint(tmp_path / "objects" / "8f3a", red=100)  # as git-annex keeps them
    link = files / "link.png"
    link.symlink_to(target)
    red = paint(files / "red.png", red=256)
    put(store, encoder, link, red)
    searcher = Searcher(store, encoder)
    assert _names(searcher.by_example(link, Wanted(5))) == ["red.png"]
    aside = files / "aside.png"
    aside.symlink_to(red)
    put(store, encoder, aside)  # the link and what it leads to are two entries
    assert _names(Searcher(store, encoder).by_example(aside, Wanted(1))) == ["red.png"]
    assert _names(Searcher(store, encoder).by_example(red, Wanted(1))) == ["aside.png"]
    store.write(Batch(removed=[3]), store.spaces()[0])
    away = tmp_path / "away.png"
    away.symlink_to(red)
    assert _names(searcher.by_example(away, Wanted(5))) == ["link.png"]
    folder = tmp_path / "folder"
    folder.symlink_to(files)
    assert _names(searcher.by_example(folder / "red.png", Wanted(5))) == ["link.png"]
    assert _names(searcher.by_example(folder / ".." / "files" / "red.png", Wanted(5))) == [
        "link.png"
    ]


def test_a_relative_path_is_the_same_file(
    store: Store, encoder: Encoder, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed in a folder is found in the index by its full path."""
    put(store, encoder, paint(files / "a.png", red=9), paint(files / "b.png", red=9))
    monkeypatch.chdir(files)
    assert _names(Searcher(store, encoder).by_example(Path("a.png"), Wanted(5))) == ["b.png"]


def test_a_text_is_looked_for_as_the_mean_of_its_passages(
    mixed: Store, encoder: Encoder, files: Path, tmp_path: Path
) -> None:
    """Stored or not, and pictures only if they are asked for."""
    filler = "word " * 70
    content = f"{filler} red.\n\n{filler} blue blue red.\n\n{filler} green."
    mean = words("red") + words("blue", "blue", "red") + words("green")
    query = mean / np.linalg.norm(mean)
    path = write(tmp_path / "example.txt", content)
    reference = brute_force(mixed, query)
    searcher = Searcher(mixed, encoder)
    texts = {key: row for key, row in reference.items() if row[0] is TEXT}
    pictures = {key: row for key, row in reference.items() if row[0] is IMAGE}
    assert_best(searcher.by_example(path, Wanted(12)), texts, 12)
    assert_best(searcher.by_example(path, Wanted(40, (IMAGE,))), pictures, 40)
    before = _embedded(encoder, TEXT)
    stored = write(files / "example.txt", content)
    put(mixed, encoder, stored)
    assert _embedded(encoder, TEXT) == before + 3
    hits = Searcher(mixed, encoder).by_example(stored, Wanted(100))
    assert _embedded(encoder, TEXT) == before + 3
    assert "example.txt" not in _names(hits)
    np.testing.assert_allclose(
        [hit.score for hit in hits],
        sorted((score for _, score in texts.values()), reverse=True),
        rtol=0,
        atol=1e-3,  # the example itself has gone through float16
    )


# ---- what means nothing ------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", " ", "\n\t ", "\u3000", "\u200b", "\0", "\x07\x1b"])
def test_an_empty_query_says_what_to_do(query: str, mixed: Store, encoder: Encoder) -> None:
    """Nothing that can be seen is nothing to look for."""
    with pytest.raises(QueryError, match="the query is empty; say in words"):
        Searcher(mixed, encoder).by_text(query, Wanted())


@pytest.mark.parametrize("query", ["?", "🐕", "a", "red " * 5000, "'; DROP TABLE items; --", "%"])
def test_odd_queries_are_queries(query: str, mixed: Store, encoder: Encoder) -> None:
    """What can be seen can be looked for."""
    assert len(Searcher(mixed, encoder).by_text(query, Wanted(3))) == 3


def test_numbers_that_mean_nothing_are_refused() -> None:
    """The message has the number and what it should have been."""
    for k in (0, -1):
        with pytest.raises(QueryError, match=f"at least 1, not {k}"):
            Wanted(k)
    for least in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(QueryError, match=f"between 0 and 1, not at {least}"):
            Wanted(min_relevance=least)
    assert Wanted(1, min_relevance=0.0).k == 1
    assert Wanted(10**9, min_relevance=1.0).k == 10**9


def test_examples_that_cannot_be_used_say_why(mixed: Store, encoder: Encoder, files: Path) -> None:
    """The path and the reason, in one line."""
    (files / "folder").mkdir()
    (files / "folder.png").mkdir()
    (files / "loop.png").symlink_to(files / "loop.png")
    (files / "bad.png").write_bytes(b"no picture")
    (files / "empty.txt").write_bytes(b"")
    (files / "song.mp3").write_bytes(b"ID3")
    (files / "gone.png").unlink(missing_ok=True)
    searcher = Searcher(mixed, encoder)
    for name, reason in (
        ("folder", "is a folder"),
        ("song.mp3", "is not a sound in a format that anyseek knows"),
        ("folder.png", "is a folder"),
        ("loop.png", "cannot be read"),
        ("bad.png", "is not a picture"),
        ("empty.txt", "is empty"),
    ):
        with pytest.raises(QueryError, match=f"{name} {reason}"):
            searcher.by_example(files / name, Wanted())
    with pytest.raises(QueryError, match=r"there is no file at .*gone\.png"):
        searcher.by_example(files / "gone.png", Wanted())


def test_an_indexed_file_that_is_gone_is_an_example(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """What was indexed is looked for, and nothing is read; one that was replaced is read."""
    path, *others = (paint(files / name, red=9) for name in ("a.png", "b.png"))
    others.append(paint(files / "c.png", blue=9))
    put(store, encoder, path, *others)
    before = Searcher(store, encoder).by_example(path, Wanted())
    path.unlink()
    embedded = _embedded(encoder, IMAGE)
    assert Searcher(store, encoder).by_example(path, Wanted()) == before
    assert _names(before) == ["b.png", "c.png"]
    path.symlink_to(files / "nowhere.png")
    assert Searcher(store, encoder).by_example(path, Wanted()) == before
    assert _embedded(encoder, IMAGE) == embedded
    path.unlink()
    paint(path, blue=9)
    assert _names(Searcher(store, encoder).by_example(path, Wanted())) == ["c.png", "b.png"]
    assert _embedded(encoder, IMAGE) == embedded + 1
    store.write(Batch(removed=[store.item(os.fsencode(path))[0]]), store.spaces()[0])  # type: ignore[index]
    path.unlink()
    with pytest.raises(QueryError, match=r"there is no file at .*a\.png"):
        Searcher(store, encoder).by_example(path, Wanted())


def test_a_kind_of_file_that_the_model_lacks_is_refused(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """A model of texts alone cannot look at pictures."""
    put(store, encoder, write(files / "a.txt", "red"))
    texts = Encoder(encoder.model, encoder.space, encoder.dim, {TEXT: encoder.towers[TEXT]})
    with pytest.raises(QueryError, match="no kind of file"):
        Searcher(store, texts).by_example(paint(files / "a.png", red=9), Wanted())


# ---- damage ------------------------------------------------------------------------------------


def test_damaged_segments_are_remarked_once_and_change_nothing(
    mixed: Store, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is the same, and the person hears how to get the speed back."""
    monkeypatch.setattr(index_module, "SEAL_FROM", 5)
    monkeypatch.setattr(index_module, "SEGMENT", 16)
    space = mixed.spaces()[0]
    seal(mixed, space, IMAGE)
    mixed.write(Batch(removed=[1, 20]), space)
    healthy = Searcher(mixed, encoder)
    want = healthy.by_text("red", Wanted(1000))
    assert healthy.remarks == []
    for path in folder_of(mixed.path).iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    searcher = Searcher(mixed, encoder)
    for _ in range(2):
        hits = searcher.by_text("red", Wanted(1000))
        assert [hit.path for hit in hits] == [hit.path for hit in want]
    (remark,) = searcher.remarks
    assert "3 derived file(s)" in remark
    assert "`anyseek index`" in remark


def test_the_fake_counts_colours_as_worked_out_here(tmp_path: Path) -> None:
    """The reference of these tests is not the code that they test."""
    tower = ColourTower()
    picture = media.decode(paint(tmp_path / "a.png", red=64, black=128).read_bytes(), "a.png")
    (row,) = tower.embed([tower.prepare(picture.parts[0].content)])
    np.testing.assert_allclose(row, _colour_of(0.25, 0, 0, 0, 0, 0, 0.25, 0.5), atol=1e-6)
    assert len(PALETTE) == len(COLOURS) == 8


# ---- sounds ------------------------------------------------------------------------------------

AUDIO = Modality.AUDIO


def play(path: Path, *pieces: tuple[str, float]) -> Path:
    """A recording of tones that stand for colours, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        0.3 * np.sin(2 * np.pi * pitch_hz(colour) / RATE_HZ * np.arange(round(seconds * RATE_HZ)))
        for colour, seconds in pieces
    ]
    soundfile.write(path, np.concatenate(rows), RATE_HZ)
    return path


def put_sound(store: Store, encoder: Encoder, *paths: Path) -> None:
    """Indexes recordings."""
    records = []
    for path in paths:
        own = os.fsencode(path)
        content = media.read(own)
        heard = sounds.embed(sounds.windows(own, RATE_HZ), encoder.towers[AUDIO])
        records.append(
            ItemRecord(
                path=own,
                fingerprint=content.fingerprint,
                content_hash=content.content_hash,
                modality=AUDIO,
                places=heard.places,
                vectors=heard.vectors,
                duration_s=heard.duration_s,
            )
        )
    store.write(Batch(records=records), store.add_space(encoder))


def put_windows(
    store: Store, encoder: Encoder, path: bytes, windows: Sequence[tuple[float, float, float]]
) -> None:
    """Indexes a recording of windows with a start, an end and a cosine to the word red."""
    across = words("blue") - (words("blue") @ words("red")) * words("red")
    across /= np.linalg.norm(across)
    rows = [cos * words("red") + math.sqrt(1 - cos * cos) * across for _, _, cos in windows]
    record = ItemRecord(
        path=path,
        fingerprint=Fingerprint(1, 1),
        content_hash=path[:16].ljust(16),
        modality=AUDIO,
        places=tuple(Place(start_s=start, end_s=end) for start, end, _ in windows),
        vectors=np.array(rows, np.float32),
    )
    store.write(Batch(records=[record]), store.add_space(encoder))


def heard_spans(store: Store, encoder: Encoder) -> tuple[Span, ...]:
    """The spans of the only recording for the word red, after checks that hold for all."""
    (hit,) = Searcher(store, encoder).by_text("red", Wanted(5, (AUDIO,)))
    assert hit.spans
    assert len(hit.spans) <= search.MAX_SPANS
    assert hit.place.start_s is not None
    assert hit.place.end_s is not None
    first = hit.spans[0]
    assert first.start_s <= hit.place.start_s < hit.place.end_s <= first.end_s
    assert first.relevance == pytest.approx(hit.relevance, abs=1e-6)
    relevances = [span.relevance for span in hit.spans]
    assert relevances == sorted(relevances, reverse=True)
    return hit.spans


def _relevance(cosine: float) -> float:
    return 1 / (1 + math.exp(-(10 * cosine - 3)))


def _cosine(relevance: float) -> float:
    return (3 - math.log(1 / relevance - 1)) / 10


def test_sounds_are_found_by_words_pictures_and_sounds(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """And find pictures and texts in turn."""
    colours = list(COLOURS)
    put(store, encoder, *(paint(files / f"{colour}.png", **{colour: 256}) for colour in colours))
    put(store, encoder, *(write(files / f"{colour}.txt", colour) for colour in colours))
    put_sound(store, encoder, *(play(files / f"{colour}.wav", (colour, 3)) for colour in colours))
    searcher = Searcher(store, encoder)
    for colour in colours:
        (hit,) = searcher.by_text(colour, Wanted(1, (AUDIO,)))
        assert (_names([hit]), hit.modality) == ([f"{colour}.wav"], AUDIO)
        assert hit.score > 0.99
        assert hit.place == Place(start_s=0.0, end_s=3.0)
        assert hit.spans == (Span(0.0, 3.0, hit.relevance),)
        for example in (files / f"{colour}.png", files / f"{colour}.txt"):
            (hit,) = searcher.by_example(example, Wanted(1, (AUDIO,)))
            assert _names([hit]) == [f"{colour}.wav"]
            assert hit.spans[0].relevance == pytest.approx(hit.relevance, abs=1e-5)
        for suffix, modality in ((".png", IMAGE), (".txt", TEXT)):
            (hit,) = searcher.by_example(files / f"{colour}.wav", Wanted(1, (modality,)))
            assert (_names([hit]), hit.spans) == ([colour + suffix], ())
        others = searcher.by_example(files / f"{colour}.wav", Wanted(20))
        assert sorted(_names(others)) == sorted(f"{one}.wav" for one in colours if one != colour)


def test_a_sound_is_looked_for_as_the_mean_of_its_windows(
    store: Store, encoder: Encoder, files: Path, tmp_path: Path
) -> None:
    """Stored or not; silent windows have no part in it."""
    put_sound(store, encoder, *(play(files / f"{one}.wav", (one, 3)) for one in COLOURS))
    path = play(tmp_path / "new.wav", ("red", 20), ("blue", 10), ("cyan", 10))
    quiet, rate = soundfile.read(path)
    quiet = np.concatenate([quiet, np.zeros(20 * rate)])
    soundfile.write(path, quiet, rate)
    vectors = sounds.embed(sounds.windows(path, RATE_HZ), encoder.towers[AUDIO]).vectors
    assert len(vectors) == 8
    mean = vectors.astype(np.float64).mean(axis=0)
    reference = brute_force(store, mean / np.linalg.norm(mean))
    tower = encoder.towers[AUDIO]
    assert isinstance(tower, PitchTower)
    before = tower.embedded
    hits = Searcher(store, encoder).by_example(path, Wanted(8))
    assert_best(hits, reference, 8)
    assert tower.embedded == before + 8
    assert _names(hits)[0] == "red.wav"
    stored = play(files / "stored.wav", ("red", 20), ("blue", 10))
    put_sound(store, encoder, stored)
    before = tower.embedded
    hits = Searcher(store, encoder).by_example(stored, Wanted(20))
    assert tower.embedded == before
    assert "stored.wav" not in _names(hits)
    assert _names(hits)[:2] == ["red.wav", "blue.wav"]


def test_sounds_that_cannot_be_examples_say_why(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """The path and the reason, in one line."""
    put_sound(store, encoder, play(files / "a.wav", ("red", 3)))
    soundfile.write(files / "silent.wav", np.zeros(9_000), RATE_HZ)
    soundfile.write(files / "short.wav", np.ones(9), RATE_HZ)
    (files / "folder.wav").mkdir()
    (files / "empty.mp3").write_bytes(b"")
    (files / "junk.m4a").write_bytes(b"junk" * 99)
    os.mkfifo(files / "pipe.flac")
    searcher = Searcher(store, encoder)
    for name, reason in (
        ("silent.wav", "is silent from start to end"),
        ("short.wav", "is shorter than 50 ms"),
        ("folder.wav", "is a folder"),
        ("empty.mp3", "is empty"),
        ("junk.m4a", "is not a sound in a format that anyseek knows"),
        ("pipe.flac", "is a pipe or a device, not a file"),
    ):
        with pytest.raises(QueryError, match=f"{name} {reason}"):
            searcher.by_example(files / name, Wanted())


def test_each_kind_has_a_ranking_of_its_own(mixed: Store, encoder: Encoder, files: Path) -> None:
    """`k` of each, one kind after the other, each as if it had been asked for alone."""
    put_sound(
        mixed, encoder, *(play(files / f"{one}.wav", (one, 6), ("red", 4)) for one in COLOURS)
    )
    searcher = Searcher(mixed, encoder)
    for k in (1, 3, 8, 100):
        hits = searcher.by_text("red", Wanted(k, each=True))
        alone = [searcher.by_text("red", Wanted(k, (one,))) for one in (IMAGE, AUDIO, TEXT)]
        assert [len(some) for some in alone] == [min(k, 40), min(k, 8), min(k, 12)]
        rankings = [[hit for hit in hits if hit.modality is one] for one in (IMAGE, AUDIO, TEXT)]
        assert rankings == alone
        order = [hit.modality for hit in hits]
        assert len(order) - 1 == sum(a is b for a, b in itertools.pairwise(order)) + 2
        merged = searcher.by_text("red", Wanted(k))
        assert len(merged) == min(k, 60)
        assert merged == sorted(merged, key=lambda hit: (-hit.relevance, -hit.score, hit.path))
    least = searcher.by_text("red", Wanted(100, each=True, min_relevance=0.5))
    assert least == [hit for hit in hits if hit.relevance >= 0.5]
    two = searcher.by_text("red", Wanted(2, (AUDIO, TEXT), each=True))
    assert sorted(hit.modality for hit in two) == [AUDIO, AUDIO, TEXT, TEXT]
    by_example = searcher.by_example(files / "red.wav", Wanted(2, tuple(Modality), each=True))
    assert sorted(hit.modality for hit in by_example) == [AUDIO] * 2 + [IMAGE] * 2 + [TEXT] * 2


def test_spans_say_where_in_a_recording(store: Store, encoder: Encoder, files: Path) -> None:
    """The stretches that hold the tone, and the best first."""
    path = play(files / "a.wav", ("blue", 30), ("red", 20), ("blue", 40), ("red", 5), ("blue", 35))
    put_sound(store, encoder, path)
    first, second = heard_spans(store, encoder)
    assert (first.start_s, first.end_s) == (25, 55)  # the windows at its borders are half red
    assert (second.start_s, second.end_s) == (85, 100)
    assert first.relevance > second.relevance


def test_windows_that_touch_or_overlap_are_one_span(store: Store, encoder: Encoder) -> None:
    """A gap, however small, parts them; the best window's relevance is the span's."""
    windows = [
        (0.0, 10.0, 0.5),
        (10.0, 20.0, 0.9),
        (20.1, 30.1, 0.8),
        (25.0, 35.0, 0.6),
        (30.0, 40.0, 0.7),
        (50.0, 60.0, 0.95),
    ]
    put_windows(store, encoder, b"/a.wav", windows)
    spans = heard_spans(store, encoder)
    assert [(span.start_s, span.end_s) for span in spans] == [(50, 60), (0, 20), (20.1, 40)]
    for span, cosine in zip(spans, (0.95, 0.9, 0.8), strict=True):
        assert span.relevance == pytest.approx(_relevance(cosine), abs=2e-3)


def test_windows_below_half_the_best_are_no_span(store: Store, encoder: Encoder) -> None:
    """Half of the relevance, not of the cosine, and of this recording alone."""
    best = _relevance(0.4)
    for share, found in ((0.52, 2), (0.48, 1)):
        name = f"/{share}.wav".encode()
        windows = [(0.0, 10.0, 0.4), (100.0, 110.0, _cosine(share * best))]
        put_windows(store, encoder, name, windows)
        put_windows(store, encoder, b"/other.wav", [(0.0, 10.0, 0.95)])
        hits = Searcher(store, encoder).by_text("red", Wanted(9))
        (hit,) = [hit for hit in hits if hit.path == name]
        assert len(hit.spans) == found
        assert (hit.spans[0].start_s, hit.spans[0].end_s) == (0, 10)


def test_spans_are_at_most_ten(store: Store, encoder: Encoder) -> None:
    """The ten best of thirty, and of equals the earliest."""
    windows = [(20.0 * at, 20.0 * at + 10, 0.7 + 0.005 * (at * 7 % 30)) for at in range(30)]
    put_windows(store, encoder, b"/a.wav", windows)
    spans = heard_spans(store, encoder)
    want = sorted(windows, key=lambda window: -window[2])[:10]
    assert [(span.start_s, span.end_s) for span in spans] == [(a, b) for a, b, _ in want]
    store.write(Batch(removed=[1]), store.spaces()[0])
    put_windows(store, encoder, b"/b.wav", [(20.0 * at, 20.0 * at + 10, 0.8) for at in range(30)])
    spans = heard_spans(store, encoder)
    assert [span.start_s for span in spans] == [20.0 * at for at in range(10)]


def test_the_best_span_is_first_where_all_are_wholly_relevant(
    store: Store, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A steep calibration gives the best and the second best the same relevance, 1."""
    monkeypatch.setattr(asking, "unfitted", lambda source, target: Calibration(200, -20))
    windows = [(20.0 * at, 20.0 * at + 10, cos) for at, cos in enumerate((0.7, 0.8, 0.95, 0.9))]
    put_windows(store, encoder, b"/a.wav", windows)
    assert [span.start_s for span in heard_spans(store, encoder)] == [40, 60, 20, 0]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 0.99)), min_size=1, max_size=40))
def test_spans_are_the_good_moments(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, float]]
) -> None:
    """Second by second: a moment is in a span if, and only if, a good window has it."""
    starts = np.cumsum([5 + 20 * gap for gap, _ in steps])
    windows = [
        (float(start), float(start) + 10, cosine)
        for start, (_, cosine) in zip(starts, steps, strict=True)
    ]
    encoder = colour_encoder()
    with Store(tmp_path_factory.mktemp("spans") / "i.db", write=True) as store:
        put_windows(store, encoder, b"/a.wav", windows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "MAX_SPANS", 99)
            spans = heard_spans(store, encoder)
        rows = run_sql(store.path, "SELECT vector FROM vectors ORDER BY id")
    cosines = [
        float(np.frombuffer(row, "<f2").astype(np.float64) @ words("red")) for (row,) in rows
    ]
    limit = max(map(_relevance, cosines)) / 2
    assume(all(abs(_relevance(cosine) - limit) > 1e-4 for cosine in cosines))
    good: set[int] = set()
    for (start, end, _), cosine in zip(windows, cosines, strict=True):
        if _relevance(cosine) > limit:
            good.update(range(int(start), int(end)))
    found = [moment for span in spans for moment in range(int(span.start_s), int(span.end_s))]
    assert sorted(found) == sorted(good)
    for span in spans:
        inside = [
            _relevance(cosine)
            for (start, end, _), cosine in zip(windows, cosines, strict=True)
            if span.start_s <= start and end <= span.end_s
        ]
        assert span.relevance == pytest.approx(max(inside), abs=1e-4)
        assert span.start_s - 1 not in good


def test_pictures_and_texts_have_no_spans(mixed: Store, encoder: Encoder) -> None:
    """They lie in no time."""
    hits = Searcher(mixed, encoder).by_text("red", Wanted(100))
    assert len(hits) == 52
    assert all(hit.spans == () for hit in hits)
