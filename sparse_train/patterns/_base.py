"""What a pattern can do: choose which weights are kept and fill up the rest of the budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim import patterns as definitions
from sparse_train.selection.arrays import filled


@dataclass(frozen=True)
class Projection:
    """Makes masks of one pattern.

    A pattern is built from units (a weight, a block, a row). The drop-and-grow algorithms count
    in units: drop the weakest, grow the strongest, and never leave the pattern.

    All arrays have shape (n_out, n_in): scores float32, masks bool. Scores are finite and not
    negative: magnitudes of weights or gradients, or random numbers. Ties go to the lowest index.

    A budget counts active weights. The mask has as many units as the budget pays for; a budget
    above 0 that does not reach one unit gets one.
    """

    name: ClassVar[str] = ""

    @property
    def on_device(self) -> bool:
        """Whether `keep` and `fill` take tensors too, and choose on their device.

        Asked of the class that states it: one that inherits it is not taken for able.
        """
        return False

    @property
    def only_density(self) -> float | None:
        """The density that all its masks have; None where any can be asked for."""
        return None

    @property
    def definition(self) -> definitions.Pattern:
        """The pattern of `hwsim.patterns` that every mask made here satisfies."""
        kind = definitions.PATTERNS.get(self.name)
        shared = {f.name for f in dataclasses.fields(kind)}
        mine = dataclasses.asdict(self)
        return kind(**{name: value for name, value in mine.items() if name in shared})

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        """Units that a budget of `budget` active weights pays for.

        Raises:
            InputError: no mask of this pattern and shape has such a budget.
        """
        raise TypeError(f"{type(self).__name__} must define capacity(shape, budget)")

    def steps(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        """Active weights that masks of this shape can have next to `budget`: (below, above)."""
        return budget, budget

    def units(self, mask: np.ndarray) -> int:
        """Active units of a mask of this pattern."""
        raise TypeError(f"{type(self).__name__} must define units(mask)")

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        """The best `units` active units of `mask`, less those that the pattern has no room for."""
        raise TypeError(f"{type(self).__name__} must define keep(scores, mask, units, budget)")

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        """A mask of the pattern that contains `kept`, filled up by score to the budget.

        `kept` is what `keep` returned for the same budget, or empty.
        """
        raise TypeError(f"{type(self).__name__} must define fill(scores, kept, budget)")

    def rearranged(
        self, weights: np.ndarray, mask: np.ndarray, budget: int, update: int
    ) -> np.ndarray:
        """The mask that update number `update` starts from, in place of `mask`.

        Of the same pattern and budget; weights that become active by it start at 0. Most patterns
        have nothing to rearrange.
        """
        return mask

    def project(self, scores: np.ndarray, budget: int) -> np.ndarray:
        """The mask of the pattern with the largest sum of scores within the budget."""
        return self.fill(scores, filled(scores.shape, False, scores), budget)
