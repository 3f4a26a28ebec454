"""Content and words searched together, against every item judged one by one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval import sources
from retrieval.asking import Manner
from retrieval.filters import Filters
from retrieval.fusion import SOURCES, Fuse, Fusion, fused, log_relevance_of, logit_of
from retrieval.query import parse
from retrieval.scoring import Negatives
from retrieval.search import Searcher, Wanted
from retrieval.store import Batch, Captions, ItemRecord, Space, Store
from retrieval.types import Encoder, Modality, Source, Words, WordsOf
from tests.conftest import make_record, unit_rows
from tests.fakes import COLOURS, DIM, colour_encoder

WORDED = (Source.SIDECAR, Source.MANIFEST, Source.METADATA)


@pytest.fixture
def encoder() -> Encoder:
    """The space of colours."""
    return colour_encoder()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty index."""
    with Store(tmp_path / "i.db", write=True) as store:
        yield store


def captions(encoder: Encoder, *words: tuple[Source, str]) -> Captions:
    """Words with their vectors."""
    tower = encoder.towers[Modality.TEXT]
    vectors = np.empty((0, DIM), np.float32)
    if words:
        vectors = tower.embed([text for _, text in words])
    return Captions(tuple(Words(*one) for one in words), vectors)


def fill(store: Store, encoder: Encoder, count: int, seed: int) -> Space:
    """Pictures of many colours; two of three have up to three captions that say some colours."""
    rng = np.random.default_rng(seed)
    space = store.add_space(encoder)
    names = list(COLOURS)
    records: list[ItemRecord] = []
    for number in range(count):
        said = [
            (WORDED[int(rng.integers(3))], " ".join(rng.choice(names, int(rng.integers(1, 4)))))
            for _ in range(int(rng.integers(0, 4)) if number % 3 else 0)
        ]
        row = np.abs(unit_rows(rng, 1, DIM)) ** 3
        row = np.asarray(row / np.linalg.norm(row), np.float32)
        record = make_record(b"/p/%04d.png" % number, row, width=100 + number % 7)
        records.append(_with(record, captions(encoder, *said)))
    store.write(Batch(records=records), space)
    return space


def _with(record: ItemRecord, words: Captions) -> ItemRecord:
    from dataclasses import replace

    return replace(record, captions=words)


def expected(
    store: Store, space: Space, searcher: Searcher, asked: list[str], manner: Manner
) -> dict[bytes, float]:
    """Judges every picture by each of its sources, and fuses."""
    query = parse(asked)
    content = searcher.scorer(query, Modality.IMAGE, manner)
    words = searcher.scorer(query, WordsOf.IMAGE, manner)
    ids, _ = store.vectors(space, Modality.IMAGE)
    result = {}
    for row in store.found(ids.tolist()).values():
        logits = np.full((1, len(SOURCES)), np.nan)
        for one in store.sourced([row.item_id], space)[row.item_id]:
            scorer = content if one.source is Source.CONTENT else words
            logit = logit_of(scorer.judge(one.row[None]).log_relevance)[0]
            column = SOURCES.index(one.source)
            logits[0, column] = np.nanmax([logits[0, column], logit])
        result[row.path] = math.exp(log_relevance_of(fused(logits, manner.fuse))[0])
    return result


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    way=st.sampled_from([way for way in Fusion if way is not Fusion.CONTENT]),
    words=st.sampled_from(["red", "blue and green", "yellow"]),
    k=st.sampled_from([1, 5, 40]),
    weight=st.sampled_from([None, 0.0, 0.5, 3.0]),
    narrow=st.booleans(),
)
def test_the_ranking_is_that_of_all_items(
    tmp_path_factory: pytest.TempPathFactory,
    way: Fusion,
    words: str,
    k: int,
    weight: float | None,
    narrow: bool,
) -> None:
    """Every way, with few and many hits, with and without a filter."""
    encoder = colour_encoder()
    path = tmp_path_factory.getbasetemp() / "fused.db"
    fresh = not path.exists()
    with Store(path, write=True) as store:
        space = fill(store, encoder, 700, 0) if fresh else store.add_space(encoder)
        searcher = Searcher(store, encoder)
        weights = {} if weight is None else {Source.SIDECAR: weight}
        manner = Manner(fuse=Fuse(way, weights))
        filters = Filters(min_width=105) if narrow else Filters()
        hits = searcher.answer(parse([words]), Wanted(k, filters=filters), manner).hits
        want = expected(store, space, searcher, [words], manner)
        if narrow:
            kept = {hit: value for hit, value in want.items() if int(hit[3:7]) % 7 >= 5}
            want = kept
        best = sorted(want.values(), reverse=True)[:k]
        assert [hit.relevance for hit in hits] == pytest.approx(best, rel=1e-6)
        for hit in hits:
            assert hit.relevance == pytest.approx(want[hit.path], rel=1e-6)


