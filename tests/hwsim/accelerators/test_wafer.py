"""Weight streaming: the closed form, and what the lie of the nonzeros is worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import Mask, Op, gemm, load_device

QUICK = settings(deadline=None, max_examples=40)
PHASES = ("forward", "grad_input", "grad_weight")
WAVE = 128
COLUMNS = 8
# Everything but the columns is fast enough not to matter. 16 bytes: 4 float32 a cycle.
COLUMNS_ONLY = {
    "clock_hz": 1e9, "pe_rows": 4, "pe_columns": COLUMNS, "datapath_bytes": 16,
    "nonzero_overhead": 1.0, "stream_bandwidth": 1e30, "broadcast_bytes": 1e20, "port_bytes": 1e20,
}  # fmt: skip


def wafer(**more):
    return load_device("wafer", **(COLUMNS_ONLY | more))


def kernels(device, op):
    return {e.kernel: e for e in device.kernels(op)}


def sparse(device, op):
    return kernels(device, op)["sparse"]


def uniform(waves, features, q, seed=0, placement="interleaved"):
    """q nonzeros in every PE column of every wave, at random places."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((waves * WAVE, features), bool)
    each = features // COLUMNS
    for w in range(waves):
        for c in range(COLUMNS):
            mine = np.arange(c, features, COLUMNS)
            if placement == "contiguous":
                mine = np.arange(c * each, (c + 1) * each)
            rows, places = np.divmod(rng.permutation(WAVE * each)[:q], each)
            mask[w * WAVE + rows, mine[places]] = True
    return mask


def oriented(array, phase):
    """A mask whose outputs in `phase` are the rows of `array`."""
    return Mask(array.T if phase == "grad_input" else array)


def product(m, mask, phase="forward", **more):
    return gemm(m, *mask.shape, mask, phase, **more)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("placement", ["interleaved", "contiguous"])
