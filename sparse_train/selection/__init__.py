"""Exact selection of the best scores: the one place where ties are broken."""

from __future__ import annotations

import numpy as np

from hwsim.errors import InputError
from hwsim.kernels.cpu.selection import top_k_mask
from sparse_train.selection.arrays import Array, on_host


def top_k(scores: Array, k: int, candidates: Array | None = None) -> Array:
    """The k candidates with the largest scores; of equal ones those with the lowest index.

    Tensors are ranked on their own device, with the same answer.

    Args:
        scores: float32, one- or two-dimensional, C order, finite everywhere.
        k: how many, exactly.
        candidates: bool, of the same shape; None allows every position.

    Returns:
        bool, of the shape of `scores`, with k True.

    Raises:
        InputError: k below 0 or above the number of candidates; NaN or infinity.

    >>> top_k(np.array([1, 3, 3, 2], dtype=np.float32), 2).tolist()
    [False, True, True, False]
    """
    if on_host(scores):
        return top_k_mask(scores, k, candidates, finite=True)
    from sparse_train.selection import on_device

    check_finite(scores)
    return on_device.top_k(scores, k, candidates)


def check_finite(scores: Array) -> None:
    """An InputError if a score is NaN or infinite."""
    # Two reductions are cheaper than an array of flags, and NaN shows in both.
    if not (np.isfinite(float(scores.max())) and np.isfinite(float(scores.min()))):
        raise InputError("scores: NaN or infinity; allowed are finite numbers")
