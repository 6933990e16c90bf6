"""The seed proposal's reward with its sign and its accounting put right."""

from __future__ import annotations

import torch

from rl.moment import Moment

ALPHA = 1.0  # weight of the accuracy change
BETA = 1.0  # weight of the FLOPs spent, as a share of the dense run


def dsrl(before: Moment, after: Moment, alpha: float = ALPHA, beta: float = BETA) -> torch.Tensor:
    """α·(accuracy change) − β·(FLOPs spent / FLOPs of the dense run).

    Charges cost incurred, so neither sparsity nor a longer run is paid for as such.
    """
    spent = (after.spent_flops - before.spent_flops) / before.dense_flops
    return alpha * (after.accuracy - before.accuracy) - beta * spent


REWARD = dsrl
