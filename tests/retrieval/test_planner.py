"""Filtered searches: every plan finds what sorting all scores finds, and the planner chooses."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import index as index_module
from retrieval.index import VectorIndex, seal
from retrieval.planner import Decision, Plan, choose
from retrieval.store import Store
from tests.conftest import unit_rows
from tests.retrieval.test_index import (
    DIM,
    IMAGE,
    TEXT,
    TOY,
    add,
    assert_best,
    everything,
    remove,
    small_segments,
)


def plan_of(n: int, matches: int, k: int) -> Plan:
    """The plan alone."""
    return choose(n, matches, k).plan


@given(n=st.integers(1, 10**6), data=st.data(), k=st.integers(1, 10**4))
def test_a_plan_can_always_be_followed(n: int, data: st.DataObject, k: int) -> None:
    """Nothing is scanned where nothing matches, and everything only where all of it does."""
    matches = data.draw(st.one_of(st.integers(0, n), st.sampled_from([0, 1, n - 1, n])))
    plan = plan_of(n, matches, k)
    assert (plan is Plan.NOTHING) == (matches == 0)
    assert (plan is Plan.WHOLE) == (matches == n)


def test_the_plan_follows_the_share() -> None:
    """From few over some to nearly all, each of the ways has its part; the reason says how many."""
    n = 131_072
    order = [Plan.NOTHING, Plan.SCAN, Plan.SELECT, Plan.OVERFETCH, Plan.WHOLE]
    plans = [plan_of(n, matches, 10) for matches in range(0, n + 1, 16)]
    assert [plan for i, plan in enumerate(plans) if i == 0 or plans[i - 1] is not plan] == order
    assert choose(n, 300, 10) == Decision(Plan.SCAN, "only 300 of 131072 match")
    assert choose(n, n // 2, 10) == Decision(Plan.SELECT, "65536 of 131072 match")
    assert choose(n, n - 7, 10) == Decision(Plan.OVERFETCH, "all but 7 of 131072 match")
    assert plan_of(n, n - 7, n // 10) is Plan.SELECT  # so many would have to be fetched
    assert plan_of(n, n // 2, n // 2) is Plan.SCAN  # all that match are wanted


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    share=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.02, 0.98, 1.0])),
    k=st.one_of(st.integers(1, 12), st.just(1000)),
    ties=st.booleans(),
)
def test_every_plan_finds_the_same(seed: int, share: float, k: int, ties: bool) -> None:
    """Forced in turn over segments with and without gaps, removed ids and a fresh tail."""
    rng = np.random.default_rng(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        small_segments(),
        Store(Path(folder) / "i.db", write=True) as store,
    ):
        space = store.add_space(TOY)
        for step in range(4):
            rows = unit_rows(rng, int(rng.integers(1, 40)), DIM)
            if ties:
                rows = np.asarray(np.eye(DIM)[rng.integers(0, 2, len(rows))], np.float32)
            add(store, space, rows)
            if step == 1:
                add(store, space, unit_rows(rng, 5, DIM), TEXT)  # leaves a gap
            if step < 3:
                seal(store, space, IMAGE)
            every, _ = everything(store, space, IMAGE)
            remove(store, space, every[rng.random(len(every)) < 0.05].tolist())
        every, matrix = everything(store, space, IMAGE)
        index = VectorIndex(store, space, IMAGE)
        assert index.ids().tolist() == every.tolist()
        others = np.arange(1, every.max(initial=0) + 9)  # removed ones and texts are among these
        only = others[rng.random(len(others)) < share]
        query = unit_rows(rng, 1, DIM)[0]
        for plan in (None, Plan.SCAN, Plan.SELECT, Plan.OVERFETCH):
            with pytest.MonkeyPatch.context() as patch:
                if plan is not None:
                    forced = Decision(plan, "forced")
                    patch.setattr(index_module, "choose", lambda *_, forced=forced: forced)
                assert_best(index, every, matrix, query, k, only)
                assert_best(index, every, matrix, query, k)
                if plan is not None:
                    assert {one.plan for one in index.plans} <= {plan}


def test_another_filter_is_another_answer() -> None:
    """What is kept from one filter does not answer for the next, nor for none."""
    rng = np.random.default_rng(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        small_segments(),
        Store(Path(folder) / "i.db", write=True) as store,
    ):
        space = store.add_space(TOY)
        add(store, space, unit_rows(rng, 47, DIM))
        seal(store, space, IMAGE)
        add(store, space, unit_rows(rng, 2, DIM))
        every, matrix = everything(store, space, IMAGE)
        index = VectorIndex(store, space, IMAGE)
        for only in (every[:5], every[::2], None, every[::2], every[:5], every[40:]):
            assert_best(index, every, matrix, unit_rows(rng, 1, DIM)[0], 4, only)
