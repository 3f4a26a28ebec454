"""Inverted lists over segments: what they find, when they are made, and what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval import gpu, inverted, inverting, ladder, planner
from retrieval import index as index_module
from retrieval.errors import StorageError
from retrieval.index import VectorIndex, folder_of, seal
from retrieval.inverted import projection
from retrieval.ladder import Kind, lists_for, rung
from retrieval.planner import Plan, Probing, probing
from retrieval.scoring import Leaf, Scorer, best
from retrieval.store import Batch, Seal, Space, Store
from retrieval.types import Encoder, Modality, Vectors
from tests.conftest import make_record, run_sql, unit_rows

DIM, COUNT = 32, 3_000
TOY = Encoder("toy", "toy-1", DIM, {})
IMAGE, TEXT = Modality.IMAGE, Modality.TEXT
CLOSE = 1e-5

Ids = NDArray[np.int64]


@contextmanager
def small_ladder(budget: int = 10**9, save_every: int = 10**6) -> Iterator[pytest.MonkeyPatch]:
    """Climbs the whole ladder with a few thousand vectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "SEAL_FROM", 64)
        patch.setattr(index_module, "SEGMENT", 700)
        patch.setattr(ladder, "INVERTED_FROM", 1_000)
        patch.setattr(ladder, "BUDGET_BYTES", budget)
        patch.setattr(inverting, "TAIL_FROM", 150)
        patch.setattr(inverting, "SAVE_EVERY", save_every)
        patch.setattr(planner, "EXACT_MATCHES", 100)
        patch.setattr(planner, "RERANKED", 40)
        patch.setattr(planner, "RERANK_SHARE", 1 / 2)
        patch.setattr(index_module, "PROBES", 12)
        yield patch


def grouped(seed: int, count: int) -> Vectors:
    """Unit rows in a hundred groups, as pictures lie."""
    middles = unit_rows(np.random.default_rng(99), 100, DIM)
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 100, count)] + rng.normal(0, 0.12, (count, DIM))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


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


def remove(store: Store, space: Space, ids: Ids) -> None:
    """Removes the items of some vectors."""
    found = store.found(ids.tolist())
    store.write(Batch(removed=[row.item_id for row in found.values()]), space)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An index of 3,000 pictures and some texts between them, not sealed yet."""
    with small_ladder(), Store(tmp_path / "i.db", write=True) as store:
        space = store.add_space(TOY)
        add(store, space, grouped(1, COUNT // 2))
        add(store, space, grouped(2, 70), TEXT)
        add(store, space, grouped(3, COUNT - COUNT // 2))
        yield store


@pytest.fixture
def space(store: Store) -> Space:
    """Its space."""
    return store.add_space(TOY)


def everything(store: Store, space: Space) -> tuple[Ids, NDArray[np.float64]]:
    """Every picture's vector, read with sqlite3 alone."""
    rows = run_sql(
        store.path,
        "SELECT id, vector FROM vectors"
        f" WHERE space_id = {space.id} AND modality = 'image' ORDER BY id",
    )
    matrix = np.array([np.frombuffer(row[1], "<f2") for row in rows], np.float64)
    return np.array([row[0] for row in rows], np.int64), matrix


def recall(store: Store, space: Space, k: int = 10, only: Ids | None = None) -> float:
    """Gives the part of the exact best ``k`` that searches find; checks all they say besides."""
    index = VectorIndex(store, space, IMAGE)
    assert index.rebuilt == []
    every, matrix = everything(store, space)
    assert index.size == len(every)
    shares = []
    for query in unit_rows(np.random.default_rng(7), 40, DIM):
        scores, ids = index.search(query, k, only=only)
        assert {one.plan for one in index.plans} & {Plan.PROBE}
        truth = matrix @ query.astype(np.float64)
        at = np.searchsorted(every, ids)
        np.testing.assert_array_equal(every[at], ids)  # nothing that was removed
        np.testing.assert_allclose(scores, truth[at], rtol=0, atol=CLOSE)
        assert (np.diff(scores) <= 0).all()
        assert len(set(ids.tolist())) == len(ids)
        passing = np.arange(len(every)) if only is None else np.flatnonzero(np.isin(every, only))
        assert len(ids) == min(k, len(passing))
        assert np.isin(ids, every[passing]).all()
        wanted = every[passing[np.argsort(-truth[passing])[:k]]]
        shares.append(np.isin(wanted, ids).mean())
    return float(np.mean(shares))


