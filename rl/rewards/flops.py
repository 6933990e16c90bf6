"""FLOPs in place of net time: what a hardware-blind study would optimise."""

from __future__ import annotations

import torch

from rl.moment import Moment


def flops(before: Moment, after: Moment) -> torch.Tensor:
    """−ΔF̂ / F_dense, F̂ = FLOPs so far + the dense FLOPs that the present loss still needs.

    The dense network's time to the target stands for its steps, so its share of time left is its
    share of FLOPs left.
    """
    left = (after.remaining_s - before.remaining_s) / before.dense_s
    spent = (after.spent_flops - before.spent_flops) / before.dense_flops
    return -(left + spent)


REWARD = flops
