"""Dense at its own rate, beside agents that ran at a fixed one."""

import math

import numpy as np
import pytest

from analysis.agents.dense_rate import AtRate, TunedDense, speed_ups, tune
from analysis.comparing.conclusion import Verdict
from analysis.stats import Interval
from rl.runs.problems import Problem


@pytest.mark.parametrize("best", [0.5, 1.0, 2.0, 16.0])
def test_the_grid_is_widened_until_the_best_factor_lies_inside(best):
    choice = tune(lambda factor: -abs(math.log2(factor / best)))
    assert choice.rate == best and not choice.at_an_end


def test_a_rate_that_diverges_is_not_chosen():
    choice = tune(lambda factor: None if factor > 2 else factor)
    assert choice.rate == 2.0 and not choice.at_an_end


def test_at_the_fixed_rate_dense_is_as_fast_as_itself():
    found = speed_ups(Problem("mlp-1x16", "images"), 1.0, range(3), 0.9)
    assert found == pytest.approx(np.ones(3))


def test_on_digits_a_larger_rate_than_the_fixed_one_is_much_faster():
    found = speed_ups(Problem("mlp-1x16", "images"), 8.0, range(4), 0.9)
    assert np.exp(np.log(found).mean()) > 1.3


def test_a_problem_at_a_rate_is_another_problem():
    own, other = Problem("mlp-1x16", "images"), AtRate("mlp-1x16", "images", factor=4.0)
    assert other.setting.optimizer.lr == 4 * own.setting.optimizer.lr
    assert own != other and own.setting.optimizer.lr == 2e-3


@pytest.mark.parametrize(
    ("low", "high", "end", "verdict"),
    [
        (1.1, 1.3, False, Verdict.FASTER), (0.9, 1.1, False, Verdict.ALIKE),
        (0.5, 0.9, False, Verdict.SLOWER), (1.1, 1.3, True, Verdict.UNTUNED),
    ],
)  # fmt: skip
def test_the_line_says_no_more_than_the_interval(low, high, end, verdict):
    one = TunedDense({0.002: 0.0, 0.016: 0.9}, 0.016, 0.002, 2.5, Interval(1.0, low, high, 9), end)
    assert one.verdict == verdict
    assert one.line.endswith(f"{verdict}.") and "0.016" in one.line
