"""Zeroing by bits: what a masked step costs beyond a dense one."""

from __future__ import annotations

from typing import Any

import numba
import torch
from torch import Tensor

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def zero_where_not_(values: Tensor, mask: Tensor) -> None:
    """Set `values` to +0 where `mask` is False, in place.

    The bits are multiplied, as integers: NaN and infinity become 0 as well, and −0 does not arise.
    On the CPU one fused pass does it; elsewhere torch.
    """
    values, mask = local(values.detach()), local(mask)
    bits = values.view(_BITS[values.element_size()])
    if bits.device.type == "cpu" and bits.is_contiguous() and mask.is_contiguous():
        _zero_bits(bits.view(-1).numpy(), mask.view(-1).view(torch.uint8).numpy())
    else:
        bits.mul_(mask)


def local(values: Tensor) -> Tensor:
    """This rank's shard of a tensor that is sharded (fully_shard); any other as it is."""
    return values.to_local() if hasattr(values, "to_local") else values


def whole(values: Tensor) -> Tensor:
    """All of a tensor that is sharded, on every rank; any other as it is."""
    return values.full_tensor() if hasattr(values, "full_tensor") else values


def placed_as(values: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on every rank, on the device and in the shards of another."""
    mesh, placements = getattr(like, "device_mesh", None), getattr(like, "placements", None)
    if mesh is None:
        return values.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    # Every rank has the same values, so that nothing need be sent.
    return distribute_tensor(values.to(like.device), mesh, placements, src_data_rank=None)


@numba.njit(cache=True, nogil=True)
def _zero_bits(bits: Any, mask: Any) -> None:
    """Multiply integers by 0 or 1, in place. One thread: memory is the limit, and a parallel pass
    waits for a busy core.
    """
    for i in range(bits.size):
        bits[i] *= mask[i]
