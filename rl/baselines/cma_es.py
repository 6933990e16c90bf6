"""CMA-ES over a spline: density by progress and by a layer's share of the time.

Source: Hansen (2016), "The CMA evolution strategy: a tutorial"; the library is `cma`.
"""

import warnings
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rl.baselines._base import Budget, Opponent
from rl.envs.interface import ScheduleEnv

KNOTS = 5
STEP = 0.3


def spline(env: ScheduleEnv, own: Tensor) -> Tensor:
    """Densities (batch, width) of parameters `own` (batch, KNOTS + 1).

    Knots lie evenly over progress and are log density in units of log least density; the last
    parameter tilts it by how much of a dense step's time a layer takes.
    """
    at = env.progress.clamp(0.0, 1.0) * (KNOTS - 1)
    left = at.floor().long().clamp(max=KNOTS - 2)
    a, b = (own.gather(1, (left + i)[:, None])[:, 0] for i in (0, 1))
    level = a + (b - a) * (at - left)
    time = env.layer_time(torch.ones_like(env.density)) * env.live
    share = time / time.sum(1, keepdim=True).clamp(min=1e-9) * env.live.sum(1, keepdim=True)
    depth = level[:, None] + own[:, KNOTS:] * share.clamp(min=1e-3).log()
    return env.min_density ** depth.clamp(0.0, 1.0).float()


class CMAES(Opponent):
    """One candidate for each few slots of a batch; ends with the mean of the search."""

    tuned: ClassVar[bool] = True
    best: Tensor | None = None

    def fit(self, budget: Budget) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cma

            size = max(4, min(12, budget.slots // 2))
            seed = 1 + int(torch.randint(2**30, (1,), generator=budget.rng))
            options = {"popsize": size, "seed": seed, "verbose": -9, "maxiter": 10**6}
            search = cma.CMAEvolutionStrategy([0.4] * KNOTS + [0.0], STEP, options)
            state = np.random.get_state()  # noqa: NPY002  the library draws from the global stream
            try:
                np.random.seed(seed)  # noqa: NPY002
                while budget.more:
                    asked = search.ask()
                    found, _ = budget.score(
                        torch.tensor(np.array(asked), dtype=torch.float32), spline
                    )
                    search.tell(asked, (-found).tolist())
            finally:
                np.random.set_state(state)  # noqa: NPY002
        self.best = torch.tensor(search.mean, dtype=torch.float32)

    @property
    def description(self) -> str:
        return "" if self.best is None else "knots " + " ".join(f"{k:.2f}" for k in self.best)

    def wanted(self, env: ScheduleEnv) -> Tensor:
        best = torch.tensor([0.4] * KNOTS + [0.0]) if self.best is None else self.best
        return spline(env, best.expand(len(env.density), -1))


OPPONENT = CMAES
