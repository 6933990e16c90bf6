"""V:N:M: two of four columns, and the four are common to V rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim import patterns as definitions
from hwsim.patterns.passes.v_n_m_sizes import COLUMNS
from sparse_train.patterns.n_m import check_density
from sparse_train.segments import Segmented, select
from sparse_train.selection import check_finite


@dataclass(frozen=True)
class VNM(Segmented):
    """Four columns for each block of v rows × m columns, then the best n = 2 of them in each row.

    In two stages. A column's score in a block is the sum of its scores over those rows of the
    block that have room; the best four columns are taken, those that kept weights lie in before
    any other. Each row then takes its own best among the four. That is a heuristic: each stage is
    the best by itself, both together get at least half of the largest sum of scores that a mask
    can have, and for v = 1 all of it. Where v or m does not divide the shape, the last blocks are
    smaller.

    The density is n/m, so that a budget of any other density is refused.

    Source: Castro et al. 2023 (VENOM), vectors first and N:M within them; the score of a column
    is the L1 norm where scores are magnitudes, as in Zhao et al. 2025.
    """

    name: ClassVar[str] = "v_n_m"
    v: int = 64
    n: int = 2
    m: int = 8

    def __post_init__(self) -> None:
        definitions.PATTERNS.get(self.name)(self.v, self.n, self.m)

    @property
    def only_density(self) -> float:
        return self.n / self.m

    def edges(self, n_in: int) -> np.ndarray:
        return np.append(np.arange(0, n_in, self.m, dtype=np.int64), n_in)

    def steps(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        return budget, budget

    def shares(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        if budget == 0:
            return 0, 0
        exact = int(np.minimum(np.diff(self.edges(shape[1])), self.n).sum()) * shape[0]
        check_density(f"{self.v}:{self.n}:{self.m}", self.only_density, shape, budget, exact)
        return self.n, shape[0]

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        check_finite(scores)
        k, _ = self.shares(kept.shape, budget)
        edges = self.edges(kept.shape[1])
        sizes = np.diff(edges)
        room = np.minimum(sizes, k) - np.add.reduceat(kept, edges[:-1], axis=1, dtype=np.int64)
        wanted = np.where(np.repeat(room > 0, sizes, axis=1), scores, 0)
        return kept | select(scores, self._columns(wanted, kept) & ~kept, room, edges)

    def _columns(self, scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The places in the four columns of their block, (n_out, n_in)."""
        n_out, n_in = scores.shape
        starts = np.arange(0, n_out, self.v)
        short = ((0, 0), (0, -n_in % self.m))
        sums = np.add.reduceat(scores, starts, axis=0, dtype=np.float64)
        used = np.logical_or.reduceat(kept, starts, axis=0)
        by_block = (len(starts), -1, self.m)
        sums = np.pad(sums, short, constant_values=-1.0).reshape(by_block)
        used = np.pad(used, short).reshape(by_block)
        best = np.lexsort((-sums, ~used), axis=2)[:, :, :COLUMNS]
        chosen = np.zeros(sums.shape, dtype=bool)
        np.put_along_axis(chosen, best, True, axis=2)
        return np.repeat(chosen.reshape(len(starts), -1)[:, :n_in], self.v, axis=0)[:n_out]


PATTERN = VNM
