"""Is a boolean matrix N:M? In Numba, and done at the first group that is not."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def along_rows(mask: np.ndarray, n: int, m: int) -> bool:
    """Whether every m successive entries of a row hold at most n ones; a last short group too."""
    rows, columns = mask.shape
    whole = columns // m * m
    for r in range(rows):
        row = mask[r]
        worst = 0
        for g in range(0, whole, m):
            ones = 0
            for c in range(m):
                ones += row[g + c]
            worst = max(worst, ones)
        ones = 0
        for c in range(whole, columns):
            ones += row[c]
        if max(worst, ones) > n:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def along_columns(mask: np.ndarray, n: int, m: int) -> bool:
    """The same along columns: every m successive rows, for each column."""
    rows, columns = mask.shape
    ones = np.zeros(columns, np.int32)
    for start in range(0, rows, m):
        ones[:] = 0
        for r in range(start, min(start + m, rows)):
            row = mask[r]
            for c in range(columns):
                ones[c] += row[c]
        worst = np.int32(0)
        for c in range(columns):
            worst = max(worst, ones[c])
        if worst > n:
            return False
    return True
