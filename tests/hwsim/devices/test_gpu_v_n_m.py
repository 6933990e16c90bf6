"""V:N:M on a GPU: which masks the kernel takes, what it pays for, and that it stays unverified."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import Mask, device_names, gemm, load_device
from hwsim.devices.gpu import Gpu
from hwsim.gpu.rules import Facts
from hwsim.patterns.v_n_m import VNM

CARDS = [name for name in device_names() if isinstance(load_device(name), Gpu)]
PHASES = ("forward", "grad_input", "grad_weight")


def v_n_m_mask(n, k, v, m, seed=0):
    """Four random columns of each v × m block, two of them in each row."""
    rng = np.random.default_rng(seed)
    blocks = (-(-n // v), -(-k // m))
    columns = np.repeat(np.argsort(rng.random((*blocks, m)), axis=2)[:, :, :4], v, axis=0)
    pairs = np.argsort(rng.random(columns.shape), axis=2)[:, :, :2]
    mask = np.zeros((*columns.shape[:2], m), bool)
    np.put_along_axis(mask, np.take_along_axis(columns, pairs, axis=2), True, axis=2)
    return Mask(np.ascontiguousarray(mask.reshape(len(mask), -1)[:n, :k]))


def kernel(device, op, name="v_n_m"):
    return next(e for e in device.kernels(op) if e.kernel == name)


@pytest.mark.parametrize(
    ("n", "k", "v", "m", "found"),
    [(256, 256, 128, 16, (128, 16)), (200, 300, 64, 10, (64, 10)), (48, 80, 48, 80, (64, 128)),
     (96, 256, 48, 8, (16, 8)), (64, 256, 8, 8, (0, 0)), (64, 63, 16, 7, (0, 0))],
)  # fmt: skip
def test_the_largest_blocks_of_a_v_n_m_mask_are_found(n, k, v, m, found):
    assert Facts(v_n_m_mask(n, k, v, m), {}).v_n_m == found


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([8, 16, 24]),
       st.floats(0.3, 1), st.integers(0, 999))  # fmt: skip
def test_blocks_that_are_found_are_those_of_the_pattern_and_the_row_is_over_half_full(
    n, k, m, left, seed
):
    rng = np.random.default_rng(seed)
    mask = Mask(v_n_m_mask(n, k, 16, m, seed).array & (rng.random((n, k)) < left))
    v, width = Facts(mask, {}).v_n_m
    full = int(mask.row_nnz.max())
    if v:
        assert mask.satisfies(VNM(v, 2, width)) and full > -(-k // width)
    else:
        assert full <= -(-k // m)


def test_v_n_m_wants_its_pattern_and_a_type_that_the_kernel_has_and_says_so():
    h200, good = load_device("h200"), v_n_m_mask(64, 64, 16, 8)
    for phase in PHASES:
        for dtype, legal in (("bfloat16", True), ("float16", True), ("float32", True),
                             ("tfloat32", False), ("int8", False)):  # fmt: skip
            found = kernel(h200, gemm(32, 64, 64, good, phase, dtype))
            assert found.legal == legal
            assert legal or f"no v_n_m kernel for {dtype} (allowed: bfloat16" in found.reason
        for bad in (np.ones((64, 64), bool), np.eye(64, dtype=bool)):
            found = kernel(h200, gemm(32, 64, 64, Mask(bad), phase, "bfloat16"))
            assert "not V:2:M" in found.reason and "V: 128, 64, 32, 16" in found.reason


def test_v_n_m_multiplies_four_columns_of_m_and_gains_as_v_and_m_grow():
    h200, at = load_device("h200"), {}
    for v, m in ((64, 8), (128, 8), (128, 16), (128, 32)):
        op = gemm(16384, 4096, 4096, v_n_m_mask(4096, 4096, v, m), "forward", "bfloat16")
        at[v, m] = kernel(h200, op)
        assert at[v, m].flops == op.dense_flops * 4 / m
        compacted = gemm(16384, 4096, 4096 * 4 // m, None, "forward", "bfloat16")
        assert at[v, m].seconds > kernel(h200, compacted, "dense").seconds
    assert at[64, 8].seconds > at[128, 8].seconds > at[128, 16].seconds > at[128, 32].seconds


def test_v_n_m_pays_for_packing_in_both_directions_and_for_its_sums_in_grad_input():
    free, paid = load_device("h200", packing="never"), load_device("h200")
    mask = v_n_m_mask(2048, 2048, 64, 8)
    seconds = {}
    for phase in PHASES:
        op = gemm(4096, 2048, 2048, mask, phase, "bfloat16")
        one, other = (kernel(device, op) for device in (free, paid))
        seconds[phase] = other.seconds
        assert (other.seconds > one.seconds) == (phase != "grad_weight")
        assert (other.bytes > one.bytes) == (phase != "grad_weight")
        assert (one.bound == "gather") == (phase == "grad_input")
    assert seconds["grad_input"] > 2 * seconds["forward"]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(CARDS), st.integers(1, 9000), st.integers(1, 400), st.integers(32, 400),
    st.sampled_from(PHASES), st.sampled_from(["bfloat16", "float32"]),
    st.sampled_from(["graph", "eager"]), st.sampled_from([8, 16]), st.integers(0, 9),
)  # fmt: skip
def test_v_n_m_never_beats_the_roofline_and_is_always_unverified(
    card, m, n, k, phase, dtype, launch, width, seed
):
    device = load_device(card, launch=launch)
    op = gemm(m, n, k, v_n_m_mask(n, k, 16 << seed % 4, width, seed), phase, dtype)
    found = kernel(device, op)
    assert found.legal and not found.verified
    assert found.seconds >= device.roofline(op)
    assert 0 < found.low_s <= found.seconds <= found.high_s
    assert found.flops >= op.flops and found.bytes >= op.bytes


def test_masks_that_look_alike_to_other_kernels_have_prices_of_their_own():
    # Both are 2:4 along the inputs alone, with equal rows; only the first is V:N:M.
    blocks = v_n_m_mask(256, 256, 64, 8).array
    other = np.concatenate([np.roll(row, 4 * i)[None] for i, row in enumerate(blocks)])
    device = load_device("h200")
    ops = [gemm(512, 256, 256, Mask(a), "forward", "bfloat16") for a in (blocks, other)]
    assert [kernel(device, op).legal for op in ops] == [True, False]


def test_a_convolution_has_no_v_n_m_kernel():
    from hwsim import Op

    mask = v_n_m_mask(64, 64, 64, 8)
    op = Op("conv", "forward", "c", 64, 64, 64, 1, "bfloat16", 2 * 64**3, 10**6, 64 * 64 * 2,
            (64, 64), mask)  # fmt: skip
    assert kernel(load_device("h200"), op).reason == "no v_n_m kernel for conv"
    assert kernel(load_device("h200"), gemm(8, 8, 8, None, "forward", "bfloat16")).reason
