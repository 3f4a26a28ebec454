"""Nearest vectors against an exhaustive search in float64, whatever has been sealed or damaged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval import index as index_module
from retrieval.errors import StorageError
from retrieval.index import VectorIndex, device, folder_of, seal
from retrieval.store import Batch, Seal, Space, Store
from retrieval.types import Encoder, Modality, Vectors
from tests.conftest import make_record, run_sql, unit_rows

DIM = 6
TOY = Encoder("toy", "toy-1", DIM, {})
IMAGE, TEXT = Modality.IMAGE, Modality.TEXT
# Scores are sums of six products of numbers up to 1 in float32: an error of a few 1e-7 at most.
CLOSE = 1e-5

Ids = NDArray[np.int64]


@contextmanager
def small_segments(
    seal_from: int = 8, segment: int = 20, read_rows: int = 3
) -> Iterator[pytest.MonkeyPatch]:
    """Seals after a handful of vectors, so that a few dozen make several segments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "SEAL_FROM", seal_from)
        patch.setattr(index_module, "SEGMENT", segment)
        patch.setattr(index_module, "READ_ROWS", read_rows)
        yield patch


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty index whose segments are small."""
    with small_segments(), Store(tmp_path / "i.db", write=True) as store:
        yield store


@pytest.fixture
def space(store: Store) -> Space:
    """Its space."""
    return store.add_space(TOY)


def add(store: Store, space: Space, rows: Vectors, modality: Modality = IMAGE) -> None:
    """Stores one item per row."""
    start = store.generation()
    store.write(
        Batch(
            records=[
                make_record(b"/%d-%d" % (start, i), row[None], modality=modality)
                for i, row in enumerate(rows)
            ]
        ),
        space,
    )


def remove(store: Store, space: Space, vector_ids: list[int]) -> None:
    """Removes the items that some vectors belong to."""
    found = store.found(vector_ids)
    store.write(Batch(removed=[row.item_id for row in found.values()]), space)


def everything(store: Store, space: Space, modality: Modality) -> tuple[Ids, NDArray[np.float64]]:
    """Every vector that should be found, read with sqlite3 alone."""
    rows = run_sql(
        store.path,
        "SELECT id, vector FROM vectors"
        f" WHERE space_id = {space.id} AND modality = '{modality}' ORDER BY id",
    )
    matrix = np.array([np.frombuffer(row[1], "<f2") for row in rows], np.float64)
    return np.array([row[0] for row in rows], np.int64), matrix.reshape(len(rows), space.dim)


def assert_exact(
    store: Store,
    space: Space,
    modality: Modality,
    query: NDArray[np.float32],
    k: int,
    only: Ids | None = None,
    index: VectorIndex | None = None,
) -> None:
    """Compares a search with sorting all the scores of the vectors that are there."""
    every, matrix = everything(store, space, modality)
    index = index or VectorIndex(store, space, modality)
    assert_best(index, every, matrix, query, k, only)


def assert_best(
    index: VectorIndex,
    every: Ids,
    matrix: NDArray[np.float64],
    query: NDArray[np.float32],
    k: int,
    only: Ids | None = None,
) -> None:
    """Compares a search with sorting all the scores."""
    scores, ids = index.search(query, k, only=only)
    assert index.size == len(every)
    truth = matrix @ query.astype(np.float64)
    if only is not None:
        keep = np.isin(every, only)
        every, truth = every[keep], truth[keep]
    want = np.lexsort((every, -truth))[:k]
    assert len(ids) == len(scores) == len(want)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    np.testing.assert_allclose(scores, truth[want], rtol=0, atol=CLOSE)
    # each id has its own score, which with the line above leaves room for ties alone
    assert len(set(ids.tolist())) == len(ids)
    assert np.isin(ids, every).all()
    np.testing.assert_allclose(scores, truth[np.searchsorted(every, ids)], rtol=0, atol=CLOSE)
    apart = -np.diff(truth[np.lexsort((every, -truth))]) > CLOSE
    if apart.all():
        np.testing.assert_array_equal(ids, every[want])
    assert (np.diff(scores) <= 0).all()
    assert (np.diff(ids)[np.diff(scores) == 0] > 0).all()


# ---- exactness ---------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Steps: what to do, how much of it, and a seed."""
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["add", "add", "add ties", "other", "remove", "seal", "seal"]),
                st.integers(1, 30),
                st.integers(0, 2**31),
            ),
            min_size=1,
            max_size=9,
        )
    )


def _rows(step: str, count: int, rng: np.random.Generator) -> Vectors:
    if step == "add ties":  # few directions, so that most scores are shared by several
        return np.asarray(np.eye(DIM)[rng.integers(0, 2, count)], np.float32)
    return unit_rows(rng, count, DIM)


