"""What every device promises, whichever it is: each law for each shipped specification."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import Estimate, InputError, Mask, Op, Workload, device_names, gemm, load_device
from hwsim.estimate import BOUNDS

QUICK = settings(deadline=None, max_examples=25)
PHASES = ("forward", "grad_input", "grad_weight")
DEVICES = {name: load_device(name) for name in device_names()}
every_device = pytest.mark.parametrize("name", DEVICES)
SIZES = st.integers(1, 64)
# Models that have kernels for one dtype only; every other refusal breaks the contract.
ONLY_FLOAT32 = ("cpu",)


@st.composite
def masks(draw, n, k):
    density = draw(st.sampled_from([0.0, 0.02, 0.25, 0.9, 1.0]))
    array = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random((n, k)) < density
    if draw(st.booleans()):
        array[:: draw(st.integers(1, 4))] = False
    return Mask(array)


@st.composite
def gemms(draw, dtypes=("float32",)):
    m, n, k = draw(SIZES), draw(SIZES), draw(SIZES)
    mask = draw(st.none() | masks(n, k))
    return gemm(m, n, k, mask, draw(st.sampled_from(PHASES)), draw(st.sampled_from(dtypes)))


@st.composite
def others(draw, dtypes=("float32",)):
    """Ops that are no gemm."""
    kind = draw(st.sampled_from(["elementwise", "optimizer", "pack", "mask_update", "attention"]))
    dtype = draw(st.sampled_from(dtypes))
    n, k = draw(SIZES), draw(SIZES)
    if kind == "elementwise":
        phase = draw(st.sampled_from(["forward", "grad_input"]))
        return Op(kind, phase, "relu", dtype=dtype, dense_flops=n * k, activation_bytes=8 * n * k)
    if kind == "attention":
        phase, count = draw(st.sampled_from(["forward", "grad_input"])), draw(st.integers(1, 8))
        return Op(
            kind, phase, "attention", n, n, k, count, dtype,
            dense_flops=4 * n * n * k * count, activation_bytes=16 * n * k * count,
        )  # fmt: skip
    flops = {"optimizer": 10 * n * k, "pack": 0, "mask_update": 2 * n * k}[kind]
    if kind == "mask_update":
        return Op(
            kind, "update", "w", dtype=dtype, dense_flops=flops,
            activation_bytes=4 * n * k + n * k // 8, weight_bytes=4 * n * k,
        )  # fmt: skip
    moved = {"optimizer": 28 * n * k, "pack": 8 * n * k}[kind]
    mask = draw(masks(n, k)) if kind == "pack" else draw(st.none() | masks(n, k))
    return Op(
        kind, "update", "w", dtype=dtype, dense_flops=flops, weight_bytes=moved,
        weight_shape=(n, k), mask=mask,
    )  # fmt: skip


BOTH = ("float32", "bfloat16")
ops = st.one_of(gemms(BOTH), gemms(BOTH), others(BOTH))


def priced(device, op):
    """The kernels of an op; none where the device may refuse it, with its kernels' reasons."""
    try:
        return device.kernels(op)
    except InputError as error:
        assert device.model in ONLY_FLOAT32
        assert op.dtype != "float32"
        assert "has no kernel for" in str(error)
        assert f"dense: dtype is {op.dtype}" in str(error)
        return ()


@every_device
@QUICK
@given(ops)
def test_no_kernel_beats_the_roofline(name, op):
    device = DEVICES[name]
    for price in priced(device, op):
        assert price.seconds >= device.roofline(op) * (1 - 1e-9)


@every_device
@QUICK
@given(ops)
def test_the_interval_holds_the_expected_time_and_all_numbers_are_finite(name, op):
    for price in priced(DEVICES[name], op):
        assert 0 <= price.low_s <= price.seconds <= price.high_s
        assert price.bytes >= 0
        assert price.flops >= 0
        assert math.isfinite(price.high_s) == price.legal
        assert price.legal or price.reason


@every_device
@QUICK
@given(ops)
def test_kernel_and_bound_are_named(name, op):
    device = DEVICES[name]
    for price in priced(device, op):
        assert price.kernel
        assert price.kernel != "none"
        assert price.bound in BOUNDS
        assert set(price.by_bound) <= set(BOUNDS)
        if price.legal:
            assert math.fsum(price.by_kernel.values()) == pytest.approx(price.seconds, rel=1e-9)
            assert price.cycles == pytest.approx(device.cycles(price.seconds), rel=1e-9)


@every_device
@QUICK
@given(ops)
def test_the_estimate_is_the_first_and_fastest_of_the_kernels(name, op):
    device = DEVICES[name]
    kernels = priced(device, op)
    if kernels:
        assert device.estimate(op) is kernels[0]
        assert kernels[0].legal
        assert [e.seconds for e in kernels] == sorted(e.seconds for e in kernels)
        assert [e.legal for e in kernels] == sorted((e.legal for e in kernels), reverse=True)
        assert [e.kernel for e in kernels[0].rejected] == [e.kernel for e in kernels[1:]]