def the_seal(store: Store, space: Space) -> Seal:
    """Gives the one file of lists, after checking that no other file lies about."""
    (one,) = inverting.seals(store, space, IMAGE)
    assert {path.name for path in folder_of(store.path).iterdir()} == store.seal_files()
    assert store.seals(space, IMAGE, kinds=(Kind.BUILDING,)) == []
    return one


# ---- the ladder --------------------------------------------------------------------------------


def test_the_kind_follows_from_the_count_and_the_memory() -> None:
    """Worked out by hand: codes, ids and centroids against a budget of 1 GB."""
    assert rung(199_999, 128).kind is Kind.EXACT
    million = rung(1_000_000, 128)
    assert (million.kind, million.lists) == (Kind.INVERTED, 2_048)
    assert million.memory == 1_000_000 * 136 + 2_048 * 128 * 4
    assert str(million) == (
        "1,000,000 vectors, inverted: 2,048 lists, 128 dimensions, 137 MB of the 1,000 MB budget"
    )
    ten = rung(10_000_000, 128)
    assert (ten.kind, ten.lists) == (Kind.COMPRESSED, 8_192)
    assert ten.memory == 10_000_000 * 72 + 8_192 * 128 * 4
    assert rung(10_000_000, 128, budget=2 * 10**9).kind is Kind.INVERTED
    hundred = rung(100_000_000, 128)
    assert hundred.kind is Kind.COMPRESSED
    assert "more than the 1,000 MB budget" in str(hundred)
    assert [lists_for(n) for n in (200_000, 349_000, 4_000_000)] == [1_024, 1_024, 4_096]


def test_the_planner_looks_further_for_more_hits_and_for_fewer_that_match() -> None:
    """Few are compared one by one; others widen by the root of how much deeper they lie."""
    n = 1_000_000

    def of(matches: int, k: int) -> Probing | None:
        return probing(n, matches, k, lists=2_048, probes=64)

    assert of(n, 10) == Probing(200, 64)
    assert of(n, 400) == Probing(800, 128)
    assert of(250_000, 10) == Probing(200, 128)
    assert of(20_001, 10) == Probing(200, 453)
    assert of(20_000, 10) is None
    assert of(n, 25_000) == Probing(50_000, 1_012)
    assert of(n, 25_001) is None


def test_the_projection_keeps_the_directions_that_matter() -> None:
    """The best 64 of 70 that some vectors fill: those of the singular value decomposition."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(128, 128)))[0][:, :70]
    rows = (rng.normal(size=(2_000, 70)) @ basis.T).astype(np.float32)
    matrix = projection(rows)
    assert matrix.shape == (64, 128)  # 90 % of the energy
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(64), atol=1e-5)
    share = ((rows @ matrix.T) ** 2).sum() / (rows**2).sum()
    want = np.sort(np.linalg.svd(rows.astype(np.float64), compute_uv=False) ** 2)[::-1]
    np.testing.assert_allclose(share, want[:64].sum() / want.sum(), rtol=1e-4)


# ---- what is found -----------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "kind"), [(10**9, "inverted"), (100_000, "compressed")])
def test_lists_find_nearly_all_and_score_exactly(
    budget: int, kind: str, store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds of codes propose; what is compared are the stored vectors."""
    monkeypatch.setattr(ladder, "BUDGET_BYTES", budget)
    told: list[tuple[str, int, int]] = []
    assert seal(store, space, IMAGE, tell=lambda *words: told.append(words))
    one = the_seal(store, space)
    assert (one.kind, one.count, one.first_id) == (kind, COUNT, 1)
    assert one.bytes == (folder_of(store.path) / one.file).stat().st_size
    assert told[0][0].startswith(f"3,000 vectors, {kind}: 128 lists, 32 dimensions")
    assert told[1] == ("training", 0, 6)
    assert told[-1] == (f"building {kind} lists", COUNT, COUNT)
    assert recall(store, space) > 0.95
    assert recall(store, space, k=60) > 0.9
    assert not seal(store, space, IMAGE)


