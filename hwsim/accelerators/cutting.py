"""Tiles cut until they fit the buffers."""

from __future__ import annotations

import numba
import numpy as np

_MOST_PIECES = 1 << 16  # of one tile; what needs more is refused as too small a buffer


@numba.njit(cache=True, nogil=True)
def cut(table, weight_capacity, input_capacity, output_capacity):
    """The columns of `pipeline.Tiles` with tiles that are larger than a buffer run in pieces.

    Each piece takes at most half of every buffer, so that the next one can be loaded meanwhile. An
    infinite capacity says that this part stays whole and is loaded with the first piece.
    """
    count = table.shape[1]
    pieces = np.ones(count, np.int64)
    total = 0
    capacities = (weight_capacity, input_capacity, output_capacity)
    for t in range(count):
        for part in range(3):
            if table[part, t] > capacities[part]:
                need = np.ceil(table[part, t] / max(capacities[part] / 2, 0.5))
                pieces[t] = max(pieces[t], np.int64(min(need, _MOST_PIECES)))
        total += pieces[t]
    if total == count:
        return table
    parts = np.zeros((7, total), np.int64)
    at = 0
    for t in range(count):
        whole = np.isinf(weight_capacity)
        n = pieces[t]
        for p in range(n):
            for row in (0, 1, 2, 4, 5):
                each, more = table[row, t] // n, table[row, t] % n
                parts[row, at] = each + more * (p + 1) // n - more * p // n
            if whole:
                parts[0, at] = table[0, t] if p == 0 else 0
            parts[3, at] = table[3, t] if p == 0 else 0
            parts[6, at] = -1
            at += 1
    return parts
