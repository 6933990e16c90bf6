"""What tensor parallel shares out of a block, what attention makes again, and when ranks talk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_clusters import machine_of, step_of

from hwsim import Op
from hwsim.cluster.collectives import sent_bytes
from hwsim.cluster.forms.pipeline import handed_on
from hwsim.cluster.forms.tensor import beside_sums, cut
from hwsim.cluster.parts import Part, around_attention, parts_of, scores_again
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.step import cluster_step

ROWS, WIDTH, HEADS = 256, 64, 8
STREAM = ROWS * WIDTH * 2  # bytes of the residual stream in 16 bit


def product(name: str, n: int, k: int) -> Op:
    return Op("gemm", "forward", name, ROWS, n, k, 1, "bfloat16", weight_shape=(n, k))


def passes(name: str, many: float) -> Op:
    return Op("elementwise", "forward", name, activation_bytes=int(many * STREAM))


def scores(name: str) -> Op:
    return Op("attention", "forward", name, ROWS, ROWS, WIDTH // HEADS, HEADS, "bfloat16")


def block() -> Part:
    forward = [
        Op("norm", "forward", "norm_1", ROWS, WIDTH, activation_bytes=2 * STREAM),
        product("qkv", 3 * WIDTH, WIDTH), passes("copy", 2.0), scores("qk"), passes("mask", 6.0),
        Op("softmax", "forward", "softmax", ROWS * HEADS, ROWS), passes("dropped scores", 2.5),
        scores("av"), passes("back", 2.0), product("out", WIDTH, WIDTH),
        passes("dropout and sum", 3.5),
        Op("norm", "forward", "norm_2", ROWS, WIDTH, activation_bytes=2 * STREAM),
        product("up", 4 * WIDTH, WIDTH), passes("gelu", 2.0), product("down", WIDTH, 4 * WIDTH),
        passes("sum", 3.0),
    ]  # fmt: skip
    return Part("b", forward, rows=ROWS, width=WIDTH, heads=HEADS, length=ROWS, itemsize=2)


def bytes_of(part: Part) -> dict[str, int]:
    return {op.name: op.activation_bytes for op in part.forward}


@pytest.mark.parametrize("sequence", [False, True])
def test_heads_and_hidden_units_are_shared_out_and_the_stream_only_with_its_sequence(sequence):
    whole, own = block(), cut(block(), 4, sequence=sequence)
    before, after = bytes_of(whole), bytes_of(own)
    for name in ("copy", "mask", "dropped scores", "back", "gelu"):
        assert after[name] == before[name] // 4, name
    for name in ("norm_1", "dropout and sum", "norm_2", "sum"):
        assert after[name] == (before[name] // 4 if sequence else before[name]), name


def test_scores_are_made_again_with_all_that_lies_between_their_products():
    names = [op.name for op in scores_again(block().forward)]
    assert names == ["qk", "mask", "softmax", "dropped scores", "av"]


def test_ops_without_attention_work_on_no_heads():
    forward = [op for op in block().forward if op.kind != "attention"]
    assert around_attention(forward) == [] and scores_again(forward) == []
    assert around_attention([]) == []


def test_sums_run_beside_the_weight_gradients_of_what_attention_reads_and_of_what_widens():
    assert beside_sums(block()) == {"qkv", "up"}
    apart = [product(name, WIDTH, WIDTH) for name in ("q", "k", "v")]
    assert beside_sums(Part("b", [*apart, scores("qk"), product("out", WIDTH, WIDTH)])) == {
        "q", "k", "v"
    }  # fmt: skip


def test_gradients_are_summed_up_while_weight_gradients_are_made():
    found = cluster_step(machine_of(2), step_of(1, rows=4096, width=1024), ParallelPlan(tp=2))
    tasks = found.tasks
    own = [i for i, name in enumerate(tasks.names) if name == "backward blocks.0, weights"]
    sums = [
        i
        for i, name in enumerate(tasks.names)
        if name == "backward blocks.0" and tasks.streams[tasks.stream[i]].endswith("tensor")
    ]
    assert len(own) == 1 and len(sums) == 2
    start = {i: found.ends[i] - tasks.ticks[i] for i in (*own, *sums)}
    assert start[own[0]] == start[sums[0]] and found.ends[sums[0]] == start[sums[1]]
    # What comes behind has the summed gradients.
    update = tasks.names.index("update")
    assert found.ends[update] - tasks.ticks[update] == max(found.ends[i] for i in (*own, *sums))


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_sequence_parallel_gathers_each_products_input_once_more(micro_batches):
    step = step_of(2)
    plans = [ParallelPlan(tp=4, sequence=sequence, micro_batches=micro_batches)
             for sequence in (False, True)]  # fmt: skip
    apart, along = (cluster_step(machine_of(4), step, plan).sent_bytes for plan in plans)
    input_bytes = parts_of(step)[1].boundary_bytes
    again = 2 * 2 * micro_batches * sent_bytes("all_gather", input_bytes, 4)
    assert along - apart == pytest.approx(again)


def test_gathers_for_weight_gradients_are_over_before_these_begin():
    plan = ParallelPlan(tp=4, sequence=True)
    found = cluster_step(machine_of(4, fast_link=1e8), step_of(1), plan)
    tasks = found.tasks
    weights = tasks.names.index("backward blocks.0, weights")
    backward = [i for i, name in enumerate(tasks.names) if name == "backward blocks.0"]
    first = min(found.ends[i] - tasks.ticks[i] for i in backward)
    gathers = [i for i in backward if tasks.streams[tasks.stream[i]].endswith("tensor")][:2]
    assert found.ends[gathers[0]] - tasks.ticks[gathers[0]] == first  # with the first arithmetic
    assert found.ends[weights] - tasks.ticks[weights] >= found.ends[gathers[1]]


def test_stages_hand_on_shares_where_links_between_nodes_are_slow():
    # 8e8 bytes in shares of 1e8: 1e8 / 9e9 s between nodes, 7e8 / 8e10 s inside, latencies.
    found = handed_on(machine_of(8, 2), ParallelPlan(tp=8, pp=2), 8e8)
    assert found == pytest.approx((1e8 / 9e9 + 2e-5 + 7e8 / 8e10 + 7e-5, 8e8))
    assert handed_on(machine_of(8, 2), ParallelPlan(tp=8, pp=2, sequence=True), 8e8) == (
        pytest.approx((1e8 / 9e9 + 2e-5, 1e8))
    )


@given(st.floats(1e2, 1e10), st.sampled_from([1, 2, 4, 8]), st.floats(1e8, 1e12))
def test_handing_on_is_never_slower_than_sending_all_nor_faster_than_a_share(size, tp, slow):
    cluster = machine_of(8, 2, slow=slow)
    plan = ParallelPlan(tp=tp, pp=16 // tp)
    took, moved = handed_on(cluster, plan, size)
    least, _ = handed_on(cluster, ParallelPlan(tp=tp, pp=16 // tp, sequence=True), size)
    rate, latency = (cluster.inside.rate, 1e-5) if 2 * tp <= 8 else (slow * 0.9, 2e-5)
    assert least <= took <= (size / rate + latency) * (1 + 1e-12)
    assert size / tp <= moved <= size * (1 + 1e-12)
