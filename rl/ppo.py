"""PPO on TorchRL: one readable loop, resumable to the bit.

Source: Schulman et al. (2017), "Proximal policy optimization algorithms"; advantages by
Schulman et al. (2016). Undiscounted: an episode is one training run and its net time is what
counts, so γ = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from hwsim import InputError
from rl.policy import actor_critic


@dataclass(frozen=True)
class PPOConfig:
    """Numbers of the algorithm; `seed` decides everything random."""

    iterations: int = 28
    steps: int = 40  # decisions per environment and iteration
    epochs: int = 4
    minibatches: int = 8
    lr: float = 1e-2
    clip: float = 0.2
    entropy: float = 0.001
    gae_lambda: float = 0.95
    max_grad_norm: float = 1.0
    hidden: int = 32
    seed: int = 0


class PPO:
    """The agent and its training state.

    `train` runs the remaining iterations; `state_dict` between two of them holds all that the
    next ones depend on, the random streams included, so a resumed run is the uninterrupted one.
    Every iteration starts its episodes anew: no environment is in mid-flight at a checkpoint.
    """

    def __init__(self, config: PPOConfig) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.actor, self.critic = actor_critic(config.hidden)
            self.stream = torch.get_rng_state()
        self.config = config
        self.iteration = 0
        self.loss = ClipPPOLoss(
            self.actor, self.critic, clip_epsilon=config.clip, entropy_coeff=config.entropy,
            critic_coeff=0.5, normalize_advantage=True,
        )  # fmt: skip
        self.advantage = GAE(gamma=1.0, lmbda=config.gae_lambda, value_network=self.critic)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=config.lr)

    def train(
        self, env: EnvBase, *, report: Callable[[dict[str, float]], None] | None = None,
        stop_after: int | None = None,
    ) -> None:  # fmt: skip
        """Runs up to `config.iterations`, or to `stop_after` of them.

        Raises:
            InputError: the loss is not finite; the policy is that of the iteration before.
        """
        last = min(self.config.iterations, stop_after or self.config.iterations)
        with torch.random.fork_rng():
            torch.set_rng_state(self.stream)
            while self.iteration < last:
                batch = self._collect(env)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.config.lr * (1 - self.iteration / self.config.iterations)
                row = self._learn(batch)
                self.iteration += 1
                self.stream = torch.get_rng_state()
                if report is not None:
                    report({"iteration": self.iteration, **row})

    def _collect(self, env: EnvBase) -> TensorDict:
        """(environments, steps) decisions of the present policy, from fresh episodes."""
        frames = env.batch_size[0] * self.config.steps
        collector = Collector(
            env,
            self.actor,
            frames_per_batch=frames,
            total_frames=frames,
            trust_policy=True,
            auto_register_policy_transforms=False,
        )
        batch = next(iter(collector))
        collector.shutdown(close_env=False)
        return batch

    def _learn(self, batch: TensorDict) -> dict[str, float]:
        c = self.config
        with torch.no_grad():
            self.advantage(batch)
        flat = batch.reshape(-1)
        size = -(-len(flat) // c.minibatches)
        total = 0.0
        for _ in range(c.epochs):
            for chosen in torch.randperm(len(flat)).split(size):
                terms = self.loss(flat[chosen])
                loss = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
                if not torch.isfinite(loss):
                    raise InputError(
                        f"PPO: loss is {loss.item()} in iteration {self.iteration}; an episode "
                        "returned a reward or observation that is not finite"
                    )
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.loss.parameters(), c.max_grad_norm)
                self.optimizer.step()
                total += loss.item()
        over = batch["next", "done"]
        return {
            "loss": total / (c.epochs * c.minibatches),
            "reward": batch["next", "reward"].mean().item(),
            "final_time": batch["next", "time"][over].mean().item(),
            "frames": float(len(flat)),
        }

    @torch.no_grad()
    def act(self, observation: TensorDict) -> torch.Tensor:
        """The most probable action of each layer, (batch, layers)."""
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            return self.actor(observation.clone(recurse=False))["action"]

    def state_dict(self) -> dict:
        return {
            "iteration": self.iteration,
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream,
        }

    def load_state_dict(self, state: dict) -> None:
        self.iteration = state["iteration"]
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream = state["stream"]
