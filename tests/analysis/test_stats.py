"""Statistics of runs: literal values, laws, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.stats import (
    holm,
    interquartile_mean,
    mean_interval,
    paired_difference,
    paired_ratio,
    probability_of_improvement,
    stratified_bootstrap,
)
from hwsim import InputError

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


def test_t_interval_of_three_runs():
    # mean 2, standard error 1/√3, t(0.975, 2) = 4.3027
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.low == pytest.approx(2 - 4.302653 / 3**0.5, rel=1e-6)
    assert interval.high == pytest.approx(2 + 4.302653 / 3**0.5, rel=1e-6)


def test_one_run_has_no_interval():
    assert mean_interval([1.0]).high == np.inf


def test_pairing_removes_the_noise_that_seeds_share():
    a = {0: 10.0, 1: 20.0, 2: 30.0}
    b = {0: 9.0, 1: 19.0, 2: 29.0, 3: 5.0}
    difference = paired_difference(a, b)
    assert (difference.point, difference.low, difference.high, difference.n) == (1, 1, 1, 3)


def test_interquartile_mean_ignores_the_outer_quarters():
    assert interquartile_mean([-1e9, 1, 2, 3, 4, 5, 6, 1e9]) == 3.5


@given(NUMBERS, NUMBERS)
def test_improvement_and_its_reverse_sum_to_one(a, b):
    assert probability_of_improvement(a, b) + probability_of_improvement(b, a) == pytest.approx(1)


@settings(deadline=None, max_examples=20)
@given(NUMBERS, st.integers(0, 2**32))
def test_the_bootstrap_interval_lies_within_the_data_and_repeats_with_its_seed(values, seed):
    once = stratified_bootstrap([values], rng=np.random.default_rng(seed), samples=50)
    again = stratified_bootstrap([values], rng=np.random.default_rng(seed), samples=50)
    assert once == again
    assert min(values) - 1e-9 <= once.low <= once.high <= max(values) + 1e-9


def test_strata_are_resampled_apart():
    # Two constant strata: every resample has both in full, so the mean never moves.
    interval = stratified_bootstrap(
        [[0.0] * 5, [1.0] * 5], lambda x: x.mean(-1), rng=np.random.default_rng(0)
    )
    assert (interval.low, interval.high) == (0.5, 0.5)


@pytest.mark.parametrize("bad", [[], [float("nan")]])
def test_no_numbers_are_an_error(bad):
    with pytest.raises(InputError, match="at least one number"):
        mean_interval(bad)


def test_no_common_seed_is_an_error():
    with pytest.raises(InputError, match="none in common"):
        paired_difference({0: 1.0}, {1: 1.0})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_keeps_the_order_and_lowers_nothing(p_values):
    found = holm(p_values)
    assert all(0 <= p <= c <= 1 for p, c in zip(p_values, found, strict=True))
    order = sorted(range(len(found)), key=lambda i: p_values[i])
    assert [found[i] for i in order] == sorted(found)


def test_the_interval_of_a_ratio_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        a = dict(enumerate(np.exp(0.3 + 0.2 * rng.standard_normal(6))))
        b = dict(enumerate(np.exp(np.zeros(6))))
        interval = paired_ratio(a, b).interval
        hits += interval.low <= np.exp(0.3) <= interval.high
    assert 0.90 <= hits / 200 <= 0.99


def test_a_ratio_says_what_it_could_have_shown():
    tight = paired_ratio({s: 2.0 + 0.01 * s for s in range(5)}, dict.fromkeys(range(5), 2.0))
    loose = paired_ratio({s: 2.0 + 0.5 * s for s in range(5)}, dict.fromkeys(range(5), 2.0))
    assert 1 < tight.detectable() < loose.detectable() < loose.detectable(10)


@pytest.mark.parametrize("bad", [{0: 0.0}, {0: -1.0}, {0: float("inf")}, {1: 1.0}])
def test_a_ratio_of_what_has_none_is_refused(bad):
    with pytest.raises(InputError):
        paired_ratio(bad, {0: 1.0})
