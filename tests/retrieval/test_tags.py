"""Tags in the store, and as a filter of searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import QueryError
from retrieval.filters import Filters, tag_name
from retrieval.search import Searcher, Wanted
from retrieval.store import Batch, Relocation, Space, Store, Tag, schema
from retrieval.store import store as store_module
from retrieval.types import Fingerprint, Modality
from retrieval.unmatched import why
from tests.conftest import make_record, run_sql, unit_rows
from tests.fakes import DIM, colour_encoder

IMAGE = Modality.IMAGE
PATHS = [b"/p/%d.jpg" % number for number in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Six pictures of random colours, two vectors each."""
    with Store(tmp_path / "i.db", write=True) as store:
        rng = np.random.default_rng(0)
        records = [make_record(path, unit_rows(rng, 2, DIM)) for path in PATHS]
        store.write(Batch(records=records), store.add_space(colour_encoder()))
        yield store


@pytest.fixture
def space(store: Store) -> Space:
    """The index's space."""
    return store.spaces()[0]


def item(store: Store, path: bytes) -> int:
    """An item's id."""
    found = store.item(path)
    assert found is not None
    return found[0]


def give(store: Store, source: str, **given: str) -> int:
    """Gives tags to pictures by number: ``_0="dog,cat"``."""
    return store.put_tags(
        source,
        {
            item(store, PATHS[int(key[1:])]): [Tag(name, 0.5) for name in names.split(",") if name]
            for key, names in given.items()
        },
    )


def test_tags_of_one_source_replace_its_own_alone(store: Store) -> None:
    """What another said stays, and no tags take the old ones away."""
    assert give(store, "a", _0="dog,cat", _1="dog") == 3
    assert give(store, "b", _0="dog") == 1
    assert store.tag_counts() == {"cat": 1, "dog": 2}
    assert store.tags_of(item(store, PATHS[0])) == [
        (Tag("cat", 0.5), "a"),
        (Tag("dog", 0.5), "a"),
        (Tag("dog", 0.5), "b"),
    ]
    assert give(store, "a", _0="bird", _1="") == 1
    assert store.tag_counts() == {"bird": 1, "dog": 1}
    assert store.put_tags("a", {999: [Tag("x")]}) == 0


def test_tags_go_with_their_item(store: Store, space: Space) -> None:
    """A renamed file keeps them, one that is gone or changed loses them."""
    give(store, "a", _0="dog", _1="dog", _2="dog")
    move = Relocation(item(store, PATHS[0]), b"/p/new.jpg", Fingerprint(1, 1))
    changed = make_record(PATHS[2], unit_rows(np.random.default_rng(9), 1, DIM), content="other")
    store.write(
        Batch(moves=[move], removed=[item(store, PATHS[1])], records=[changed]),
        space,
    )
    assert store.tag_counts() == {"dog": 1}
    assert store.tags_of(item(store, b"/p/new.jpg")) == [(Tag("dog", 0.5), "a")]


def test_removing_counts_files(store: Store) -> None:
    """In upper or lower case."""
    give(store, "a", _0="Dog", _1="cat")
    give(store, "b", _0="dog")
    assert store.remove_tag("DOG") == 1
    assert store.tag_counts() == {"cat": 1}
    assert store.remove_tag("dog") == 0


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        (("dog",), [0, 1]),
        (("DOG",), [0, 1]),
        (("dog", "cat"), [0]),
        (("bird",), []),
        (("d%",), []),
    ],
)
def test_only_what_has_all_tags_passes(
    store: Store, space: Space, tags: tuple[str, ...], wanted: list[int]
) -> None:
    """Ids, the ids of others, counts, estimates and searches agree."""
    give(store, "a", _0="dog,cat", _1="Dog", _2="cat")
    filters = Filters(tags=tags)
    paths = {PATHS[number] for number in wanted}
    ids = store.vector_ids(space, IMAGE, filters)
    assert {row.path for row in store.found(ids.tolist()).values()} == paths
    assert len(ids) == 2 * len(wanted)
    others = store.vector_ids(space, IMAGE, filters, without=True)
    assert np.union1d(ids, others).tolist() == store.vectors(space, IMAGE)[0].tolist()
    assert store.count([IMAGE], filters) == len(wanted)
    assert store.share(IMAGE, filters) == pytest.approx(len(wanted) / 6)
    searcher = Searcher(store, colour_encoder())
    hits = searcher.by_text("red", Wanted(filters=filters))
    assert {hit.path for hit in hits} == paths
    both = Filters(tags=tags, under=PATHS[0])
    assert store.count([IMAGE], both) == len(paths & {PATHS[0]})


def test_why_nothing_has_a_tag(store: Store) -> None:
    """The remark names the tags that there are."""
    assert why(store, [IMAGE], Filters(tags=("x",))) == (
        "no image in the index has the tag 'x'; `anyseek classify --write-tags` makes tags"
    )
    give(store, "a", _0="dog,cat")
    assert why(store, [IMAGE], Filters(tags=("x",))).endswith("there are cat, dog")


def test_names_of_tags() -> None:
    """Spaces are single, letters composed; what cannot be shown is refused."""
    assert tag_name("  a   dog ") == "a dog"
    assert tag_name("cafe\u0301") == "café"
    for wrong in ("", "  ", "a\x00b", "x" * 101):
        with pytest.raises(QueryError, match="is no tag"):
            tag_name(wrong)


def test_an_index_from_before_tags(tmp_path: Path) -> None:
    """It gets the table when it is next written to, and keeps what it has."""
    path = tmp_path / "i.db"
    older = schema.MIGRATIONS[: schema.MIGRATIONS.index(schema._tags)]
    with pytest.MonkeyPatch.context() as patch:
        for module in (schema, store_module):
            patch.setattr(module, "MIGRATIONS", older)
        with Store(path, write=True) as store:
            record = make_record(PATHS[0], unit_rows(np.random.default_rng(0), 1, DIM))
            store.write(Batch(records=[record]), store.add_space(colour_encoder()))
    assert ("tags",) not in run_sql(path, "SELECT name FROM sqlite_master")
    with Store(path, write=True) as store:
        assert give(store, "a", _0="dog") == 1
    assert run_sql(path, "SELECT tag, source, probability FROM tags") == [("dog", "a", 0.5)]
