"""Gradual magnitude pruning: dense at first, then only the largest weights stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError, unknown
from sparse_train.algorithms._base import Algorithm, Outcome, State, View
from sparse_train.algorithms._global import prune, unstructured_only
from sparse_train.selection.arrays import at_least, copied, count, where


@dataclass(frozen=True)
class GMP(Algorithm):
    """Each update keeps the largest active weights, as many as the schedule's density asks for.

    The schedule is cubic unless the user names another: s_f + (s_i − s_f)(1 − (t − t₀)/(nΔt))³.
    A pruned weight stays zero.

    Args:
        scope: "layer" prunes each layer to its own budget; "global" all layers together to the
            sum of the budgets, at least one weight in each.

    Source: Zhu & Gupta 2017, section 3.
    """

    on_device: ClassVar[bool] = True
    schedule: ClassVar[str] = "cubic"
    first_mask: ClassVar[str] = "dense"
    keeps_largest: ClassVar[bool] = True
    scope: str = "layer"

    def __post_init__(self) -> None:
        if self.scope not in ("layer", "global"):
            raise InputError(unknown("scope", self.scope, ("layer", "global")))

    @property
    def by_layer(self) -> bool:
        return self.scope == "layer"

    def targets(self, view: View) -> dict[str, int]:
        """Layer name → active weights after this update; never more than now."""
        return {n: min(b, count(view.masks[n])) for n, b in view.budgets.items()}

    def update(self, view: View, state: State) -> Outcome:
        scores = {name: abs(weight) for name, weight in view.weights.items()}
        targets = self.targets(view)
        if not self.by_layer:
            unstructured_only(view.pattern, type(self).__name__)
            targets = prune(scores, view.masks, sum(targets.values()))
        masks = {name: pruned(view, name, scores[name], target) for name, target in targets.items()}
        return Outcome(masks, state)


def pruned(view: View, layer: str, scores: np.ndarray, target: int) -> np.ndarray:
    """The mask of the pattern with `target` active weights that keeps the best of the active."""
    mask, pattern = view.masks[layer], view.pattern
    if pattern.capacity(mask.shape, target) >= pattern.units(mask):
        return copied(mask)
    # An active weight of 0 still comes before an inactive one.
    ranked = where(mask, at_least(scores, float(np.finfo(np.float32).smallest_subnormal)), 0)
    return pattern.project(ranked, target)


ALGORITHM = GMP
