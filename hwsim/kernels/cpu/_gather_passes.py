"""The inner loop of the gather kernel, in Numba."""

from __future__ import annotations

import numba
import numpy as np


# Sums may be reordered: that alone lets the compiler gather several inputs at once.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def gather_rows(pointers, index, values, x, y, first_row, last_row):
    """y[b, row] = Σ values[p] · x[b, index[p]] for some rows; x, y row-major."""
    for b in range(len(x)):
        ours = x[b]
        for row in range(first_row, last_row):
            total = np.float32(0)
            # Unsigned positions spare the loop the tests for negative ones.
            for p in range(np.uint64(pointers[row]), np.uint64(pointers[row + 1])):
                total += values[p] * ours[index[p]]
            y[b, row] = total
