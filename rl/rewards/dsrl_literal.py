"""The reward as the seed proposal prints it. Perverse: kept to show why."""

from __future__ import annotations

import torch

from rl.moment import Moment

ALPHA = 1.0  # weight of the accuracy change
BETA = 0.1  # weight of the FLOPs term


def dsrl_literal(
    before: Moment, after: Moment, alpha: float = ALPHA, beta: float = BETA
) -> torch.Tensor:
    """α·(accuracy change) − β·(FLOPs reduction), the reduction against the dense interval.

    Subtracting the REDUCTION punishes sparsity: an agent that maximises it drifts dense. Changing
    only the sign pays a bonus per decision, and so pays for training longer. `dsrl` is the form
    that charges what was spent.
    """
    reduction = 1.0 - after.step_density
    return alpha * (after.accuracy - before.accuracy) - beta * reduction


REWARD = dsrl_literal
