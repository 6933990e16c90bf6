"""Any weight may be active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparse_train.patterns._base import Projection
from sparse_train.selection import top_k
from sparse_train.selection.arrays import count


@dataclass(frozen=True)
class Unstructured(Projection):
    """A unit is a weight; the budget is met to the integer."""

    name: ClassVar[str] = "unstructured"

    @property
    def on_device(self) -> bool:
        return True

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        return budget

    def units(self, mask: np.ndarray) -> int:
        return count(mask)

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        return top_k(scores, min(units, budget), mask)

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        return kept | top_k(scores, budget - count(kept), ~kept)


PATTERN = Unstructured