@settings(max_examples=20)
@given(
    history=histories(),
    seed=st.integers(0, 2**31),
    limits=st.tuples(st.integers(1, 12), st.integers(1, 25), st.integers(1, 9)),
)
@example(history=[("add", 30, 1), ("seal", 1, 0), ("remove", 30, 2)], seed=0, limits=(8, 20, 3))
@example(
    history=[("add", 30, 1), ("seal", 1, 0), ("remove", 30, 2), ("seal", 1, 0), ("add", 3, 3)],
    seed=0,
    limits=(8, 20, 3),
)
def test_every_search_is_exact(
    history: list[tuple[str, int, int]], seed: int, limits: tuple[int, int, int]
) -> None:
    """Segments, masks, fresh tails and filters never change what an exhaustive search finds."""
    rng = np.random.default_rng(seed)
    seal_from, segment, read_rows = limits
    with (
        tempfile.TemporaryDirectory() as folder,
        small_segments(seal_from, segment, read_rows),
        Store(Path(folder) / "i.db", write=True) as store,
    ):
        space = store.add_space(TOY)
        for step, amount, step_seed in history:
            step_rng = np.random.default_rng(step_seed)
            every, _ = everything(store, space, IMAGE)
            if step == "seal":
                seal(store, space, IMAGE)
            elif step == "remove":
                gone = every[step_rng.random(len(every)) < amount / 30]
                remove(store, space, gone.tolist())
            else:
                modality = TEXT if step == "other" else IMAGE
                add(store, space, _rows(step, amount, step_rng), modality)
        every, matrix = everything(store, space, IMAGE)
        index = VectorIndex(store, space, IMAGE)
        assert index.rebuilt == []
        for query in (*unit_rows(rng, 1, DIM), np.eye(DIM, dtype=np.float32)[0]):
            for k in (1, 3, len(every), 10**6):
                assert_best(index, every, matrix, query, k)
            for share in (0.0, 0.1, 0.5, 0.95, 1.0):
                only = every[rng.random(len(every)) < share]
                k = int(rng.integers(1, 8))
                assert_best(index, every, matrix, query, k, only)
                foreign = np.union1d(only, [10**9, 10**9 + 1])  # ids of another modality, say
                assert_best(index, every, matrix, query, k, foreign)


def test_float16_is_the_only_loss(store: Store, space: Space) -> None:
    """Scores are those of the rows in float32 to within what float16 takes away."""
    rng = np.random.default_rng(5)
    rows = unit_rows(rng, 50, DIM)
    add(store, space, rows)
    seal(store, space, IMAGE)
    query = unit_rows(rng, 1, DIM)[0]
    scores, ids = VectorIndex(store, space, IMAGE).search(query, 50)
    np.testing.assert_allclose(scores, rows[ids - 1] @ query, rtol=0, atol=1e-3)


@pytest.mark.parametrize("sealed", [False, True])
def test_equal_scores_come_in_the_order_of_their_ids(
    sealed: bool, store: Store, space: Space
) -> None:
    """Copies of one picture are listed in the order in which they were indexed."""
    add(store, space, np.tile(np.eye(DIM, dtype=np.float32)[1], (30, 1)))
    if sealed:
        seal(store, space, IMAGE)
    query = np.eye(DIM, dtype=np.float32)[1]
    scores, ids = VectorIndex(store, space, IMAGE).search(query, 11)
    assert scores.tolist() == [1.0] * 11
    assert ids.tolist() == list(range(1, 12))


@pytest.mark.parametrize("sealed", [False, True])
def test_a_filter_that_nothing_passes_finds_nothing(
    sealed: bool, store: Store, space: Space
) -> None:
    """FAISS itself would stop the process at `k = 0`."""
    add(store, space, unit_rows(np.random.default_rng(0), 12, DIM))
    if sealed:
        seal(store, space, IMAGE)
    index = VectorIndex(store, space, IMAGE)
    query = np.eye(DIM, dtype=np.float32)[0]
    for k, only in ((0, None), (5, np.empty(0, np.int64)), (5, np.array([77], np.int64))):
        scores, ids = index.search(query, k, only=only)
        assert scores.shape == ids.shape == (0,)
        assert scores.dtype == np.float32
        assert ids.dtype == np.int64


