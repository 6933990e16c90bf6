"""Accuracy alone."""

from __future__ import annotations

import torch

from rl.moment import Moment


def accuracy(before: Moment, after: Moment) -> torch.Tensor:
    """The gain in validation accuracy over the interval; an episode sums to its final accuracy.

    Source: Tessera et al. (2022), "Just-in-Time Sparsity", ICML DyNN workshop: their agent's
    reward has no cost term. With a fixed number of steps nothing in it favours sparsity.
    """
    return after.accuracy - before.accuracy


REWARD = accuracy
