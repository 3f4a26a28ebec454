"""Searches over real files in a space of colours, against scores that are worked out one by one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retrieval import index as index_module
from retrieval import media, search
from retrieval.calibrate import UNFITTED, Calibration
from retrieval.errors import IndexMissingError, ModelError, QueryError
from retrieval.index import folder_of, seal
from retrieval.models import ModelSpec
from retrieval.prompts import PromptSet
from retrieval.search import Hit, Searcher, Wanted, usable_space
from retrieval.store import Batch, ItemRecord, Store
from retrieval.types import Encoder, Modality
from tests.conftest import run_sql
from tests.fakes import COLOURS, PALETTE, ColourTower, WordTower, colour_encoder

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
            assert_best(searcher.by_text("red", Wanted(k, under=under)), own, k)


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
    assert tower.embedded - before == 7 + 1  # seven templates for pictures, one for texts


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
        ("folder", "is no kind of file that this index can be searched with"),
        ("song.mp3", "is not a sound in a format that anyseek knows"),
        ("folder.png", "is a folder"),
        ("loop.png", "cannot be read"),
        ("bad.png", "is not a picture"),
        ("empty.txt", "is empty"),
        ("gone.png", "vanished"),
    ):
        with pytest.raises(QueryError, match=f"{name} {reason}"):
            searcher.by_example(files / name, Wanted())


def test_an_indexed_file_that_is_gone_cannot_be_an_example(
    store: Store, encoder: Encoder, files: Path
) -> None:
    """Its vector may be of something that the person no longer means."""
    path = paint(files / "a.png", red=9)
    put(store, encoder, path)
    path.unlink()
    with pytest.raises(QueryError, match=r"a\.png vanished"):
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
