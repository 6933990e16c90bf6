"""Base learning rates: one grid for all, widened; a network's name may carry its own."""

import math

import pytest

from analysis.agents.rates import at_rate, dense_rate, tune
from hwsim import InputError
from rl.runs.problems import Problem, narrower


@pytest.mark.parametrize("best", [0.5, 1.0, 4.0, 32.0])
def test_the_grid_is_widened_until_the_best_factor_lies_inside(best):
    choice = tune(lambda factor: -abs(math.log2(factor / best)))
    assert choice.rate == best and not choice.at_an_end


def test_a_rate_that_diverges_is_not_chosen():
    choice = tune(lambda factor: None if factor > 4 else factor)
    assert choice.rate == 4.0 and not choice.at_an_end


def test_on_digits_dense_wants_more_than_the_tasks_own_rate():
    choice = dense_rate((("mlp-1x16", "images"),), range(4), 0.9)
    assert choice.rate > 1 and not choice.at_an_end


def test_a_network_at_a_rate_is_another_problem_of_the_same_form():
    own, other = Problem("mlp-2x16", "images"), Problem(at_rate("mlp-2x16", 4.0), "images")
    assert other.network == "mlp-2x16@4" and own.parts == other.parts
    assert other.setting.optimizer.lr == 4 * own.setting.optimizer.lr
    assert at_rate(other.network, 1.0) == own.network
    assert narrower("mlp-2x16@4", "images", 1.0) == "mlp-2x16@4"


@pytest.mark.parametrize("name", ["mlp-1x16@", "mlp-1x16@0", "mlp-1x16@x", "mlp-1x16@-2"])
def test_a_factor_that_is_none_is_refused(name):
    with pytest.raises(InputError, match="network: value is"):
        Problem(name, "images")
