"""What an opponent is: a function from what is seen to an action, perhaps tuned before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from hwsim import InputError
from hwsim.checks import check_number
from rl.envs.interface import Context, ScheduleEnv
from rl.envs.training_config import TrainingConfig

# Parameters of the candidates in all slots (batch, p) → opponent's choice.
Trial = Callable[[Callable[[ScheduleEnv, TensorDict], Tensor]], Tensor]


@dataclass(frozen=True)
class Setup:
    """What opponents without tuning are told.

    Attributes:
        density: where fixed schedules end, and what static ones keep.
        switching: share of decisions in which the agent changes a layer.
        seed: of those that draw.
    """

    density: float = 0.25
    switching: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("density", self.density, above=0, most=1)
        check_number("switching", self.switching, least=0, most=1)


class Opponent:
    """A way of choosing densities; `choose` is what `rl.evaluate.play` runs.

    Attributes:
        tuned: whether `fit` spends episodes.
    """

    tuned: ClassVar[bool] = False

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    @property
    def description(self) -> str:
        """What tuning found, in words; "" for what is not tuned."""
        return ""

    def fit(self, budget: Budget) -> None:
        """Spends the budget's episodes to set itself up; those that are not tuned do nothing."""

    def setting(
        self, config: TrainingConfig, contexts: Sequence[Context]
    ) -> tuple[TrainingConfig, list[Context]]:
        """The rules and contexts of real training that it needs; as they are for most."""
        return config, list(contexts)

    def choose(self, env: ScheduleEnv, seen: TensorDict) -> Tensor:
        """The action, (batch, width)."""
        return env.action_for(self.wanted(env))

    def wanted(self, env: ScheduleEnv) -> Tensor:
        """Densities that it heads for, (batch, width)."""
        raise TypeError(f"{type(self).__name__} has neither choose nor wanted")


class Budget:
    """Episodes that an opponent may spend on being tuned, in an environment of its own.

    Every slot of a batch may try another candidate: `score` charges one episode per slot.

    Args:
        play: runs one episode per slot and returns log speed-ups (batch,).
        slots: of the environment.
        episodes: in all; a batch that would pass it is not started.
    """

    def __init__(self, play: Trial, slots: int, episodes: int, *, seed: int = 0) -> None:
        if episodes < slots:
            raise InputError(
                f"episodes: value is {episodes}; allowed is at least {slots}, one batch"
            )
        self._play, self.slots, self.left = play, slots, episodes
        self.rng = torch.Generator().manual_seed(seed)

    @property
    def more(self) -> bool:
        """Whether another batch may be run."""
        return self.left >= self.slots

    def score(
        self, candidates: Tensor, wanted: Callable[[ScheduleEnv, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One batch: candidates (n, p) are dealt out to the slots at random, n ≤ slots.

        Args:
            wanted: (env, parameters (slots, p)) → densities (slots, width).

        Returns:
            mean log speed-up of each candidate (n,), and of how many episodes (n,).
        """
        n = len(candidates)
        if not self.more or n > self.slots:
            raise InputError(
                f"candidates: {n} are given with {self.left} episodes left; allowed is at most "
                f"{self.slots} while a batch of as many episodes is left"
            )
        dealt = torch.arange(self.slots)[torch.randperm(self.slots, generator=self.rng)] % n
        own = candidates[dealt]
        gains = self._play(lambda env, _: env.action_for(wanted(env, own))).double()
        self.left -= self.slots
        count = torch.zeros(n, dtype=torch.float64).index_add(0, dealt, torch.ones_like(gains))
        total = torch.zeros(n, dtype=torch.float64).index_add(0, dealt, gains)
        return total / count, count


def halving(
    budget: Budget, candidates: Tensor, wanted: Callable[[ScheduleEnv, Tensor], Tensor]
) -> Tensor:
    """The best of candidates (n, p) by successive halving with all of the budget, (p,).

    Source: Jamieson & Talwalkar (2016), "Non-stochastic best arm identification".
    """
    rounds = max(1, (len(candidates) - 1).bit_length())
    batches = max(1, budget.left // budget.slots)
    alive = torch.arange(len(candidates))
    total = torch.zeros(len(candidates), dtype=torch.float64)
    count = torch.zeros_like(total)
    for i in range(batches):
        group = alive[: budget.slots] if count[alive].min() > 0 else _least(alive, count, budget)
        mean, episodes = budget.score(candidates[group], wanted)
        total[group] += mean * episodes
        count[group] += episodes
        # So many may be left once (i + 1) of all batches are run.
        keep = max(1, round(len(candidates) / 2 ** (rounds * (i + 1) / batches)))
        known = alive[count[alive] > 0]
        if len(known) == len(alive) and keep < len(alive):
            order = (total[known] / count[known]).argsort(descending=True, stable=True)
            alive = known[order[:keep]]
    known = torch.nonzero(count > 0)[:, 0]
    known = torch.tensor([k for k in known.tolist() if k in set(alive.tolist())] or known.tolist())
    return candidates[known[(total[known] / count[known]).argmax()]]


def _least(alive: Tensor, count: Tensor, budget: Budget) -> Tensor:
    """Those with the fewest episodes so far, as many as there are slots."""
    return alive[count[alive].argsort(stable=True)[: budget.slots]]


def everywhere(env: ScheduleEnv, density: Tensor | float) -> Tensor:
    """One density per slot, (batch,) or a number, in all layers: (batch, width)."""
    value = torch.as_tensor(density, dtype=torch.float32)
    return value.reshape(-1, 1).expand(env.density.shape).clone()


def with_topology(config: TrainingConfig, **changes: object) -> TrainingConfig:
    """The same rules with another way of changing masks."""
    return dataclasses.replace(config, topology=dataclasses.replace(config.topology, **changes))  # type: ignore[arg-type]