def put(store: Store, encoder: Encoder, name: bytes, colour: str, *said: tuple[Source, str]) -> int:
    """One picture of one colour, with captions."""
    row = encoder.towers[Modality.TEXT].embed([colour])
    space = store.add_space(encoder)
    store.write(Batch(records=[_with(make_record(name, row), captions(encoder, *said))]), space)
    found = store.item(name)
    assert found is not None
    return found[0]


def test_a_picture_is_found_by_its_caption(store: Store, encoder: Encoder) -> None:
    """The hit says which words it was, and how well each source answers."""
    put(store, encoder, b"/a.png", "red", (Source.SIDECAR, "a blue one"), (Source.METADATA, "cyan"))
    put(store, encoder, b"/b.png", "green")
    searcher = Searcher(store, encoder)
    hit, other = searcher.answer(parse(["blue"]), Wanted()).hits
    assert (hit.path, other.path) == (b"/a.png", b"/b.png")
    assert hit.words == Words(Source.SIDECAR, "a blue one")
    assert set(hit.sources) == {Source.CONTENT, Source.SIDECAR, Source.METADATA}
    assert hit.sources[Source.SIDECAR] > hit.sources[Source.METADATA]
    miss = math.prod(1 - value for value in hit.sources.values())
    assert hit.relevance == pytest.approx(1 - miss, rel=1e-6)
    assert other.words is None
    assert set(other.sources) == {Source.CONTENT}


def test_content_alone(store: Store, encoder: Encoder) -> None:
    """By choice, and for a query of examples, which say nothing of words."""
    put(store, encoder, b"/a.png", "red", (Source.SIDECAR, "blue"))
    searcher = Searcher(store, encoder)
    manner = Manner(fuse=Fuse(Fusion.CONTENT))
    (hit,) = searcher.answer(parse(["blue"]), Wanted(), manner).hits
    assert hit.sources == {}
    assert hit.score < 0.1


def test_words_beside_pictures_are_no_texts(store: Store, encoder: Encoder) -> None:
    """A search for texts does not give pictures, and counts of parts leave captions out."""
    put(store, encoder, b"/a.png", "red", (Source.SIDECAR, "blue"))
    searcher = Searcher(store, encoder)
    assert searcher.answer(parse(["blue"]), Wanted(modalities=(Modality.TEXT,))).hits == ()
    summary = store.summary()
    assert summary.parts == {Modality.IMAGE: 1}
    assert summary.vectors == {("colours-1", Modality.IMAGE): 1}


def test_what_is_looked_away_from_drops_the_item(store: Store, encoder: Encoder) -> None:
    """By its content or by its words: neither makes good for the other."""
    for number in range(40):
        put(store, encoder, b"/%02d.png" % number, list(COLOURS)[number % 8])
    put(store, encoder, b"/a.png", "red", (Source.SIDECAR, "green"))
    put(store, encoder, b"/b.png", "red", (Source.SIDECAR, "red"))
    searcher = Searcher(store, encoder)
    manner = Manner(negatives=Negatives.DIFFERENCE)
    hits = searcher.answer(parse(["red", "-", "green"]), Wanted(42), manner).hits
    paths = [hit.path for hit in hits]
    assert paths[0] == b"/b.png"
    assert b"/a.png" not in paths


def test_the_bound_holds_for_items_without_words() -> None:
    """Of ``CONCAT`` an item that lacks the words may lie above one that has them."""
    frontier = np.array([[-1.0, -5.0, -5.0, -5.0]])
    bound = sources._bound(frontier, Fuse(Fusion.CONCAT))
    alone = log_relevance_of(fused(np.array([[-1.0, np.nan, np.nan, np.nan]])))[0]
    assert bound == pytest.approx(alone, rel=1e-9)


def test_paths_are_bytes(store: Store, encoder: Encoder) -> None:
    """Names that are no UTF-8 are found as they are."""
    name = b"/\xff.png"
    put(store, encoder, name, "red", (Source.METADATA, "blue"))
    (hit,) = Searcher(store, encoder).answer(parse(["blue"]), Wanted()).hits
    assert hit.path == name
    assert os.fsdecode(hit.path)
