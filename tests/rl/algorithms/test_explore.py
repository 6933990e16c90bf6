"""Densities as actions: a law for each part, and agents that act in them."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tensordict import TensorDict
from torch.distributions import Normal

from hwsim import InputError
from rl.algorithms import make_agent
from rl.algorithms._explore import LayerwiseDensity, SmoothNoise
from rl.algorithms._policy import DensityActor
from rl.envs.formula import WhiteBoxConfig
from rl.envs.observe import GLOBAL_FEATURES
from rl.envs.whitebox import WhiteBoxEnv
from rl.evaluate import speed_ups

LEAST = 1 / 32
DENSITY = {"mode": "density", "iterations": 3, "steps": 8, "epochs": 1, "minibatches": 2}


pytestmark = pytest.mark.usefixtures("one_thread")


def law(depth, spread, least=LEAST):
    depth = torch.as_tensor(depth)
    return LayerwiseDensity(depth, torch.as_tensor(spread), torch.full_like(depth, math.log(least)))


def world(slots=16, seed=0, layers=(3, 6)):
    config = WhiteBoxConfig(layers=layers, decisions=8, budget=1.5)
    return WhiteBoxEnv(config, slots, mode="density", seed=seed)


def test_depth_zero_is_dense_and_depth_one_is_the_least_density():
    made = law([0.0, 0.5, 1.0], [0.1, 0.1, 0.1])
    expected = torch.tensor([1.0, LEAST**0.5, LEAST])
    torch.testing.assert_close(made.deterministic_sample, expected)


@settings(deadline=None, max_examples=50)
@given(
    depth=st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=5),
    noise=st.floats(-3, 3), spread=st.floats(0.01, 0.5),
)  # fmt: skip
def test_the_log_probability_is_that_of_depth_summed_over_layers(depth, noise, spread):
    made = law(depth, [spread] * len(depth))
    action = made.densities(torch.full((len(depth),), noise))
    own = Normal(0.0, spread).log_prob(torch.tensor(noise * spread))
    assert made.log_prob(action).item() == pytest.approx(
        len(depth) * own.item(), rel=1e-3, abs=1e-2
    )


def test_padding_is_dense_and_has_no_part_in_probability_or_entropy():
    alone, padded = law([0.4], [0.2]), law([0.4, 0.0], [0.2, 0.0])
    action = padded.sample()
    assert action[1] == 1.0
    torch.testing.assert_close(padded.log_prob(action), alone.log_prob(action[:1]))
    torch.testing.assert_close(padded.entropy(), alone.entropy())


def test_no_gradient_comes_from_padding():
    spread = torch.tensor(0.2, requires_grad=True)
    live = torch.tensor([0.0, 0.0])
    made = LayerwiseDensity(torch.zeros(2), spread * live, torch.full((2,), math.log(LEAST)))
    (made.log_prob(torch.tensor([1.0, 1.0])) + made.entropy()).backward()
    assert spread.grad == 0


def asked(noise, done, elapsed, slots=512, layers=3):
    """What it draws at mean depth 0.5 and spread 0.1, in standard deviations."""
    whole = torch.zeros(slots, len(GLOBAL_FEATURES))
    whole[:, GLOBAL_FEATURES.index("done")] = done
    whole[:, GLOBAL_FEATURES.index("elapsed")] = elapsed
    shape = (slots, layers)
    seen = TensorDict(
        {"depth": torch.full(shape, 0.5), "spread": torch.full(shape, 0.1),
         "log_least": torch.full(shape, math.log(LEAST)), "whole": whole},
        batch_size=[slots],
    )  # fmt: skip
    drawn = noise(seen)
    again = law(torch.full(shape, 0.5), torch.full(shape, 0.1)).log_prob(drawn["action"])
    torch.testing.assert_close(drawn["action_log_prob"], again)
    return (drawn["action"].log() / math.log(LEAST) - 0.5) / 0.1


def test_noise_is_standard_normal_at_any_progress_and_layers_share_half_of_it():
    torch.manual_seed(0)
    for done in (0.0, 0.2, 0.5, 1.0):
        found = asked(SmoothNoise(), done, 0.0, slots=4000)
        assert abs(found.mean()) < 0.05 and abs(found.std() - 1) < 0.05
        both = torch.corrcoef(found.T)
        assert abs(both[0, 1] - 0.5) < 0.08


def test_noise_stays_within_a_run_and_is_new_in_the_next():
    torch.manual_seed(0)
    noise = SmoothNoise()
    first = asked(noise, 0.0, 0.0)
    torch.testing.assert_close(asked(noise, 0.0, 0.1), first)
    near, far = asked(noise, 0.05, 0.2), asked(noise, 1.0, 0.9)
    assert torch.corrcoef(torch.stack([first.flatten(), near.flatten()]))[0, 1] > 0.9
    assert abs(torch.corrcoef(torch.stack([first.flatten(), far.flatten()]))[0, 1]) < 0.1
    assert not torch.allclose(asked(noise, 0.0, 0.0), first)


def test_with_one_knot_a_run_keeps_its_noise_and_the_next_has_another():
    torch.manual_seed(0)
    noise = SmoothNoise(knots=1)
    first = asked(noise, 0.0, 0.0)
    assert abs(first.std() - 1) < 0.05
    for done, elapsed in ((0.1, 0.2), (0.6, 0.5), (1.0, 1.3)):
        torch.testing.assert_close(asked(noise, done, elapsed), first)
    assert not torch.allclose(asked(noise, 0.0, 0.0), first)


def test_runs_that_begin_leave_the_noise_of_the_others_alone():
    torch.manual_seed(0)
    noise = SmoothNoise()
    elapsed = torch.linspace(0.1, 0.9, 8)
    first = asked(noise, 0.0, elapsed, slots=8)
    later = elapsed + 0.1
    later[3] = 0.0
    second = asked(noise, 0.0, later, slots=8)
    same = (first == second).all(1)
    assert same.tolist() == [i != 3 for i in range(8)]


def test_an_untrained_policy_names_nearly_its_start():
    actor = DensityActor(16, (), least=LEAST, start=0.25, spread=0.15)
    seen = world().reset()
    depth, spread, _ = actor(seen["layers"], seen["whole"], seen["live"])
    live = seen["live"]
    assert (LEAST ** depth[live] - 0.25).abs().max() < 0.05
    assert torch.allclose(spread[live], torch.tensor(0.15)) and not spread[~live].any()


def test_the_policy_does_not_know_the_order_of_layers():
    actor = DensityActor(16, (), least=LEAST, start=0.25, spread=0.15)
    seen = world(layers=(5, 5)).reset()
    order = torch.randperm(5)
    mixed = actor(seen["layers"][:, order], seen["whole"], seen["live"][:, order])
    own = actor(seen["layers"], seen["whole"], seen["live"])
    for a, b in zip(mixed, own, strict=True):
        torch.testing.assert_close(a, b[:, order])


def test_it_learns_densities_in_the_white_box():
    agent = make_agent(
        "ppo", mode="density", iterations=12, steps=16, epochs=4, minibatches=4, lr=6e-3
    )
    before = speed_ups(world(256, seed=9), lambda _, seen: agent.act(seen)).log().mean()
    agent.train(world(64))
    after = speed_ups(world(256, seed=9), lambda _, seen: agent.act(seen)).log().mean()
    assert after > before + 0.05


def test_stopped_and_resumed_is_the_same_policy_to_the_bit():
    def weights(agent):
        return torch.cat([p.detach().flatten() for p in agent.loss.parameters()])

    whole, first, second = (make_agent("ppo", **DENSITY) for _ in range(3))
    whole.train(world())
    half = world()
    first.train(half, stop_after=1)
    rest = world(seed=5)
    rest.load_state_dict(half.state_dict())
    second.load_state_dict(first.state_dict())
    second.train(rest)
    assert torch.equal(weights(whole), weights(second))


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        ("dqn", {"mode": "density"}, "allowed for dqn is step"),
        ("ppo", {"mode": "dense"}, "unknown action mode 'dense'"),
        ("ppo", {"mode": "density", "start": 0.01}, r"start: value is 0.01; allowed is 0.03125"),
        ("ppo", {"spread": 0.0}, "spread: value is 0.0; allowed is above 0"),
        ("ppo", {"min_density": 1.0}, "min_density: value is 1.0"),
    ],
)
def test_bad_settings_are_one_line(algorithm, changes, message):
    with pytest.raises(InputError, match=message):
        make_agent(algorithm, **changes)
