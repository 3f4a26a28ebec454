"""Several spaces of one index, asked as one: who is asked, and how hits are merged."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from indexer import pipeline
from indexer.scan import roots_of
from retrieval import models
from retrieval.asking import Manner
from retrieval.concepts import made
from retrieval.errors import IndexMissingError, ModelError, QueryError
from retrieval.examples import example
from retrieval.models import FAMILIES, model, named
from retrieval.prompts import PromptSet
from retrieval.query import parse
from retrieval.search import Hit, Searcher, Wanted
from retrieval.spaces import Spaces, chosen, held, space_for, space_of_concept
from retrieval.store import Batch, Store
from retrieval.types import Modality, Place
from tests.conftest import make_record, run_sql, unit_rows
from tests.fakes import (
    COLOURS,
    RATE_HZ,
    BlueTower,
    ColourFamily,
    WordTower,
    colour_encoder,
    pitch_hz,
)
from tests.retrieval.test_search import paint, write

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
SEEN, HEARD, BOTH = "hf-hub:a/seen", "clap:a/heard", "st:a/both"


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ColourFamily:
    """Models that see, that hear, and that do both."""
    made = ColourFamily(
        tmp_path / "cache", {"hf-hub:a/seen": (IMAGE, TEXT), "a/heard": (AUDIO, TEXT)}
    )
    for module in FAMILIES.values():
        monkeypatch.setitem(sys.modules, module, made)
    for name in (SEEN, HEARD, BOTH):
        models.pull(named(name), lambda done, total: None)
    return made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Pictures, sounds and texts of eight colours."""
    folder = (tmp_path / "files").resolve()
    seconds = np.arange(2 * RATE_HZ) / RATE_HZ
    for number, name in enumerate(COLOURS):
        paint(folder / f"{name}.png", **{name: 256 - number})
        write(folder / f"{name}.md", f"something {name}")
        tone = 0.5 * np.sin(2 * np.pi * pitch_hz(name) * seconds)
        soundfile.write(folder / f"{name}.wav", tone, RATE_HZ)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty index."""
    with Store(tmp_path / "i.db", write=True) as store:
        yield store


def add(store: Store, name: str, folder: Path) -> None:
    """Indexes a folder with a model."""
    pipeline.index(store, model(name).load(), roots_of([folder]), workers=1)


def names(hits: tuple[Hit, ...]) -> list[str]:
    """Gives the names of the files that were found."""
    return [Path(os.fsdecode(hit.path)).name for hit in hits]


def test_modalities_find_their_space(store: Store, files: Path, family: ColourFamily) -> None:
    """A query in words goes to the space of pictures and to that of sounds; texts to the first."""
    with pytest.raises(IndexMissingError, match="is empty"):
        Spaces(store)
    add(store, SEEN, files)
    add(store, HEARD, files)
    spaces = Spaces(store)
    answer = spaces.answer(parse(["red"]), Wanted(100))
    assert len(answer.hits) == 3 * len(COLOURS)
    assert sorted(names(answer.hits[:3])) == ["red.md", "red.png", "red.wav"]
    assert {hit.modality: hit.space for hit in answer.hits} == {
        IMAGE: "colours of hf-hub:a/seen",
        TEXT: "colours of hf-hub:a/seen",
        AUDIO: "colours of a/heard",
    }
    assert [hit.relevance for hit in answer.hits] == sorted(
        (hit.relevance for hit in answer.hits), reverse=True
    )
    each = spaces.answer(parse(["red"]), Wanted(1, each=True))
    assert names(each.hits) == ["red.png", "red.wav", "red.md"]
    sounds = spaces.answer(parse(["blue"]), Wanted(2, (AUDIO,)))
    assert names(sounds.hits)[0] == "blue.wav"
    assert spaces.remarks == []
    own, _ = spaces.of(sounds.hits[0], Manner())
    assert own.encoder.space == "colours of a/heard"


def test_named_spaces_alone_are_searched(store: Store, files: Path, family: ColourFamily) -> None:
    """By the name of the model or of the space; what the index does not have is said."""
    add(store, SEEN, files)
    add(store, HEARD, files)
    for name in (HEARD, "colours of a/heard"):
        hits = Spaces(store, [name]).answer(parse(["red"]), Wanted(100)).hits
        assert {hit.modality for hit in hits} == {AUDIO, TEXT}
        assert {hit.space for hit in hits} == {"colours of a/heard"}
    with pytest.raises(QueryError, match=r"nothing of st:a/both; add it with `anyseek index --mod"):
        Spaces(store, [BOTH])
    with pytest.raises(ModelError, match="there is no model named 'nonsense'"):
        Spaces(store, ["nonsense"])
    assert len(chosen(store, [HEARD, HEARD, SEEN])) == 2


def test_an_item_of_two_spaces_is_shown_once(
    store: Store, files: Path, family: ColourFamily
) -> None:
    """With the better of its relevances, as brute force over both lists has it."""
    add(store, SEEN, files)
    add(store, BOTH, files)
    query, wanted = parse(["red"]), Wanted(100)
    lists = [Spaces(store, [name]).answer(query, wanted).hits for name in (SEEN, BOTH)]
    best: dict[bytes, float] = {}
    for hit in (*lists[0], *lists[1]):
        best[hit.path] = max(hit.relevance, best.get(hit.path, 0.0))
    hits = Spaces(store, [SEEN, BOTH]).answer(query, wanted).hits
    assert {hit.path: hit.relevance for hit in hits} == best
    few = Spaces(store, [BOTH, SEEN]).answer(query, Wanted(5)).hits
    assert [hit.relevance for hit in few] == sorted(best.values(), reverse=True)[:5]


def test_examples_go_where_they_are_known(
    store: Store,
    files: Path,
    family: ColourFamily,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture crosses to a space of sounds over words, which is said; a sound finds its kind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    add(store, SEEN, files)
    add(store, HEARD, files)
    spaces = Spaces(store)
    answer = spaces.answer(spaces.like(files / "red.png"), Wanted(100))
    assert {hit.modality for hit in answer.hits} == {IMAGE, AUDIO, TEXT}
    (remark,) = spaces.remarks
    assert remark.startswith(f"{files}/red.png is looked for in clap:a/heard as: ")
    assert "red" in remark.rpartition(": ")[2]
    heard = [hit for hit in answer.hits if hit.modality is AUDIO]
    assert heard[0].path.endswith(b"/red.wav")
    assert {hit.space for hit in heard} == {"colours of a/heard"}
    wanted = spaces.wanted_like(files / "red.wav", Wanted(100))
    assert wanted.modalities == (AUDIO,)
    hits = spaces.answer(spaces.like(files / "red.wav"), wanted).hits
    assert sorted(names(hits)) == sorted(f"{name}.wav" for name in COLOURS if name != "red")
    (hit,) = spaces.answer(spaces.like(files / "red.wav"), Wanted(1, (IMAGE,))).hits
    assert hit.path.endswith(b"/red.png")
    for name in ("red.png", "red.wav"):
        (files / name).unlink()  # both are indexed
    gone = Spaces(store)
    assert gone.answer(gone.like(files / "red.png"), Wanted(100)) == answer
    assert gone.answer(gone.like(files / "red.wav"), Wanted(1, (IMAGE,))).hits == (hit,)
    with pytest.raises(QueryError, match="there is no file at"):
        spaces.answer(spaces.like(files / "gone.png"), Wanted(1))


def test_feedback_and_prompts_are_for_their_kinds(
    store: Store, files: Path, family: ColourFamily
) -> None:
    """A liked picture moves pictures, not sounds; a prompt set for pictures leaves sounds alone."""
    add(store, SEEN, files)
    add(store, HEARD, files)
    spaces = Spaces(store)
    query = parse(["red"])
    plain = spaces.answer(query, Wanted(8, each=True)).hits
    liked = spaces.answer(query, Wanted(8, each=True), Manner(liked=(files / "blue.png",))).hits
    assert names(liked)[0] == "blue.png" or names(liked)[1] == "blue.png"
    assert [hit for hit in plain if hit.modality is AUDIO] == [
        hit for hit in liked if hit.modality is AUDIO
    ]
    prompt = PromptSet("p", "", ("{query} green",), (IMAGE,))
    put = spaces.answer(query, Wanted(8, each=True), Manner(prompt=prompt)).hits
    assert [hit for hit in plain if hit.modality is AUDIO] == [
        hit for hit in put if hit.modality is AUDIO
    ]
    assert put[0].score != plain[0].score
    with pytest.raises(QueryError, match="the prompt set 'p' is for image"):
        spaces.answer(query, Wanted(8, (AUDIO,)), Manner(prompt=prompt))


def test_concepts_live_in_a_space(store: Store, files: Path, family: ColourFamily) -> None:
    """A concept of sounds is made, found and asked where sounds are."""
    add(store, SEEN, files)
    add(store, HEARD, files)
    spec, space = space_for(store, None, kinds=[AUDIO])
    assert spec.name == HEARD
    assert space_for(store, None, kinds=[IMAGE])[0].name == SEEN
    assert space_for(store, HEARD)[0].name == HEARD
    tone = example(store, space, spec.load(), files / "red.wav")
    store.put_concept(made(store, space, "tone", [tone], []), space)
    assert space_of_concept(store, "tone", None) == space
    assert space_of_concept(store, "other", None).name == "colours of hf-hub:a/seen"
    spaces = Spaces(store)
    hits = spaces.answer(parse(["<tone>"]), Wanted(1)).hits
    assert names(hits) == ["red.wav"]
    (remark,) = spaces.remarks
    assert remark.startswith("pictures and texts were not searched: the concept tone was made wit")


def test_a_model_that_is_gone(store: Store, files: Path, family: ColourFamily) -> None:
    """Words cannot be put to its space, indexed files can; nothing is loaded."""
    add(store, SEEN, files)
    add(store, HEARD, files)
    family.place("hf-hub:a/seen").unlink()
    family.loaded.clear()
    spaces = Spaces(store)
    answer = spaces.answer(parse(["red"]), Wanted(100))
    assert {hit.modality for hit in answer.hits} == {AUDIO, TEXT}  # sounds' space has texts, too
    (remark,) = spaces.remarks
    assert remark.startswith("pictures were not searched: hf-hub:a/seen, which made colours of")
    assert "`anyseek models pull hf-hub:a/seen`" in remark
    family.loaded.clear()
    alone = Spaces(store, [SEEN])
    with pytest.raises(ModelError, match=r"pull hf-hub:a/seen.*compared, with `anyseek similar`"):
        alone.answer(parse(["red"]), Wanted(1))
    wanted = alone.wanted_like(files / "red.png", Wanted(3))
    assert len(alone.answer(alone.like(files / "red.png"), wanted).hits) == 3
    outside = paint(files.parent / "new.png", red=256)
    with pytest.raises(ModelError, match="anyseek models pull"):
        alone.answer(alone.like(outside), Wanted(3, (IMAGE,)))
    assert family.loaded == []
    with pytest.raises(ModelError, match="cannot be used"):
        space_for(store, SEEN)


def test_another_model_of_the_same_name(store: Store, files: Path, family: ColourFamily) -> None:
    """An old space of today's model is kept apart, and named by its identity."""
    add(store, BOTH, files)
    run_sql(store.path, "UPDATE spaces SET name = 'colours of old'")
    add(store, BOTH, files)
    old, new = held(store)
    assert old.reason is not None
    assert "no longer the model that made colours of old" in old.reason
    assert new.reason is None
    assert [one.space for one in chosen(store, [BOTH])] == [new.space]
    assert [one.space for one in chosen(store, ["colours of old"])] == [old.space]
    hits = Spaces(store).answer(parse(["red"]), Wanted(100)).hits
    assert {hit.space for hit in hits} == {"colours of a/both"}


