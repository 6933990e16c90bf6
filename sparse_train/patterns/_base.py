"""What a pattern can do: choose which weights are kept and fill up the rest of the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Projection:
    """Makes masks of one pattern.

    A pattern is built from units (a weight, a block, a row). The drop-and-grow algorithms count
    in units: drop the weakest, grow the strongest, and never leave the pattern.

    All arrays have shape (n_out, n_in): scores float32, masks bool. Scores are not negative:
    magnitudes of weights or gradients, or random numbers. Ties go to the lowest index.
    """

    name: ClassVar[str] = ""

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        """Units that a budget of `budget` active weights pays for.

        Raises:
            InputError: no mask of this shape and pattern has such a budget.
        """
        raise TypeError(f"{type(self).__name__} must define capacity(shape, budget)")

    def units(self, mask: np.ndarray) -> int:
        """Active units of a mask of this pattern."""
        raise TypeError(f"{type(self).__name__} must define units(mask)")

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        """The best `units` active units of `mask`, less those that the pattern has no room for."""
        raise TypeError(f"{type(self).__name__} must define keep(scores, mask, units, budget)")

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        """A mask of the pattern that contains `kept`, filled up by score to the budget."""
        raise TypeError(f"{type(self).__name__} must define fill(scores, kept, budget)")

    def project(self, scores: np.ndarray, budget: int) -> np.ndarray:
        """The mask of the pattern with the largest sum of scores within the budget."""
        return self.fill(scores, np.zeros(scores.shape, dtype=bool), budget)
