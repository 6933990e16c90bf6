"""Recomputation of all layers, of each n-th, of scores alone: memory, time and what is tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_clusters import H100, machine_of, masks_of, step_of

from hwsim import InputError
from hwsim.cluster import reference
from hwsim.cluster.costs import costs
from hwsim.cluster.machine import Cluster, Link
from hwsim.cluster.memory import block_bytes, need
from hwsim.cluster.parts import Part, parts_of
from hwsim.cluster.plan import ParallelPlan, parse_plan
from hwsim.cluster.recompute import recomputed
from hwsim.cluster.search import must_fit, per_sample, plans, recomputations, search
from hwsim.cluster.step import at_least_s, cluster_step, timed

SPLITS = st.sampled_from([(8, 1, 1, 1), (4, 2, 1, 1), (2, 2, 2, 1), (1, 2, 4, 1), (2, 1, 4, 2)])


def _plan(split: tuple, **more: object) -> ParallelPlan:
    dp, tp, pp, chunks = split
    return ParallelPlan("zero1", dp, tp, pp, interleave=chunks, micro_batches=2 * pp,
                        **more)  # type: ignore[arg-type]  # fmt: skip


def test_each_third_of_eight_layers() -> None:
    parts = parts_of(step_of(8))
    plan = ParallelPlan("ddp", 8, recompute="full", every=3)
    assert sorted(recomputed(parts, plan)) == [3, 6]  # places; the first part is no layer
    assert sorted(recomputed(parts, ParallelPlan(recompute="full"))) == list(range(1, 9))
    # Each of two stages has four layers of its own.
    halves = ParallelPlan("ddp", 1, 1, 2, micro_batches=2, recompute="full", every=3)
    assert sorted(recomputed(parts, halves)) == [2, 6]
    assert not recomputed(parts, ParallelPlan(recompute="full", every=9))


def test_memory_of_each_third_layer_by_hand() -> None:
    parts = parts_of(step_of(8))
    whole = block_bytes(parts[1], ParallelPlan())
    less = block_bytes(parts[1], ParallelPlan(recompute="full"))
    held = [need(parts, ParallelPlan(recompute="full", every=n)).activations for n in (1, 2, 3, 9)]
    assert held == pytest.approx(
        [7 * less + whole, 4 * less + 4 * whole, 2 * less + 6 * whole, 8 * whole]
    )


@given(SPLITS, st.integers(1, 9), st.sampled_from([64, 512, 2048]))
@settings(max_examples=25)
def test_recomputing_less_needs_more_and_takes_less(split: tuple, n: int, rows: int) -> None:
    step, cluster = step_of(8, rows), machine_of()
    plans = [
        _plan(split, recompute="full"),
        _plan(split, recompute="full", every=n),
        _plan(split, recompute="full", every=n + 1),
        _plan(split),
    ]
    found = [cluster_step(cluster, step, plan) for plan in plans]
    held = [one.need.activations for one in found]
    busy = [one.compute_s for one in found]
    assert held == sorted(held)
    assert busy == sorted(busy, reverse=True)
    assert found[0].seconds >= found[-1].seconds * (1 - 1e-9)
    for one in found:
        np.testing.assert_array_equal(one.ends, reference.ends(one.tasks))


@given(st.integers(1, 9))
def test_selective_of_each_nth_layer_lies_between(n: int) -> None:
    parts = [Part(str(i), rows=8192, width=1024, heads=64, length=2048, itemsize=2,
                  scores=bool(i % 9)) for i in range(10)]  # fmt: skip
    held = [need(parts, plan).activations for plan in (
        ParallelPlan(recompute="selective"), ParallelPlan(recompute="selective", every=n),
        ParallelPlan())]  # fmt: skip
    assert held == sorted(held)


def test_a_plan_is_written_as_it_is_read() -> None:
    plan = parse_plan("fsdp,recompute=full,every=4", 8)
    assert plan.every == 4 and parse_plan(str(plan), 8) == plan
    for text, said in (
        ("fsdp,every=2", "every: value is 2; allowed with recompute=none is 1"),
        ("fsdp,recompute=full,every=0", "every: value is 0; allowed is an integer of at least 1"),
        ("fsdp,recompute=half", "recompute"),
    ):
        with pytest.raises(InputError, match=said):
            parse_plan(text, 8)


def _room(gigabytes: float) -> Cluster:
    fast = Link(1e12, 1e-6, 0.8)
    return Cluster("test", H100, 1, 1, gigabytes * 1e9, fast, fast)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_search_recomputes_no_more_layers_than_it_must(n: int) -> None:
    step = step_of(16, rows=4096)
    fits = need(parts_of(step), ParallelPlan(recompute="full", every=n)).total
    first, *rest = search(_room(fits * 1.0001 / 1e9), step)
    assert (first.plan.recompute, first.plan.every) == ("full", n)
    assert [one.plan.every for one in rest] == [1]
    assert search(_room(80.0), step)[0].plan.recompute == "none"


@given(SPLITS, st.sampled_from(["none", "full"]), st.floats(0.05, 1.0), st.integers(0, 9))
@settings(max_examples=25)
def test_no_step_beats_its_bound(split: tuple, how: str, density: float, seed: int) -> None:
    step, rng = step_of(8, 512), np.random.default_rng(seed)
    masked = step.with_masks(masks_of(step, lambda shape: rng.random(shape) < density))
    plan, cluster = _plan(split, recompute=how), machine_of()
    bound = at_least_s(plan, costs(cluster, parts_of(masked), plan, {}))
    assert 0 < bound <= cluster_step(cluster, masked, plan).seconds * (1 + 1e-12)


@pytest.mark.parametrize("gigabytes", [0.03, 0.06, 80.0])
def test_search_leaves_out_nothing_that_belongs_to_the_front(gigabytes: float) -> None:
    step = step_of(8, 512)
    cluster = replace(machine_of(4, nodes=2), memory_bytes=gigabytes * 1e9)
    parts, every = parts_of(step), []
    for split in plans(cluster, 8):
        split = split.on(4)
        for plan in recomputations(parts, split, need(parts, split), cluster.memory_bytes):
            try:
                one = timed(cluster, parts, plan)
            except InputError:
                continue
            every += [one] if one.fits else []
    every.sort(key=lambda one: (per_sample(one), one.need.total))
    front: list = []
    for one in every:
        if not front or one.need.total < front[-1].need.total:
            front.append(one)
    assert [one.plan for one in search(cluster, step)] == [one.plan for one in front]
    assert search(cluster, step, fastest=True)[0].plan == front[0].plan
    must_fit(cluster, step)


def test_what_must_fit_and_does_not_is_told_as_a_search_tells_it() -> None:
    told = []
    for asked in (must_fit, search):
        with pytest.raises(InputError, match="no plan fits") as found:
            asked(_room(0.001), step_of(16, rows=4096))
        told.append(str(found.value))
    assert told[0] == told[1]
