"""`fusion = "on_chip"`: results that stay on chip for the next op."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, Workload, gemm, load_device
from hwsim.accelerators.on_chip import Stays, staying
from hwsim.pipeline import fast
from hwsim.pipeline.reference import simulate

NAMES = ("systolic", "tpu-like", "sigma-like")


def relu(elements: int, name: str, phase: str = "forward") -> Op:
    return Op(
        "elementwise", phase, name, dense_flops=elements, activation_bytes=8 * elements
    )  # fmt: skip


def forward(m: int, widths: list[int], density: float = 1.0, seed: int = 0) -> Workload:
    """Layers with a function between them, no backward pass."""
    rng, ops = np.random.default_rng(seed), []
    for i, (k, n) in enumerate(zip(widths, widths[1:], strict=False)):
        mask = None if density == 1.0 else Mask(rng.random((n, k)) < density)
        ops += [gemm(m, n, k, mask, name=f"layer {i}"), relu(m * n, f"relu {i}")]
    return Workload(tuple(ops))


def training(m: int, widths: list[int]) -> Workload:
    """The same with its backward pass."""
    ops = list(forward(m, widths).ops)
    for op in reversed(forward(m, widths).ops):
        if op.kind == "elementwise":
            ops.append(relu(op.dense_flops, op.name, "grad_input"))
            continue
        ops += [
            gemm(op.m, op.n, op.k, phase=p, name=op.name) for p in ("grad_input", "grad_weight")
        ]
    return Workload(tuple(ops))


def test_what_stays_is_what_the_next_op_reads():
    ops = forward(64, [256, 512, 128]).ops
    assert staying(ops, math.inf) == [
        Stays(False, True), Stays(True, True), Stays(True, True), Stays(True, False),
    ]  # fmt: skip
    # 64 × 512 numbers do not fit, 64 × 128 do.
    assert staying(ops, 4 * 64 * 500) == [
        Stays(), Stays(), Stays(False, True), Stays(True, False)
    ]  # fmt: skip


def test_what_the_backward_pass_reads_again_is_written_all_the_same():
    ops = training(64, [256, 512]).ops  # layer, relu; relu back, layer back twice
    assert staying(ops, math.inf)[:2] == [Stays(), Stays(read=True)]
    assert staying(ops, math.inf)[2:4] == [Stays(), Stays(read=True)]  # dy is read for dW again
    assert staying([op.with_name("") for op in ops], math.inf)[0] == Stays()


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_that_fits_is_spared_its_traffic(name):
    step = forward(512, [256, 1024, 256])
    off = load_device(name, dram_bandwidth=5e10)
    on = load_device(name, dram_bandwidth=5e10, fusion="on_chip")
    assert on.estimate(step).seconds < 0.6 * off.estimate(step).seconds
    assert on.estimate(step).flops == off.estimate(step).flops
    assert sum(on.seconds_of(step)) == pytest.approx(on.estimate(step).seconds)
    spared = 4 * 512 * (2 * 1024 + 2 * 1024 + 2 * 256)
    traffic = [sum(e.bytes for _, e in d.breakdown(step)) for d in (off, on)]
    assert traffic[0] - traffic[1] >= spared
    assert on.estimate(step.ops[0]) == off.estimate(step.ops[0])  # alone there is no next op


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(NAMES), st.integers(1, 600),
    st.lists(st.integers(1, 700), min_size=2, max_size=4), st.sampled_from([1.0, 0.1]),
    st.sampled_from([2**12, 2**17, 2**21, 2**25]), st.booleans(), st.integers(0, 1),
)  # fmt: skip
def test_it_is_never_slower_and_nothing_beats_the_arithmetic(
    name, m, widths, density, size, backward, prefetch
):
    buffers = {"input_buffer_bytes": size, "output_buffer_bytes": size, "prefetch": prefetch}
    step = training(m, widths) if backward else forward(m, widths, density)
    try:
        before = load_device(name, **buffers).estimate(step)
    except InputError:
        return
    device = load_device(name, fusion="on_chip", **buffers)
    after = device.estimate(step)
    assert after.seconds <= before.seconds
    assert after.flops == before.flops
    peak = 2 * device.macs_per_cycle * device.clock_hz
    assert after.seconds >= sum(op.flops for op in step.ops if op.kind == "gemm") / peak
    assert after.low_s <= after.seconds <= after.high_s
    if all(4 * m * width > size / 2 for width in widths[1:]):  # nothing fits
        assert after == before
    machine = device.machine()
    for _, tiles in device.step_tiles(step):
        if len(tiles) < 150:
            assert simulate(machine, tiles).cycles == fast.simulate(machine, tiles).cycles


@pytest.mark.parametrize("name", NAMES)
def test_the_price_of_an_op_that_stays_is_its_run(name):
    step = forward(512, [256, 1024, 256])
    device = load_device(name, fusion="on_chip", overhead_s=0.0, prefetch=0)
    price = {op.name: e for op, e in device.breakdown(step)}
    for op, tiles in device.step_tiles(step):
        cycles = fast.simulate(device.machine(), tiles).cycles
        assert price[op.name].cycles == pytest.approx(cycles, rel=1e-9)
        moved = tiles.weight_bytes.sum() + tiles.input_bytes.sum() + tiles.output_bytes.sum()
        assert price[op.name].bytes == moved


@pytest.mark.parametrize("value", ["on", "", 1, True, "ON_CHIP"])
def test_other_values_are_refused_in_one_line(value):
    with pytest.raises(InputError, match=r"fusion: value is .*; allowed: off, on_chip") as refused:
        load_device("tpu-like", fusion=value)
    assert "\n" not in str(refused.value)
