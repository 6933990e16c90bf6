"""What every agent is: a policy, a loop of iterations, and a state that can be taken up again."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.envs.utils import ExplorationType, set_exploration_type

from hwsim import InputError
from hwsim.checks import check_number
from hwsim.errors import unknown
from rl.envs.interface import MODES, ScheduleEnv
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES
from rl.rollouts import Rollouts, collect

Report = Callable[[dict[str, float]], None]
ACTIVATIONS = ("tanh", "relu")
C = TypeVar("C", bound="AgentConfig")


@dataclass(frozen=True)
class AgentConfig:
    """What all algorithms share; `seed` decides everything random.

    Attributes:
        iterations: how often `environments × steps` decisions are collected and learnt from.
        steps: decisions per environment and iteration.
        hidden: width of the policy's layers.
        activation: of its units, "tanh" or "relu".
        hide: names of features (rl.envs.observe) that the policy does not see.
        mode, min_density: of the environment's actions, see `rl.envs.interface`.
    """

    iterations: int = 24
    steps: int = 40
    hidden: int = 32
    activation: str = "tanh"
    seed: int = 0
    hide: tuple[str, ...] = ()
    mode: str = "step"
    min_density: float = 1 / 32

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(unknown("action mode", self.mode, MODES))
        check_number("min_density", self.min_density, above=0, below=1)
        if self.activation not in ACTIVATIONS:
            raise InputError(unknown("activation", self.activation, ACTIVATIONS))
        for name in ("iterations", "steps", "hidden"):
            check_number(name, getattr(self, name), least=1)
        valid = tuple(dict.fromkeys(LAYER_FEATURES + GLOBAL_FEATURES))
        for name in self.hide:
            if name not in valid:
                raise InputError(unknown("feature", name, valid))


class Agent(ABC, Generic[C]):
    """An agent and its training state.

    `train` runs the remaining iterations; `state_dict` between two of them holds all that the
    next ones depend on, the random stream included, so that a resumed run is the uninterrupted
    one. Every iteration starts its episodes anew: none is in mid-flight at a checkpoint.

    Attributes:
        modes: of `rl.envs.interface` that it can act in.
        networks: entries of its `state_dict` that hold what it has learnt.
    """

    name: ClassVar[str]
    modes: ClassVar[tuple[str, ...]] = ("step",)
    networks: ClassVar[tuple[str, ...]]
    configuration: ClassVar[type[AgentConfig]]
    config: C
    iteration: int
    stream: torch.Tensor

    def train(
        self, env: ScheduleEnv | Rollouts, *, report: Report | None = None,
        stop_after: int | None = None,
    ) -> None:  # fmt: skip
        """Runs up to `config.iterations`, or to `stop_after` of them.

        Args:
            report: called after each iteration with its numbers.

        Raises:
            InputError: a number that is not finite; the agent is that of the iteration before.
        """
        total = self.config.iterations
        last = total if stop_after is None else min(total, stop_after)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.stream)
            while self.iteration < last:
                row = self._iterate(env)
                self.iteration += 1
                self.stream = torch.get_rng_state()
                if report is not None:
                    report({"iteration": self.iteration, **row})

    def _iterate(self, env: ScheduleEnv | Rollouts) -> dict[str, float]:
        before = copy.deepcopy(self.state_dict())
        batch = self._collect(env)
        for key in ("layers", "whole", ("next", "layers"), ("next", "whole"), ("next", "reward")):
            if not torch.isfinite(batch[key]).all():
                name = key if isinstance(key, str) else key[1]
                raise InputError(
                    f"{self.name}: an episode of iteration {self.iteration} returned a {name} "
                    "that is not finite; nothing was learnt from it"
                )
        try:
            row = self._learn(batch)
        except InputError:
            self.load_state_dict(before)
            raise
        over = batch["next", "done"]
        ended = int(over.sum())
        final = batch["next", "time"][over].mean().item() if ended else float("nan")
        return {
            **row,
            "reward": batch["next", "reward"].mean().item(),
            "return": batch["next", "reward"].sum().item() / max(1, ended),
            "final_time": final,
            "episodes": float(ended),
            "frames": float(batch.numel()),
        }

    def _collect(self, env: ScheduleEnv | Rollouts) -> TensorDict:
        """(environments, steps) decisions of the present policy, from fresh episodes."""
        if isinstance(env, Rollouts):
            return env.collect(self._explorer(), self.config.steps)
        return collect(env, self._explorer(), self.config.steps)

    def _finite(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise InputError(
                f"{self.name}: loss is {loss.item()} in iteration {self.iteration}, not finite; "
                "the agent is left as it was before; allowed is a smaller learning rate"
            )

    def take_over(self, state: dict[str, Any]) -> None:
        """Begins with the networks of a `state_dict`, of any number of iterations; no more of it.

        So an agent that has learnt elsewhere goes on learning here, as a new one.
        """
        fresh = self.state_dict()
        self.load_state_dict({**fresh, **{name: state[name] for name in self.networks}})

    @torch.no_grad()
    def act(self, observation: TensorDict) -> torch.Tensor:
        """What it holds for best in each layer, (batch, layers)."""
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            return self._policy()(observation.clone(recurse=False))["action"]

    @abstractmethod
    def _policy(self) -> TensorDictModule:
        """Observation → action, without exploration."""

    @abstractmethod
    def _explorer(self) -> TensorDictModule:
        """Observation → action, as episodes are collected."""

    @abstractmethod
    def _learn(self, batch: TensorDict) -> dict[str, float]:
        """One iteration's learning from (environments, steps) decisions; its numbers."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on: tensors, numbers, strings."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same configuration."""
