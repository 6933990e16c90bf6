"""The best constant density, tuned with the agent's own number of episodes."""

from typing import ClassVar

import torch
from torch import Tensor

from rl.baselines._base import Budget, Opponent, everywhere, halving
from rl.envs.interface import ScheduleEnv

CANDIDATES = 16


class BestConstant(Opponent):
    """Successive halving over densities, even in log density from 1/32 to 1."""

    tuned: ClassVar[bool] = True
    best: Tensor | None = None

    def fit(self, budget: Budget) -> None:
        densities = torch.exp(torch.linspace(-3.4657, 0.0, CANDIDATES))[:, None]
        self.best = halving(budget, densities, lambda env, own: everywhere(env, own[:, 0]))

    @property
    def description(self) -> str:
        return "" if self.best is None else f"density {float(self.best[0]):.3g}"

    def wanted(self, env: ScheduleEnv) -> Tensor:
        return everywhere(env, self.setup.density if self.best is None else self.best[0])


OPPONENT = BestConstant
