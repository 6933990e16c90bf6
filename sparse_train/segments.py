"""Selection inside each stretch of each row: what constant fan-in, balanced and N:M share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from sparse_train.patterns import Projection
from sparse_train.selection import check_finite, top_k
from sparse_train.selection.arrays import (
    Array,
    beside,
    best_rows,
    count,
    filled,
    in_segments,
    on_host,
    sums,
    where,
)

_FEW = 64  # values that are ranked faster by comparing all pairs


@dataclass(frozen=True)
class Segmented(Projection):
    """A pattern in which every active row holds min(k, size) weights in each of its segments."""

    def edges(self, n_in: int) -> np.ndarray:
        """Where segments begin, and n_in at the end."""
        raise TypeError(f"{type(self).__name__} must define edges(n_in)")

    def shares(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        """(k, number of active rows) that the budget pays for.

        All rows are active while each can have one weight in each segment; with less, the best
        rows are, with one each.
        """
        n_out, n_in = shape
        sizes = np.diff(self.edges(n_in))
        if budget == 0:
            return 0, 0
        k = 0
        while k < sizes.max() and n_out * int(np.minimum(sizes, k + 1).sum()) <= budget:
            k += max(1, (budget // n_out - int(np.minimum(sizes, k).sum())) // sizes.size)
        if k == 0:
            return 1, min(max(1, budget // sizes.size), n_out)
        return k, n_out

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        k, rows = self.shares(shape, budget)
        return rows * int(np.minimum(np.diff(self.edges(shape[1])), k).sum())

    def steps(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        size = shape[0] * shape[1]
        budget = min(budget, size)
        below = self.capacity(shape, budget)
        segments = self.edges(shape[1]).size - 1
        step = segments if below < shape[0] * segments else shape[0] * segments
        return below, self.capacity(shape, min(below + step, size))

    def units(self, mask: np.ndarray) -> int:
        return count(mask)

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        k, rows = self.shares(mask.shape, budget)
        edges = self.edges(mask.shape[1])
        chosen = top_k(scores, min(units, self.capacity(mask.shape, budget)), mask)
        active = _best_rows(rows, scores, chosen, chosen.any(1))
        nothing = beside(np.zeros((len(mask), edges.size - 1), dtype=np.int64), scores)
        return select(scores, chosen, self.quotas(k, active, scores, chosen, nothing), edges)

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        check_finite(scores)
        k, rows = self.shares(kept.shape, budget)
        edges = self.edges(kept.shape[1])
        active = _best_rows(rows, scores, ~kept, kept.any(1))
        held = in_segments(kept, edges)
        missing = self.quotas(k, active, scores, ~kept, held) - held
        return kept | select(scores, ~kept, missing, edges)

    def quotas(
        self,
        k: int,
        active: np.ndarray,
        scores: np.ndarray,
        candidates: np.ndarray,
        held: np.ndarray,
    ) -> np.ndarray:
        """(n_out, segments) weights that each row may have in each segment.

        Args:
            k: what `shares` says.
            active: bool (n_out,); the other rows get none.
            scores, candidates: of the weights that can be taken, beside those held.
            held: int64 (n_out, segments) weights that a row has already.
        """
        each = np.minimum(np.diff(self.edges(scores.shape[1])), k)
        return active[:, None] * beside(each, scores)


def _best_rows(rows: int, scores: Array, candidates: Array, first: Array) -> Array:
    """(n_out,) bool, `rows` of them: the rows `first`, then those whose candidates score most."""
    if rows >= len(scores):
        return filled((len(scores),), True, first)
    return best_rows(sums(where(candidates, scores, 0), 1), first, rows)


def select(scores: Array, candidates: Array, quotas: Array, edges: np.ndarray) -> Array:
    """The best candidates of each segment of each row, at most as many as its quota.

    Args:
        scores: float32 or float64 (n_out, n_in); tensors are float32.
        candidates: bool, the same shape.
        quotas: int64 (n_out, segments).
        edges: int64 (segments + 1,), always numpy's.
    """
    if not on_host(scores):
        from sparse_train.selection import on_device

        return on_device.select(scores, candidates, quotas, edges)
    chosen = np.zeros(scores.shape, dtype=bool)
    _select(np.ascontiguousarray(scores), np.ascontiguousarray(candidates), quotas, edges, chosen)
    return chosen


@numba.njit(cache=True)
def _select(scores: Any, candidates: Any, quotas: Any, edges: Any, chosen: Any) -> None:
    n_out, n_in = scores.shape
    places = np.empty(n_in, np.int64)
    values = np.empty(n_in, scores.dtype)
    ranks = np.empty(n_in, np.int32)
    for row in range(n_out):
        for segment in range(edges.size - 1):
            quota = quotas[row, segment]
            if quota <= 0:
                continue
            count = 0
            for column in range(edges[segment], edges[segment + 1]):
                if candidates[row, column]:
                    places[count] = column
                    values[count] = scores[row, column]
                    count += 1
            if quota >= count:
                for i in range(count):
                    chosen[row, places[i]] = True
                continue
            if count <= _FEW:
                rank(values, count, ranks)
                for i in range(count):
                    chosen[row, places[i]] |= ranks[i] < quota
                continue
            threshold = np.partition(values[:count], count - quota)[count - quota]
            ties = quota
            for i in range(count):
                ties -= values[i] > threshold
            for i in range(count):
                if values[i] > threshold:
                    chosen[row, places[i]] = True
                elif values[i] == threshold and ties > 0:
                    chosen[row, places[i]] = True
                    ties -= 1


@numba.njit(cache=True)
def rank(values: Any, count: int, ranks: Any) -> None:
    """How many of the first `count` values are larger, or as large and before, for each of them."""
    if count > _FEW:
        for place, index in enumerate(np.argsort(-values[:count], kind="mergesort")):
            ranks[index] = place
        return
    for i in range(count):
        before = 0
        for j in range(i):
            larger = values[j] >= values[i]
            before += larger
            ranks[j] += not larger
        ranks[i] = before
