"""Steps on clusters: literal cases, laws, two engines that agree, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_clusters import H100, machine_of, step_of

from hwsim import InputError, Mask
from hwsim.cluster import fast, reference
from hwsim.cluster.collectives import seconds, sent_bytes
from hwsim.cluster.data_parallel import form_names
from hwsim.cluster.forms.pipeline import order
from hwsim.cluster.machine import Cluster, Link, cluster_names, load_cluster
from hwsim.cluster.memory import block_bytes, need, refuse
from hwsim.cluster.parts import Part, parts_of
from hwsim.cluster.plan import ParallelPlan, parse_plan
from hwsim.cluster.search import per_sample, search
from hwsim.cluster.step import cluster_step
from hwsim.cluster.tasks import Tasks
from hwsim.cluster.trace import events as trace_events
from hwsim.cluster.trace import write_trace


def test_ring_moves_what_the_formula_says() -> None:
    cluster = machine_of()
    assert sent_bytes("all_reduce", 8e9, 8) == 14e9
    assert seconds(cluster, "all_gather", 8e9, 8) == pytest.approx(7e9 / 8e10 + 7e-5)
    assert seconds(cluster, "all_reduce", 8e9, 1) == 0.0


def test_a_ring_over_nodes_leaves_each_by_all_its_cards() -> None:
    cluster = machine_of(nodes=4, slow=1e10)
    assert seconds(cluster, "all_gather", 3.2e9, 32) == pytest.approx(
        3.1e9 / 7.2e10 + 28 * 1e-5 + 3 * 2e-5
    )


def test_what_runs_beside_a_collective_pays_for_it() -> None:
    def takes(slows: float) -> float:
        link = Link(1e11, 1e-5, 0.8, slows)
        cluster = Cluster("test", H100, 1, 8, 8e10, link, link)
        return cluster_step(cluster, step_of(), ParallelPlan("fsdp", 8)).seconds

    assert takes(0.0) < takes(0.15) < takes(0.8)
    alone = Cluster("test", H100, 1, 1, 8e10, Link(1e11, 1e-5, 0.8, 0.8), Link(1e11, 0.0, 0.8))
    still = Cluster("test", H100, 1, 1, 8e10, Link(1e11, 1e-5, 0.8, 0.0), Link(1e11, 0.0, 0.8))
    assert cluster_step(alone, step_of(), ParallelPlan()).seconds == (
        cluster_step(still, step_of(), ParallelPlan()).seconds
    )
    with pytest.raises(InputError, match=r"slows: value is 1\.5; allowed is 0 to 1"):
        Link(1e11, 1e-5, 0.8, 1.5)


def test_one_forward_one_backward() -> None:
    assert [k + str(m) for k, m, _ in order(0, 4, 4, 1)] == [
        "F0",
        "F1",
        "F2",
        "F3",
        "B0",
        "B1",
        "B2",
        "B3",
    ]
    assert [k + str(m) for k, m, _ in order(3, 4, 2, 1)] == ["F0", "B0", "F1", "B1"]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_every_micro_batch_passes_every_chunk_once(stages: int, groups: int, chunks: int) -> None:
    micro = groups * stages
    for stage in range(stages):
        done = order(stage, stages, micro, chunks)
        for kind in "FB":
            mine = sorted((m, c) for k, m, c in done if k == kind)
            assert mine == [(m, c) for m in range(micro) for c in range(chunks)]


@st.composite
def _graphs(draw: st.DrawFn) -> Tasks:
    tasks = Tasks()
    for i in range(draw(st.integers(1, 25))):
        waits = draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else []
        stream = draw(st.sampled_from("abcd"))
        tasks.add(f"card {stream}", str(i), draw(st.integers(0, 50)) * 1e-9, waits)
    return tasks


@settings(max_examples=2000, deadline=None)
@given(_graphs())
def test_reference_and_recurrence_agree_to_the_tick(tasks: Tasks) -> None:
    np.testing.assert_array_equal(reference.ends(tasks), fast.ends(tasks))


PLANS = ("ddp", "zero1", "zero2", "fsdp", "grad_op", "fsdp,m=2", "tp=4,dp=2", "tp=8,sequence=1",
         "pp=4,dp=2,m=4", "pp=2,tp=2,dp=2,v=2,m=4,recompute=full",
         "fsdp,recompute=full")  # fmt: skip


@pytest.mark.parametrize("text", PLANS)
def test_engines_agree_on_whole_plans(text: str) -> None:
    found = cluster_step(machine_of(), step_of(), parse_plan(text, 8))
    np.testing.assert_array_equal(found.ends, reference.ends(found.tasks))


@pytest.mark.parametrize("form", form_names())
def test_one_card_is_the_device(form: str) -> None:
    step = step_of()
    found = cluster_step(machine_of(1), step, ParallelPlan(form))
    assert found.seconds == pytest.approx(H100.estimate(step).seconds, rel=1e-4)
    assert found.sent_bytes == 0.0


@pytest.mark.parametrize("text", PLANS)
def test_more_bandwidth_is_never_slower(text: str) -> None:
    plan, step = parse_plan(text, 8), step_of()
    times = [cluster_step(machine_of(fast_link=b), step, plan).seconds for b in (1e9, 1e10, 1e12)]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("text", PLANS)
def test_nothing_beats_compute_or_the_link(text: str) -> None:
    cluster = machine_of(fast_link=1e9)
    found = cluster_step(cluster, step_of(), parse_plan(text, 8))
    assert found.seconds >= found.compute_s * (1 - 1e-9)
    if found.plan.pp == 1:
        assert found.seconds >= found.sent_bytes / cluster.inside.rate * (1 - 1e-6)


def test_memory_falls_from_form_to_form() -> None:
    parts = parts_of(step_of(8, width=1024))
    held = [
        need(parts, ParallelPlan(form, 8)).states for form in ("ddp", "zero1", "zero2", "zero3")
    ]
    assert held == sorted(held, reverse=True) and len(set(held)) == 4
    assert (
        need(parts, ParallelPlan("ddp", 8)).moments
        == 8 * need(parts, ParallelPlan("zero1", 8)).moments
    )


def test_activations_by_the_published_formula() -> None:
    part = Part("b", rows=4 * 2048, width=6144, heads=4 * 64, length=2048, itemsize=2, scores=True)
    size = 4 * 2048 * 6144
    plain = block_bytes(part, ParallelPlan(tp=8))
    assert plain == pytest.approx(size * (10 + 24 / 8 + 5 * 64 * 2048 / (6144 * 8)))
    short = block_bytes(part, ParallelPlan(tp=8, sequence=True, recompute="selective"))
    assert short == pytest.approx(size * 34 / 8)
    assert block_bytes(part, ParallelPlan(tp=8, recompute="full")) == 2 * size


def test_values_alone_move_the_active_share() -> None:
    mask = Mask(np.arange(1024 * 256).reshape(1024, 256) % 4 == 0)
    masked = step_of(masks={f"blocks.{i}.up": mask for i in range(4)})
    whole = cluster_step(machine_of(), masked, ParallelPlan("ddp", 8)).sent_bytes
    less = cluster_step(machine_of(), masked, ParallelPlan("ddp", 8, values=True)).sent_bytes
    assert less / whole == pytest.approx((0.25 + 1) / 2)


def test_search_finds_what_fits_and_keeps_only_the_front() -> None:
    found = search(machine_of(), step_of())
    assert all(one.fits for one in found)
    assert [per_sample(s) for s in found] == sorted(per_sample(s) for s in found)
    memory = [s.need.total for s in found]
    assert memory == sorted(memory, reverse=True)


def test_a_trace_has_every_task(tmp_path) -> None:
    found = cluster_step(machine_of(), step_of(), parse_plan("pp=4,dp=2,m=4", 8))
    write_trace(tmp_path / "t.json", found.tasks, found.ends)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert sum(e["ph"] == "X" for e in events) == len(found.tasks.names)
    assert events == trace_events(found.tasks, found.ends)
    assert max(e["ts"] + e["dur"] for e in events if e["ph"] == "X") == pytest.approx(
        found.seconds * 1e6
    )


@pytest.mark.parametrize("name", cluster_names())
def test_shipped_clusters_say_where_their_numbers_are_from(name: str) -> None:
    cluster = load_cluster(name)
    assert cluster.sources and all(cluster.sources.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tp=3", "dp × tp × pp is 1 × 3 × 1 = 3; allowed is the number of cards, 8"),
        ("dpp", "parallel form"),
        ("tp=x", "tp: value is 'x'; allowed is an integer"),
        ("pp=8,m=8", "pp: 8 stages of 1 chunks are 8 pieces; allowed is at most one"),
        ("tp=2,v=2", "interleave: value is 2; allowed with pp = 1, which has no stages, is 1"),
        ("pp=2,v=2,m=3", "micro_batches: value is 3; allowed with interleaved stages"),
    ],
)
def test_bad_plans_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        cluster_step(machine_of(), step_of(), parse_plan(text, 8))
    assert said in str(error.value)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="tp: value is 16; allowed is a divisor of the 8 heads"):
        cluster_step(machine_of(16), step_of(), ParallelPlan(tp=16))


def test_a_link_without_bandwidth_is_refused(tmp_path) -> None:
    text = (
        'device = "h100_sxm"\nnodes = 1\ncards_per_node = 8\n'
        'memory_bytes = { value = 8e10, unit = "B", source = "x" }\n'
    )
    for label, rate in (("inside", 0.0), ("between", 1e9)):
        text += (
            f'[{label}]\nbytes_per_s = {{ value = {rate}, unit = "B/s", source = "x" }}\n'
            'latency_s = { value = 1e-5, unit = "s", source = "x" }\n'
            'share = { value = 0.9, unit = "1", source = "x" }\n'
        )
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=r"inside.bytes_per_s: value is 0.0; allowed is above 0"):
        load_cluster(tmp_path / "c.toml")


def test_what_fits_nowhere_is_refused_with_what_would() -> None:
    with pytest.raises(InputError, match="try fsdp, recompute=full"):
        refuse(9e10, 8e10, ParallelPlan("ddp", 8))
    with pytest.raises(InputError, match=r"no plan fits 8 cards of 1\.00 MB"):
        search(Cluster("s", H100, 1, 8, 1e6, Link(1e11, 0, 1), Link(1e10, 0, 1)), step_of())
