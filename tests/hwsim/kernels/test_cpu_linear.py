import ctypes
import importlib
import mmap
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask
from hwsim.kernels.cpu import LINEAR, _two_four_passes, _vector

NAMES = LINEAR.names()
TWO_FOUR = ("two_four", "two_four_bf16")
ANY_MASK = tuple(n for n in NAMES if n not in ("balanced", "grouped", "narrower", *TWO_FOUR))


def suitable_mask(name, rng, n_out, n_in, density):
    """A mask that the kernel can run, with an empty row where there are several."""
    mask = rng.random((n_out, n_in)) < density
    if n_out > 1:
        mask[rng.integers(n_out)] = False
    if name == "balanced":
        order = rng.random((n_out, -(-n_in // 32), 32)).argsort(axis=2)
        mask = (order < round(32 * density)).reshape(n_out, -1)
        if n_out > 1:
            mask[rng.integers(n_out)] = False
    if name in TWO_FOUR:
        order = rng.random((n_out, 8 * -(-n_in // 32), 4)).argsort(axis=2)
        mask = (order < 2).reshape(n_out, -1)
        if n_out > 1:
            mask[rng.integers(n_out)] = False
    if name == "narrower":
        mask = np.outer(rng.random(n_out) < 0.5, rng.random(n_in) < 0.5)
    if name == "grouped":
        mask = np.repeat(mask[: -(-n_out // 8)], 8, axis=0)
        if n_out < 8:
            mask = np.repeat(mask[:1], 8, axis=0)
    return Mask(mask)


def tolerance(terms, sizes):
    """γₖ · (|a||b|), k terms: what any order of float32 sums may be off from the exact product.

    Source: Higham (2002), Accuracy and Stability of Numerical Algorithms, section 3.5.
    """
    unit = terms * 2.0**-24
    return unit / (1 - unit) * sizes + 1e-44


def within(found, exact, terms, sizes):
    assert found.dtype == np.float32
    np.testing.assert_array_less(np.abs(found - exact), tolerance(terms, sizes) + 1e-43)


def check(name, mask, batch, rng, threads=1):
    """All phases of a kernel against float64, under unused NaNs."""
    kernel = LINEAR.get(name)
    n_out, n_in = mask.shape
    weights = rng.standard_normal(mask.shape).astype(np.float32)
    if name.endswith("bf16"):  # without rounding to do
        weights = (weights.view(np.uint32) & 0xFFFF0000).view(np.float32)
    exact = np.where(mask.array, weights, 0).astype(np.float64)
    weights[~mask.array] = np.nan
    layer = kernel(mask, weights * 2, threads)
    layer.repack(weights)
    x = rng.standard_normal((batch, n_in)).astype(np.float32)
    dy = rng.standard_normal((batch, n_out)).astype(np.float32)
    x64, dy64 = x.astype(np.float64), dy.astype(np.float64)
    if name != "dense":
        # Inputs that no weight reads.
        x[:, mask.col_nnz == 0] = np.nan
        dy[:, mask.row_nnz == 0] = np.nan
    if "forward" in kernel.phases:
        within(layer.forward(x), x64 @ exact.T, n_in + 2, np.abs(x64) @ np.abs(exact).T)
    if "grad_input" in kernel.phases:
        within(layer.grad_input(dy), dy64 @ exact, n_out + 2, np.abs(dy64) @ np.abs(exact))
    if "grad_weight" in kernel.phases:
        found = layer.grad_weight(dy, x)
        assert not found[~mask.array].any()
        sizes = np.where(mask.array, np.abs(dy64).T @ np.abs(x64), 0)
        within(found, np.where(mask.array, dy64.T @ x64, 0), batch + 2, sizes)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(
    n_out=st.integers(1, 70),
    n_in=st.integers(1, 70),
    batch=st.sampled_from([1, 2, 7, 8, 9, 16, 33, 64, 65]),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_phase_equals_float64_within_rounding(name, n_out, n_in, batch, density, seed):
    rng = np.random.default_rng(seed)
    check(name, suitable_mask(name, rng, n_out, n_in, density), batch, rng)


@pytest.mark.parametrize("name", NAMES)
def test_several_tiles_and_threads(name):
    rng = np.random.default_rng(3)
    check(name, suitable_mask(name, rng, 296, 600, 0.1), 70, rng, threads=2)
    check(name, suitable_mask(name, rng, 600, 40, 0.1), 3, rng, threads=3)


@pytest.mark.parametrize("name", ANY_MASK)
def test_a_fan_in_of_one(name):
    rng = np.random.default_rng(4)
    mask = np.zeros((40, 300), bool)
    mask[np.arange(40), rng.integers(0, 300, 40)] = True
    check(name, Mask(mask), 65, rng)


@pytest.mark.parametrize("name", NAMES)
def test_unaligned_inputs(name):
    rng = np.random.default_rng(5)
    mask = suitable_mask(name, rng, 24, 40, 0.3)
    layer = LINEAR.get(name)(mask, np.ones(mask.shape, np.float32))
    for phase, features in (("forward", mask.shape[1]), ("grad_input", mask.shape[0])):
        if phase in layer.phases:
            room = rng.standard_normal(9 * features + 1).astype(np.float32)
            shifted = room[1:].reshape(9, features)
            np.testing.assert_array_equal(
                getattr(layer, phase)(shifted), getattr(layer, phase)(shifted.copy())
            )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_outside(name):
    rng = np.random.default_rng(6)
    mask = suitable_mask(name, rng, 40, 24, 0.3)
    weights, x = np.ones(mask.shape, np.float32), np.ones((9, mask.shape[1]), np.float32)
    dy = np.ones((9, mask.shape[0]), np.float32)
    layer = LINEAR.get(name)(mask, weights)
    for phase, operands in (
        ("forward", (x,)), ("grad_input", (dy,)), ("grad_weight", (dy, x)),
    ):  # fmt: skip
        if phase in layer.phases:
            getattr(layer, phase)(*operands)
    for array in (weights, x, dy):
        assert (array == 1).all()


def guarded(size, dtype=np.float32):
    """An array that ends where the process may not read: one byte too far is a crash."""
    page = mmap.PAGESIZE
    item = np.dtype(dtype).itemsize
    pages = -(-max(size * item, 1) // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    data = np.frombuffer(memory, np.uint8)
    guard = ctypes.c_void_p(data.ctypes.data + pages * page)
    if ctypes.CDLL(None, use_errno=True).mprotect(guard, page, 0) != 0:
        pytest.skip("memory cannot be protected here")
    stop = pages * page
    return data[stop - size * item : stop].view(dtype)


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages are set through Linux's libc")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 8, 13, 64, 70])
def test_kernels_stay_within_their_memory(name, batch, monkeypatch):
    for module in ("_tiled", "linear.balanced", "linear.gather", "linear.two_four"):
        monkeypatch.setattr(
            importlib.import_module(f"hwsim.kernels.cpu.{module}"), "aligned", guarded
        )
    rng = np.random.default_rng(8)
    mask = suitable_mask(name, rng, 40, 290, 0.2)

    def at_the_edge(*shape):
        array = guarded(int(np.prod(shape))).reshape(shape)
        array[:] = 1
        return array

    layer = LINEAR.get(name)(mask, at_the_edge(*mask.shape))
    x, dy = at_the_edge(batch, mask.shape[1]), at_the_edge(batch, mask.shape[0])
    if "forward" in layer.phases:
        np.testing.assert_array_equal(layer.forward(x)[0], mask.row_nnz)
    if "grad_input" in layer.phases:
        np.testing.assert_array_equal(layer.grad_input(dy)[0], mask.col_nnz)
    if "grad_weight" in layer.phases:
        np.testing.assert_array_equal(layer.grad_weight(dy, x), batch * mask.array)


MASK = Mask(np.ones((8, 32), bool))
HALF = Mask(np.tile([True, False], (8, 16)))
WEIGHTS = np.ones((8, 32), np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.ones((8, 32), bool), WEIGHTS), "mask: type is ndarray"),
        ((MASK, WEIGHTS.astype(np.float64)), "weights: type is float64"),
        ((MASK, WEIGHTS.T), "weights: shape"),
        ((MASK, np.ones((32, 8), np.float32).T), "C-contiguous"),
        ((MASK, WEIGHTS, 0), "threads: value is 0"),
    ],
)
def test_a_bad_layer_is_named(name, arguments, words):
    if name in TWO_FOUR and arguments[0] is MASK:
        arguments = (HALF, *arguments[1:])
    with pytest.raises(InputError, match=words):
        LINEAR.get(name)(*arguments)


@pytest.mark.parametrize("name", NAMES)
def test_bad_activations_are_named(name):
    layer = LINEAR.get(name)(HALF if name in TWO_FOUR else MASK, WEIGHTS)
    phases = {"forward": 32, "grad_input": 8}
    for phase, features in phases.items():
        if phase not in layer.phases:
            with pytest.raises(InputError, match=f"'{phase}' is not in kernel '{name}'"):
                getattr(layer, phase)(np.ones((2, features), np.float32))
            continue
        for bad, words in (
            (np.ones((2, features)), "type is float64"),
            (np.ones((2, features + 1), np.float32), "shape"),
            (np.ones((0, features), np.float32), "shape"),
            (np.ones(features, np.float32), "shape"),
            (np.ones((features, 2), np.float32).T, "C-contiguous"),
        ):
            with pytest.raises(InputError, match=words):
                getattr(layer, phase)(bad)
    if "grad_weight" in layer.phases:
        with pytest.raises(InputError, match="x: batch is 3; allowed is that of dy, 2"):
            layer.grad_weight(np.ones((2, 8), np.float32), np.ones((3, 32), np.float32))


def test_masks_that_a_kernel_cannot_run_say_why():
    mask = Mask(np.eye(8, dtype=bool))
    with pytest.raises(InputError, match="8 groups of equal rows"):
        LINEAR.get("grouped")(mask, np.ones((8, 8), np.float32))
    with pytest.raises(InputError, match="8 weights in 8 used rows and 8 used columns"):
        LINEAR.get("narrower")(mask, np.ones((8, 8), np.float32))
    wide = Mask(np.ones((1, 65536), bool))
    with pytest.raises(InputError, match="at most 65535"):
        LINEAR.get("gather")(wide, np.ones((1, 65536), np.float32))


def test_masks_that_are_not_balanced_say_why():
    kernel = LINEAR.get("balanced")
    assert "n_in is 40; allowed is a multiple of 32" in kernel.unsuitable(
        Mask(np.ones((4, 40), bool))
    )
    assert "allowed is the same number" in kernel.unsuitable(Mask(np.eye(64, dtype=bool)))


@pytest.mark.parametrize("avx2", [True, False])
def test_a_lookup_finds_its_values_with_and_without_permutes(avx2, monkeypatch):
    if avx2 and not _vector.has_avx2():
        pytest.skip("this machine has no AVX2")
    monkeypatch.setattr(_vector, "has_avx2", lambda: avx2)

    @numba.njit
    def looked_up(table, index, out):
        _vector.store(out, 0, _vector.lookup(table, 3, index, 1))

    rng = np.random.default_rng(9)
    table, index = rng.random(35, np.float32), rng.integers(0, 32, 9).astype(np.uint8)
    out = np.zeros(8, np.float32)
    looked_up(table, index, out)
    np.testing.assert_array_equal(out, table[3 + index[1:].astype(int)])


@pytest.mark.parametrize("avx2", [True, False])
def test_two_of_four_are_found_with_and_without_permutes(avx2, monkeypatch):
    if avx2 and not _vector.has_avx2():
        pytest.skip("this machine has no AVX2")
    monkeypatch.setattr(_two_four_passes, "has_avx2", lambda: avx2)

    @numba.njit
    def product(x, codes, values, out):
        none = _vector.zeros(_two_four_passes.WIDTH)
        _vector.store(out, 0, _two_four_passes.add_two_of_four(none, x, 0, codes, 0, values, 0))

    rng = np.random.default_rng(11)
    x, values = rng.random(32, np.float32), rng.random((16, 32), np.float32)
    places = rng.integers(0, 4, (16, 32)).astype(np.uint32)
    codes = (places << 2 * np.arange(16, dtype=np.uint32)[:, None]).sum(0).astype(np.uint32)
    out = np.zeros(32, np.float32)
    product(x, codes, values.reshape(-1), out)
    inputs = x[4 * (np.arange(16) // 2)[:, None] + places]
    np.testing.assert_allclose(out, (values * inputs).sum(0), rtol=1e-5)


def test_bfloat16_weights_are_rounded_to_nearest_with_ties_to_even():
    weights = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-9), np.nan, np.inf], np.float32)
    found = np.empty(6, np.uint16)
    _two_four_passes.gather_rounded(weights, np.arange(6, dtype=np.uint32), found)
    rounded = (found.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(rounded, [1, 1, 1 + 2**-6, -1, np.nan, np.inf])


def test_masks_with_other_than_two_of_four_say_why():
    kernel = LINEAR.get("two_four")
    assert "allowed is a multiple of 32" in kernel.unsuitable(Mask(np.ones((4, 40), bool)))
    for mask in (np.ones((4, 32), bool), np.tile([True, False, False, False], (4, 8))):
        assert "allowed are 2" in kernel.unsuitable(Mask(mask))


def test_an_unknown_kernel_lists_the_valid_ones():
    with pytest.raises(InputError, match="valid: balanced, csr"):
        LINEAR.get("cusparse")
