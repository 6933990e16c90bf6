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
from sparse_train.selection.arrays import (
    beside,
    best_of_each,
    in_segments,
    padded,
    repeated,
    sums,
    where,
)


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

    @property
    def on_device(self) -> bool:
        return True

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
        n_in = kept.shape[1]
        edges = self.edges(n_in)
        room = beside(np.minimum(np.diff(edges), k), scores) - in_segments(kept, edges)
        wanted = where(repeated(room > 0, self.m, 1)[:, :n_in], scores, 0)
        return kept | select(scores, self._columns(wanted, kept) & ~kept, room, edges)

    def _columns(self, scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The places in the four columns of their block, (n_out, n_in)."""
        n_out, n_in = scores.shape
        below, beyond = -n_out % self.v, -n_in % self.m
        in_rows = ((n_out + below) // self.v, self.v, n_in + beyond)
        totals = sums(padded(scores, below, beyond).reshape(in_rows), 1)
        totals[:, n_in:] = -1.0  # columns that are not there come last
        used = padded(kept, below, beyond).reshape(in_rows).any(1)
        by_block = (in_rows[0], -1, self.m)
        chosen = best_of_each(totals.reshape(by_block), used.reshape(by_block), COLUMNS)
        return repeated(chosen.reshape(in_rows[0], -1)[:, :n_in], self.v, 0)[:n_out]


PATTERN = VNM
