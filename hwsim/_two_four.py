"""Is a boolean matrix 2:4? In Numba: apart, to keep loading a device light."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def along_inputs(mask: np.ndarray) -> bool:
    rows, columns = mask.shape
    whole = columns // 4 * 4
    for r in range(rows):
        row = mask[r]
        over = 0
        for c in range(0, whole, 4):
            over |= (row[c] + row[c + 1] + row[c + 2] + row[c + 3]) > 2
        tail = 0
        for c in range(whole, columns):
            tail += row[c]
        if over or tail > 2:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def along_outputs(mask: np.ndarray) -> bool:
    rows, columns = mask.shape
    for first in range(0, rows, 4):
        last = min(first + 4, rows)
        over = 0
        for c in range(columns):
            total = 0
            for r in range(first, last):
                total += mask[r, c]
            over |= total > 2
        if over:
            return False
    return True
