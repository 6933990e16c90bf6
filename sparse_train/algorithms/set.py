"""SET: drop the smallest weights, grow at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparse_train.algorithms._base import (
    Algorithm,
    Outcome,
    State,
    View,
    chance,
    check_rounding,
    rounded,
)


@dataclass(frozen=True)
class Set(Algorithm):
    """Sparse evolutionary training, layer by layer.

    A layer of n active units drops int(n · drop fraction) of the smallest magnitude and grows as
    many (or what its budget asks for) where it is not active. Whatever was not kept is a candidate
    for growth, so that a weight just dropped may come back; it then keeps its value and moments.

    Args:
        rounding: of the number dropped: "floor" (the RigL authors' code), "round" or "ceil".
        reinit_when_same: a weight dropped and grown in one update starts anew at 0.

    Source: Mocanu et al. 2018, algorithm 1. There the smallest positive and the largest negative
    weights are dropped; here, as in later codes, the smallest magnitudes.
    """

    on_device: ClassVar[bool] = True
    keeps_largest: ClassVar[bool] = True
    rounding: str = "floor"
    reinit_when_same: bool = False

    def __post_init__(self) -> None:
        check_rounding(self.rounding)

    def drop_scores(self, view: View, layer: str) -> np.ndarray:
        """The units of lowest score go."""
        return abs(view.weights[layer])

    def grow_scores(self, view: View, layer: str) -> np.ndarray:
        """The candidates of highest score come."""
        return chance(view, layer)

    def update(self, view: View, state: State) -> Outcome:
        masks, reset = {}, {}
        for layer, mask in view.masks.items():
            kept = self._kept(view, layer)
            grown = view.pattern.fill(self.grow_scores(view, layer), kept, view.budgets[layer])
            masks[layer] = grown
            if self.reinit_when_same:
                reset[layer] = mask & ~kept & grown
        return Outcome(masks, state, reset=reset or None)

    def _kept(self, view: View, layer: str) -> np.ndarray:
        mask, budget = view.masks[layer], view.budgets[layer]
        active = view.pattern.units(mask)
        keep = active - rounded(active * view.drop_fraction, self.rounding)
        return view.pattern.keep(self.drop_scores(view, layer), mask, keep, budget)


ALGORITHM = Set