def test_an_index_without_vectors_finds_nothing(store: Store, space: Space) -> None:
    """Nothing was ever written, or all of it was removed before or after sealing."""
    query = np.eye(DIM, dtype=np.float32)[0]
    assert_exact(store, space, IMAGE, query, 5)
    add(store, space, unit_rows(np.random.default_rng(0), 12, DIM))
    assert seal(store, space, IMAGE)
    remove(store, space, list(range(1, 13)))
    assert_exact(store, space, IMAGE, query, 5)
    assert seal(store, space, IMAGE)
    assert_exact(store, space, IMAGE, query, 5)
    add(store, space, unit_rows(np.random.default_rng(1), 2, DIM))
    assert_exact(store, space, IMAGE, query, 5)


def test_other_spaces_and_modalities_are_not_mixed_in(store: Store, space: Space) -> None:
    """Each combination has its own segments and its own results."""
    rng = np.random.default_rng(2)
    other = store.add_space(Encoder("other", "other-1", DIM, {}))
    combinations = [(space, IMAGE), (space, TEXT), (other, IMAGE), (other, TEXT)]
    for _ in range(3):
        for target, modality in combinations:
            add(store, target, unit_rows(rng, 7, DIM), modality)
    for target, modality in combinations:
        seal(store, target, modality)
    remove(store, space, [1, 2, 8, 9, 15, 16, 22, 23])
    assert len(store.seal_files()) == 4 * len(store.seals(space, IMAGE))
    for target, modality in combinations:
        assert_exact(store, target, modality, unit_rows(rng, 1, DIM)[0], 9)


# ---- sealing -----------------------------------------------------------------------------------


def assert_in_order(store: Store, space: Space) -> None:
    """Checks the segments against the store: ranges, counts, contents, files and leftovers."""
    seals = store.seals(space, IMAGE)
    every, matrix = everything(store, space, IMAGE)
    removed = store.removed(space, IMAGE)
    folder = folder_of(store.path)
    assert {path.name for path in folder.iterdir()} == store.seal_files()
    before = 0
    for one in seals:
        assert before < one.first_id <= one.last_id
        before = one.last_id
        segment: Any = faiss.read_index(str(folder / one.file))
        ids = faiss.vector_to_array(segment.id_map)
        assert segment.ntotal == len(ids) == one.count <= index_module.SEGMENT
        within = (every >= one.first_id) & (every <= one.last_id)
        masked = (removed >= one.first_id) & (removed <= one.last_id)
        assert masked.sum() <= index_module.STALE * one.count
        np.testing.assert_array_equal(np.setdiff1d(ids, removed), every[within])
        held = faiss.downcast_index(segment.index).reconstruct_n(0, segment.ntotal)
        alive = np.isin(ids, every)
        np.testing.assert_array_equal(held[alive], matrix[within])
    newest = seals[-1].count if seals else 0
    fresh = int((every > before).sum())
    assert fresh < max(index_module.SEAL_FROM, index_module.STALE * newest)


@settings(max_examples=12)
@given(history=histories())
def test_sealing_leaves_segments_in_order(history: list[tuple[str, int, int]]) -> None:
    """After any history, a seal covers what it should; a second one has nothing to do."""
    with (
        tempfile.TemporaryDirectory() as folder,
        small_segments(),
        Store(Path(folder) / "i.db", write=True) as store,
    ):
        space = store.add_space(TOY)
        for step, amount, step_seed in [*history, ("seal", 1, 0)]:
            rng = np.random.default_rng(step_seed)
            every, _ = everything(store, space, IMAGE)
            if step == "seal":
                before = store.seals(space, IMAGE)
                wrote = seal(store, space, IMAGE)
                assert wrote == (store.seals(space, IMAGE) != before)
                if wrote:
                    assert_in_order(store, space)
                assert not seal(store, space, IMAGE)
            elif step == "remove":
                remove(store, space, every[rng.random(len(every)) < amount / 90].tolist())
            else:
                add(store, space, _rows(step, amount, rng), TEXT if step == "other" else IMAGE)


def test_segments_grow_until_they_are_full_and_then_roll(store: Store, space: Space) -> None:
    """Small additions are merged into the newest segment; a full one is left alone."""
    rng = np.random.default_rng(1)
    add(store, space, unit_rows(rng, 7, DIM))
    assert not seal(store, space, IMAGE)  # reading seven rows is as fast as opening a file
    assert not folder_of(store.path).exists()
    add(store, space, unit_rows(rng, 1, DIM))
    assert seal(store, space, IMAGE)
    (first,) = store.seals(space, IMAGE)
    assert (first.first_id, first.last_id, first.count) == (1, 8, 8)
    add(store, space, unit_rows(rng, 12, DIM))
    assert seal(store, space, IMAGE)
    (merged,) = store.seals(space, IMAGE)
    assert (merged.first_id, merged.last_id, merged.count) == (1, 20, 20)
    add(store, space, unit_rows(rng, 50, DIM))
    assert seal(store, space, IMAGE)
    ranges = [(one.first_id, one.last_id, one.count) for one in store.seals(space, IMAGE)]
    assert ranges == [(1, 20, 20), (21, 40, 20), (41, 60, 20), (61, 70, 10)]
    assert store.seals(space, IMAGE)[0] == merged
    assert_in_order(store, space)