def test_changed_content_is_renewed_in_every_space(
    store: Store, files: Path, family: ColourFamily
) -> None:
    """A run with one model leaves no vector of the old content in the other's space."""
    add(store, SEEN, files)
    add(store, BOTH, files)
    first, second = store.spaces()
    paint(files / "red.png", blue=200)
    add(store, SEEN, files)
    path = os.fsencode(files / "red.png")
    assert not known_complete(store, path, 1)
    assert known_complete(store, path, 0)
    add(store, BOTH, files)
    assert known_complete(store, path, 1)
    item = item_of(store, path)
    one, two = (store.item_vectors(item, space) for space in (first, second))
    np.testing.assert_array_equal(one, two)  # both see the same colours


def known_complete(store: Store, path: bytes, space: int) -> bool:
    """Tells whether an item has vectors in the first or second space."""
    (known,) = store.known(path, store.spaces()[space])
    return known.complete


def item_of(store: Store, path: bytes) -> int:
    """Gives the id of an item."""
    found = store.item(path)
    assert found is not None
    return found[0]


def test_dropping_a_space(store: Store, files: Path, family: ColourFamily) -> None:
    """Its vectors go, items that only it has go, and the other space answers as before."""
    add(store, SEEN, files)
    add(store, HEARD, files)
    query, wanted = parse(["red"]), Wanted(100)
    before = Spaces(store, [SEEN]).answer(query, wanted).hits
    seen, heard = store.spaces()
    store.drop_space(heard)
    assert store.spaces() == (seen,)
    assert run_sql(store.path, "SELECT count(*) FROM vectors WHERE space_id <> 1") == [(0,)]
    assert run_sql(store.path, "SELECT count(*) FROM items WHERE modality = 'audio'") == [(0,)]
    assert run_sql(store.path, "PRAGMA foreign_key_check") == []
    assert Spaces(store).answer(query, wanted).hits == before
    with pytest.raises(Exception, match="is the only space"):
        store.drop_space(seen)
    store.write(Batch(removed=[1]), seen)