@QUICK
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 100), st.integers(1, 100),
    st.integers(0, 9),
)  # fmt: skip
def test_q_nonzeros_in_every_column_of_every_wave_take_the_closed_form(
    phase, placement, waves, each, q, m, seed
):
    array = uniform(waves, each * COLUMNS, q, seed, placement)
    tokens = -(-m // 4)
    per_nonzero = -(-tokens // 4) + 1.0
    price = sparse(wafer(placement=placement), product(m, oriented(array, phase), phase))
    assert price.cycles == pytest.approx(waves * q * per_nonzero, rel=1e-9)


@pytest.mark.parametrize(
    ("overrides", "cycles"),
    [
        # 2 waves of 8 columns of 10 nonzeros; 16 tokens are 4 a PE, one cycle, and one to receive.
        ({}, 2 * 10 * 2),
        ({"nonzero_overhead": 0.0}, 2 * 10 * 1),
        ({"datapath_bytes": 4}, 2 * 10 * 5),
        # 4 + 2 bytes at one byte a cycle down each column.
        ({"index_bytes": 2, "broadcast_bytes": 1.0}, 2 * 10 * 6),
        # 160 nonzeros of 6 bytes at 1 byte a cycle for all columns together.
        ({"index_bytes": 2, "stream_bandwidth": 1e9}, 160 * 6),
    ],
    ids=str,
)
def test_a_case_worked_out_by_hand(overrides, cycles):
    op = product(16, Mask(uniform(2, 32, 10)))
    assert sparse(wafer(**overrides), op).cycles == pytest.approx(cycles, rel=1e-9)


@pytest.mark.parametrize("phase", ["forward", "grad_input"])
def test_only_outputs_with_a_nonzero_leave_through_the_port(phase):
    array = np.zeros((256, 16), bool)
    array[[0, 5, 200], [1, 2, 3]] = True
    op = product(16, oriented(array, phase), phase)
    # 3 active outputs, 4 tokens a PE, 4 bytes each, a hundredth of a byte a cycle.
    assert sparse(wafer(port_bytes=0.01), op).cycles == pytest.approx(3 * 4 * 4 / 0.01, rel=1e-9)
    assert sparse(wafer(port_bytes=0.01), op).bound == "port"


@pytest.mark.parametrize("phase", PHASES)
@QUICK
@given(st.integers(1, 2), st.integers(1, 40), st.integers(0, 9))
def test_the_same_nonzeros_in_one_column_are_never_faster(phase, waves, q, seed):
    even = uniform(waves, 4 * COLUMNS, q, seed)
    piled = np.zeros_like(even)
    mine = np.arange(0, even.shape[1], COLUMNS)
    for w in range(waves):
        rows, places = np.divmod(np.arange(q * COLUMNS), len(mine))
        piled[w * WAVE + rows, mine[places]] = True
    assert piled.sum() == even.sum()
    for more in ({}, {"stream_bandwidth": 1e10}):
        device = wafer(**more)
        one = sparse(device, product(64, oriented(even, phase), phase))
        two = sparse(device, product(64, oriented(piled, phase), phase))
        assert two.seconds >= one.seconds * (1 - 1e-9)
    assert two.flops == one.flops
    slow = sparse(wafer(), product(64, oriented(piled, phase), phase))
    fast = sparse(wafer(), product(64, oriented(even, phase), phase))
    assert slow.seconds == pytest.approx(COLUMNS * fast.seconds, rel=1e-9)
    assert (fast.bound, slow.bound) == ("compute", "imbalance")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_outputs_without_a_nonzero_cost_nothing(phase, where):
    array = uniform(2, 32, 17)
    empty = np.zeros((WAVE, 32), bool)
    parts = {
        "before": [empty, array], "after": [array, empty],
        "between": [array[:WAVE], empty, array[WAVE:]],
    }[where]  # fmt: skip
    more = np.concatenate(parts)
    for overrides in ({}, {"port_bytes": 0.1}, {"stream_bandwidth": 1e9}):
        device = wafer(**overrides)
        short = sparse(device, product(16, oriented(array, phase), phase))
        long = sparse(device, product(16, oriented(more, phase), phase))
        assert long.seconds == pytest.approx(short.seconds, rel=1e-9)


@pytest.mark.parametrize("phase", PHASES)
def test_a_mask_without_a_nonzero_takes_no_time(phase):
    op = product(16, Mask(np.zeros((130, 33), bool)), phase)
    best = load_device("wafer").estimate(op)
    assert (best.seconds, best.kernel, best.bound) == (0.0, "sparse", "none")


@QUICK
@given(
    st.sampled_from(PHASES), st.integers(1, 300), st.integers(1, 64), st.integers(1, 200),
    st.floats(0, 1), st.floats(1e8, 1e13), st.booleans(),
)  # fmt: skip
def test_half_the_stream_is_never_faster(phase, n, k, m, density, bandwidth, masked):
    mask = Mask(np.random.default_rng(0).random((n, k)) < density) if masked else None
    op = gemm(m, n, k, mask, phase)
    fast = kernels(load_device("wafer", stream_bandwidth=bandwidth), op)
    slow = kernels(load_device("wafer", stream_bandwidth=bandwidth / 2), op)
    assert set(slow) == set(fast) == ({"sparse", "dense"} if masked else {"dense"})
    assert all(slow[name].seconds >= fast[name].seconds * (1 - 1e-9) for name in fast)


def test_a_stream_that_limits_takes_twice_as_long_at_half_the_speed():
    op = product(1, Mask(uniform(2, 64, 50)))
    fast, slow = (sparse(wafer(stream_bandwidth=b), op) for b in (1e6, 5e5))
    assert slow.seconds == pytest.approx(2 * fast.seconds, rel=1e-9)
    assert slow.bound == "memory"


def test_neighbouring_features_share_a_column_only_when_placed_contiguously():
    blocky = np.zeros((WAVE, 32), bool)
    blocky[:, :4] = True  # one column's features when contiguous, those of 4 columns otherwise
    op = product(16, Mask(blocky))
    together, apart = (sparse(wafer(placement=p), op) for p in ("contiguous", "interleaved"))
    assert together.cycles == pytest.approx(WAVE * 4 * 2, rel=1e-9)
    assert apart.cycles == pytest.approx(WAVE * 2, rel=1e-9)


@pytest.mark.parametrize("phase", ["forward", "grad_weight"])
@QUICK
@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 1), st.integers(0, 99))
def test_within_a_wave_the_order_of_the_outputs_changes_nothing(phase, n, k, density, seed):
    rng = np.random.default_rng(seed)
    array = rng.random((n, k)) < density
    order = [w + rng.permutation(len(array[w : w + WAVE])) for w in range(0, n, WAVE)]
    mixed = array[np.concatenate(order)]
    device = load_device("wafer")
    one, two = (sparse(device, product(99, Mask(a), phase)) for a in (array, mixed))
    assert one == two


@pytest.mark.parametrize("phase", PHASES)
def test_the_dense_kernel_is_offered_beside_the_sparse_one_and_wins_on_a_full_mask(phase):
    device = load_device("wafer")
    full = product(256, Mask(np.ones((256, 256), bool)), phase)
    assert [e.kernel for e in device.kernels(full)] == ["dense", "sparse"]
    assert device.estimate(full).rejected[0].kernel == "sparse"
    thin = product(256, Mask(np.eye(256, dtype=bool)), phase)
    assert [e.kernel for e in device.kernels(thin)] == ["sparse", "dense"]
    assert device.estimate(thin).rejected[0].kernel == "dense"
    unmasked = gemm(256, 256, 256, phase=phase)
    (only,) = device.kernels(unmasked)
    assert only.seconds == kernels(device, thin)["dense"].seconds


def test_packing_is_free_because_weights_are_stored_compressed():
    mask = Mask(uniform(1, 32, 9))
    op = Op("pack", "update", "w", weight_bytes=8 * 128 * 32, weight_shape=mask.shape, mask=mask)
    price = load_device("wafer").estimate(op)
    assert (price.kernel, price.seconds, price.bytes) == ("stored compressed", 0.0, 0.0)


def test_no_price_claims_to_have_been_verified():
    device = load_device("wafer")
    mask = Mask(uniform(1, 32, 9))
    ops = [product(9, mask, p) for p in PHASES] + [gemm(9, 8, 8)]
    ops.append(Op("elementwise", "forward", dense_flops=9, activation_bytes=72))
    ops.append(Op("pack", "update", weight_bytes=99))
    assert not any(e.verified for op in ops for e in device.kernels(op))
