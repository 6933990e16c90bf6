"""Balanced fan-in: neurons have as many inputs as others in each block of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, add_up, always, of_each, shared_out, sum_of, sums_kept
from hwsim.pattern_names import at_least
from hwsim.patterns._base import Packed, Pattern
from hwsim.patterns.fan_in import FanIn


@dataclass(frozen=True)
class Balanced(Pattern):
    """All active rows have the same number k of active weights in every `block` inputs.

    Where `block` does not divide n_in, the last block is shorter and holds min(k, its size).
    Packed as constant fan-in, in which a block's values stand together.

    With `rows`, only the active rows of a group of so many consecutive rows have the same number
    in a block; blocks may differ, and so may groups. All active rows of the mask have the same
    fan-in. The last group may be smaller.

    Args:
        block: inputs of a block.
        rows: rows of a group; 0 for one k everywhere.

    Source: Cao et al. 2019 (bank-balanced sparsity), section 3; groups of rows: this project.
    """

    name: ClassVar[str] = "balanced"
    block: int = 64
    rows: int = 0

    def __post_init__(self) -> None:
        at_least(self.name, "block", self.block, 1)
        at_least(self.name, "rows", self.rows, 0)

    def holds(self, mask: Mask) -> bool:
        starts = np.arange(0, mask.shape[1], self.block)
        active = mask.row_nnz > 0
        if not active.any():
            return True
        counts = np.add.reduceat(mask.array, starts, axis=1, dtype=np.int64)
        if self.rows:
            # An inactive row has 0 everywhere, so that the largest count is an active row's.
            groups = np.arange(0, mask.shape[0], self.rows)
            most = np.maximum.reduceat(counts, groups, axis=0)
            equal = counts == np.repeat(most, self.rows, axis=0)[: mask.shape[0]]
            return bool(equal[active].all()) and FanIn().holds(mask)
        sizes = np.diff(np.append(starts, mask.shape[1]))
        return bool((counts[active] == np.minimum(counts.max(), sizes)).all())

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells] | None:
        if self.rows:
            share = round(density * shape[1]) / shape[1]
            # By `sparse_train`'s projection the worth of an n-th weight is that of `rows` neurons.
            along = shared_out(self.block, share * self.block, self.rows)
            # Of a column, the neurons of a group each take part with the chance that they share.
            across = sum(
                chance * sum_of(np.array([1.0 - k / self.block, k / self.block]), self.rows)
                for k, chance in enumerate(along.counts)
            )
            return along, Cells(self.rows, 1, tuple(np.asarray(across).tolist()))
        each = round(density * self.block)
        return always(self.block, 1, each), of_each(1, 1, 1, each / self.block)

    def line_counts(
        self, axis: int, shape: tuple[int, int], density: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        if axis == 0:
            return None
        if self.rows:
            return self._columns(shape, density, rng)
        return sums_kept(shape[1], self.block, shape[0], round(density * self.block), rng)

    def _columns(
        self, shape: tuple[int, int], density: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        """Counts of columns: those of a block share out the same numbers, group by group."""
        n_out, n_in = shape
        if n_in % self.block:
            return None
        (cells, _) = self.cells(shape, density)  # type: ignore[misc]
        whole, blocks = round(density * n_in), n_in // self.block
        found = np.zeros((blocks, self.block), np.int64)
        for first in range(0, n_out, self.rows):
            each = rng.choice(len(cells.counts), blocks, p=cells.counts)
            add_up(each, whole, cells, rng)
            rows = min(self.rows, n_out - first)
            for k in set(each[each > 0].tolist()):
                mine = np.flatnonzero(each == k)
                drawn = sums_kept(mine.size * self.block, self.block, rows, int(k), rng)
                found[mine] += drawn.reshape(-1, self.block)
        return found.reshape(-1)

    def implies(self, other: Pattern) -> bool:
        return other.name in ("unstructured", "fan_in")

    def unpack(self, packed: Packed) -> np.ndarray:
        return FanIn().unpack(packed)

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        return FanIn()._pack(mask, values)


PATTERN = Balanced