@every_device
@QUICK
@given(ops)
def test_the_same_op_gets_the_same_price_whatever_was_asked_before(name, op):
    first = priced(DEVICES[name], op)
    assert priced(DEVICES[name], op) == first
    again = None if op.mask is None else Mask(op.mask.array)
    assert priced(DEVICES[name], op.with_mask(again)) == first
    assert priced(load_device(name), op) == first


@every_device
@QUICK
@given(st.lists(st.one_of(gemms(), others()), max_size=5))
def test_a_workload_costs_the_sum_of_its_ops_or_less_with_prefetch(name, parts):
    device = DEVICES[name]
    whole = device.estimate(Workload(tuple(parts)))
    total = Estimate.total([device.estimate(op) for op in parts])
    assert whole.flops == total.flops
    assert whole.bytes == total.bytes
    if getattr(device, "prefetch", 0):
        assert whole.seconds <= total.seconds * (1 + 1e-9)
        floor = sum(device.roofline(op) for op in parts)
        assert whole.seconds >= floor * (1 - 1e-9)
        assert whole.low_s <= whole.seconds <= whole.high_s
    elif hasattr(device, "step_spread"):
        # A step's own interval, from measured steps, lies within the sum of its parts'.
        assert whole.seconds == total.seconds and whole.by_kernel == total.by_kernel
        assert total.low_s <= whole.low_s <= whole.seconds <= whole.high_s <= total.high_s
    else:
        assert whole == total


@every_device
@QUICK
@given(st.lists(st.one_of(gemms(), others()), min_size=1, max_size=5))
def test_ops_priced_at_once_cost_what_each_costs_alone(name, parts):
    device = DEVICES[name]
    fresh = [op if op.mask is None else op.with_mask(Mask(op.mask.array)) for op in parts]
    device.estimate(Workload(tuple(parts)))  # all at once; what it keeps is asked for below
    assert [device.kernels(op) for op in parts] == [device.kernels(op) for op in fresh]


@every_device
def test_the_breakdown_is_the_ops_in_order_with_their_prices(name):
    device = DEVICES[name]
    workload = Workload(tuple(gemm(16, 32, 8, phase=p) for p in PHASES))
    breakdown = device.breakdown(workload)
    assert [op for op, _ in breakdown] == list(workload.ops)
    assert [e for _, e in breakdown] == [device.estimate(op) for op in workload.ops]


@every_device
@pytest.mark.parametrize("item", [None, "gemm", 3], ids=repr)
def test_only_ops_and_workloads_are_priced(name, item):
    with pytest.raises(InputError, match=r"allowed is hwsim\.Op"):
        DEVICES[name].estimate(item)


@QUICK
@given(SIZES, SIZES, SIZES, st.sampled_from(PHASES), st.data())
def test_the_order_of_outputs_and_inputs_is_nothing_to_the_ideal_device(m, n, k, phase, data):
    mask = data.draw(masks(n, k))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mixed = Mask(mask.array[rng.permutation(n)][:, rng.permutation(k)])
    device = DEVICES["ideal"]
    one, two = (device.estimate(gemm(m, n, k, x, phase)) for x in (mask, mixed))
    assert one == two
    assert one.seconds == 2 * m * mask.nnz / device.peak_flops


@QUICK
@given(SIZES, SIZES, SIZES, st.sampled_from(PHASES), st.data())
def test_equal_counts_by_blocks_cost_the_same_on_the_wafer(m, n, k, phase, data):
    """A cycle of two rows and two columns moves nonzeros and leaves every count as it was."""
    array = data.draw(masks(n, k)).array.copy()
    if n > 1 and k > 1:
        corners = np.ix_([0, n - 1], [0, k - 1])
        array[corners] = [[True, False], [False, True]]
        moved = array.copy()
        moved[corners] = [[False, True], [True, False]]
    else:
        moved = array.copy()
    one, two = Mask(array), Mask(moved)
    for a, b in zip(one.blocks, two.blocks, strict=True):
        np.testing.assert_array_equal(a, b)
    device = DEVICES["wafer"]
    assert device.kernels(gemm(m, n, k, one, phase)) == device.kernels(gemm(m, n, k, two, phase))


@every_device
@QUICK
@given(
    phase=st.sampled_from(PHASES), m=st.sampled_from((1, 64, 512)),
    n=st.sampled_from((8, 64, 512)), k=st.sampled_from((8, 64, 1024)),
)  # fmt: skip
def test_nothing_is_faster_than_dense_at_density_one(name, phase, m, n, k):
    device, full = DEVICES[name], Mask(np.ones((n, k), bool))
    dense = device.estimate(gemm(m, n, k, None, phase)).seconds
    for kernel in device.kernels(gemm(m, n, k, full, phase)):
        assert not kernel.legal or kernel.seconds >= dense * (1 - 1e-9)
