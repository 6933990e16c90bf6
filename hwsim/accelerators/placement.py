"""Which resident features share a PE column: dealt so that no wave has a column with much to do."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def balanced_columns(counts: np.ndarray, columns: int) -> np.ndarray:
    """The column of each feature, (features,) int64: greedy, the features with most nonzeros first.

    Features are dealt in rounds, one to each column, so every column holds as many of them as any
    other, to within one: the memory that they need is even too. Within a round a feature goes to
    the open column where it meets the least load in the waves that it has nonzeros in, that is the
    smallest Σ over waves of (column's nonzeros so far · the feature's). With one wave this is the
    rule "longest processing time first" (Graham 1969, SIAM J. Appl. Math. 17(2)) under equal
    numbers.

    Args:
        counts: nonzeros of each feature in each wave, (waves, features) uint8.
        columns: PE columns, at most as many as features.

    >>> balanced_columns(np.array([[9, 8, 2, 1]], np.uint8), 2).tolist()
    [0, 1, 1, 0]
    """
    waves, features = counts.shape
    totals = np.zeros(features, np.int64)
    for w in range(waves):
        totals += counts[w]
    order = np.argsort(-totals, kind="mergesort")
    loads = np.zeros((columns, waves), np.float32)
    own = np.empty(waves, np.float32)
    column_of = np.empty(features, np.int64)
    still_open = np.arange(columns)
    left = columns
    for feature in order:
        own[:] = counts[:, feature]
        best, least = 0, np.float32(np.inf)
        for i in range(left):
            met = np.float32(0.0)
            for w in range(waves):
                met += loads[still_open[i], w] * own[w]
            if met < least:
                best, least = i, met
        column = still_open[best]
        column_of[feature] = column
        loads[column] += own
        # Keeps the open columns in order, so that ties go to the lowest.
        for i in range(best, left - 1):
            still_open[i] = still_open[i + 1]
        left -= 1
        if left == 0:
            still_open[:] = np.arange(columns)
            left = columns
    return column_of


def placed(counts: np.ndarray, columns: int, placement: str) -> np.ndarray:
    """The column of each feature, (features,) int64.

    Args:
        counts: nonzeros of each feature in each wave, (waves, features) uint8.
        columns: PE columns, at most as many as features.
        placement: "contiguous" (neighbours together), "interleaved" (feature j in column
            j mod `columns`) or "balanced" (by nonzeros).
    """
    features = counts.shape[1]
    if placement == "interleaved":
        return np.arange(features) % columns
    if placement == "contiguous":
        return neighbours(features, columns)
    return balanced_columns(counts, columns)


@numba.njit(cache=True, nogil=True)
def neighbours(features: int, columns: int) -> np.ndarray:
    """Runs of neighbours: column c begins with feature ⌊c·features/columns⌋.

    >>> neighbours(5, 2).tolist()
    [0, 0, 1, 1, 1]
    """
    column_of = np.empty(features, np.int64)
    for c in range(columns):
        column_of[c * features // columns : (c + 1) * features // columns] = c
    return column_of
