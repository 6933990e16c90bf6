"""Steps of tilings from roomy to tight, shared by the forms of all arrays."""

from __future__ import annotations

import numba
import numpy as np

MOST_PIECES = 1 << 16  # of one tile; what needs more is refused as too small a buffer


@numba.njit(cache=True, nogil=True)
def more(count):
    """The next number of parts: 1, 2, 3, 4, 6, 8, 12, 16, 24, …"""
    if count == 1:
        return 2
    return count * 3 // 2 if count & (count - 1) == 0 else count * 4 // 3


@numba.njit(cache=True, nogil=True)
def in_pieces(table, pieces, weights_whole):
    """The columns of `pipeline.Tiles`, each in so many pieces.

    With `weights_whole`, a tile's weights come with its first piece.
    """
    if pieces == 1:
        return table
    count = table.shape[1]
    parts = np.zeros((7, count * pieces), np.int64)
    parts[6] = -1
    at = 0
    for t in range(count):
        parts[3, at] = table[3, t]
        for p in range(pieces):
            for row in (0, 1, 2, 4, 5):
                each, rest = table[row, t] // pieces, table[row, t] % pieces
                parts[row, at] = each + rest * (p + 1) // pieces - rest * p // pieces
            if weights_whole:
                parts[0, at] = table[0, t] if p == 0 else 0
            at += 1
    return parts


@numba.njit(cache=True, nogil=True)
def under_way(sizes, window):
    """The most bytes that so many tiles in a row have together."""
    total = most = np.int64(0)
    for t in range(len(sizes)):
        total += sizes[t]
        if t >= window:
            total -= sizes[t - window]
        most = max(most, total)
    return most
