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
from hwsim.kernels.cpu import LINEAR, lookup_passes, two_four_passes, vector
from hwsim.kernels.cpu.linear.lookup import planned_steps

NAMES = LINEAR.names()
TWO_FOUR = ("two_four", "two_four_bf16")
LOOKUP = ("lookup", "lookup_bf16")
ANY_MASK = tuple(n for n in NAMES if n not in ("grouped", "narrower", *TWO_FOUR))


def suitable_mask(name, rng, n_out, n_in, density):
    """A mask that the kernel can run, with an empty row where there are several."""
    if name in LOOKUP:
        n_out, n_in = max(8, n_out), max(8, n_in)
    mask = rng.random((n_out, n_in)) < density
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
    for module in ("tiled", "linear.gather", "linear.lookup", "linear.two_four"):
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


@pytest.mark.parametrize("name", LOOKUP)
@pytest.mark.parametrize("shape", [(7, 64), (64, 7), (65536, 8)])
def test_a_lookup_says_which_shapes_it_takes(name, shape):
    assert "allowed are 8 to 65535" in LINEAR.get(name).unsuitable(Mask(np.ones(shape, bool)))


@pytest.mark.parametrize("name", LOOKUP)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_lookup_spreads_nothing_to_rows_that_do_not_use_it(name, value):
    """Lanes without a weight multiply zero by what another row needs."""
    rng = np.random.default_rng(12)
    array = rng.random((40, 48)) < 0.2
    array[:, 5] = False
    array[9, 5] = True
    layer = LINEAR.get(name)(Mask(array), np.ones((40, 48), np.float32))
    x = np.ones((2, 48), np.float32)
    x[1, 5] = value
    found = layer.forward(x)
    expected = np.tile(array.sum(axis=1, dtype=np.float32), (2, 1))
    expected[1, 9] = value if np.isnan(value) else np.inf
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("rows", "steps"),
    [
        # Eight rows with one weight each in the first eight inputs: one step.
        ([[n] for n in range(8)], [(0, list(range(8)))]),
        # The window ends with the inputs.
        ([[15]] * 8, [(8, [7] * 8)]),
        # A window that is not cut at a multiple of eight: 6 … 13.
        ([[6], [13], *[[8]] * 6], [(6, [0, 7, *[2] * 6])]),
        # The second weight of a row waits for the next step; idle lanes stand at 0.
        ([[0, 1], *[[0]] * 7], [(0, [0] * 8), (0, [1, *[0] * 7])]),
        # No row reaches so far: two windows.
        ([[0], [9], *[[]] * 6], [(0, [0] * 8), (8, [0, 1, *[0] * 6])]),
    ],
)  # fmt: skip
def test_a_plan_by_hand(rows, steps):
    pointers = np.cumsum([0, *map(len, rows)])
    index = np.array([c for row in rows for c in row], np.uint16)
    given = (np.arange(8), pointers, index)
    step_of, starts, begins = lookup_passes.plan(*given, 16)
    words, sources = lookup_passes.lay_out(
        *given, np.arange(index.size, dtype=np.uint32), step_of, starts
    )
    assert begins.tolist() == [0, 8] and starts.size == 8
    assert starts.tolist() == [s for s, _ in steps] + [0] * (8 - len(steps))
    for number, (_, places) in enumerate(steps):
        shift = 8 * (number % 4) + 4 * (number // 4)
        assert (words >> shift & 15).tolist() == places
    assert np.count_nonzero(sources != lookup_passes.NONE) == index.size


@settings(deadline=None, max_examples=40)
@given(
    st.integers(8, 40), st.integers(8, 60), st.floats(0, 1), st.integers(0, 2**32 - 1),
    st.booleans(),
)  # fmt: skip
def test_a_plan_takes_as_many_steps_as_the_longest_row_and_at_most_one_a_weight(
    n_out, n_in, density, seed, transposed
):
    mask = Mask(np.random.default_rng(seed).random((n_out, n_in)) < density)
    rows = mask.col_nnz if transposed else mask.row_nnz
    steps = planned_steps(mask, transposed)
    assert steps % 8 == 0
    # Rows are sorted by their weights: the groups' longest rows are every eighth from the end.
    longest = np.sort(rows)[::-1][::8]
    assert steps >= longest.sum() and steps <= sum(8 * n + 7 for n in longest)


def test_blocks_with_as_many_weights_in_each_of_eight_rows_leave_no_lane_idle():
    rng = np.random.default_rng(13)
    places = rng.random((64, 16, 8)).argsort(axis=2)
    counts = rng.permuted(np.tile(np.repeat([0, 1, 2], [2, 4, 10]), (8, 1)), axis=1)
    mask = Mask((places < np.repeat(counts, 8, axis=0)[:, :, None]).reshape(64, 128))
    assert 8 * planned_steps(mask, False) == mask.nnz


@pytest.mark.parametrize("avx2", [True, False])
@pytest.mark.parametrize("rounded", [True, False])
def test_a_lookup_finds_its_inputs_with_and_without_permutes(avx2, rounded, monkeypatch):
    if avx2 and not vector.has_avx2():
        pytest.skip("this machine has no AVX2")
    monkeypatch.setattr(lookup_passes, "has_avx2", lambda: avx2)

    @numba.njit
    def looked_up(table, starts, words, values, out):
        none = vector.zeros((0,) * 8)
        vector.store(out, 0, lookup_passes.add_lookups(none, table, 3, starts, words, values, 8))

    rng = np.random.default_rng(9)
    table, starts = rng.random(43, np.float32), rng.integers(0, 33, 16).astype(np.uint16)
    places = rng.integers(0, 8, (8, 8)).astype(np.uint32)
    shifts = np.array([0, 8, 16, 24, 4, 12, 20, 28], np.uint32)[:, None]
    words = np.concatenate([np.zeros(8, np.uint32), (places << shifts).sum(0).astype(np.uint32)])
    weights = rng.integers(-8, 9, (8, 8)).astype(np.float32)  # the same in bfloat16
    values = np.zeros(128, np.float32)
    values[64:] = weights.reshape(-1)
    if rounded:
        sources = np.arange(128, dtype=np.uint32)
        flat, values = values, np.empty(128, np.uint16)
        lookup_passes.gather_rounded(flat, sources, values)
    out = np.zeros(8, np.float32)
    looked_up(table, starts, words, values, out)
    inputs = table[3 + starts[8:, None].astype(int) + places]
    np.testing.assert_allclose(out, (weights * inputs).sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("avx2", [True, False])
def test_two_of_four_are_found_with_and_without_permutes(avx2, monkeypatch):
    if avx2 and not vector.has_avx2():
        pytest.skip("this machine has no AVX2")
    monkeypatch.setattr(two_four_passes, "has_avx2", lambda: avx2)

    @numba.njit
    def product(x, codes, values, out):
        none = vector.zeros(two_four_passes.WIDTH)
        vector.store(out, 0, two_four_passes.add_two_of_four(none, x, 0, codes, 0, values, 0))

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
    two_four_passes.gather_rounded(weights, np.arange(6, dtype=np.uint32), found)
    rounded = (found.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(rounded, [1, 1, 1 + 2**-6, -1, np.nan, np.inf])


def test_masks_with_other_than_two_of_four_say_why():
    kernel = LINEAR.get("two_four")
    assert "allowed is a multiple of 32" in kernel.unsuitable(Mask(np.ones((4, 40), bool)))
    for mask in (np.ones((4, 32), bool), np.tile([True, False, False, False], (4, 8))):
        assert "allowed are 2" in kernel.unsuitable(Mask(mask))


def test_an_unknown_kernel_lists_the_valid_ones():
    with pytest.raises(InputError, match="valid: csr, dense"):
        LINEAR.get("cusparse")
