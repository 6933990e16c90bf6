"""Inputs looked up within a register: any mask, batches of one or a few."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from hwsim.kernels.cpu import gather_passes
from hwsim.kernels.cpu import lookup_passes as passes
from hwsim.kernels.cpu.layer import Layer, aligned
from hwsim.kernels.cpu.layout import MOST, WINDOW
from hwsim.kernels.cpu.threads import ranges, run
from hwsim.mask import Mask


def planned_steps(mask: Mask, transposed: bool) -> int:
    """How many steps the kernel takes for one sample, those included that fill up groups."""
    order, pointers, index, _ = _rows(mask.array, transposed)
    return passes.plan(order, pointers, index, mask.shape[0 if transposed else 1])[1].size


def _rows(mask: np.ndarray, transposed: bool) -> tuple[np.ndarray, ...]:
    """Order of the rows and their CSR, of a mask or its transpose."""
    found = gather_passes.csr(mask, transposed)
    return gather_passes.sorted_places(found[0]), *found


class _Side:
    """A matrix, or its transpose, laid out for one direction."""

    def __init__(self, mask: np.ndarray, transposed: bool, value_type: Any) -> None:
        self.rows = mask.shape[1] if transposed else mask.shape[0]
        order, pointers, index, source = _rows(mask, transposed)
        columns = mask.shape[0] if transposed else mask.shape[1]
        steps, starts, begins = passes.plan(order, pointers, index, columns)
        words, self._sources = passes.lay_out(order, pointers, index, source, steps, starts)
        self._layout = order, begins, starts, words
        self._values = aligned(self._sources.size, value_type)

    def repack(self, flat: np.ndarray) -> None:
        rounded = self._values.dtype == np.uint16
        gather = passes.gather_rounded if rounded else passes.gather
        gather(flat, self._sources, self._values)

    def multiply(self, x: np.ndarray, threads: int) -> np.ndarray:
        y = np.empty((len(x), self.rows), np.float32)
        groups = self._layout[1].size - 1
        given = (*self._layout, self._values, x, y)
        if not all(run(passes.multiply, [(*given, *c) for c in ranges(groups, threads)])):
            passes.multiply_one_by_one(*self._layout, self._exact(), self._sources, x, y)
        return y

    def _exact(self) -> np.ndarray:
        """Values as float32, eight a step."""
        if self._values.dtype == np.float32:
            return self._values
        pairs = self._values.reshape(-1, 4, WINDOW, 2).transpose(0, 3, 1, 2)
        return (pairs.reshape(-1).astype(np.uint32) << 16).view(np.float32)


class LookupLayer(Layer):
    """Eight rows side by side; what they need of eight inputs is found by one permute.

    A window of eight inputs slides along, and rows that have a weight in it use it together. Lanes
    of rows that have none are idle: of a random mask with a tenth of the weights every other one,
    of a mask with as many weights in each block of eight inputs of eight neurons none at all
    (pattern `balanced:8,8`). 4.75 bytes a lane, idle or not.
    """

    name = "lookup"
    phases = ("forward", "grad_input")
    value_type: ClassVar[Any] = np.float32

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        if min(mask.shape) < WINDOW or max(mask.shape) > MOST:
            return f"shape is {mask.shape}; allowed are {WINDOW} to {MOST} rows and columns"
        return ""

    def _build(self) -> None:
        array, kind = self.mask.array, self.value_type
        self._sides = [_Side(array, transposed, kind) for transposed in (False, True)]

    def _repack(self, weights: np.ndarray) -> None:
        for side in self._sides:
            side.repack(weights.reshape(-1))

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return self._sides[0].multiply(x, self.threads)

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return self._sides[1].multiply(dy, self.threads)


KERNEL = LookupLayer
