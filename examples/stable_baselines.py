"""An agent of Stable-Baselines3 learns a sparsity schedule.

    pip install "nettime[rl]" stable-baselines3
    python examples/stable_baselines.py --steps 4000

Prints the mean return of twenty episodes before and after; a return is log(dense time / own time).
"""

from __future__ import annotations

import argparse

import gymnasium
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import nettime.environment  # noqa: F401  registers the environment
from rl.envs.wrappers import OneForAll


def made(network: str = "mlp-2x32", device: str = "wafer") -> gymnasium.Env:
    """Digits on a small network; one choice for all layers at each of its decisions."""
    torch.set_num_threads(1)
    env = gymnasium.make(
        "SparseTraining-v0", problems=((network, "images"),), devices=(device,),
        targets=(0.9, 0.9), seeds=(0, 8), width=4, mode="step",
    )  # fmt: skip
    return Monitor(OneForAll(env))


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--steps", type=int, default=4000, help="decisions to learn from")
    ask.add_argument("--algorithm", choices=("ppo", "dqn"), default="ppo")
    ask.add_argument("--processes", type=int, default=1)
    ask.add_argument("--episodes", type=int, default=20, help="to judge by")
    args = ask.parse_args()
    kind = SubprocVecEnv if args.processes > 1 else DummyVecEnv
    env = kind([made] * args.processes)
    if args.algorithm == "ppo":
        agent = PPO(
            "MultiInputPolicy", env, gamma=1.0, n_steps=max(2, 512 // args.processes),
            batch_size=128, learning_rate=1e-3, ent_coef=0.01, seed=0, device="cpu",
        )  # fmt: skip
    else:
        agent = DQN(
            "MultiInputPolicy", env, gamma=1.0, learning_starts=min(500, args.steps // 4),
            target_update_interval=250, exploration_fraction=0.5, seed=0, device="cpu",
        )  # fmt: skip
    judged = DummyVecEnv([made])
    judged.seed(100)
    before, _ = evaluate_policy(agent, judged, args.episodes, deterministic=False)
    agent.learn(args.steps)
    judged.seed(100)
    after, _ = evaluate_policy(agent, judged, args.episodes, deterministic=True)
    print(f"mean return before {before:.3f}, after {args.steps} decisions {after:.3f}")
    env.close()


if __name__ == "__main__":
    main()
