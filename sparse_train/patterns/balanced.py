"""Balanced fan-in: neurons have as many inputs as others in each block of inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numba
import numpy as np

from hwsim.pattern_names import at_least
from sparse_train.patterns.fan_in import FanIn
from sparse_train.segments import Segmented, rank, select


@dataclass(frozen=True)
class Balanced(Segmented):
    """The largest k that the budget pays for, in each `block` inputs of each neuron.

    A shorter last block holds min(k, its size). A budget that does not reach one weight in each
    block of each neuron gives that to as many neurons as it pays for, the best ones.

    With `rows`, the fan-in is that of constant fan-in, and each group of so many consecutive
    neurons shares it out among the blocks. A group's n-th weight in a block is worth the sum of
    its neurons' n-th best scores there. That falls with n, so that the group's best mask has the
    (block, n) worth most, as many as the fan-in: its places. The weakest weights of an update are
    spread over nearly all places, and one weight that stays holds its place for the whole group.
    So about half of what is dropped goes by whole places, of all groups those of lowest mean.

    Args:
        block: inputs of a block.
        rows: neurons of a group; 0 for one k everywhere.
    """

    name: ClassVar[str] = "balanced"
    block: int = 64
    rows: int = 0

    def __post_init__(self) -> None:
        at_least(self.name, "block", self.block, 1)
        at_least(self.name, "rows", self.rows, 0)

    @property
    def on_device(self) -> bool:
        return self.rows == 0  # groups of rows share places, which Numba counts

    def edges(self, n_in: int) -> np.ndarray:
        return np.append(np.arange(0, n_in, self.block, dtype=np.int64), n_in)

    def shares(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        """(k, active rows); with groups of rows, k is the whole fan-in."""
        return FanIn().shares(shape, budget) if self.rows else super().shares(shape, budget)

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        return FanIn().capacity(shape, budget) if self.rows else super().capacity(shape, budget)

    def steps(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        return FanIn().steps(shape, budget) if self.rows else super().steps(shape, budget)

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        whole = min(self.units(mask), self.capacity(mask.shape, budget))
        if self.rows and units < whole:
            mask = self._less_places(scores, mask, whole - math.sqrt(whole * units))
        return super().keep(scores, mask, units, budget)

    def _less_places(self, scores: np.ndarray, mask: np.ndarray, most: float) -> np.ndarray:
        """`mask` without the places of lowest mean, which are at most `most` weights."""
        edges, active = self.edges(mask.shape[1]), np.any(mask, axis=1)
        sizes = np.add.reduceat(active, np.arange(0, len(mask), self.rows), dtype=np.int64)
        nothing = np.zeros((len(mask), edges.size - 1), dtype=np.int64)
        gains, exist = self._worth(scores, mask, active, nothing, nothing[: sizes.size])
        groups, places = np.nonzero(exist)
        # Of equal ones the last goes first, so that a block loses its n-th before its first.
        order = np.lexsort((-places, -groups, gains[exist] / sizes[groups]))
        order = order[: np.searchsorted(np.cumsum(sizes[groups[order]]), most, side="right")]
        exist[groups[order], places[order]] = False
        return select(scores, mask, self._by_row(exist, len(mask)), edges)

    def quotas(
        self,
        k: int,
        active: np.ndarray,
        scores: np.ndarray,
        candidates: np.ndarray,
        held: np.ndarray,
    ) -> np.ndarray:
        if not self.rows:
            return super().quotas(k, active, scores, candidates, held)
        firsts = np.arange(0, len(scores), self.rows)
        # What a neuron holds in a block, all neurons of its group must have there.
        least = np.maximum.reduceat(np.where(active[:, None], held, 0), firsts, axis=0)
        gains, exist = self._worth(scores, candidates, active, held, least)
        everything = np.array([0, scores.shape[1]], dtype=np.int64)
        grown = select(gains, exist, k - least.sum(axis=1, keepdims=True), everything)
        most = np.repeat(least, self.rows, axis=0)[: len(scores)] + self._by_row(grown, len(scores))
        return most * active[:, None]

    def _worth(
        self,
        scores: np.ndarray,
        candidates: np.ndarray,
        active: np.ndarray,
        held: np.ndarray,
        least: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, candidates = np.ascontiguousarray(scores), np.ascontiguousarray(candidates)
        edges = self.edges(scores.shape[1])
        return _gains(scores, candidates, active, held, least, edges, self.rows)

    def _by_row(self, places: np.ndarray, n_out: int) -> np.ndarray:
        """(groups, n_in) places → (n_out, blocks) how many."""
        starts = self.edges(places.shape[1])[:-1]
        counts = np.add.reduceat(places, starts, axis=1, dtype=np.int64)
        return np.repeat(counts, self.rows, axis=0)[:n_out]


@numba.njit(cache=True)
def _gains(
    scores: Any, candidates: Any, active: Any, held: Any, least: Any, edges: Any, rows: int
) -> Any:
    """What each group gains by an n-th weight in each block, and which places there are.

    Returns:
        gains: float64 (groups, n_in); the n-th of a block that begins at e stands at e + n - 1.
        exist: bool, the same shape: more than `least`, and some active row has such a candidate.
    """
    n_out, n_in = scores.shape
    gains = np.zeros((least.shape[0], n_in))
    exist = np.zeros((least.shape[0], n_in), dtype=np.bool_)
    values = np.empty(n_in, np.float32)
    ranks = np.empty(n_in, np.int32)
    for row in range(n_out):
        if not active[row]:
            continue
        group = row // rows
        for block in range(edges.size - 1):
            count = 0
            for column in range(edges[block], edges[block + 1]):
                values[count] = scores[row, column]
                count += candidates[row, column]
            rank(values, count, ranks)
            base = edges[block] + held[row, block]
            above = edges[block] + least[group, block]
            for i in range(count):
                at = base + ranks[i]
                gains[group, at] += values[i]
                exist[group, at] |= at >= above
    return gains, exist


PATTERN = Balanced
