"""Top-KAST: the forward pass uses the largest weights, the backward pass updates a few more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.checks import check_number
from sparse_train.algorithms._base import Algorithm, Outcome, State, View
from sparse_train.selection import top_k
from sparse_train.selection.arrays import count, size


@dataclass(frozen=True)
class TopKast(Algorithm):
    """Forward set A: the largest |w| of a layer, its budget. Backward set B ⊇ A: D + M of them.

    Inactive weights keep their values: those in B are trained without being used, those outside B
    stand still. Both sets are chosen anew at each update, so a weight of B that grew joins A.

    Args:
        exploration: M, the density of B beyond A.
        penalty: λ of the L2 penalty: λ·w in A, λ/D·w in B outside A, D the layer's density.

    Source: Jayakumar et al. 2020, sections 2.1 and 2.3.
    """

    on_device: ClassVar[bool] = True
    gradient: ClassVar[str] = "always"
    first_mask: ClassVar[str] = "magnitude"
    dense_weights: ClassVar[bool] = True
    exploration: float = 0.1
    penalty: float = 1e-4

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, least=0, most=1)
        check_number("penalty", self.penalty, least=0)

    def pulls(self, density: float) -> tuple[float, float]:
        return self.penalty, self.penalty / density if density > 0 else 0.0

    def update(self, view: View, state: State) -> Outcome:
        masks, trained = {}, {}
        for name, weight in view.weights.items():
            scores, budget = abs(weight), view.budgets[name]
            masks[name] = view.pattern.project(scores, budget)
            trained[name] = self._backward(scores, masks[name], budget)
        return Outcome(masks, state, trained=trained)

    def _backward(self, scores: np.ndarray, mask: np.ndarray, budget: int) -> np.ndarray:
        more = min(budget + math.floor(self.exploration * size(scores)), size(scores))
        return mask | top_k(scores, max(0, more - count(mask)), ~mask)


ALGORITHM = TopKast
