"""A bandit over constant densities: UCB1 with the agent's own number of episodes.

Source: Auer, Cesa-Bianchi & Fischer (2002), "Finite-time analysis of the multiarmed bandit
problem", UCB1; pulls of one batch are chosen one after the other, each counted at once.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from rl.baselines._base import Budget, Opponent, everywhere
from rl.envs.interface import ScheduleEnv

ARMS = 8
WIDTH = 0.5  # of the confidence bound, in log speed-up


class Bandit(Opponent):
    """Ends with the arm of the highest mean."""

    tuned: ClassVar[bool] = True
    best: float | None = None

    def fit(self, budget: Budget) -> None:
        arms = torch.exp(torch.linspace(-3.4657, 0.0, ARMS))
        total, count = torch.zeros(ARMS, dtype=torch.float64), torch.zeros(ARMS).double()
        while budget.more:
            pulls = count.clone()
            chosen = []
            for _ in range(budget.slots):
                mean = total / count.clamp(min=1)
                width = WIDTH * (2 * math.log(1 + pulls.sum()) / pulls.clamp(min=1)).sqrt()
                bound = torch.where(pulls > 0, mean + width, math.inf)
                chosen.append(int(bound.argmax()))
                pulls[chosen[-1]] += 1
            some = torch.tensor(chosen)
            means, episodes = budget.score(
                arms[some][:, None], lambda env, own: everywhere(env, own[:, 0])
            )
            total.index_add_(0, some, means * episodes)
            count.index_add_(0, some, episodes)
        mean = torch.where(count > 0, total / count.clamp(min=1), -math.inf)
        self.best = float(arms[mean.argmax()])

    @property
    def description(self) -> str:
        return "" if self.best is None else f"density {self.best:.3g}"

    def wanted(self, env: ScheduleEnv) -> Tensor:
        return everywhere(env, self.setup.density if self.best is None else self.best)


OPPONENT = Bandit