def test_windows_of_two_models_differ(store: Store, tmp_path: Path, family: ColourFamily) -> None:
    """A window that is silent for one is there for the other; neither drives the other out."""
    rng = np.random.default_rng(0)
    one = store.add_space(model(HEARD).load())
    two = store.add_space(model(BOTH).load())
    windows = [Place(5.0 * at, 5.0 * at + 10) for at in range(4)]
    first, second = unit_rows(rng, 3, one.dim), unit_rows(rng, 3, two.dim)
    places = {one: [windows[0], windows[2], windows[3]], two: windows[:3]}
    for space, rows in ((one, first), (two, second), (one, first)):
        record = make_record(b"/a.wav", rows, content="a", modality=AUDIO, places=places[space])
        store.write(Batch(records=[replace(record, duration_s=25.0)]), space)
    item = item_of(store, b"/a.wav")
    for space, rows in ((one, first), (two, second)):
        np.testing.assert_array_equal(store.item_vectors(item, space), rows.astype(np.float16))
        assert store.item_places(item, space) == places[space]
    assert run_sql(store.path, "SELECT start_s FROM parts ORDER BY ordinal") == [
        (0.0,),
        (5.0,),
        (10.0,),
        (15.0,),
    ]


def test_a_text_tower_stands_in(
    store: Store, files: Path, family: ColourFamily, tmp_path: Path
) -> None:
    """Two models of one space share its vectors; each reads words, and keeps them, in its way."""
    cache = tmp_path / "kept"
    for name in ("ViT-B-32/openai", "openai-b32-multilingual"):
        models.pull(named(name), lambda done, total: None)
    add(store, "ViT-B-32/openai", files)
    assert len(store.spaces()) == 1
    for _ in range(2):  # the second time from the cache
        for name, want in (("ViT-B-32/openai", "red"), ("openai-b32-multilingual", "blue")):
            hits = Spaces(store, [name], cache=cache).answer(parse(["red"]), Wanted(1)).hits
            assert Path(os.fsdecode(hits[0].path)).stem == want
    assert len(list(cache.glob("texts-*.bin"))) == 2
    text = "sentence-transformers/clip-ViT-B-32-multilingual-v1"
    assert f"{text} over open_clip:ViT-B-32/openai" in family.loaded


def test_questions_are_read_as_questions(store: Store, files: Path, tmp_path: Path) -> None:
    """A text tower that has another for questions: it reads queries, files are read as they are."""
    encoder = colour_encoder()
    text = encoder.towers[TEXT]
    assert isinstance(text, WordTower)
    text.asked = BlueTower("questions")  # type: ignore[attr-defined]
    pipeline.index(store, encoder, roots_of([files]), workers=1)
    for cache in (None, tmp_path / "kept", tmp_path / "kept"):
        searcher = Searcher(store, encoder, cache=cache)
        (hit,) = searcher.by_text("red", Wanted(1, (IMAGE,)))
        assert Path(os.fsdecode(hit.path)).name == "blue.png"
        new = write(tmp_path / "new.txt", "something red")
        (hit,) = searcher.by_example(new, Wanted(1, (IMAGE,)))
        assert Path(os.fsdecode(hit.path)).name == "red.png"
