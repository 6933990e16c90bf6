"""Balanced fan-in: neurons have as many inputs as others in each block of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numba
import numpy as np

from hwsim.patterns._parse import at_least
from sparse_train.patterns._segments import Segmented, rank, select
from sparse_train.patterns.fan_in import FanIn


@dataclass(frozen=True)
class Balanced(Segmented):
    """The largest k that the budget pays for, in each `block` inputs of each neuron.

    A shorter last block holds min(k, its size). A budget that does not reach one weight in each
    block of each neuron gives that to as many neurons as it pays for, the best ones.

    With `rows`, the fan-in is that of constant fan-in, and each group of so many consecutive
    neurons shares it out among the blocks. A group's n-th weight in a block is worth the sum of
    its neurons' n-th best scores there. That falls with n, so that the group's best mask has the
    (block, n) worth most, as many as the fan-in. An update moves a weight within its block; a
    block gives up room for another one only where all neurons of the group drop a weight in it.

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

    def edges(self, n_in: int) -> np.ndarray:
        return np.append(np.arange(0, n_in, self.block, dtype=np.int64), n_in)

    def shares(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        """(k, active rows); with groups of rows, k is the whole fan-in."""
        return FanIn().shares(shape, budget) if self.rows else super().shares(shape, budget)

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        return FanIn().capacity(shape, budget) if self.rows else super().capacity(shape, budget)

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
        n_out, n_in = scores.shape
        edges = self.edges(n_in)
        firsts = np.arange(0, n_out, self.rows)
        # What a neuron holds in a block, all neurons of its group must have there.
        least = np.maximum.reduceat(np.where(active[:, None], held, 0), firsts, axis=0)
        gains, exist = _levels(
            np.ascontiguousarray(scores), np.ascontiguousarray(candidates), active, held, least,
            edges, self.rows,
        )  # fmt: skip
        left = k - least.sum(axis=1, keepdims=True)
        taken = select(gains, exist, left, np.array([0, n_in], dtype=np.int64))
        most = least + np.add.reduceat(taken, edges[:-1], axis=1, dtype=np.int64)
        return np.repeat(most, self.rows, axis=0)[:n_out] * active[:, None]


@numba.njit(cache=True)
def _levels(
    scores: Any, candidates: Any, active: Any, held: Any, least: Any, edges: Any, rows: int
) -> Any:
    """What each group gains by an n-th weight in each block, and which n can be had.

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
