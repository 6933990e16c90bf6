"""Any weight may be active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, of_each
from hwsim.patterns._base import Packed, Pattern, index_dtype


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Every mask is of this pattern. Packed as CSR: row starts, column of each value."""

    name: ClassVar[str] = "unstructured"

    def holds(self, mask: Mask) -> bool:
        return True

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        return of_each(1, 1, 1, density), of_each(1, 1, 1, density)

    def unpack(self, packed: Packed) -> np.ndarray:
        dense = np.zeros(packed.shape, dtype=packed.values.dtype)
        rows = np.repeat(np.arange(packed.shape[0]), np.diff(packed.indices["starts"]))
        dense[rows, packed.indices["columns"]] = packed.values
        return dense

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        rows, columns = np.nonzero(mask.array)
        starts = np.concatenate([[0], np.cumsum(mask.row_nnz)]).astype(np.int32)
        indices = {"starts": starts, "columns": columns.astype(index_dtype(mask.shape[1] - 1))}
        return Packed(values[rows, columns], indices, mask.shape)


PATTERN = Unstructured
