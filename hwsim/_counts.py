"""Row and column counts of a boolean matrix, in Numba: apart, to keep `import hwsim` light."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def row_and_column_counts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of ones per row and per column of a C-contiguous uint8 matrix of zeros and ones.

    One pass over the bytes. Columns are summed in uint8 lanes for up to 255 rows at a time, so
    that the inner loop is a byte addition which the compiler turns into vector code.
    """
    rows, columns = mask.shape
    row_counts = np.zeros(rows, np.int64)
    column_counts = np.zeros(columns, np.int64)
    partial = np.zeros(columns, np.uint8)
    for start in range(0, rows, 255):
        partial[:] = 0
        for r in range(start, min(start + 255, rows)):
            row = mask[r]
            total = np.int64(0)
            for c in range(columns):
                partial[c] += row[c]
            for c in range(columns):
                total += row[c]
            row_counts[r] = total
        for c in range(columns):
            column_counts[c] += partial[c]
    return row_counts, column_counts
