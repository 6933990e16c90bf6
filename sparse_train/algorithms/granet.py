"""GraNet: global gradual pruning, then RigL's exchange in each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparse_train.algorithms._base import Outcome, State, View, rounded
from sparse_train.algorithms._global import count_best, prune, unstructured_only
from sparse_train.algorithms.rigl import RigL


@dataclass(frozen=True)
class GraNet(RigL):
    """Prunes all layers together to the schedule's density, then drops and grows as many in each.

    The sparsity is (1 − d_i) + (d_i − d_f)(1 − (1 − (i − i₀)/n)³): the cubic schedule from
    `initial_density` d_i. How the density is distributed counts only for the first mask.

    Source: Liu et al. 2021 (GraNet), section 3.2; its code rounds the number dropped up.
    """

    on_device: ClassVar[bool] = True
    schedule: ClassVar[str] = "cubic"
    budget: ClassVar[str] = "total"
    keeps_largest: ClassVar[bool] = False

    def update(self, view: View, state: State) -> Outcome:
        unstructured_only(view.pattern, "GraNet")
        scores = {name: self.drop_scores(view, name) for name in view.masks}
        left = self._left(view, scores)
        masks, reset = {}, {}
        for name, mask in view.masks.items():
            pattern, budget = view.pattern, left[name]
            survivors = min(pattern.units(mask), pattern.capacity(mask.shape, budget))
            keep = survivors - rounded(survivors * view.drop_fraction, self.rounding)
            kept = pattern.keep(scores[name], mask, keep, budget)
            masks[name] = pattern.fill(self.grow_scores(view, name), kept, budget)
            if self.reinit_when_same:
                reset[name] = mask & ~kept & masks[name]
        return Outcome(masks, state, reset=reset or None)

    def _left(self, view: View, scores: dict[str, np.ndarray]) -> dict[str, int]:
        """Layer name → active weights after the update; a density that rises grows by gradient."""
        total = sum(view.budgets.values())
        left = prune(scores, view.masks, total)
        missing = total - sum(left.values())
        if missing > 0:
            growth = {name: self.grow_scores(view, name) for name in left}
            more = count_best(growth, missing, {n: ~mask for n, mask in view.masks.items()})
            left = {name: count + more[name] for name, count in left.items()}
        return left


ALGORITHM = GraNet
