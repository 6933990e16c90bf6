"""N:M: n active in every m consecutive weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim import patterns as definitions
from hwsim.errors import InputError
from sparse_train.segments import Segmented
from sparse_train.selection.arrays import Array, on_host


@dataclass(frozen=True)
class NM(Segmented):
    """n of every m along the inputs (axis 1) or the outputs (axis 0).

    A shorter last group holds min(n, its size). The density is n/m, so that a budget of any other
    density is refused.
    """

    name: ClassVar[str] = "n_m"
    n: int = 2
    m: int = 4
    axis: int = 1

    def __post_init__(self) -> None:
        definitions.PATTERNS.get(self.name)(self.n, self.m, self.axis)

    @property
    def only_density(self) -> float:
        return self.n / self.m

    @property
    def on_device(self) -> bool:
        return True

    def edges(self, n_in: int) -> np.ndarray:
        return np.append(np.arange(0, n_in, self.m, dtype=np.int64), n_in)

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        return super().capacity(shape if self.axis else shape[::-1], budget)

    def steps(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        return budget, budget

    def shares(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        lines, length = shape
        if budget == 0:
            return 0, 0
        exact = int(np.minimum(np.diff(self.edges(length)), self.n).sum()) * lines
        check_density(f"{self.n}:{self.m}", self.only_density, shape, budget, exact)
        return self.n, lines

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        if self.axis:
            return super().keep(scores, mask, units, budget)
        kept = NM(self.n, self.m).keep(_turned(scores), _turned(mask), units, budget)
        return _turned(kept)

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        if self.axis:
            return super().fill(scores, kept, budget)
        return _turned(NM(self.n, self.m).fill(_turned(scores), _turned(kept), budget))


def check_density(
    pattern: str, density: float, shape: tuple[int, int], budget: int, exact: int
) -> None:
    """An InputError unless the budget is what a pattern of fixed density has, rounded or exact."""
    size = shape[0] * shape[1]
    if budget != exact and abs(budget - density * size) > 1:
        raise InputError(
            f"pattern {pattern}: density is {budget / size:.4g}; allowed is {density:g} for every "
            f"layer (density={density:g}, distribution='uniform', schedule='constant')"
        )


def _turned(array: Array) -> Array:
    return np.ascontiguousarray(array.T) if on_host(array) else array.T.contiguous()


PATTERN = NM
