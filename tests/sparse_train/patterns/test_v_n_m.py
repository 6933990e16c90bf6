"""V:N:M: the two stages of its projection, against brute force; its packed form by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, patterns
from hwsim.patterns.n_m import NM
from sparse_train.patterns import projection


def best_of_all_masks(scores):
    """The largest sum of one block: of four columns, and of any two of them in each row."""
    columns = itertools.combinations(range(scores.shape[1]), min(4, scores.shape[1]))
    return max(np.sort(scores[:, list(c)], axis=1)[:, -2:].sum() for c in columns)


def holds_by_definition(mask, v, m):
    blocks = [
        mask[i : i + v, j : j + m]
        for i in range(0, len(mask), v)
        for j in range(0, mask.shape[1], m)
    ]
    return all(b.any(axis=0).sum() <= 4 and b.sum(axis=1).max() <= 2 for b in blocks)


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 4), st.integers(4, 8), st.integers(0, 9999))
def test_two_stages_get_at_least_half_of_the_best_and_all_of_it_for_one_row(v, m, seed):
    scores = np.random.default_rng(seed).random((v, m)).astype(np.float32) ** 4
    mask = projection(f"v_n_m:{v},2,{m}").project(scores, 2 * v)
    found, best = float(scores[mask].sum()), float(best_of_all_masks(scores))
    assert 0.5 * best <= found <= best * (1 + 1e-6)
    if v == 1:
        assert found == pytest.approx(best)


def test_the_columns_are_those_with_the_largest_sums_even_where_others_would_be_better():
    # Columns 0 to 3 have the largest sums; the last two hold the best of each row.
    scores = np.array([[3, 3, 3, 3, 5, 0], [3, 3, 3, 3, 0, 5]], np.float32)
    mask = projection("v_n_m:2,2,6").project(scores, 4)
    assert np.array_equal(mask, np.array([[1, 1, 0, 0, 0, 0]] * 2, bool))
    assert scores[mask].sum() == 12 < best_of_all_masks(scores) == 16


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 9999))
def test_blocks_of_one_row_are_n_m_and_blocks_of_four_columns_are_two_four(n, k, seed):
    scores = np.random.default_rng(seed).random((n, k)).astype(np.float32)
    for m, v in ((7, 1), (4, 3)):
        rows = projection(f"n_m:2,{m}")
        budget = n * (2 * (k // m) + min(2, k % m))
        found = projection(f"v_n_m:{v},2,{m}").project(scores, budget)
        assert np.array_equal(found, rows.project(scores, budget))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.sampled_from([4, 5, 8, 16, 24]), st.integers(1, 12),
       st.integers(1, 40), st.sampled_from([0.02, 0.1, 0.3]), st.integers(0, 9999))  # fmt: skip
def test_whether_a_mask_is_of_the_pattern_is_told_as_the_definition_says(v, m, n, k, density, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((n, k)) < density
    rule = patterns.pattern(f"v_n_m:{v},2,{m}")
    assert rule.holds(Mask(mask)) == holds_by_definition(mask, v, m)
    scores = rng.random((n, k)).astype(np.float32)
    right = projection(rule.name + f":{v},2,{m}").project(
        scores, n * (2 * (k // m) + min(2, k % m))
    )
    right[rng.integers(n), rng.integers(k)] ^= True
    assert rule.holds(Mask(right)) == holds_by_definition(right, v, m)


def test_growth_fills_columns_in_use_before_it_opens_others():
    kept = np.zeros((2, 8), bool)
    kept[0, [5, 6]] = kept[1, 7] = True
    scores = np.tile(np.arange(8, 0, -1, dtype=np.float32), (2, 1))
    mask = projection("v_n_m:2,2,8").fill(scores, kept, 4)
    # Column 0 has the best score and takes the one place that is left; row 1 has room for one.
    assert np.array_equal(np.flatnonzero(mask[0]), [5, 6])
    assert np.array_equal(np.flatnonzero(mask[1]), [0, 7])


def test_packed_by_hand():
    mask = np.array([[1, 0, 0, 0, 1, 0], [0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 1]], bool)
    values = np.arange(18, dtype=np.float32).reshape(3, 6)
    rule = patterns.pattern("v_n_m:2,2,5")
    packed = rule.pack(Mask(mask), values)
    assert packed.indices["columns"].tolist() == [
        [[0, 2, 4, 1], [0, 1, 2, 3]], [[0, 1, 2, 3], [0, 1, 2, 3]]]  # fmt: skip
    assert packed.values.tolist() == [[[0, 4], [0, 0]], [[8, 10], [0, 0]], [[0, 0], [17, 0]]]
    assert packed.indices["places"][1].tolist() == [[1, 2], [0, 1]]
    assert np.array_equal(rule.unpack(packed), values * mask)


def test_it_is_stricter_than_n_m_and_says_which_parameters_it_takes():
    rows = np.kron(np.eye(4), [1, 1]).astype(bool)  # two in each row, but eight columns in use
    assert NM(2, 8).holds(Mask(rows))
    assert not patterns.pattern("v_n_m:4,2,8").holds(Mask(rows))
    assert patterns.pattern("v_n_m:2,2,8").holds(Mask(rows))
    with pytest.raises(InputError, match="n is 3; allowed is 2, of 4 columns"):
        patterns.pattern("v_n_m:4,3,8")
    with pytest.raises(InputError, match="m is 3; allowed is an integer of at least 4"):
        patterns.pattern("v_n_m:4,2,3")