def test_a_segment_is_made_again_when_a_tenth_of_it_is_gone(store: Store, space: Space) -> None:
    """Up to ten per cent are masked; more makes a new file and forgets the masks."""
    add(store, space, unit_rows(np.random.default_rng(1), 40, DIM))
    seal(store, space, IMAGE)
    one, two = store.seals(space, IMAGE)
    remove(store, space, [3, 20, 21])  # 2 and 1 of 20
    assert not seal(store, space, IMAGE)
    assert store.removed(space, IMAGE).tolist() == [3, 20, 21]
    remove(store, space, [7])
    assert seal(store, space, IMAGE)
    again, same = store.seals(space, IMAGE)
    assert same == two
    assert (again.first_id, again.last_id, again.count) == (1, 20, 17)
    assert again.file != one.file
    assert store.removed(space, IMAGE).tolist() == [21]
    assert_in_order(store, space)
    assert_exact(store, space, IMAGE, np.eye(DIM, dtype=np.float32)[2], 40)


def test_files_that_nobody_uses_are_swept(store: Store, space: Space) -> None:
    """Interrupted writes and replaced segments go; what is not ours stays."""
    folder = folder_of(store.path)
    folder.mkdir()
    (folder / "1-image-1-5-dead.faiss").write_bytes(b"old")
    (folder / "1-image-1-5-beef.faiss.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_text("a person's")
    add(store, space, unit_rows(np.random.default_rng(1), 9, DIM))
    seal(store, space, IMAGE)
    names = {path.name for path in folder.iterdir()}
    assert names == {"notes.txt", *store.seal_files()}


def test_a_reader_keeps_its_moment_while_segments_are_replaced(store: Store, space: Space) -> None:
    """Files that are mapped answer on after they were swept."""
    rng = np.random.default_rng(1)
    add(store, space, unit_rows(rng, 12, DIM))
    seal(store, space, IMAGE)
    query = unit_rows(rng, 1, DIM)[0]
    with Store(store.path) as reader:
        index = VectorIndex(reader, space, IMAGE)
        before = index.search(query, 20)
        remove(store, space, [1, 2, 3, 4])
        add(store, space, unit_rows(rng, 5, DIM))
        assert seal(store, space, IMAGE)
        after = index.search(query, 20)
        np.testing.assert_array_equal(before[1], after[1])
        np.testing.assert_array_equal(before[0], after[0])
        # and one that opens only now finds the swept file missing, but not its vectors
        late = VectorIndex(reader, space, IMAGE)
        assert len(late.rebuilt) == 1
        np.testing.assert_array_equal(late.search(query, 20)[1], before[1])
    assert_exact(store, space, IMAGE, query, 20)


# ---- damage ------------------------------------------------------------------------------------


def _other_segment(count: int, first: int, dim: int = DIM) -> bytes:
    """A file that another index might have made."""
    segment = faiss.IndexIDMap(
        faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    )
    rows = unit_rows(np.random.default_rng(9), count, dim)
    segment.add_with_ids(rows, np.arange(first, first + count))
    data: NDArray[np.uint8] = faiss.serialize_index(segment)
    return data.tobytes()


def _size(path: Path) -> int:
    return path.stat().st_size


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "a folder": _make_folder,
    "empty": lambda path: path.write_bytes(b""),
    "one byte short": lambda path: os.truncate(path, _size(path) - 1),
    "one byte long": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "zeros": lambda path: path.write_bytes(bytes(_size(path))),
    "noise": lambda path: path.write_bytes(np.random.default_rng(3).bytes(_size(path))),
    "a text": lambda path: path.write_text("hello"),
    "another's, larger": lambda path: path.write_bytes(_other_segment(19, 21)),
    "another's, of the same size": lambda path: path.write_bytes(_other_segment(20, 22)),
    "another's, of other dimensions": lambda path: path.write_bytes(_other_segment(10, 21, 16)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_named_made_good_and_made_again(
    damage: str, store: Store, space: Space
) -> None:
    """Results stay exact by reading the store, and the next seal repairs the file."""
    rng = np.random.default_rng(1)
    add(store, space, unit_rows(rng, 65, DIM))
    seal(store, space, IMAGE)
    remove(store, space, [2, 25, 26, 45])  # masks in the damaged segment and beside it
    victim = store.seals(space, IMAGE)[1]
    DAMAGES[damage](folder_of(store.path) / victim.file)
    index = VectorIndex(store, space, IMAGE)
    assert index.rebuilt == [victim.file]
    query = unit_rows(rng, 1, DIM)[0]
    for k, only in ((5, None), (1000, None), (7, np.arange(20, 50)), (99, np.arange(1, 70))):
        assert_exact(store, space, IMAGE, query, k, only, index)
    if damage == "a folder":
        (folder_of(store.path) / victim.file).rmdir()
    assert seal(store, space, IMAGE)
    assert VectorIndex(store, space, IMAGE).rebuilt == []
    assert_in_order(store, space)
    assert_exact(store, space, IMAGE, query, 1000)


def test_a_segment_cut_anywhere_is_noticed(store: Store, space: Space) -> None:
    """FAISS alone would end the process at some of these lengths."""
    add(store, space, unit_rows(np.random.default_rng(1), 10, DIM))
    seal(store, space, IMAGE)
    (name,) = store.seal_files()
    path = folder_of(store.path) / name
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert VectorIndex(store, space, IMAGE).rebuilt == [name]
    path.write_bytes(whole)
    assert VectorIndex(store, space, IMAGE).rebuilt == []


def test_without_any_derived_file_searches_are_still_exact(store: Store, space: Space) -> None:
    """The folder may be deleted at any time."""
    add(store, space, unit_rows(np.random.default_rng(1), 65, DIM))
    seal(store, space, IMAGE)
    remove(store, space, [1, 30, 64])
    names = [one.file for one in store.seals(space, IMAGE)]
    for path in folder_of(store.path).iterdir():
        path.unlink()
    folder_of(store.path).rmdir()
    index = VectorIndex(store, space, IMAGE)
    assert index.rebuilt == names
    assert_exact(store, space, IMAGE, np.eye(DIM, dtype=np.float32)[3], 1000, None, index)
    seal(store, space, IMAGE)
    assert_in_order(store, space)


def test_a_segment_that_cannot_be_written_leaves_the_old_state(store: Store, space: Space) -> None:
    """A file where the folder should be is told, and searches go on without segments."""
    rng = np.random.default_rng(1)
    add(store, space, unit_rows(rng, 12, DIM))
    folder_of(store.path).write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write .*searches go on without it"):
        seal(store, space, IMAGE)
    assert store.seals(space, IMAGE) == []
    assert_exact(store, space, IMAGE, unit_rows(rng, 1, DIM)[0], 5)
    folder_of(store.path).unlink()
    assert seal(store, space, IMAGE)
    assert_in_order(store, space)


@pytest.mark.parametrize("failure", [RuntimeError("No space left on device"), OSError("I/O")])
def test_a_segment_that_fails_half_way_leaves_no_file(
    failure: Exception, store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old segment stays in use, and nothing half-written lies about."""
    rng = np.random.default_rng(1)
    add(store, space, unit_rows(rng, 10, DIM))
    seal(store, space, IMAGE)
    before = store.seals(space, IMAGE)
    add(store, space, unit_rows(rng, 9, DIM))

    whole = faiss.write_index

    def half(index: faiss.Index, target: Any, *rest: Any) -> None:
        if not isinstance(target, str):  # into memory
            return whole(index, target, *rest)
        Path(target).write_bytes(b"half")
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(faiss, "write_index", half)
        with pytest.raises(StorageError, match=str(failure)):
            seal(store, space, IMAGE)
    assert store.seals(space, IMAGE) == before
    assert [path.name for path in folder_of(store.path).iterdir()] == [before[0].file]
    assert_exact(store, space, IMAGE, unit_rows(rng, 1, DIM)[0], 50)
    assert seal(store, space, IMAGE)
    assert_in_order(store, space)


def test_a_seal_of_nothing_known_does_no_harm(store: Store, space: Space) -> None:
    """A row that names a file which never was is repaired like a missing file."""
    add(store, space, unit_rows(np.random.default_rng(1), 10, DIM))
    store.set_seal(space, IMAGE, Seal("never.faiss", 1, 4, 4), [])
    assert VectorIndex(store, space, IMAGE).rebuilt == ["never.faiss"]
    assert_exact(store, space, IMAGE, np.eye(DIM, dtype=np.float32)[0], 10)
    assert seal(store, space, IMAGE)
    assert_in_order(store, space)


def test_the_device_comes_with_its_reason() -> None:
    """People see why vectors are compared where they are."""
    here = device()
    assert here.name == "cpu"
    assert faiss.__version__ in here.reason
