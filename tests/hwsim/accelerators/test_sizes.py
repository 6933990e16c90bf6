"""Products of any size on the shipped accelerators: small, thin, and beyond what can be walked."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, gemm, load_device
from hwsim.accelerators import scaled

NAMES = ("sigma-like", "tpu-like", "systolic")
PHASES = ("forward", "grad_input", "grad_weight")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("shape", [(64, 4096, 16384), (64, 16384, 4096), (200_000, 16384, 16),
                                   (200_000, 16, 16384), (1, 50257, 768)])  # fmt: skip
@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
@pytest.mark.parametrize("name", NAMES)
def test_ordinary_layers_are_priced_whatever_the_buffers(name, dataflow, shape, phase):
    if name == "sigma-like" and dataflow != "ws":
        return
    changes = {} if name == "sigma-like" else {"dataflow": dataflow}
    device, op = load_device(name, **changes), gemm(*shape, phase=phase)
    assert device.roofline(op) <= device.estimate(op).seconds < math.inf


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(NAMES), st.sampled_from(PHASES), st.sampled_from([1.0, 0.1]),
    *[st.sampled_from([1, 3, 16, 100, 2048])] * 3, st.sampled_from([2**16, 2**18, 2**30]),
)  # fmt: skip
def test_tiles_fit_the_buffers_and_keep_every_byte_and_cycle(name, phase, density, m, n, k, size):
    buffers = dict.fromkeys(("input_buffer_bytes", "output_buffer_bytes"), size)
    device, roomy = load_device(name, **buffers), load_device(name)
    mask = None if density == 1.0 else Mask(np.random.default_rng(0).random((n, k)) < density)
    op = gemm(m, n, k, mask, phase)
    tiles = device.tiles(op)
    assert tiles.input_bytes.max() <= size and tiles.output_bytes.max() <= size
    assert tiles.output_bytes.sum() == roomy.tiles(op).output_bytes.sum()
    assert device.estimate(op).bytes == (
        tiles.weight_bytes.sum() + tiles.input_bytes.sum() + tiles.output_bytes.sum()
    )


BUFFERS = ("weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes")


def seconds_with(name, op, settings, buffers) -> float:
    """Of an op; infinite where a buffer is too small for one tile."""
    try:
        return load_device(name, **settings, **buffers).estimate(op).seconds
    except InputError as error:
        assert "buffer_bytes is smaller than tile" in str(error)
        return math.inf


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(NAMES), st.sampled_from(["ws", "is", "os"]), st.sampled_from(PHASES),
    st.tuples(*[st.integers(1, 2500)] * 3), st.sampled_from([1.0, 0.5, 0.1, 0.02]),
    st.tuples(*[st.integers(2**13, 2**25)] * 3), st.sampled_from(BUFFERS),
    st.sampled_from([1.01, 1.5, 2.0, 7.3, 100.0]), st.sampled_from([1e10, 3e11, 2e12]),
)  # fmt: skip
def test_more_buffer_is_never_slower(
    name, dataflow, phase, shape, density, sizes, which, factor, bandwidth
):
    m, n, k = shape
    mask = None if density == 1.0 else Mask(np.random.default_rng(m).random((n, k)) < density)
    changes = {"dram_bandwidth": bandwidth}
    if name != "sigma-like":
        changes["dataflow"] = dataflow
    small = dict(zip(BUFFERS, map(float, sizes), strict=True))
    large = small | {which: float(int(small[which] * factor))}
    op = gemm(m, n, k, mask, phase)
    assert seconds_with(name, op, changes, large) <= seconds_with(name, op, changes, small)


@pytest.mark.parametrize("which", BUFFERS)
@pytest.mark.parametrize("name", NAMES)
def test_neighbouring_buffers_of_a_layer_are_never_slower(name, which):
    mask = Mask(np.random.default_rng(0).random((768, 3072)) < 0.1)
    for phase in PHASES:
        op = gemm(512, 768, 3072, mask, phase)
        sizes = [2.0**15 * 1.07**step for step in range(100)]
        seconds = [seconds_with(name, op, {}, {which: size}) for size in sizes]
        assert seconds == sorted(seconds, reverse=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2**50, 64, 64), (64, 2**50, 64), (64, 64, 2**50),
                                   (2**50, 2**50, 1), (10**6, 4096, 4096)])  # fmt: skip
def test_huge_products_are_priced_in_proportion(name, shape):
    device = load_device(name)
    device.estimate(gemm(8, 8, 8))
    for phase in PHASES:
        op = gemm(*shape, phase=phase)
        estimate = device.estimate(op)
        assert device.roofline(op) <= estimate.seconds < math.inf
        assert estimate.low_s <= estimate.seconds <= estimate.high_s
        assert estimate.flops == op.flops
        twice = gemm(2 * shape[0], *shape[1:], phase=phase)
        if shape[0] > 2**40:
            assert device.estimate(twice).seconds == pytest.approx(2 * estimate.seconds, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("phase", PHASES)
def test_what_is_scaled_meets_what_is_walked(name, phase, monkeypatch):
    op = gemm(2**17, 512, 384, phase=phase)
    walked = load_device(name, overhead_s=0.0).estimate(op)
    monkeypatch.setattr(scaled, "_MOST_SIZE", 2**16)
    found = load_device(name, overhead_s=0.0).estimate(op)
    assert found.seconds == pytest.approx(walked.seconds, rel=0.25)
    assert found.flops == walked.flops


def test_long_gradients_are_cut_along_their_contraction():
    # Whole rows of 2^17 numbers would be held by fours and all of x read again for each four.
    device = load_device("sigma-like")
    shorter, longer = (gemm(m, 512, 384, phase="grad_weight") for m in (2**12, 2**17))
    each = device.estimate(shorter).seconds
    assert device.estimate(longer).seconds == pytest.approx(32 * each, rel=0.1)
    assert device.estimate(longer).bytes <= 3 * longer.bytes
    tiles = device.tiles(longer)
    assert device.run(longer).cycles <= device.estimate(longer).cycles
    assert tiles.output_bytes.sum() == 4 * 512 * 384


@pytest.mark.parametrize("name", ["ideal", "sigma-like", "systolic", "wafer", "zen3"])
def test_numpy_integers_do_not_overflow(name):
    sizes = {"m": np.int32(2**16), "n": np.int32(2**12), "k": np.int32(2**12)}
    flops = 2 * 2**16 * 2**12 * 2**12
    bits = np.random.default_rng(0).random((2**12, 2**12)) < 0.1
    ops = [
        Op("gemm", "forward", "x", **given, dense_flops=kind(flops), activation_bytes=kind(2**31),
           weight_bytes=kind(2**26), weight_shape=(kind(2**12), kind(2**12)), mask=Mask(bits))
        for given, kind in (({k: int(v) for k, v in sizes.items()}, int), (sizes, np.int64))
    ]  # fmt: skip
    device = load_device(name)
    assert device.estimate(ops[0]).seconds == device.estimate(ops[1]).seconds > 0
    assert all(type(value) is int for value in ops[1].signature[3:7])


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"m": 2.0}, "m: value is 2.0"), ({"dense_flops": 1.5}, "dense_flops: value is 1.5"),
     ({"weight_bytes": -1}, "weight_bytes: value is -1"), ({"k": True}, "k: value is True"),
     ({"weight_shape": (4,)}, "weight_shape: value is"),
     ({"activation_bytes": float("nan")}, "activation_bytes: value is nan")],
)  # fmt: skip
def test_sizes_that_are_no_integers_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        Op(**{"kind": "gemm", "phase": "forward", "m": 4, "n": 4, "k": 4, **changes})


def test_cycles_are_whole_numbers():
    memoryless = dict.fromkeys(
        ("dram_bandwidth", "weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes"),
        math.inf,
    )
    device = load_device("systolic", rows=16, cols=16, dram_latency_s=0.0, **memoryless)
    for m in range(1, 200):
        cycles = device.estimate(gemm(m, 16, 16)).cycles
        assert cycles == int(cycles)
