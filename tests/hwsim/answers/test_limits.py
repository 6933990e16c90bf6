"""One vocabulary: what limits a price, and what the longest chain of a timeline goes through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import Mask, Workload, gemm, load_device
from hwsim.answers.explain import explain
from hwsim.answers.timeline import Timeline, TimelineBar, layer_timeline, step_timeline
from hwsim.estimate import BOUNDS

PHASES = ("forward", "grad_input", "grad_weight")
PIPELINED = ("wafer", "sigma-like", "systolic", "tpu-like")


def masked(m, n, k, density, phase, seed=0):
    mask = Mask(np.random.default_rng(seed).random((n, k)) < density)
    return gemm(m, n, k, mask, phase, name="up")


def bar(resource, kind, start, end):
    return TimelineBar(resource, kind, 0, "up", "forward", start, end)


def test_the_longest_chain_of_a_drawing_made_by_hand():
    """Two tiles: the second's weights are there long before the port is done with the first."""
    bars = (
        bar("channel 0", "weight", 0.0, 2.0), bar("channel 0", "weight", 2.0, 3.0),
        bar("array 0", "waits for weights", 0.0, 2.0), bar("array 0", "compute", 2.0, 3.0),
        bar("output port", "drain", 3.0, 8.0), bar("array 0", "compute", 3.0, 4.0),
        bar("output port", "drain", 8.0, 13.0), bar("channel 0", "output", 13.5, 14.0),
    )  # fmt: skip
    line = Timeline(bars, ("channel 0", "array 0", "output port"), 14.0, 1, 1)
    assert line.limits() == {"port": 10.0, "memory": 2.0 + 0.5 + 0.5, "compute": 1.0}


def test_filling_is_the_arrays_own_work_but_where_it_comes_through_ports():
    bars = (bar("fill 0", "fill", 0.0, 3.0), bar("array 0", "compute", 3.0, 4.0))
    rows = ("fill 0", "array 0")
    assert Timeline(bars, rows, 4.0, 1, 1).limits() == {"compute": 4.0}
    assert Timeline(bars, rows, 4.0, 1, 1, filling="port").limits() == {"port": 3.0, "compute": 1.0}
    assert layer_timeline(load_device("wafer"), gemm(64, 64, 64)).filling == "port"


@pytest.mark.parametrize("name", PIPELINED)
@pytest.mark.parametrize("phase", PHASES)
def test_the_chain_takes_the_whole_time_and_has_the_words_of_bounds(name, phase):
    device = load_device(name)
    for op in (masked(96, 256, 128, 0.1, phase), gemm(1, 300, 200, phase=phase)):
        line = layer_timeline(device, op)
        found = line.limits()
        assert sum(found.values()) == pytest.approx(line.seconds, rel=1e-6)
        assert set(found) <= set(BOUNDS) and all(s > 0 for s in found.values())
        assert list(found.values()) == sorted(found.values(), reverse=True)


def agree(device, op, clear):
    """Price and timeline name one limit, where it has more than the share `clear` of the time.

    The bound that a price calls imbalance is an array's work.
    """
    found = layer_timeline(device, op).limits()
    first, share = next((bound, s / sum(found.values())) for bound, s in found.items())
    if share > clear:
        bound = device.estimate(op).bound
        assert first == ("compute" if bound == "imbalance" else bound)


@settings(max_examples=30)
@given(
    st.integers(256, 2048), st.integers(256, 1024), st.integers(256, 1024),
    st.sampled_from([0.03, 0.1, 0.3, 1.0]), st.sampled_from(PHASES), st.integers(0, 9),
)  # fmt: skip
def test_a_wafer_is_limited_by_the_same_in_its_price_and_on_its_timeline(m, n, k, d, phase, seed):
    """Of products of many waves: a price keeps waves apart, so that small ones may differ."""
    device = load_device("wafer")
    op = masked(m, n, k, d, phase, seed)
    agree(device, op, clear=0.9)


@settings(max_examples=40)
@given(
    st.sampled_from(["sigma-like", "systolic", "tpu-like"]), st.integers(16, 256),
    st.integers(16, 256), st.integers(16, 256), st.sampled_from([0.03, 0.1, 0.3, 1.0]),
    st.sampled_from(PHASES), st.integers(0, 9),
)  # fmt: skip
def test_a_small_product_waits_for_memory_in_its_price_as_on_its_timeline(
    name, m, n, k, d, phase, seed
):
    device = load_device(name)
    op = masked(m, n, k, d, phase, seed)
    agree(device, op, clear=0.6)


def test_an_explanation_has_the_chain_of_its_timeline():
    device, op = load_device("wafer"), masked(512, 1024, 256, 0.1, "forward")
    found = explain(device, op)
    assert found.limits == layer_timeline(device, op).limits()
    assert next(iter(found.limits)) == found.estimate.bound == "port"
    assert explain(load_device("ideal"), op).limits == {}


def test_a_wait_for_weights_ends_when_they_are_there_and_filling_begins():
    device = load_device("tpu-like")
    line = layer_timeline(device, gemm(1, 1024, 1024))
    latency_s = device.machine().latency_cycles / device.clock_hz
    loads = max(s.end_s for s in line.segments if s.kind == "weight") + latency_s
    waits = line.waiting()
    assert waits["weights"] > 0 and waits["fill"] > 0
    for s in line.segments:
        if s.kind == "waits for weights":
            assert s.end_s <= loads * (1 + 1e-9)
        if s.kind == "waits for fill":
            fills = [f for f in line.segments if f.kind == "fill" and f.end_s == s.end_s]
            assert fills and min(f.start_s for f in fills) <= s.start_s


def test_a_steps_chain_goes_through_all_its_products():
    device = load_device("systolic")
    work = Workload(tuple(gemm(64, 64, 64, name=f"layer {i}") for i in range(3)))
    line = step_timeline(device, work)
    assert sum(line.limits().values()) == pytest.approx(line.seconds, rel=1e-6)
