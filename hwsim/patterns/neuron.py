"""Neurons or channels: whole rows or whole columns are active."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, of_each
from hwsim.patterns._base import Packed, Pattern, index_dtype


@dataclass(frozen=True)
class Neuron(Pattern):
    """Each output (axis 0, a row) or each input (axis 1, a column) is there or not.

    Packed as a smaller dense matrix and the numbers of its rows or columns.
    """

    name: ClassVar[str] = "neuron"
    axis: int = 0

    def __post_init__(self) -> None:
        if self.axis not in (0, 1):
            raise InputError(f"pattern neuron: axis is {self.axis!r}; allowed is 0 or 1")

    def holds(self, mask: Mask) -> bool:
        counts = (mask.row_nnz, mask.col_nnz)[self.axis]
        return bool(((counts == 0) | (counts == mask.shape[1 - self.axis])).all())

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        lines = shape[self.axis]
        share = round(density * lines) / lines
        whole = of_each(0, 1, 1, share)
        crossing = replace(of_each(1, shape[1 - self.axis], 1, share), fixed=True)
        return (crossing, whole) if self.axis else (whole, crossing)

    def implies(self, other: Pattern) -> bool:
        return other.name in ("unstructured", "fan_in")

    def unpack(self, packed: Packed) -> np.ndarray:
        dense = np.zeros(packed.shape, dtype=packed.values.dtype)
        if self.axis == 0:
            dense[packed.indices["lines"]] = packed.values
        else:
            dense[:, packed.indices["lines"]] = packed.values
        return dense

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        lines = np.flatnonzero((mask.row_nnz, mask.col_nnz)[self.axis])
        indices = {"lines": lines.astype(index_dtype(mask.shape[self.axis] - 1))}
        return Packed(np.take(values, lines, axis=self.axis), indices, mask.shape)


PATTERN = Neuron
