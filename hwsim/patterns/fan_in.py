"""Constant fan-in: every active neuron has as many inputs as any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, of_each
from hwsim.patterns._base import Packed, Pattern, index_dtype


@dataclass(frozen=True)
class FanIn(Pattern):
    """All rows that have active weights have the same number; the others are ablated neurons.

    Packed ("condensed") as values (active, k) and the input of each, with the active rows' numbers.

    Source: Lasby et al. 2023, section 3.
    """

    name: ClassVar[str] = "fan_in"

    def holds(self, mask: Mask) -> bool:
        counts = mask.row_nnz[mask.row_nnz > 0]
        return counts.size == 0 or bool((counts == counts[0]).all())

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        share = round(density * shape[1]) / shape[1]
        return replace(of_each(1, 1, 1, share), fixed=True), of_each(1, 1, 1, share)

    def unpack(self, packed: Packed) -> np.ndarray:
        dense = np.zeros(packed.shape, dtype=packed.values.dtype)
        dense[packed.indices["rows"][:, None], packed.indices["columns"]] = packed.values
        return dense

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        rows = np.flatnonzero(mask.row_nnz)
        k = int(mask.row_nnz.max())
        columns = np.nonzero(mask.array[rows])[1].reshape(rows.size, k)
        indices = {
            "rows": rows.astype(index_dtype(mask.shape[0] - 1)),
            "columns": columns.astype(index_dtype(mask.shape[1] - 1)),
        }
        return Packed(values[rows[:, None], columns], indices, mask.shape)


PATTERN = FanIn
