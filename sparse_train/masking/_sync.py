"""Distributed training: every rank sees the same gradients, so masks are the same."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def several_ranks() -> bool:
    """Whether there are other ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def average_over_ranks(values: Tensor) -> Tensor:
    """The mean over all ranks, the same bits on each; the tensor itself without a group."""
    if not several_ranks():
        return values
    mean = values.clone()
    dist.all_reduce(mean)
    mean.div_(dist.get_world_size())
    # A reduction may round differently from rank to rank; rank 0's result counts.
    dist.broadcast(mean, src=0)
    return mean


def on_any_rank(flags: list[bool], device: torch.device) -> list[bool]:
    """Each flag, True if it is on some rank."""
    if not several_ranks():
        return flags
    values = torch.tensor(flags, dtype=torch.uint8, device=device)
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return [bool(v) for v in values.tolist()]
