"""The best handcrafted schedule, tuned with the agent's own number of episodes."""

from typing import ClassVar

import torch
from torch import Tensor

from rl.baselines._base import Budget, Opponent, everywhere, halving
from rl.baselines._schedules import scheduled
from rl.envs.interface import ScheduleEnv
from sparse_train.schedules import SHAPES

CANDIDATES = 48
_NAMES = tuple(SHAPES)
# Columns of a candidate: shape, last density, where it ends, 1 to begin sparse and end dense.
_LOW, _HIGH = 1 / 32, 0.7


def densities(env: ScheduleEnv, own: Tensor) -> Tensor:
    """Densities (batch, width) of candidates `own` (batch, 4)."""
    found = torch.ones(len(own))
    for i, name in enumerate(_NAMES):
        here = own[:, 0] == i
        time = torch.where(own[:, 3] > 0, (1 - env.elapsed / own[:, 2]).clamp(min=0), env.elapsed)
        end = torch.where(own[:, 3] > 0, 1.0, own[:, 2])
        found = torch.where(here, scheduled(name, time, own[:, 1], end), found)
    return everywhere(env, found)


class BestSchedule(Opponent):
    """Linear, quadratic, cubic and cosine; last density, end and direction; by successive halving.

    A reversed one begins at the last density and is dense at its end.
    """

    tuned: ClassVar[bool] = True
    best: Tensor | None = None

    def fit(self, budget: Budget) -> None:
        draw = torch.rand(CANDIDATES, 3, generator=budget.rng)
        shape = torch.arange(CANDIDATES) % len(_NAMES)
        last = _LOW * (_HIGH / _LOW) ** draw[:, 0]
        end = 0.1 + 0.9 * draw[:, 1]
        candidates = torch.stack([shape.float(), last, end, (draw[:, 2] < 0.5).float()], 1)
        self.best = halving(budget, candidates, densities)

    @property
    def description(self) -> str:
        """What was found, in words."""
        if self.best is None:
            return "not tuned"
        shape, last, end, back = self.best.tolist()
        way = f"{last:.3g} to 1" if back else f"1 to {last:.3g}"
        return f"{_NAMES[int(shape)]}, {way} by {end:.2f}"

    def wanted(self, env: ScheduleEnv) -> Tensor:
        if self.best is None:
            return everywhere(
                env, scheduled("cubic", env.elapsed, torch.tensor(self.setup.density))
            )
        return densities(env, self.best.expand(len(env.density), -1))


OPPONENT = BestSchedule
