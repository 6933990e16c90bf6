"""Agents of Stable-Baselines3 on both of its kinds of vectors, where it is installed."""

import gymnasium
import numpy as np
import pytest

import nettime.environment  # noqa: F401  registers the environment
from hwsim import InputError
from rl.envs.wrappers import OneForAll

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def made():
    env = gymnasium.make(
        "SparseTraining-v0", problems=(("mlp-1x8", "images"),), devices=("ideal",), seeds=(0, 8),
        width=4,
    )  # fmt: skip
    return OneForAll(env)


@pytest.mark.parametrize("vector", ["DummyVecEnv", "SubprocVecEnv"])
@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_it_learns_on(vector, algorithm):
    from stable_baselines3.common import vec_env

    env = getattr(vec_env, vector)([made, made])
    own = {"PPO": {"n_steps": 8, "batch_size": 8}, "DQN": {"learning_starts": 4}}[algorithm]
    agent = getattr(sb3, algorithm)("MultiInputPolicy", env, seed=0, device="cpu", **own)
    agent.learn(24)
    seen = env.reset()
    action, _ = agent.predict(seen)
    _, reward, _, _ = env.step(action)
    env.close()
    assert agent.num_timesteps >= 24
    assert np.isfinite(reward).all()


def test_one_action_stands_for_all_layers():
    env = made()
    assert env.action_space == gymnasium.spaces.Discrete(3)
    assert env.action(2).tolist() == [2] * 4
    dense = OneForAll(gymnasium.make("SparseTraining-v0", mode="density", width=8))
    assert dense.action(np.array([0.5], np.float32)).tolist() == [0.5] * 8
    with pytest.raises(InputError, match="Discrete; allowed is that of SparseTraining"):
        OneForAll(env)