def test_all_lists_find_all_there_is(
    store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every list looked through and every vector compared, nothing is missed."""
    seal(store, space, IMAGE)
    monkeypatch.setattr(index_module, "PROBES", 128)
    monkeypatch.setattr(planner, "RERANKED", COUNT)
    monkeypatch.setattr(planner, "RERANK_SHARE", 2)
    assert recall(store, space) == 1.0


def test_exact_leaves_the_lists_alone(store: Store, space: Space) -> None:
    """Everything is compared, whatever there is besides."""
    seal(store, space, IMAGE)
    index = VectorIndex(store, space, IMAGE, exact=True)
    every, matrix = everything(store, space)
    for query in unit_rows(np.random.default_rng(5), 5, DIM):
        _, ids = index.search(query, 10)
        np.testing.assert_array_equal(ids, every[np.argsort(-(matrix @ query))[:10]])
        assert {one.plan for one in index.plans} == {Plan.WHOLE}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_filters_inside_the_lists_give_all_they_can(
    share: float, store: Store, space: Space
) -> None:
    """Only what passes is found, as many as are wanted, and nearly the best of them."""
    seal(store, space, IMAGE)
    every, _ = everything(store, space)
    only = every[np.random.default_rng(3).random(len(every)) < share]
    assert recall(store, space, only=only) > 0.95


def test_a_filter_far_from_the_query_still_gives_k(store: Store, space: Space) -> None:
    """More lists are looked through until k are found, to the last of them."""
    seal(store, space, IMAGE)
    every, matrix = everything(store, space)
    index = VectorIndex(store, space, IMAGE)
    for query in unit_rows(np.random.default_rng(5), 5, DIM):
        farthest = np.sort(every[np.argsort(matrix @ query)[:120]])
        _, ids = index.search(query, 30, only=farthest)
        assert index.plans[0].plan is Plan.PROBE
        assert len(ids) == 30
        assert np.isin(ids, farthest).all()


def test_few_that_pass_are_compared_one_by_one(store: Store, space: Space) -> None:
    """Where it scans, the answer is the exact one."""
    seal(store, space, IMAGE)
    every, matrix = everything(store, space)
    only = every[::40]
    index = VectorIndex(store, space, IMAGE)
    query = unit_rows(np.random.default_rng(5), 1, DIM)[0]
    _, ids = index.search(query, 10, only=only)
    assert Plan.PROBE not in {one.plan for one in index.plans}
    np.testing.assert_array_equal(ids, only[np.argsort(-(matrix[::40] @ query))[:10]])


def test_a_query_of_two_parts_goes_on_until_it_is_settled(store: Store, space: Space) -> None:
    """The threshold algorithm asks for ever more, up to all, and always gets what it asks for."""
    from retrieval.calibrate import Calibration
    from retrieval.scoring import Both

    seal(store, space, IMAGE)
    every, matrix = everything(store, space)
    index = VectorIndex(store, space, IMAGE)
    directions = unit_rows(np.random.default_rng(8), 2, DIM)
    leaves = tuple(Leaf(i, Calibration(10.0, 0.0, -2.0), 0.0, 0.1) for i in range(2))
    scorer = Scorer(directions, np.ones(2, np.bool_), Both(leaves))
    asked: list[int] = []

    def search(vector: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], Ids]:
        asked.append(count)
        scores, ids = index.search(vector, count)
        assert len(ids) == count
        return scores, ids

    ids, _ = best(
        scorer, 10, index.size, search=search, fetch=lambda some: store.vectors_of(some, space)
    )
    truth = scorer.judge(matrix).log_relevance
    wanted = every[np.argsort(-truth)[:10]]
    assert np.isin(wanted, ids).sum() >= 9
    assert max(asked) > min(asked)


# ---- additions and removals --------------------------------------------------------------------


def test_what_is_added_is_found_at_once_and_taken_in_later(store: Store, space: Space) -> None:
    """A fresh tail is compared exactly; when it is long, the same lists take it in."""
    seal(store, space, IMAGE)
    before = the_seal(store, space)
    rows = grouped(11, 120)
    add(store, space, rows)
    assert recall(store, space) > 0.95
    seal(store, space, IMAGE)  # the segments take it in, the lists not yet
    assert the_seal(store, space) == before
    assert store.seals(space, IMAGE)[-1].last_id > before.last_id
    index = VectorIndex(store, space, IMAGE)
    for row in rows[:30]:
        assert index.search(row, 1)[1][0] > before.last_id
    assert recall(store, space) > 0.95
    gone = np.arange(1, 1_400, 30)  # too few for new segments, which go on holding them
    remove(store, space, gone)
    add(store, space, grouped(12, 200))
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverting, "trained", lambda *_, **__: trained.append(1))
        assert seal(store, space, IMAGE)
    assert trained == []  # centroids stay
    after = the_seal(store, space)
    assert after.count == COUNT + 320 - len(gone)
    np.testing.assert_array_equal(store.removed(space, IMAGE), gone)
    assert after.last_id == store.seals(space, IMAGE)[-1].last_id
    assert recall(store, space) > 0.95


def test_what_is_removed_is_never_found(store: Store, space: Space) -> None:
    """Up to a tenth is masked, more makes the file again; ids are looked up in both cases."""
    seal(store, space, IMAGE)
    before = the_seal(store, space)
    every, _ = everything(store, space)
    rng = np.random.default_rng(4)
    remove(store, space, every[rng.random(len(every)) < 0.06])
    assert recall(store, space) > 0.95
    seal(store, space, IMAGE)
    assert the_seal(store, space) == before
    assert recall(store, space) > 0.95
    every, _ = everything(store, space)
    remove(store, space, every[rng.random(len(every)) < 0.06])
    assert recall(store, space) > 0.95
    assert seal(store, space, IMAGE)
    after = the_seal(store, space)
    assert after.count == len(everything(store, space)[0])
    assert recall(store, space) > 0.95


def test_an_index_that_shrinks_gives_its_lists_up(store: Store, space: Space) -> None:
    """Below the threshold all are compared again."""
    seal(store, space, IMAGE)
    remove(store, space, everything(store, space)[0][900:])
    assert seal(store, space, IMAGE)
    assert inverting.seals(store, space, IMAGE) == []
    assert {path.name for path in folder_of(store.path).iterdir()} == store.seal_files()
    index = VectorIndex(store, space, IMAGE)
    index.search(unit_rows(np.random.default_rng(5), 1, DIM)[0], 10)
    assert index.size == 900
    assert Plan.PROBE not in {one.plan for one in index.plans}


# ---- files that cannot be used -----------------------------------------------------------------


def _newer(path: Path) -> None:
    """Writes what a faiss of tomorrow might: a type that this one does not know."""
    path.write_bytes(b"IxZZ" + path.read_bytes()[4:])


def _other(path: Path) -> None:
    """Writes a whole file of another kind."""
    index = faiss.IndexFlatIP(DIM)
    index.add(unit_rows(np.random.default_rng(0), COUNT, DIM))
    faiss.write_index(index, str(path))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "of a newer faiss": _newer,
    "of another kind": _other,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_lists_that_cannot_be_used_are_named_and_made_again(
    damage: str, store: Store, space: Space
) -> None:
    """Searches compare everything meanwhile."""
    seal(store, space, IMAGE)
    one = the_seal(store, space)
    path = folder_of(store.path) / one.file
    DAMAGES[damage](path)
    if damage == "of another kind":
        run_sql(store.path, f"UPDATE seals SET bytes = {path.stat().st_size} WHERE kind <> 'exact'")
    index = VectorIndex(store, space, IMAGE)
    assert index.rebuilt == [one.file]
    every, matrix = everything(store, space)
    query = unit_rows(np.random.default_rng(5), 1, DIM)[0]
    np.testing.assert_array_equal(
        index.search(query, 10)[1], every[np.argsort(-(matrix @ query))[:10]]
    )
    assert seal(store, space, IMAGE)
    assert the_seal(store, space).file != one.file
    assert recall(store, space) > 0.95


def test_a_damaged_segment_below_lists_is_read_from_the_store(store: Store, space: Space) -> None:
    """What the lists propose of it is left out, as all of it is compared."""
    seal(store, space, IMAGE)
    victim = store.seals(space, IMAGE)[1]
    (folder_of(store.path) / victim.file).unlink()
    index = VectorIndex(store, space, IMAGE)
    assert index.rebuilt == [victim.file]
    every, matrix = everything(store, space)
    for query in unit_rows(np.random.default_rng(5), 20, DIM):
        _, ids = index.search(query, 10)
        assert index.plans[0].plan is Plan.PROBE
        assert len(set(ids.tolist())) == 10
        within = (every >= victim.first_id) & (every <= victim.last_id)
        wanted = every[np.argsort(-(matrix @ query))[:10]]
        assert np.isin(wanted[np.isin(wanted, every[within])], ids).all()


def test_a_full_disk_leaves_the_old_lists(
    store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half-written lies about, and searches go on against what was there."""
    seal(store, space, IMAGE)
    before = the_seal(store, space)
    add(store, space, grouped(12, 400))
    whole = faiss.write_index

    def half(index: Any, target: Any, *rest: Any) -> None:
        if "lists" in str(target):
            Path(target).write_bytes(b"half")
            raise RuntimeError("No space left on device")
        whole(index, target, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(faiss, "write_index", half)
        with pytest.raises(StorageError, match="No space left on device"):
            seal(store, space, IMAGE)
    assert inverting.seals(store, space, IMAGE) == [before]
    assert not list(folder_of(store.path).glob("*.tmp"))
    assert recall(store, space) > 0.95
    assert seal(store, space, IMAGE)
    assert the_seal(store, space).count == COUNT + 400


KILLED = """
import os, signal, sys
from pathlib import Path
from retrieval.index import seal
from retrieval.segments import write
from retrieval import inverting
from retrieval.store import Store
from retrieval.types import Modality
from tests.retrieval.test_large import small_ladder
where = sys.argv[2]
def tell(what, done, total):
    if where == "adding" and what.startswith("building") and done >= 2_000:
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "training" and what == "training" and done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
real = os.fsync
def fsync(descriptor):
    if where == "writing" and "lists" in os.readlink(f"/proc/self/fd/{descriptor}"):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
with small_ladder(save_every=700), Store(Path(sys.argv[1]), write=True) as store:
    (space,) = store.spaces()
    seal(store, space, Modality.IMAGE, tell=tell)
"""


@pytest.mark.parametrize("where", ["training", "adding", "writing"])
def test_a_build_that_is_killed_goes_on(where: str, store: Store, space: Space) -> None:
    """What was saved is taken up, what was half-written is swept, searches go on meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(store.path), where],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL
    folder = folder_of(store.path)
    saved = store.seals(space, IMAGE, kinds=(Kind.BUILDING,))
    assert [one.count for one in saved] == ([2_100] if where == "adding" else [])
    assert bool(list(folder.glob("*.tmp"))) == (where == "writing")
    index = VectorIndex(store, space, IMAGE)
    assert index.rebuilt == []
    assert len(index.search(unit_rows(np.random.default_rng(5), 1, DIM)[0], 10)[1]) == 10
    if where == "adding":
        remove(store, space, np.arange(100, 130))
    told: list[tuple[str, int, int]] = []
    assert seal(store, space, IMAGE, tell=lambda *words: told.append(words))
    assert ("training" in [what for what, _, _ in told]) == (where != "adding")
    built = [done for what, done, _ in told if what.startswith("building")]
    assert built[0] == (2_070 if where == "adding" else 0)
    assert the_seal(store, space).count == len(everything(store, space)[0])
    assert recall(store, space) > 0.95


# ---- the device --------------------------------------------------------------------------------


class FakeFaiss(SimpleNamespace):
    """FAISS with GPU code that may work, err, or fail."""

    def __init__(self, gpus: int, *, errs: bool = False, fails: str = "") -> None:
        def moved(resources: object, number: int, index: Any) -> Any:
            if fails:
                raise RuntimeError(f"{fails}\nat line 1")

            def search(rows: Vectors, k: int) -> tuple[Vectors, Ids]:
                scores, at = index.search(rows, k)
                return scores, at + 1 if errs else at

            return SimpleNamespace(search=search)

        super().__init__(
            __version__="9.9",
            IndexFlatIP=faiss.IndexFlatIP,
            StandardGpuResources=object,
            get_num_gpus=lambda: gpus,
            index_cpu_to_gpu=moved,
        )


@pytest.mark.parametrize(
    ("module", "builds", "reason"),
    [
        (FakeFaiss(0), False, "faiss 9.9 has GPU code, but no GPU answers"),
        (FakeFaiss(1, errs=True), False, "faiss 9.9 sees 1 GPU(s), but the first errs"),
        (
            FakeFaiss(1, fails="out of memory"),
            False,
            "faiss 9.9 has GPU code, but it fails: out of memory",
        ),
        (
            FakeFaiss(2),
            True,
            "faiss 9.9 sees 2 GPU(s), and the first builds large indexes, but searching "
            "mapped files takes less time than copying them there",
        ),
    ],
)
def test_a_gpu_is_used_only_if_it_works(
    module: FakeFaiss, builds: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has to pass a test of itself; whatever it does, rows are assigned, and rightly."""
    monkeypatch.setitem(sys.modules, "faiss", module)
    assert gpu.device() == gpu.Device("cpu", reason, builds)
    rows = unit_rows(np.random.default_rng(0), 50, DIM)
    index, alone = gpu.flat(rows)
    assert alone == builds
    np.testing.assert_array_equal(index.search(rows, 1)[1][:, 0], np.arange(50))


def test_rows_are_assigned_the_same_with_one_thread_at_a_time(
    store: Store, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way for a GPU gives the lists that the threads give."""
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(inverted, "BLOCK", 64)
    rows = unit_rows(np.random.default_rng(0), 500, DIM)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(rows[:20])
    with ThreadPoolExecutor(2) as pool:
        alone = inverted._assigned(rows, (flat, True), pool)
        together = inverted._assigned(rows, (flat, False), pool)
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(alone, (rows @ rows[:20].T).argmax(axis=1))
