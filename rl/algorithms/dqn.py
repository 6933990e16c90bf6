"""Double DQN with one Q-value per layer, added up over the layers of a network.

An alternative to PPO behind the same interface: off policy, undiscounted, without a critic.

Source: van Hasselt et al. (2016), "Deep reinforcement learning with double Q-learning"; the sum
over layers is value decomposition, Sunehag et al. (2018); that such an agent without discount does
well in algorithm configuration is reported in arXiv 2512.03805.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.data import LazyTensorStorage, ReplayBuffer

from rl.algorithms._base import Agent, AgentConfig
from rl.algorithms._policy import Actor, Critic
from rl.envs.act import ACTIONS

_KEYS = ["layers", "whole", "live"]


@dataclass(frozen=True)
class DQNConfig(AgentConfig):
    """Numbers of the algorithm.

    Attributes:
        capacity: decisions that the memory holds.
        updates, batch: gradient steps of an iteration, and decisions in each.
        lr: falls in a straight line to a tenth.
        follow: share by which the target network follows in each gradient step.
        explore: probability of a random choice, per layer, first and last; straight in between.
    """

    iterations: int = 60
    capacity: int = 60_000
    updates: int = 80
    batch: int = 512
    lr: float = 3e-3
    follow: float = 0.02
    explore: tuple[float, float] = (0.9, 0.05)
    max_grad_norm: float = 1.0


class _Values(nn.Module):
    """Q-values (…, layers, actions): what the whole run is worth, plus each layer's share."""

    def __init__(self, hidden: int, hide: tuple[str, ...], activation: str) -> None:
        super().__init__()
        self.advantage = Actor(hidden, hide, activation=activation)
        self.value = Critic(hidden, hide, activation)

    def forward(self, layers: Tensor, whole: Tensor, live: Tensor) -> Tensor:
        advantage = self.advantage(layers, whole, live)
        value = self.value(layers, whole, live)
        count = live.sum(-1, keepdim=True).clamp(min=1)
        share = (value / count) * live  # (…, layers); sums to the value
        return advantage + share.unsqueeze(-1)


class _Choose(nn.Module):
    """Q-values → actions, a random one with probability `explore`."""

    def __init__(self, explore: float) -> None:
        super().__init__()
        self.explore = explore

    def forward(self, values: Tensor) -> Tensor:
        best = values.argmax(-1)
        if not self.explore:
            return best
        other = torch.randint(len(ACTIONS), best.shape)
        return torch.where(torch.rand(best.shape) < self.explore, other, best)


class DQN(Agent[DQNConfig]):
    """Learns from a memory of all decisions; its target network follows slowly."""

    name: ClassVar[str] = "dqn"
    networks: ClassVar[tuple[str, ...]] = ("values", "target")
    configuration: ClassVar[type[AgentConfig]] = DQNConfig

    def __init__(self, config: DQNConfig) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.values = _Values(config.hidden, config.hide, config.activation)
            self.stream = torch.get_rng_state()
        self.config = config
        self.iteration = 0
        self.target = copy.deepcopy(self.values).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.values.parameters(), lr=config.lr)
        self.memory = ReplayBuffer(storage=LazyTensorStorage(config.capacity))

    def _acting(self, explore: float) -> TensorDictModule:
        return TensorDictSequential(
            TensorDictModule(self.values, in_keys=_KEYS, out_keys=["values"]),
            TensorDictModule(_Choose(explore), in_keys=["values"], out_keys=["action"]),
        )

    def _policy(self) -> TensorDictModule:
        return self._acting(0.0)

    def _explorer(self) -> TensorDictModule:
        first, last = self.config.explore
        gone = self.iteration / max(1, self.config.iterations - 1)
        return self._acting(first + (last - first) * gone)

    def _learn(self, batch: TensorDict) -> dict[str, float]:
        c = self.config
        kept = batch.select(
            *_KEYS, "action", *[("next", key) for key in (*_KEYS, "reward", "terminated")]
        )
        self.memory.extend(kept.reshape(-1))
        for group in self.optimizer.param_groups:
            group["lr"] = c.lr * (1 - 0.9 * self.iteration / c.iterations)
        total = 0.0
        for _ in range(c.updates):
            chosen = self.memory[torch.randint(len(self.memory), (c.batch,))]
            loss = self._error(chosen)
            self._finite(loss)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.values.parameters(), c.max_grad_norm)
            self.optimizer.step()
            with torch.no_grad():
                for old, new in zip(
                    self.target.parameters(), self.values.parameters(), strict=True
                ):
                    old.lerp_(new, c.follow)
            total += loss.item()
        return {"loss": total / c.updates}

    def _error(self, chosen: TensorDict) -> Tensor:
        """Huber loss of the summed Q-value of what was done against reward and what follows."""
        live, after = chosen["live"], chosen["next"]
        found = self.values(*(chosen[key] for key in _KEYS))
        taken = found.gather(-1, chosen["action"].unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            best = self.values(*(after[key] for key in _KEYS)).argmax(-1, keepdim=True)
            later = self.target(*(after[key] for key in _KEYS)).gather(-1, best).squeeze(-1)
            later = (later * after["live"]).sum(-1) * ~after["terminated"].squeeze(-1)
            wanted = after["reward"].squeeze(-1) + later
        return nn.functional.smooth_l1_loss((taken * live).sum(-1), wanted, beta=0.1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "values": self.values.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "memory": self.memory[:].to_dict() if len(self.memory) else {},
            "place": self.memory.writer.state_dict()["_cursor"],
            "stream": self.stream,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.values.load_state_dict(state["values"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.memory = ReplayBuffer(storage=LazyTensorStorage(self.config.capacity))
        if state["memory"]:
            count = len(state["memory"]["live"])
            self.memory.extend(TensorDict(state["memory"], batch_size=[count]))
            self.memory.writer.load_state_dict({"_cursor": state["place"]})
        self.stream = state["stream"]


AGENT = DQN
