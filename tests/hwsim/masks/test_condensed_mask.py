"""A condensed mask is the same mask as its matrix."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, gemm, load_device
from hwsim.masks.condensed import CondensedMask


@st.composite
def condensed(draw) -> CondensedMask:
    n_out, n_in = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    k = draw(st.integers(1, n_in))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    kind = draw(st.sampled_from([np.int16, np.uint16, np.int64]))
    return CondensedMask(np.argsort(rng.random((n_out, n_in)), axis=1)[:, :k].astype(kind), n_in)


@settings(max_examples=40, deadline=None)
@given(condensed())
def test_everything_equals_that_of_the_matrix(mask):
    dense = Mask(mask.array)
    assert mask == dense and dense == mask and hash(mask) == hash(dense)
    assert (mask.shape, mask.size, mask.nnz) == (dense.shape, dense.size, dense.nnz)
    assert mask.digest == dense.digest and np.array_equal(mask.bits, dense.bits)
    assert np.array_equal(mask.row_nnz, dense.row_nnz)
    assert np.array_equal(mask.col_nnz, dense.col_nnz)
    for mine, theirs in zip(mask.blocks, dense.blocks, strict=True):
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    assert pickle.loads(pickle.dumps(mask)) == mask


def test_more_rows_than_are_made_dense_at_once_have_the_same_bits():
    rng = np.random.default_rng(0)
    mask = CondensedMask(np.argsort(rng.random((9001, 5)), axis=1)[:, :2], 5)
    assert np.array_equal(mask.bits, np.packbits(mask.array))


@pytest.mark.parametrize("device", ["ideal", "wafer", "a100", "zen3", "sigma-like"])
def test_a_device_prices_it_like_its_matrix(device):
    rng = np.random.default_rng(1)
    mask = CondensedMask(np.argsort(rng.random((256, 128)), axis=1)[:, :8], 128)
    loaded = load_device(device)
    for phase in ("forward", "grad_input", "grad_weight"):
        mine = loaded.estimate(gemm(32, 256, 128, mask, phase))
        assert mine.seconds == loaded.estimate(gemm(32, 256, 128, Mask(mask.array), phase)).seconds


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (np.zeros((2, 2)), "integers"),
        (np.zeros(3, int), r"\(n_out, k\)"),
        (np.zeros((0, 2), int), "at least 1"),
        (np.array([[0, 0]]), "twice"),
        (np.array([[0, 3]]), "0 to 2"),
        (np.array([[-1, 1]]), "0 to 2"),
    ],
)
def test_bad_places_are_refused(inputs, says):
    with pytest.raises(InputError, match=says):
        CondensedMask(inputs, 3)
