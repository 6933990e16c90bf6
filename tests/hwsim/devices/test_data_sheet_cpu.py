"""Processors from their data sheets: what more of anything buys, threads, misses under a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, gemm, load_device
from hwsim.cpu.machine import whose_price
from hwsim.cpu.sheet_work import gemm_vectors
from hwsim.masks.statistical import StatisticalMask
from sparse_train.patterns import projection

NAMES = ("i9-10940x", "i7-12700h", "zen3-sheet")
MORE = (
    "fma_units", "load_ports", "clock_hz", "l2_rate", "l3_rate", "memory_channels",
    "channel_bandwidth", "lines_in_flight",
)  # fmt: skip


def conv(m: int, channels: int) -> Op:
    return Op(
        "conv", "forward", "conv", m, channels, 9 * channels, window=9,
        dense_flops=18 * m * channels**2, activation_bytes=8 * m * channels,
        weight_bytes=36 * channels**2, weight_shape=(channels, 9 * channels),
    )  # fmt: skip


def drawn(n: int, k: int, density: float) -> Mask:
    return Mask(np.random.default_rng(0).random((n, k)) < density)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(NAMES), st.sampled_from(MORE),
    st.tuples(*[st.integers(1, 700)] * 3), st.sampled_from([1.0, 0.1]),
    st.sampled_from(["forward", "grad_input", "grad_weight"]),
)  # fmt: skip
def test_more_of_anything_is_never_slower(name, what, shape, density, phase):
    m, n, k = shape
    mask = drawn(n, k, density) if density < 1 else None
    before = load_device(name, simulate=0)
    after = load_device(name, simulate=0, **{what: 2 * getattr(before, what)})
    op = gemm(m, n, k, mask, phase)
    seconds = [d.estimate(op).seconds for d in (before, after)]
    assert before.roofline(op) <= seconds[0]
    assert seconds[1] <= seconds[0] * (1 + 1e-12)


def test_threads_share_the_arithmetic_and_not_the_memory():
    op, layer = gemm(4096, 2048, 2048), gemm(4096, 4096, 16)
    one, many = (load_device("i9-10940x", threads=t, barrier_s=0.0) for t in (1, 14))
    assert one.estimate(op).seconds > 9 * many.estimate(op).seconds
    assert many.peak_flops == pytest.approx(14 * one.peak_flops)
    assert many.estimate(op).seconds < one.estimate(op).seconds < 20 * many.estimate(op).seconds
    assert one.estimate(layer).seconds < 14 * many.estimate(layer).seconds
    small = gemm(4, 16, 16)  # for which it is not worth gathering threads
    assert one.estimate(small).seconds <= load_device("i9-10940x").estimate(small).seconds
    with pytest.raises(InputError, match="threads: value is 15; allowed is at most cores = 14"):
        load_device("i9-10940x", threads=15)


def test_the_peak_is_the_data_sheets():
    # 14 cores, 3.3 GHz, two units of 16 multiply-adds: 2.96 TFLOP/s.
    assert load_device("i9-10940x").peak_flops == pytest.approx(14 * 3.3e9 * 64)
    assert load_device("zen3-sheet").peak_flops == pytest.approx(2.44543e9 * 32)


def test_vectors_lie_along_the_side_that_wastes_less():
    assert gemm_vectors(16, 1, 9, 16) == 9 == gemm_vectors(1, 16, 9, 16)
    assert gemm_vectors(17, 16, 1, 16) == 17


def test_misses_are_counted_under_the_mask():
    # The same weights in a narrow band or all over: CSR reads the same inputs again, or others.
    rows, columns = np.indices((1024, 1024))
    band = Mask((columns - rows) % 1024 < 51)
    rng = np.random.default_rng(0)
    spread = np.zeros((1024, 1024), bool)
    for row in spread:
        row[rng.choice(1024, 51, replace=False)] = True
    device = load_device("zen3-sheet")
    seconds = {
        what: {e.kernel: e.seconds for e in device.kernels(gemm(256, 1024, 1024, mask))}
        for what, mask in (("band", band), ("spread", Mask(spread)))
    }
    assert seconds["band"]["csr"] < 0.9 * seconds["spread"]["csr"]
    blind = load_device("zen3-sheet", simulate=0)
    ops = [gemm(256, 1024, 1024, mask) for mask in (band, Mask(spread))]
    assert blind.estimate(ops[0]).seconds == blind.estimate(ops[1]).seconds


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_is_unverified_and_a_convolution_under_a_mask_is_dense(name):
    device = load_device(name)
    op = conv(196, 64)
    assert device.estimate(op).kernel == "dense"
    masked = op.with_mask(drawn(64, 576, 0.1))
    assert device.estimate(masked).kernel == "dense"
    assert not any(e.verified for e in device.kernels(gemm(8, 64, 64, drawn(64, 64, 0.1))))


def test_a_step_reads_its_weights_from_memory_and_a_timed_product_does_not():
    op = gemm(1, 1024, 1024)
    step, timed = (load_device("zen3-sheet", warm_weights=w) for w in (0, 1))
    assert step.estimate(op).seconds > 2 * timed.estimate(op).seconds


def test_density_makes_masked_kernels_faster():
    device = load_device("zen3-sheet")
    seconds = [device.estimate(gemm(128, 768, 768, drawn(768, 768, d))).seconds
               for d in (0.3, 0.1, 0.03, 0.01)]  # fmt: skip
    assert seconds == sorted(seconds, reverse=True)
    empty = gemm(128, 64, 64, Mask(np.zeros((64, 64), bool)))
    assert device.estimate(empty).seconds > 0


def test_a_price_says_that_nothing_was_measured():
    assert "i9-10940x: from a data sheet, nothing was measured" in whose_price(
        load_device("i9-10940x")
    )


@pytest.mark.parametrize(
    ("kind", "density"), [("unstructured", 0.1), ("balanced:8,8", 0.1), ("v_n_m:64,2,32", 0.0625)]
)
@pytest.mark.parametrize("phase", ["forward", "grad_weight"])
def test_a_mask_known_by_its_statistics_has_the_misses_of_random_ones(kind, density, phase):
    device, shape = load_device("i9-10940x"), (256, 256)
    known = StatisticalMask(shape, density, kind)
    drawn = []
    for seed in range(4):
        scores = np.random.default_rng(seed).random(shape, dtype=np.float32)
        mask = Mask(projection(kind).project(scores, known.nnz), copy=False)
        drawn.append(device.estimate(gemm(64, *shape, mask, phase)).seconds)
    priced = device.estimate(gemm(64, *shape, known, phase)).seconds
    assert priced == pytest.approx(np.mean(drawn), rel=0.01)
