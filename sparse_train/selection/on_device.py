"""Exact selection in torch: the same answers as the host's, where the scores are."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import InputError

_LEAST = -(2**31)  # a key below that of every number


def top_k(scores: Tensor, k: int, candidates: Tensor | None = None) -> Tensor:
    """Boolean, True at the k largest scores among the candidates; ties go to the lowest index.

    Args:
        scores: float32, without NaN.
        k: 0 … number of candidates.
        candidates: bool, of the same shape; None allows every position.

    Raises:
        InputError: another dtype or shape, or k out of range.
    """
    if scores.dtype != torch.float32:
        raise InputError(f"scores: type is {scores.dtype}; allowed is a tensor of torch.float32")
    if candidates is not None and candidates.shape != scores.shape:
        raise InputError(
            f"candidates: shape is {tuple(candidates.shape)}; allowed is that of scores, "
            f"{tuple(scores.shape)}"
        )
    most = scores.numel() if candidates is None else int(candidates.count_nonzero())
    good = isinstance(k, numbers.Integral) and not isinstance(k, bool)
    if not good or not 0 <= k <= most:
        raise InputError(
            f"k: value is {k!r}; allowed is an integer 0 … {most}, the number of candidates"
        )
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    ranked = keys(scores)
    if candidates is not None:
        ranked.masked_fill_(~candidates, _LEAST)
    flat = ranked.reshape(-1)
    least = flat.topk(int(k), sorted=False).values.min()
    above, ties = flat > least, flat == least
    # Of those that tie, the first ones.
    chosen = above | (ties & (ties.cumsum(0) <= k - above.sum()))
    return chosen.view(scores.shape)


def keys(scores: Tensor) -> Tensor:
    """Integers in the order of the scores, ±0 equal: their bits, all turned where negative."""
    bits = scores.contiguous().view(torch.int32)
    bits = torch.where(bits == _LEAST, 0, bits)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def select(scores: Tensor, candidates: Tensor, quotas: Tensor, edges: np.ndarray) -> Tensor:
    """The best candidates of each segment of each row, at most as many as its quota.

    Args:
        scores: float32 (n_out, n_in).
        candidates: bool, the same shape.
        quotas: int64 (n_out, segments).
        edges: int64 (segments + 1,); the first is 0, the last n_in.
    """
    n_out, n_in = scores.shape
    widest = int(np.diff(edges).max())
    columns = edges[:-1, None] + np.arange(widest)  # (segments, widest)
    exists = columns < edges[1:, None]
    at = torch.from_numpy(np.minimum(columns, n_in - 1)).to(scores.device)
    there = torch.from_numpy(exists).to(scores.device)
    allowed = candidates[:, at] & there  # (n_out, segments, widest)
    ranked = torch.where(allowed, keys(scores)[:, at], _LEAST)
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    taken = torch.arange(widest, device=scores.device) < quotas[:, :, None]
    chosen = torch.zeros_like(allowed).scatter_(-1, order, taken) & allowed
    return chosen[:, there].view(n_out, n_in)


def placed(value: Any, device: torch.device) -> Any:
    """Arrays and tensors of a state on a device, all the way down."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()).to(device)
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: placed(item, device) for key, item in value.items()}
    return value
