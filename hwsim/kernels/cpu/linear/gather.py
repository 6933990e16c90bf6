"""Eight rows side by side with gathered inputs: any mask, batches of one or a few."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.kernels.cpu import gather_passes, tiled_passes
from hwsim.kernels.cpu.layer import Layer, aligned
from hwsim.kernels.cpu.layout import MOST
from hwsim.kernels.cpu.threads import ranges, run
from hwsim.mask import Mask


class _Part(NamedTuple):
    """Weights in groups of rows or what is left of them: where they start, columns, values."""

    pointers: np.ndarray
    index: np.ndarray
    values: np.ndarray


class _Side:
    """A matrix, or its transpose, laid out for one direction."""

    def __init__(self, mask: Mask, transposed: bool) -> None:
        csr = gather_passes.csr(mask.array, transposed)
        self.rows = mask.shape[1] if transposed else mask.shape[0]
        self._order = gather_passes.sorted_places(csr[0])
        starts, index, source, *rest = gather_passes.lay_out(self._order, *csr)
        self._groups = _Part(starts, index, aligned(source.size))
        self._rest = _Part(rest[0], rest[1], aligned(rest[2].size))
        self._sources = source, rest[2]

    def repack(self, weights: np.ndarray) -> None:
        for part, source in zip((self._groups, self._rest), self._sources, strict=True):
            tiled_passes.gather(weights.reshape(-1), source, part.values)

    def multiply(self, x: np.ndarray, threads: int) -> np.ndarray:
        y = np.empty((len(x), self.rows), np.float32)
        calls = ranges(self._order.size // 8, threads)
        given = (self._order, tuple(self._groups), tuple(self._rest), x, y)
        run(gather_passes.gather_groups, [(*given, *c) for c in calls])
        return y


class GatherLayer(Layer):
    """Eight rows with as many weights side by side, uint16 indices: six bytes a weight.

    Rows are sorted by their number of weights, so that hardly any weight is left over; the input
    vector stays in the nearest cache.
    """

    name = "gather"
    phases = ("forward", "grad_input")

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        if max(mask.shape) > MOST:
            return f"shape is {mask.shape}; allowed are at most {MOST} rows and columns"
        return ""

    def _build(self) -> None:
        self._sides = [_Side(self.mask, transposed) for transposed in (False, True)]

    def _repack(self, weights: np.ndarray) -> None:
        for side in self._sides:
            side.repack(weights)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return self._sides[0].multiply(x, self.threads)

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return self._sides[1].multiply(dy, self.threads)


KERNEL = GatherLayer
