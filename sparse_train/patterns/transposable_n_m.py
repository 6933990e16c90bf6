"""Transposable N:M: n of every m along rows and along columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numba
import numpy as np

from hwsim import patterns as definitions
from sparse_train.patterns._base import Projection
from sparse_train.patterns.n_m import check_density
from sparse_train.selection import check_finite, top_k


@dataclass(frozen=True)
class TransposableNM(Projection):
    """The m × m tile with n in each row and column and the largest sum of scores, exactly.

    Each tile is a small transport problem, solved by augmenting paths of largest gain. Kept
    weights go first; where some of them leave no way to fill a tile, the weakest set of kept
    weights is given up that does. Shorter tiles at the edge hold as many as both limits allow.

    Source: Hubara et al. 2021, section 3 (there an approximation and a flow).
    """

    name: ClassVar[str] = "transposable_n_m"
    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        definitions.PATTERNS.get(self.name)(self.n, self.m)

    @property
    def only_density(self) -> float:
        return self.n / self.m

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        if budget == 0:
            return 0
        exact = sum(
            min(rows * min(self.n, columns), columns * min(self.n, rows)) * many * times
            for rows, many in self._sizes(shape[0])
            for columns, times in self._sizes(shape[1])
        )
        label = f"transposable {self.n}:{self.m}"
        check_density(label, self.only_density, shape, budget, exact)
        return exact

    def units(self, mask: np.ndarray) -> int:
        return int(np.count_nonzero(mask))

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        return top_k(scores, min(units, self.capacity(mask.shape, budget)), mask)

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        check_finite(scores)
        mask = np.zeros(kept.shape, dtype=bool)
        if self.capacity(kept.shape, budget):
            # One kept weight outweighs all the scores that a tile can gain without it.
            largest = float(scores.max(initial=0.0)) * self.m * self.n + 1.0
            worth = scores.astype(np.float64) + largest * kept
            _fill_tiles(worth, self.n, self.m, mask)
        return mask

    def _sizes(self, length: int) -> list[tuple[int, int]]:
        """(size of a tile's side, how many there are)."""
        return [(self.m, length // self.m), (length % self.m, int(length % self.m > 0))]


@numba.njit(cache=True)
def _fill_tiles(worth: Any, n: int, m: int, mask: Any) -> None:
    for top in range(0, worth.shape[0], m):
        for left in range(0, worth.shape[1], m):
            tile = worth[top : top + m, left : left + m]
            _fill_tile(tile, n, mask[top : top + m, left : left + m])


@numba.njit(cache=True)
def _fill_tile(worth: Any, n: int, taken: Any) -> None:
    """Largest flow of largest worth from rows to columns; each carries at most n.

    Rows are nodes 0 … r−1, columns r … r+c−1. A free place leads from its row to its column and
    gains its worth; a taken one leads back and loses it. Each round adds the path of largest gain
    from a row with room to a column with room, found by Bellman and Ford's relaxation.
    """
    rows, columns = worth.shape
    # Gains closer than this are equal: a cycle must not seem to gain by rounding.
    least = 1e-11 * max(1e-300, np.abs(worth).max())
    row_load = np.zeros(rows, np.int64)
    column_load = np.zeros(columns, np.int64)
    gain = np.empty(rows + columns, np.float64)
    before = np.empty(rows + columns, np.int64)
    while True:
        for i in range(rows):
            gain[i] = 0.0 if row_load[i] < n else -np.inf
            before[i] = -1
        gain[rows:] = -np.inf
        for _ in range(rows + columns):
            moved = False
            for i in range(rows):
                for j in range(columns):
                    if not taken[i, j] and gain[i] + worth[i, j] > gain[rows + j] + least:
                        gain[rows + j] = gain[i] + worth[i, j]
                        before[rows + j] = i
                        moved = True
                    elif taken[i, j] and gain[rows + j] - worth[i, j] > gain[i] + least:
                        gain[i] = gain[rows + j] - worth[i, j]
                        before[i] = rows + j
                        moved = True
            if not moved:
                break
        best = -1
        for j in range(columns):
            free = column_load[j] < n and gain[rows + j] > -np.inf
            if free and (best < 0 or gain[rows + j] > gain[rows + best]):
                best = j
        if best < 0:
            return
        node = rows + best
        column_load[best] += 1
        while before[node] >= 0:
            previous = before[node]
            if node >= rows:
                taken[previous, node - rows] = True
            else:
                taken[node, previous - rows] = False
            node = previous
        row_load[node] += 1


PATTERN = TransposableNM
