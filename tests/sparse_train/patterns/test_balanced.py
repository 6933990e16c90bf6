"""Balanced fan-in by groups of rows: by hand, against brute force, and as updates go."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask
from hwsim import patterns as definitions
from hwsim.patterns.balanced import Balanced as Definition
from sparse_train.patterns import projection
from sparse_train.patterns.balanced import Balanced


def mask_of(*rows):
    """Rows of 0 and 1; spaces show where a block ends."""
    return np.array([[c == "1" for c in row if c != " "] for row in rows])


def holds(text, *rows):
    return definitions.pattern(text).holds(Mask(mask_of(*rows)))


def test_blocks_and_groups_may_differ_but_rows_of_a_group_may_not():
    assert holds("balanced:3,2", "110 001", "011 100", "000 111", "000 111")
    assert not holds("balanced:3,2", "110 001", "001 110", "000 111", "000 111")
    assert not holds("balanced:3", "110 001", "011 100", "000 111", "000 111")


def test_all_groups_have_the_same_fan_in():
    assert not holds("balanced:3,2", "110 001", "011 100", "000 011", "000 110")


def test_inactive_rows_count_for_nothing():
    assert holds("balanced:3,2", "110 001", "000 000", "000 000", "000 000")
    assert holds("balanced:3,2", "000 000", "000 000")
    assert not holds("balanced:3,3", "110 001", "000 000", "100 110")


def test_the_last_block_and_the_last_group_may_be_smaller():
    assert holds("balanced:3,2", "110 1", "011 1", "111 0")
    assert not holds("balanced:3,2", "110 1", "111 0", "111 0")


def test_one_row_a_group_is_constant_fan_in():
    rng = np.random.default_rng(0)
    for _ in range(50):
        array = rng.random((3, 5)) < rng.choice([0.2, 0.5, 0.9])
        array[1:, :] = array[0] if rng.random() < 0.5 else array[1:, :]
        expected = definitions.pattern("fan_in").holds(Mask(array))
        assert definitions.pattern("balanced:2,1").holds(Mask(array)) == expected
    scores = rng.random((7, 9), dtype=np.float32)
    for budget in range(64):
        found = projection("balanced:4,1").project(scores, budget)
        if budget >= 7:
            assert np.array_equal(found, projection("fan_in").project(scores, budget))


def test_a_group_takes_the_places_that_its_rows_want_together():
    # Sums of the best of a block: 5 + 6 = 11 and 4 + 1; of the second best: 3 + 1 = 4 and 4 + 1.
    scores = np.array([[5, 3, 4, 4], [1, 6, 1, 1]], dtype=np.float32)
    found = projection("balanced:2,2").project(scores, 4)
    assert np.array_equal(found, mask_of("10 10", "01 10"))
    scores[0, 1] = 5
    assert np.array_equal(projection("balanced:2,2").project(scores, 4), mask_of("11 00", "11 00"))


def test_a_budget_below_one_weight_a_row_goes_to_the_rows_with_most_score():
    scores = np.array([[9, 0, 0, 1], [0, 0, 1, 0], [0, 0, 8, 9], [4, 4, 4, 7]], dtype=np.float32)
    rule = projection("balanced:2,2")
    assert np.array_equal(rule.project(scores, 1), mask_of("00 00", "00 00", "00 00", "00 01"))
    two = mask_of("00 00", "00 00", "00 01", "00 01")
    assert np.array_equal(rule.project(scores, 2), two)
    three = mask_of("10 00", "00 00", "00 01", "00 01")
    assert np.array_equal(rule.project(scores, 3), three)


def test_a_smaller_budget_keeps_the_places_worth_most_to_the_group():
    rule = projection("balanced:2,2")
    mask = mask_of("11 10", "11 01")
    scores = np.array([[3, 4, 2, 9], [1, 1, 9, 5]], dtype=np.float32)
    # Of the four best, 4 and then 3 lie in the first block, 2 and 5 side by side in the second.
    assert np.array_equal(rule.keep(scores, mask, 6, 4), mask_of("01 10", "00 01"))


def test_what_one_row_keeps_in_a_block_the_others_get_there():
    rule = projection("balanced:2,2")
    kept = mask_of("11 00", "00 00")
    scores = np.array([[0, 0, 1, 1], [0, 0, 9, 9]], dtype=np.float32)
    assert np.array_equal(rule.fill(scores, kept, 4), mask_of("11 00", "11 00"))
    kept = mask_of("10 00", "00 00")
    assert np.array_equal(rule.fill(scores, kept, 4), mask_of("10 10", "10 10"))


def completions(rule, kept, fan_in):
    """Every mask of the pattern with this fan-in that contains `kept`."""
    inputs = range(kept.shape[1])
    rows = [np.isin(inputs, c) for c in itertools.combinations(inputs, fan_in)]
    ways = [[way for way in rows if not (have & ~way).any()] for have in kept]
    for chosen in itertools.product(*ways):
        mask = np.array(chosen)
        if rule.definition.holds(Mask(mask)):
            yield mask


def test_half_of_what_is_dropped_goes_by_whole_places():
    rule = projection("balanced:2,2")
    mask = mask_of("10 10 10 10", "01 01 01 01")
    scores = np.zeros((2, 8), dtype=np.float32)
    # Of eight weights two stay: √(8 · 2) = 4 in the places of most mean, then the largest there.
    scores[mask] = [9, 1, 6, 2, 1, 3, 5, 2]
    assert np.array_equal(rule.keep(scores, mask, 2, 8), mask_of("10 00 10 00", "00 00 00 00"))
    scores[mask] = [4, 1, 3, 2, 4, 9, 3, 2]
    assert np.array_equal(rule.keep(scores, mask, 2, 8), mask_of("10 00 00 00", "00 01 00 00"))


def test_other_blocks_get_room_in_an_update():
    rule, rng = projection("balanced:8,8"), np.random.default_rng(0)
    first = mask = rule.project(rng.random((64, 256), dtype=np.float32), 1600)
    for _ in range(5):
        kept = rule.keep(rng.random(mask.shape, dtype=np.float32), mask, 1120, 1600)
        mask = rule.fill(rng.random(mask.shape, dtype=np.float32), kept, 1600)
    before, after = (np.add.reduceat(m, np.arange(0, 256, 8), axis=1) for m in (first, mask))
    assert (before != after).mean() > 0.1


@st.composite
def tiny(draw):
    shape = draw(st.sampled_from([(2, 5), (2, 4), (3, 4), (1, 6)]))
    rule = Balanced(draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = draw(st.sampled_from([2, 5, 1000]))  # few distinct scores: many ties
    scores, drops = (rng.integers(0, most, shape).astype(np.float32) for _ in range(2))
    return rule, scores, drops, draw(st.integers(1, shape[1]))


@settings(deadline=None, max_examples=60)
@given(tiny())
def test_the_projection_is_the_best_of_all_masks(case):
    rule, scores, _, fan_in = case
    found = rule.project(scores, fan_in * len(scores))
    nothing = np.zeros(scores.shape, dtype=bool)
    best = max((scores * mask).sum() for mask in completions(rule, nothing, fan_in))
    assert (scores * found).sum() == best


@settings(deadline=None, max_examples=60)
@given(tiny(), st.floats(0, 1))
def test_filling_is_the_best_of_all_masks_with_what_is_kept(case, share):
    rule, scores, drops, fan_in = case
    budget = fan_in * len(scores)
    mask = rule.project(drops, budget)
    kept = rule.keep(drops, mask, int(share * budget), budget)
    found = rule.fill(scores, kept, budget)
    best = max((scores * mask).sum() for mask in completions(rule, kept, fan_in))
    assert (scores * found).sum() == best


@settings(deadline=None, max_examples=100)
@given(tiny(), st.floats(0, 1), st.integers(1, 6))
def test_what_is_kept_under_another_budget_can_be_filled(case, share, other):
    rule, scores, drops, fan_in = case
    n_out, n_in = scores.shape
    mask = rule.project(drops, fan_in * n_out)
    budget = min(other, n_in) * n_out
    kept = rule.keep(drops, mask, int(share * rule.units(mask)), budget)
    grown = rule.fill(scores, kept, budget)
    assert not (kept & ~mask).any() and not (kept & ~grown).any()
    assert rule.definition.holds(Mask(grown)) and grown.sum() == budget


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1)
)
def test_an_update_drops_as_many_weights_as_it_is_asked_to(n_out, n_in, seed, density, share):
    rng = np.random.default_rng(seed)
    rule = Balanced(int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    scores = rng.integers(0, 5, (2, n_out, n_in)).astype(np.float32)
    budget = round(density * n_out * n_in)
    mask = rule.project(scores[0], budget)
    units = int(share * mask.sum())
    assert rule.keep(scores[1], mask, units, budget).sum() == units


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([64, 65, 100]))
def test_long_blocks_give_what_short_ones_would(seed, block):
    """Long blocks are ranked by a sort, short ones by comparing all pairs."""
    scores = np.random.default_rng(seed).integers(0, 40, (3, block)).astype(np.float32)
    for rows in (0, 3):
        found = Balanced(block, rows).project(scores, 3 * 7)
        for line, mask in zip(scores, found, strict=True):
            assert np.array_equal(
                np.flatnonzero(mask), np.sort(np.argsort(-line, kind="stable")[:7])
            )


@pytest.mark.parametrize("text", ["balanced:8,8", "balanced:8x8"])
def test_two_numbers_are_block_and_rows(text):
    assert definitions.pattern(text) == Definition(block=8, rows=8)
    assert projection(text) == Balanced(block=8, rows=8)
    assert definitions.pattern("balanced:8") == Definition(block=8, rows=0)


@pytest.mark.parametrize(("block", "rows"), [(8, -1), (8, True), (8, 2.0), (0, 8), (True, 8)])
def test_parameters_that_are_no_counts_are_refused(block, rows):
    name = "rows" if block == 8 and block is not True else "block"
    for kind in (Definition, Balanced):
        with pytest.raises(InputError, match=f"balanced: {name} is .*; allowed is an integer"):
            kind(block, rows)


@pytest.mark.parametrize("text", ["balanced:8,8,8", "balanced:8,-1", "balanced:8,a", "balanced:,8"])
def test_texts_that_are_no_two_counts_are_refused(text):
    for make in (projection, definitions.pattern):
        with pytest.raises(InputError, match="balanced takes block, rows"):
            make(text)
