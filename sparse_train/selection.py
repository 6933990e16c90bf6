"""Exact selection of the k best scores: the one place where ties are broken."""

from __future__ import annotations

import numpy as np

from hwsim.errors import InputError


def top_k(scores: np.ndarray, k: int, candidates: np.ndarray | None = None) -> np.ndarray:
    """The k candidates with the largest scores; of equal ones those with the lowest index.

    Args:
        scores: float32, any shape; read in C order.
        k: how many, exactly.
        candidates: bool, of the same shape; None allows every position.

    Returns:
        bool, of the shape of `scores`, with k True.

    Raises:
        InputError: k below 0 or above the number of candidates; NaN or infinity in a candidate.

    >>> top_k(np.array([1, 3, 3, 2], dtype=np.float32), 2).tolist()
    [False, True, True, False]
    """
    available = scores.size if candidates is None else int(np.count_nonzero(candidates))
    if not 0 <= k <= available:
        raise InputError(f"k: value is {k}; allowed is 0 to {available}, the number of candidates")
    chosen = np.zeros(scores.size, dtype=bool)
    flat = scores.reshape(-1)
    where = None if candidates is None else np.flatnonzero(candidates)
    values = flat if where is None else flat[where]
    if not np.isfinite(values).all():
        raise InputError("scores: NaN or infinity; allowed are finite numbers")
    if k == 0:
        return chosen.reshape(scores.shape)
    threshold = np.partition(values, values.size - k)[values.size - k]
    picked = values > threshold
    equal = np.flatnonzero(values == threshold)
    picked[equal[: k - int(np.count_nonzero(picked))]] = True
    if where is None:
        chosen = picked
    else:
        chosen[where[picked]] = True
    return chosen.reshape(scores.shape)
