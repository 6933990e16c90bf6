"""Exact selection of the best scores: the one place where ties are broken."""

from __future__ import annotations

import numpy as np

from hwsim.errors import InputError
from hwsim.kernels.cpu.selection import top_k_mask


def top_k(scores: np.ndarray, k: int, candidates: np.ndarray | None = None) -> np.ndarray:
    """The k candidates with the largest scores; of equal ones those with the lowest index.

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
    return top_k_mask(scores, k, candidates, finite=True)


def check_finite(scores: np.ndarray) -> None:
    """An InputError if a score is NaN or infinite."""
    # Two reductions are cheaper than an array of flags, and NaN shows in both.
    if not (np.isfinite(scores.max()) and np.isfinite(scores.min())):
        raise InputError("scores: NaN or infinity; allowed are finite numbers")
