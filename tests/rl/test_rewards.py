"""Every reward on hand-made moments, and the laws that separate good ones from perverse ones."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from rl.moment import Moment
from rl.rewards import REWARDS, make_reward


def moment(spent, done, flops=None, step_density=1.0):
    """A run whose dense form takes 1 second and 1 FLOP, `done` of the way to its target."""
    t = lambda x: torch.tensor([float(x)], dtype=torch.float64)  # noqa: E731
    return Moment(
        spent_s=t(spent), remaining_s=t(1 - done), dense_s=t(1),
        spent_flops=t(spent if flops is None else flops), dense_flops=t(1),
        step_density=t(step_density), accuracy=t(done),
    )  # fmt: skip


def total(name, path):
    reward = REWARDS.get(name)
    return sum(float(reward(a, b)) for a, b in pairwise(path))


def test_a_dense_run_scores_nothing_under_log_ratio():
    assert total("log_ratio", [moment(x, x) for x in (0, 0.3, 1)]) == pytest.approx(0.0)


def test_a_run_of_half_the_time_scores_log_two():
    assert total("log_ratio", [moment(0, 0), moment(0.5, 1)]) == pytest.approx(math.log(2))


def test_time_cost_of_a_run_of_half_the_time_is_one_half():
    assert total("time_cost", [moment(0, 0), moment(0.2, 0.5), moment(0.5, 1)]) == pytest.approx(
        0.5
    )


def literal(name):
    """The reward of one interval whose numbers are all different, so that no two can be swapped."""
    t = lambda x: torch.tensor([x], dtype=torch.float64)  # noqa: E731
    before = Moment(
        spent_s=t(3.0), remaining_s=t(16.0), dense_s=t(20.0), spent_flops=t(500.0),
        dense_flops=t(4000.0), step_density=t(0.9), accuracy=t(0.2),
    )  # fmt: skip
    after = Moment(
        spent_s=t(5.0), remaining_s=t(11.0), dense_s=t(20.0), spent_flops=t(900.0),
        dense_flops=t(4000.0), step_density=t(0.4), accuracy=t(0.45),
    )  # fmt: skip
    return float(REWARDS.get(name)(before, after))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log_ratio", math.log(19.0 / 16.0)),
        ("time_cost", (19.0 - 16.0) / 20.0),
        ("flops", 5.0 / 20.0 - 400.0 / 4000.0),
        ("accuracy", 0.25),
        ("dsrl", 0.25 - 400.0 / 4000.0),
        ("dsrl_literal", 0.25 - 0.1 * 0.6),
    ],
)
def test_rewards_of_one_interval_written_out(name, expected):
    assert literal(name) == pytest.approx(expected, rel=1e-12)


@given(
    st.lists(st.tuples(st.floats(0.001, 0.5), st.floats(0.0, 0.2)), min_size=1, max_size=12),
    st.sampled_from(["log_ratio", "time_cost", "flops", "accuracy", "dsrl"]),
)
def test_the_sum_does_not_depend_on_how_often_the_agent_decides(steps, name):
    path, spent, done = [moment(0, 0)], 0.0, 0.0
    for cost, gain in steps:
        spent, done = spent + cost, min(1.0, done + gain)
        path.append(moment(spent, done))
    assert total(name, path) == pytest.approx(total(name, [path[0], path[-1]]), abs=1e-9)


@given(st.floats(0.05, 3), st.floats(0.05, 3), st.floats(0, 1))
def test_equal_accuracy_at_lower_cost_never_scores_worse(a, b, done):
    cheap, dear = min(a, b), max(a, b)
    for name in ("log_ratio", "time_cost", "flops", "dsrl"):
        scores = [total(name, [moment(0, 0), moment(spent, done)]) for spent in (cheap, dear)]
        assert scores[0] >= scores[1] - 1e-12, name


def test_the_literal_reward_pays_for_density():
    before = moment(0, 0)
    dense = REWARDS.get("dsrl_literal")(before, moment(0.1, 0.1, step_density=1.0))
    sparse = REWARDS.get("dsrl_literal")(before, moment(0.1, 0.1, step_density=0.1))
    assert dense > sparse


@settings(max_examples=20)
@given(st.sampled_from(REWARDS.names()), st.floats(0, 1), st.floats(0, 0.5))
def test_every_reward_is_finite_and_of_the_batch_shape(name, done, cost):
    value = REWARDS.get(name)(moment(0.1, 0), moment(0.1 + cost, done))
    assert value.shape == (1,)
    assert torch.isfinite(value).all()


def test_an_unknown_reward_lists_the_valid_ones():
    with pytest.raises(InputError, match="log_ratio"):
        REWARDS.get("speed")


def test_a_reward_is_named_with_weights_of_its_own():
    assert make_reward("dsrl") is REWARDS.get("dsrl")
    assert make_reward("dsrl()").keywords == {}
    made = make_reward("dsrl(alpha=2,beta=0.5)")
    assert made.func is REWARDS.get("dsrl") and made.keywords == {"alpha": 2.0, "beta": 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dsrl(gamma=1)", "unknown weight of reward dsrl 'gamma' (valid: alpha, beta)"),
        ("dsrl(before=1)", "unknown weight of reward dsrl 'before' (valid: alpha, beta)"),
        ("dsrl(alpha=much)", "alpha: value is 'much'; allowed is a finite number"),
        ("dsrl(alpha=inf)", "alpha: value is 'inf'; allowed is a finite number"),
        ("dsrl(alpha)", "alpha: value is ''; allowed is a finite number"),
        ("dsrl(alpha=1=2)", "alpha: value is '1=2'; allowed is a finite number"),
    ],
)
def test_a_weight_that_is_none_is_told(text, said):
    with pytest.raises(InputError) as caught:
        make_reward(text)
    assert str(caught.value) == said
