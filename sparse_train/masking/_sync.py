"""Distributed training: every rank sees the same gradients, so masks are the same."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def average_over_ranks(values: Tensor) -> Tensor:
    """The mean over all ranks, the same bits on each; the tensor itself without a group."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    mean = values.clone()
    dist.all_reduce(mean)
    mean.div_(dist.get_world_size())
    # A reduction may round differently from rank to rank; rank 0's result counts.
    dist.broadcast(mean, src=0)
    return mean
