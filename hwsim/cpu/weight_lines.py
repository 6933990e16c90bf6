"""Counting the cache lines of a weight that a mask uses, in Numba."""

from __future__ import annotations

import numba
import numpy as np


def weight_lines(array: np.ndarray) -> int:
    """Lines of 64 bytes of a dense float32 weight that hold an active one; array is the mask."""
    flat = array.view(np.uint8).reshape(-1)
    if rest := flat.size % 8:
        flat = np.append(flat, np.zeros(8 - rest, np.uint8))
    return int(_used_pairs(flat.view(np.uint64)))


@numba.njit(cache=True, nogil=True)
def _used_pairs(words):
    """How many pairs of words are not zero; the last one alone if it has no partner."""
    found = 0
    for pair in range(words.size // 2):
        found += (words[2 * pair] | words[2 * pair + 1]) != 0
    if words.size % 2:
        found += words[-1] != 0
    return found
