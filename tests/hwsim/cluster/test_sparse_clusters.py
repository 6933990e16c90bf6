"""What masks change on a cluster: stragglers, what collectives carry, masks that must agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_clusters import machine_of, masks_of, step_of

from hwsim import InputError, Mask, load_device
from hwsim.cluster import reference
from hwsim.cluster.costs import carried_bytes
from hwsim.cluster.data_parallel import form_names
from hwsim.cluster.forms import tensor
from hwsim.cluster.forms.masks import selections, told
from hwsim.cluster.memory import need
from hwsim.cluster.parts import parts_of
from hwsim.cluster.plan import ParallelPlan, parse_plan
from hwsim.cluster.run import run_time
from hwsim.cluster.step import cluster_step
from hwsim.masks.statistical import StatisticalMask

FORMS = st.sampled_from(["ddp", "zero1", "zero2", "fsdp", "grad_op"])


def _random(density: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    return lambda shape: rng.random(shape) < density


def _uneven(shape: tuple[int, int]) -> np.ndarray:
    """All active weights on the first half of the cut side; as many as `_even` has."""
    axis = 0 if shape[0] >= shape[1] else 1
    mask = np.zeros(shape, dtype=bool)
    half = shape[axis] // 2
    mask[(slice(half), slice(None)) if axis == 0 else (slice(None), slice(half))] = True
    return mask


def _even(shape: tuple[int, int]) -> np.ndarray:
    return np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2 == 0


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 1), st.integers(1, 6), st.integers(0, 99)
)
def test_shares_of_a_mask_are_all_of_it(
    rows: int, columns: int, axis: int, of: int, seed: int
) -> None:
    mask = Mask(np.random.default_rng(seed).random((rows, columns)) < 0.5)
    of = min(of, mask.shape[axis])
    shares = [mask.share(axis, i, of) for i in range(of)]
    np.testing.assert_array_equal(np.concatenate([s.array for s in shares], axis), mask.array)
    assert sum(s.nnz for s in shares) == mask.nnz


def test_a_share_that_is_none_is_refused() -> None:
    for mask in (Mask(np.eye(4, dtype=bool)), StatisticalMask((4, 4), 0.5)):
        with pytest.raises(InputError, match=r"share: 2 of 2; allowed is 0 ≤ number < of ≤ 4"):
            mask.share(0, 2, 2)


@given(st.sampled_from([2, 4, 8]), st.floats(0.02, 0.9), st.integers(0, 20))
@settings(max_examples=20)
def test_ranks_share_out_all_active_weights(ranks: int, density: float, seed: int) -> None:
    step = step_of(1)
    part = parts_of(step.with_masks(masks_of(step, _random(density, seed))))[1]
    assert tensor.ranks_that_differ(part, ranks) == ranks
    cuts = [tensor.cut(part, ranks, sequence=False, rank=r) for r in range(ranks)]
    for mine in zip(*(cut.masked() for cut in cuts), strict=True):
        whole = next(op for op in part.masked() if op.name == mine[0].name)
        assert sum(op.nnz for op in mine) == whole.nnz
        assert sum(op.weights for op in mine) == whole.weights
        assert sum(op.weight_bytes for op in mine) == whole.weight_bytes


def test_a_rank_with_more_active_weights_keeps_the_others_waiting() -> None:
    step, plan, cluster = step_of(2, width=1024), ParallelPlan(tp=2, sequence=True), machine_of(2)
    even = cluster_step(cluster, step.with_masks(masks_of(step, _even)), plan)
    uneven = cluster_step(cluster, step.with_masks(masks_of(step, _uneven)), plan)
    assert uneven.seconds > even.seconds * 1.01
    assert uneven.sent_bytes == even.sent_bytes
    # Dense kernels take no notice of where weights are missing.
    whole = cluster_step(cluster, step, plan)
    assert len(whole.tasks.streams) * 2 == len(uneven.tasks.streams)
    np.testing.assert_array_equal(uneven.ends, reference.ends(uneven.tasks))


def test_a_stage_with_more_active_weights_keeps_the_others_waiting() -> None:
    step, plan = step_of(4, width=1024), ParallelPlan(pp=2, micro_batches=4)
    cluster = machine_of(2, device=load_device("ideal"))
    masks = masks_of(step, _random(0.02))
    first = {n: m for n, m in masks.items() if n.split(".")[1] in "01"}
    mixed = {n: m for n, m in masks.items() if n.split(".")[1] in "02"}
    lame = cluster_step(cluster, step.with_masks(first), plan)
    level = cluster_step(cluster, step.with_masks(mixed), plan)
    assert lame.seconds > level.seconds
    np.testing.assert_array_equal(lame.ends, reference.ends(lame.tasks))


@given(
    FORMS, st.sampled_from([(8, 1, 1), (4, 2, 1), (2, 4, 1), (2, 2, 2), (1, 4, 2)]),
    st.floats(0.02, 0.8), st.sampled_from(["", "values", "packed"]), st.booleans(),
    st.integers(0, 50),
)  # fmt: skip
@settings(max_examples=40)
def test_engines_agree_under_masks(
    form: str, ranks: tuple, density: float, carry: str, grown: bool, seed: int
) -> None:
    step = step_of(4)
    masked = step.with_masks(masks_of(step, _random(density, seed)))
    if grown:
        masked = masked.growth_step(dense_gradient=True)
    dp, tp, pp = ranks
    plan = ParallelPlan(form, dp, tp, pp, micro_batches=2 * pp, **({carry: True} if carry else {}))
    found = cluster_step(machine_of(), masked, plan)
    np.testing.assert_array_equal(found.ends, reference.ends(found.tasks))
    assert found.seconds >= found.compute_s * (1 - 1e-9)


@given(FORMS, st.floats(0.02, 0.9), st.booleans())
@settings(max_examples=20)
def test_values_alone_never_move_more_than_all(form: str, density: float, grown: bool) -> None:
    step = step_of(2)
    masked = step.with_masks(masks_of(step, _random(density)))
    masked = masked.growth_step(dense_gradient=True) if grown else masked
    whole, values = (
        cluster_step(machine_of(), masked, ParallelPlan(form, 8, values=v)).sent_bytes
        for v in (False, True)
    )
    assert values <= whole


def test_packed_two_of_four_moves_nine_sixteenths() -> None:
    step = step_of(1)
    two_four = masks_of(step, lambda shape: np.arange(shape[0] * shape[1]).reshape(shape) % 4 < 2)
    part = parts_of(step.with_masks(two_four))[1]
    weights, gradients = carried_bytes(part, part, ParallelPlan("ddp", 8, packed=True))
    assert weights == gradients == part.weights * 2 * 9 / 16
    # What no sparse kernel's format holds is carried whole.
    loose = parts_of(step.with_masks(masks_of(step, _random(0.4))))[1]
    assert carried_bytes(loose, loose, ParallelPlan("ddp", 8, packed=True))[0] == loose.weights * 2


def test_only_growth_steps_carry_dense_gradients() -> None:
    step = step_of(1)
    masked = step.with_masks(masks_of(step, _even))
    grown = masked.growth_step(dense_gradient=True)
    plan = ParallelPlan("fsdp", 8, values=True)
    plain, dense = (parts_of(s)[1] for s in (masked, grown))
    half = plain.weights * 2 / 2
    assert carried_bytes(plain, plain, plan) == (half, half)
    assert carried_bytes(dense, dense, plan) == (half, 2 * half)
    drawn = parts_of(masked.growth_step(dense_gradient=False))[1]
    assert carried_bytes(drawn, drawn, plan) == (half, half)


def test_ranks_that_hold_everything_need_no_word_of_each_others_masks() -> None:
    assert selections(4, ParallelPlan("ddp", 8), dense_gradient=True) == []
    assert told(1e6, ParallelPlan("ddp", 8)) == []
    assert (
        selections(4, ParallelPlan("fsdp", 8), dense_gradient=True)
        == [("all_reduce", 4096.0, 8)] * 8
    )
    assert (
        selections(4, ParallelPlan("fsdp", 8), dense_gradient=False)
        == [("all_reduce", 4096.0, 8)] * 4
    )
    assert (
        selections(4, ParallelPlan("ddp", 4, 2), dense_gradient=False)
        == [("all_reduce", 4096.0, 2)] * 4
    )
    assert told(1e6, ParallelPlan("zero1", 8)) == [("all_gather", 1e6, 8)]


@pytest.mark.parametrize("form", form_names())
def test_a_growth_step_takes_longer_and_tells_of_its_masks(form: str) -> None:
    step = step_of(2)
    masked = step.with_masks(masks_of(step, _even))
    plan, cluster = ParallelPlan(form, 8, values=True), machine_of()
    plain = cluster_step(cluster, masked, plan)
    grown = cluster_step(cluster, masked.growth_step(dense_gradient=True), plan)
    assert grown.seconds > plain.seconds and grown.sent_bytes > plain.sent_bytes
    names = [name for name in grown.tasks.names if "masks" in name]
    assert bool(names) == (plan.sharded > 0)
    assert not any("masks" in name for name in plain.tasks.names)


def test_hybrid_shares_gather_inside_a_node_and_sum_between() -> None:
    step, cluster = step_of(2), machine_of(4, nodes=2)
    hybrid = cluster_step(cluster, step, ParallelPlan("hsdp", 8))
    assert hybrid.plan.shards == 4 and str(hybrid.plan) == "hsdp,dp=8,shards=4"
    size = sum(part.weights * 2 for part in parts_of(step))
    # Gathered before the forward pass, and again before the backward pass except for the last.
    inner = size * 3 / 4 * 2 + size / 2 * 3 / 4
    assert hybrid.sent_bytes == pytest.approx(inner + 2 * (size / 4) / 2, rel=0.3)
    np.testing.assert_array_equal(hybrid.ends, reference.ends(hybrid.tasks))


@given(st.sampled_from([1, 2, 4, 8]))
def test_hybrid_lies_between_whole_copies_and_full_sharing(shards: int) -> None:
    step, cluster = step_of(4, width=512), machine_of(4, nodes=2)
    fsdp, hybrid = ParallelPlan("fsdp", 8), ParallelPlan("hsdp", 8, shards=shards)
    one, other = (cluster_step(cluster, step, plan) for plan in (fsdp, hybrid))
    assert other.need.states >= one.need.states * (1 - 1e-9)
    assert (
        other.need.states <= cluster_step(cluster, step, ParallelPlan("ddp", 8)).need.states * 1.5
    )
    if shards == 8:
        assert other.seconds == one.seconds and other.sent_bytes == one.sent_bytes


def test_slow_links_between_nodes_favour_hybrid_shares() -> None:
    step, cluster = step_of(4, width=512), machine_of(4, nodes=2, slow=1e8)
    fsdp, hybrid = (cluster_step(cluster, step, ParallelPlan(form, 8)) for form in ("fsdp", "hsdp"))
    assert hybrid.seconds < fsdp.seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fsdp,shards=4", "shards: value is 4; allowed with fsdp is none"),
        ("hsdp,shards=3", "shards: value is 3; allowed is a divisor of dp = 8"),
        ("fsdp,values=1,packed=1", "values, packed: both are given"),
        ("hsdq", "parallel form"),
    ],
)
def test_bad_plans_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_plan(text, 8)
    assert said in str(error.value)


def test_nodes_that_no_whole_shares_fill_are_refused() -> None:
    with pytest.raises(InputError, match="hsdp,dp=6 shares within nodes of 4"):
        ParallelPlan("hsdp", 6).on(4)


@given(st.lists(st.tuples(st.floats(0.02, 0.9), st.integers(0, 50)), min_size=1, max_size=4))
@settings(max_examples=15)
def test_a_run_costs_the_sum_of_its_steps(spans: list[tuple[float, int]]) -> None:
    step, plan, cluster = step_of(1), ParallelPlan("fsdp", 8, values=True), machine_of()
    pairs = [(step.with_masks(masks_of(step, _random(d))), n) for d, n in spans]
    pairs.append((step, 1))
    run = run_time(cluster, pairs, plan)
    singles = [cluster_step(cluster, workload, plan) for workload, _ in pairs]
    assert run.seconds == pytest.approx(
        sum(n * s.seconds for (_, n), s in zip(pairs, singles, strict=True))
    )
    assert run.steps == sum(n for _, n in pairs) and run.fits
    assert run.fullest.need.total <= max(s.need.total for s in singles)


def test_a_run_of_no_or_broken_steps_is_refused() -> None:
    for pairs, said in (([(step_of(1), 0)], "no steps"), ([(step_of(1), 1.5)], "value is 1.5")):
        with pytest.raises(InputError, match=said):
            run_time(machine_of(), pairs, ParallelPlan("ddp", 8))


@given(FORMS, st.floats(0.02, 0.45), st.floats(0.5, 0.9))
@settings(max_examples=15)
def test_compact_states_fall_with_density(form: str, low: float, high: float) -> None:
    step = step_of(8, width=512)
    held = [
        need(parts_of(step.with_masks(masks_of(step, _random(d)))), plan)
        for d in (low, high)
        for plan in (ParallelPlan(form, 8, compact=True), ParallelPlan(form, 8))
    ]
    assert held[0].total < held[2].total
    assert held[1].total == held[3].total  # stored whole, whatever the density
    assert held[0].moments < held[1].moments
    # A boolean a weight, or in compact forms a bit, where the weights lie.
    shared = 8 if ParallelPlan(form, 8).sharded == 3 else 1
    assert held[1].masks * shared == sum(part.weights for part in parts_of(step))
    assert held[0].masks * 8 == held[1].masks


def test_states_of_a_byte_take_a_quarter() -> None:
    parts = parts_of(step_of(2))
    whole, small = (need(parts, ParallelPlan(moment_bytes=m)).moments for m in (8.0, 2.0))
    assert small / whole == (4 + 2) / (4 + 8)
