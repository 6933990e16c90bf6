"""The base learning rate of each contender, on one grid for all.

Factors are of the task's own rate (`rl.runs.problems.at_rate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from analysis.comparing.plan import Choice
from analysis.comparing.race import best_rate
from hwsim import InputError
from rl.runs.dense import dense_runs
from rl.runs.problems import Problem, at_rate

__all__ = ["GRID", "at_rate", "dense_rate", "tune"]

GRID = (2.0, 4.0, 8.0)
MOST_RATES = 10


def tune(score: Callable[[float], float | None], grid: Sequence[float] = GRID) -> Choice:
    """The factor of the highest score, the smaller of equals; None is worse than any.

    Where the best is at an end of the grid, it is widened by factors of 2.
    """
    tried: dict[float, float | None] = {}
    wanted = list(grid)
    while wanted:
        tried.update({factor: score(factor) for factor in wanted})
        choice = best_rate(tried, lower=False)
        more = choice.at_an_end and len(tried) < MOST_RATES
        wanted = [choice.beyond] if more else []
    return best_rate(tried, lower=False)


def dense_rate(problems: Sequence[tuple[str, str]], seeds: Sequence[int], share: float) -> Choice:
    """The factor at which dense runs have the lowest loss after `share` of their steps.

    Args:
        problems: (network, task) pairs; the score is the mean over them and seeds.
    """

    def score(factor: float) -> float | None:
        try:
            losses = [
                dense_runs(Problem(at_rate(network, factor), task)).get(seed).target_loss(share)
                for network, task in problems
                for seed in seeds
            ]
        except InputError:  # A run diverges.
            return None
        return -float(np.mean(losses))

    return tune(score)
