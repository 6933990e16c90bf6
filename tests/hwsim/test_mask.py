"""Masks: what they count, what they promise, what they refuse."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask

BLOCK = 128
DIGEST_OF_EYE_3 = "513a04fc929a5331d5ec7cfbd55f0b5c"
QUICK = settings(deadline=None, max_examples=40)
WIDTHS = st.one_of(st.integers(1, 300), st.sampled_from([8, 16, 120, 128, 136, 256, 264]))


@st.composite
def arrays(draw):
    shape = draw(st.integers(1, 300)), draw(WIDTHS)
    density = draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.random(shape) < density


def blocks_of(array):
    """The counts of `Mask.blocks`, by numpy."""
    rows, columns = array.shape
    by_rows = [array[r : r + BLOCK].sum(axis=0) for r in range(0, rows, BLOCK)]
    by_columns = [array[:, c : c + BLOCK].sum(axis=1) for c in range(0, columns, BLOCK)]
    return np.stack(by_rows), np.stack(by_columns, axis=1)


@QUICK
@given(arrays())
def test_counts_are_numpys(array):
    mask = Mask(array)
    assert mask.nnz == array.sum()
    assert mask.shape == array.shape
    assert mask.size == array.size
    assert mask.density == array.sum() / array.size
    np.testing.assert_array_equal(mask.row_nnz, array.sum(axis=1))
    np.testing.assert_array_equal(mask.col_nnz, array.sum(axis=0))
    for counted, expected in zip(mask.blocks, blocks_of(array), strict=True):
        assert counted.dtype == np.uint8
        np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (128, 128), (129, 136), (256, 127)], ids=str)
def test_a_full_mask_counts_everything_and_an_empty_one_nothing(shape):
    full, empty = Mask(np.ones(shape, bool)), Mask(np.zeros(shape, bool))
    assert (full.nnz, empty.nnz) == (shape[0] * shape[1], 0)
    assert (full.density, empty.density) == (1.0, 0.0)
    assert set(full.row_nnz) == {shape[1]}
    assert set(full.col_nnz) == {shape[0]}
    assert not empty.row_nnz.any()
    assert not empty.col_nnz.any()


def test_counts_do_not_depend_on_which_is_asked_first():
    array = np.random.default_rng(0).random((130, 40)) < 0.3
    for first in ("nnz", "row_nnz", "col_nnz", "blocks", "digest", "density"):
        mask = Mask(array)
        getattr(mask, first)
        assert mask.nnz == array.sum()
        np.testing.assert_array_equal(mask.col_nnz, array.sum(axis=0))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_order_in_memory_changes_nothing(order):
    array = np.random.default_rng(1).random((20, 24)) < 0.5
    mask = Mask(np.asarray(array, order=order))
    assert mask == Mask(array)
    np.testing.assert_array_equal(mask.row_nnz, array.sum(axis=1))


def test_a_mask_cannot_be_written_to():
    mask = Mask(np.eye(3, dtype=bool))
    for array in (mask.array, mask.row_nnz, mask.col_nnz, *mask.blocks):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
        assert not array.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        mask.array.flags.writeable = True
    with pytest.raises(AttributeError):
        mask.nnz = 4


def test_a_mask_keeps_no_tie_to_the_array_it_was_made_of():
    array = np.eye(3, dtype=bool)
    mask = Mask(array)
    array[0, 1] = True
    assert mask.nnz == 3
    assert not mask.array[0, 1]


def test_an_array_that_is_taken_over_becomes_read_only():
    array = np.eye(3, dtype=bool)
    mask = Mask(array, copy=False)
    assert np.shares_memory(mask.array, array)
    assert not array.flags.writeable


@QUICK
@given(arrays(), st.data())
def test_digests_are_equal_exactly_when_content_and_shape_are(array, data):
    mask = Mask(array)
    assert mask.digest == Mask(array.copy()).digest
    flipped = array.copy()
    at = data.draw(st.integers(0, array.size - 1))
    flipped.flat[at] = not flipped.flat[at]
    assert mask.digest != Mask(flipped).digest
    assert mask != Mask(flipped)


def test_the_same_entries_in_another_shape_are_another_mask():
    one, two = Mask(np.ones((2, 6), bool)), Mask(np.ones((3, 4), bool))
    assert one.digest != two.digest
    assert one != two
    # The padding bits of packed rows hide nothing: 1 × 3 and 1 × 4 pack to the same byte.
    assert Mask(np.array([[1, 0, 1]], bool)) != Mask(np.array([[1, 0, 1, 0]], bool))


def test_digests_are_32_hexadecimal_digits_and_do_not_change_between_versions():
    digest = Mask(np.eye(3, dtype=bool)).digest
    assert len(digest) == 32
    assert int(digest, 16) >= 0
    assert digest == DIGEST_OF_EYE_3


@QUICK
@given(arrays())
def test_equal_masks_have_equal_hashes(array):
    one, two = Mask(array), Mask(array.copy())
    assert one == two
    assert hash(one) == hash(two)
    assert len({one, two}) == 1


def test_a_mask_equals_no_other_kind_of_thing():
    mask = Mask(np.ones((1, 1), bool))
    assert mask != 1
    assert mask != "mask"


def test_a_mask_survives_pickling():
    mask = Mask(np.eye(9, dtype=bool))
    again = pickle.loads(pickle.dumps(mask))
    assert again == mask
    assert not again.array.flags.writeable


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_only_booleans_are_a_mask(dtype):
    with pytest.raises(InputError, match=f"dtype is {dtype}; allowed is bool"):
        Mask(np.ones((2, 2), dtype))


@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 2), (0, 3), (3, 0), (0, 0)], ids=str)
def test_a_mask_has_two_dimensions_neither_of_them_empty(shape):
    with pytest.raises(InputError, match=r"shape is .*allowed is \(n_out, n_in\)") as caught:
        Mask(np.ones(shape, bool))
    assert str(shape) in str(caught.value)


def test_a_mask_shows_its_shape_and_its_nonzeros():
    assert repr(Mask(np.eye(4, dtype=bool))) == "Mask(4×4, nnz=4, density=0.2500)"
