"""Where a training run stands at a decision: all that a reward may look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Moment:
    """One instant of one run, or of a batch of runs (each field of shape (batch,)).

    Attributes:
        spent_s: net time so far.
        remaining_s: net time that the DENSE network would need from the present loss to the
            target, read from the dense curve.
        dense_s: net time of the whole dense run to the target.
        spent_flops, dense_flops: the same in FLOPs.
        step_density: FLOPs of the last interval over what the dense network spends in it.
        accuracy: share of the way to the target that is done, or a task's accuracy, in [0, 1].
    """

    spent_s: torch.Tensor
    remaining_s: torch.Tensor
    dense_s: torch.Tensor
    spent_flops: torch.Tensor
    dense_flops: torch.Tensor
    step_density: torch.Tensor
    accuracy: torch.Tensor
