"""The agent: it learns what is known to be best, resumes to the bit, and says when it cannot."""

import functools
import io

import pytest
import torch

from hwsim import InputError
from rl.algorithms._policy import Actor, Critic
from rl.algorithms.ppo import PPO, PPOConfig
from rl.envs.formula import WhiteBoxConfig
from rl.envs.whitebox import WhiteBoxEnv
from rl.evaluate import greedy, speed_ups

LEAST = 0.004
SMALL = PPOConfig(iterations=4, steps=8, epochs=1, minibatches=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def observation(layers, seed=0):
    env = WhiteBoxEnv(WhiteBoxConfig(layers=(layers, layers)), 2, seed=seed)
    return env.reset()


def test_the_policy_does_not_know_the_order_of_layers():
    actor, critic, seen = Actor(), Critic(), observation(5)
    order = torch.randperm(5)
    own = (seen["layers"], seen["whole"], seen["live"])
    mixed = (seen["layers"][:, order], seen["whole"], seen["live"][:, order])
    torch.testing.assert_close(actor(*mixed), actor(*own)[:, order])
    torch.testing.assert_close(critic(*mixed), critic(*own))


def test_padding_changes_nothing():
    actor, critic, seen = Actor(), Critic(), observation(4)
    wide = torch.cat([seen["layers"], torch.randn(2, 3, seen["layers"].shape[-1])], 1)
    live = torch.cat([seen["live"], torch.zeros(2, 3, dtype=torch.bool)], 1)
    padded = actor(wide, seen["whole"], live)
    own = (seen["layers"], seen["whole"], seen["live"])
    torch.testing.assert_close(padded[:, :4], actor(*own))
    torch.testing.assert_close(critic(wide, seen["whole"], live), critic(*own))
    assert not padded[:, 4:].any()


def weights(agent):
    return torch.cat([p.detach().flatten() for p in agent.loss.parameters()])


def test_killed_between_iterations_and_resumed_is_the_same_policy_to_the_bit():
    def env():
        return WhiteBoxEnv(WhiteBoxConfig(), 8, seed=1)

    whole, first = PPO(SMALL), PPO(SMALL)
    world = env()
    whole.train(world)
    half = env()
    first.train(half, stop_after=2)
    held = io.BytesIO()
    torch.save({"agent": first.state_dict(), "world": half.rng.get_state()}, held)
    held.seek(0)
    state = torch.load(held, weights_only=True)
    second, rest = PPO(SMALL), env()
    second.load_state_dict(state["agent"])
    rest.rng.set_state(state["world"])
    second.train(rest)
    assert torch.equal(weights(whole), weights(second))


def test_training_leaves_the_global_random_stream_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    PPO(SMALL).train(WhiteBoxEnv(WhiteBoxConfig(), 4), stop_after=1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_reward_that_is_not_finite_does_not_poison_the_policy():
    env = WhiteBoxEnv(WhiteBoxConfig(), 4)
    env.reward_function = lambda before, after: torch.full_like(after.spent_s, float("nan"))
    agent = PPO(SMALL)
    before = weights(agent)
    with pytest.raises(InputError, match="not finite"):
        agent.train(env)
    assert torch.equal(before, weights(agent))


def mean_density_after(reward):
    """Mean density that a briefly trained agent ends with, over live layers."""
    config = WhiteBoxConfig(decisions=12, budget=1.5)
    agent = PPO(PPOConfig(iterations=10, steps=18, epochs=3, minibatches=4, lr=6e-3))
    agent.train(WhiteBoxEnv(config, 64, reward=reward))
    env = WhiteBoxEnv(config, 64, seed=9)
    seen = env.reset()
    for _ in range(10):
        seen["action"] = agent.act(seen)
        seen = env.step(seen)["next"]
    return env.density[env.networks.live].mean().item()


def test_the_literal_reward_drifts_dense_and_log_ratio_does_not():
    assert mean_density_after("dsrl_literal") > 0.8
    assert mean_density_after("log_ratio") < 0.6


@functools.cache
def known_best(layers):
    """Mean speed-up of the greedy choice that knows the formula."""
    return speed_ups(WhiteBoxEnv(WhiteBoxConfig(layers=layers), 512, seed=77), greedy).mean().item()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
def test_the_agent_finds_97_percent_of_the_known_optimum_on_seen_and_unseen_sizes(seed):
    agent = PPO(PPOConfig(seed=seed))
    agent.train(WhiteBoxEnv(WhiteBoxConfig(), 192, seed=seed))
    for layers in ((3, 6), (10, 14)):
        env = WhiteBoxEnv(WhiteBoxConfig(layers=layers), 512, seed=77)
        found = speed_ups(env, lambda _, seen: agent.act(seen)).mean().item()
        assert found >= 0.97 * known_best(layers), (layers, found / known_best(layers))


class KeepsItsFirst(WhiteBoxEnv):
    """A run keeps the densities that it was first asked for: all later actions are for nothing."""

    def _step(self, tensordict):
        first = (self.decisions == 0)[:, None]
        action = torch.where(first, tensordict["action"], self.density)
        return super()._step(tensordict.clone(recurse=False).set("action", action))


def kept(batch, seed):
    return KeepsItsFirst(WhiteBoxConfig(min_density=LEAST), batch, mode="density", seed=seed)


@functools.cache
def best_constant():
    def worth(density):
        return speed_ups(kept(512, 77), lambda env, _: torch.full_like(env.density, density))

    return max(worth(density).mean().item() for density in (0.5, 0.2, 0.1, 0.07, 0.05, 0.03, 0.01))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_judged_by_whole_episodes_it_finds_densities_that_only_the_first_action_decides(seed):
    settings = {"knots": 1, "credit": "episode", "epochs": 1, "minibatches": 1, "lr": 0.03}
    env = kept(128, seed)
    agent = PPO(
        PPOConfig(
            iterations=24, steps=env.config.max_decisions, mode="density", min_density=LEAST,
            start=0.5, spread=0.2, seed=seed, optimizer="sgd", **settings,
        )
    )  # fmt: skip
    untrained = speed_ups(kept(512, 77), lambda _, seen: agent.act(seen)).mean().item()
    agent.train(env)
    found = speed_ups(kept(512, 77), lambda _, seen: agent.act(seen)).mean().item()
    assert untrained < 0.8 * best_constant()
    assert found >= 0.97 * best_constant()


def test_episodes_that_are_cut_off_teach_nothing_and_none_at_all_is_refused():
    settings = {"mode": "density", "credit": "episode", "knots": 1, "min_density": LEAST}
    agent = PPO(PPOConfig(iterations=2, steps=3, **settings))
    with pytest.raises(InputError, match="steps: value is 3"):
        agent.train(kept(4, 0))


@pytest.mark.parametrize(
    "wrong", [{"credit": "run"}, {"optimizer": "sdg"}, {"knots": 0}, {"knots": 1.5}], ids=str
)
def test_bad_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PPOConfig(**wrong)
