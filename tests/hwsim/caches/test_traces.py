import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask
from hwsim.caches.cache import simulate
from hwsim.caches.traces import KERNELS, KernelTrace, layer_counts, sampled_counts
from hwsim.kernels.cpu.layout import CHUNK

SPARSE = tuple(name for name in KERNELS if name != "dense")
SMALL = [("L1", 8, 4), ("L2", 64, 8)]


def mask_of(shape, density, seed=0):
    return Mask(np.random.default_rng(seed).random(shape) < density)


def held(trace):
    """The whole trace at once: (addresses, is_store)."""
    pieces = [(a.copy(), s.copy()) for a, s in trace]
    return tuple(np.concatenate(part) for part in zip(*pieces, strict=True))


@settings(deadline=None, max_examples=25)
@given(
    kernel=st.sampled_from(KERNELS),
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    batch=st.sampled_from([1, 5, 64, 70]),
)
def test_pieces_count_as_the_whole_trace_and_can_be_made_again(
    kernel, rows, columns, density, batch
):
    mask = mask_of((rows, columns), density)
    trace = KernelTrace(kernel, mask, batch)
    addresses, is_store = held(trace)
    assert addresses.min(initial=0) >= 0
    assert layer_counts(kernel, mask, batch, SMALL) == simulate(addresses, is_store, SMALL)


def test_a_gather_trace_by_hand():
    index, value, column, row, rest = ((n << 36) + n * 0x1240 for n in range(5))
    # Eight rows: seven with a weight each, and one with two, which comes last.
    mask = np.zeros((8, 4), bool)
    mask[:, 3] = mask[2, 1] = True
    addresses, is_store = held(KernelTrace("gather", Mask(mask), 1))
    assert addresses.tolist() == [
        index, value, *[column + 12] * 7, column + 4,
        *[row + 4 * r for r in (0, 1, 3, 4, 5, 6, 7)], rest, column + 12, row + 8,
    ]  # fmt: skip
    assert is_store.tolist() == [0] * 10 + [1] * 7 + [0, 0, 1]


@pytest.mark.parametrize("kernel", SPARSE)
def test_each_weight_reads_its_column_once_per_pass(kernel):
    mask = mask_of((24, 300), 0.2)
    batch = 128
    addresses, is_store = held(KernelTrace(kernel, mask, batch))
    columns = (addresses >> 36) == 2
    lines = {"csr": 8, "gather": 128, "tiled": 2 * 4, "sampled": 2 * 4}[kernel]
    assert columns.sum() == mask.nnz * lines
    assert not is_store[columns].any()


def test_a_tiled_trace_takes_the_rows_of_a_chunk_by_their_weights():
    mask = Mask(np.array([[True, True, True], [False, True, False], [True, True, False]]))
    addresses, is_store = held(KernelTrace("tiled", mask, 8))
    row = 3 << 36 | 3 * 0x1240
    stored = addresses[is_store.astype(bool)]
    assert ((stored - row) // 32).tolist() == [1, 2, 0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_cache_that_holds_all_misses_each_line_once(kernel):
    mask = mask_of((40, 200), 0.3)
    addresses, _ = held(KernelTrace(kernel, mask, 64))
    counts = layer_counts(kernel, mask, 64, [("L1", 1 << 12, 16)])
    assert counts["L1"].misses == len(np.unique(addresses // 64))
    assert counts["L1"].evictions == 0


def test_tiles_keep_the_inputs_near():
    mask = mask_of((512, 1024), 0.1)
    levels = [("L1", 64, 8), ("L2", 256, 8)]
    tiled = layer_counts("tiled", mask, 64, levels)
    csr = layer_counts("csr", mask, 64, levels)
    assert tiled["L2"].misses < 0.5 * csr["L2"].misses


@pytest.mark.parametrize("kernel", SPARSE)
@pytest.mark.parametrize("seed", range(3))
def test_the_bound_of_a_sample_holds_what_was_left_out(kernel, seed):
    # Tiled kernels are sampled by chunks of rows.
    shape = (40 * CHUNK, 96) if kernel in ("sampled", "tiled") else (1536, 512)
    mask = mask_of(shape, 0.1, seed)
    batch = 1 if kernel == "gather" else 128
    exact = layer_counts(kernel, mask, batch)
    found = sampled_counts(kernel, mask, batch, rng=np.random.default_rng(seed))
    assert found.share < 0.7
    for level in exact.levels:
        # Three times the 95 % bound, and one in a hundred for what groups share.
        off = abs(found.misses[level.name] - level.misses)
        assert off <= 3 * found.bound[level.name] + 0.01 * level.misses, level.name


def test_a_small_layer_is_not_sampled():
    mask = mask_of((100, 64), 0.3)
    found = sampled_counts("tiled", mask, 64, SMALL, rng=np.random.default_rng(0))
    exact = layer_counts("tiled", mask, 64, SMALL)
    assert found.share == 1.0
    assert found.misses == {level.name: level.misses for level in exact.levels}
    assert set(found.bound.values()) == {0.0}


MASK = mask_of((8, 8), 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: KernelTrace("ell", MASK, 1), "unknown kernel 'ell'"),
        (lambda: KernelTrace("csr", MASK, 0), "batch: value is 0"),
        (lambda: KernelTrace("csr", Mask(np.ones((1, 65536), bool)), 1), "mask: shape"),
        (lambda: sampled_counts("dense", MASK, 1, rng=np.random.default_rng(0)), "'dense'"),
        (lambda: sampled_counts("csr", MASK, 1, groups=1, rng=np.random.default_rng(0)), "groups"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
