"""Net time spent, as a cost."""

from __future__ import annotations

import torch

from rl.moment import Moment


def time_cost(before: Moment, after: Moment) -> torch.Tensor:
    """−ΔT̂ / T_dense: time spent in the interval, less the dense time that it saved.

    Sums to 1 − T / T_dense over an episode. A run that stops short of the target is charged what
    the dense network would still need.
    """
    spent = after.spent_s + after.remaining_s - before.spent_s - before.remaining_s
    return -spent / before.dense_s


REWARD = time_cost
