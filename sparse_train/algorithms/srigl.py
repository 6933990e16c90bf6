"""SRigL: RigL under constant fan-in, with neurons that can be ablated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError
from sparse_train.algorithms._base import (
    Algorithm,
    Outcome,
    State,
    View,
    check_rounding,
    rounded,
)
from sparse_train.segments import select
from sparse_train.selection import top_k
from sparse_train.selection.arrays import beside, brought, count, filled


@dataclass(frozen=True)
class SRigL(Algorithm):
    """Structured RigL, layer by layer, with n active weights of which n_prune = int(n · drop) go.

    1. Salient weights: the layer's n_keep largest |w| and its n_prune largest |g|, counted per
       neuron.
    2. A neuron with fewer salient weights than γ·k is ablated (k the layer's fan-in; at least 1).
       The threshold falls until budget // n_in + 1 neurons are left. The layer that gives the
       model's output is never ablated.
    3. The fan-in becomes budget // active neurons, at least 1.
    4. Outside ablated neurons the n_keep largest |w| stay, each neuron no more than the fan-in;
       each is filled up by |g|.

    Who is ablated is found anew at each update, so that a neuron can come back.

    Args:
        gamma: γ; from 1 on it is the threshold itself. None never ablates.
        threshold_of: k of step 2: "sparse", the layer's constant fan-in (the paper), or "dense",
            n_in (the default of the authors' code).
        rounding: of n_prune.

    Source: Lasby et al. 2023, section 3.1 and appendix; γ is 0.3, 0.95 for vision transformers.
    """

    on_device: ClassVar[bool] = True
    gradient: ClassVar[str] = "update"
    budget: ClassVar[str] = "own"
    patterns: ClassVar[tuple[str, ...]] = ("fan_in",)
    patterns_reason: ClassVar[str] = "which makes constant fan-in"
    gamma: float | None = 0.3
    threshold_of: str = "sparse"
    rounding: str = "floor"

    def __post_init__(self) -> None:
        check_rounding(self.rounding)
        if self.gamma is not None and not 0 <= self.gamma < math.inf:
            raise InputError(f"gamma: value is {self.gamma!r}; allowed is at least 0, or None")
        if self.threshold_of not in ("sparse", "dense"):
            raise InputError(
                f"threshold_of: value is {self.threshold_of!r}; allowed: sparse, dense"
            )

    def update(self, view: View, state: State) -> Outcome:
        return Outcome({name: self._layer(view, name) for name in view.masks}, state)

    def _layer(self, view: View, name: str) -> np.ndarray:
        assert view.gradients is not None
        magnitude, growth = abs(view.weights[name]), abs(view.gradients[name])
        mask, budget = view.masks[name], view.budgets[name]
        n_out = mask.shape[0]
        active = count(mask)
        n_prune = rounded(active * view.drop_fraction, self.rounding)
        n_keep = active - n_prune
        if budget < n_out and (self.gamma is None or name == view.output_layer):
            # Not one weight for each neuron: constant fan-in then leaves the weakest out.
            kept = view.pattern.keep(magnitude, mask, n_keep, budget)
            return view.pattern.fill(growth, kept, budget)
        salient = top_k(magnitude, n_keep, mask) | top_k(growth, n_prune)
        alive = np.ones(n_out, dtype=bool)
        if self.gamma is not None and name != view.output_layer:
            alive = self._alive(brought(salient.sum(1)), mask, budget)
        return _regrown(magnitude, growth, mask, alive, n_keep, budget)

    def _alive(self, salient: np.ndarray, mask: np.ndarray, budget: int) -> np.ndarray:
        """(n_out,) neurons with enough salient weights; the threshold falls until enough are."""
        n_out, n_in = mask.shape
        assert self.gamma is not None
        k = n_in if self.threshold_of == "dense" else int(mask.sum(1).max())
        least = int(self.gamma) if self.gamma >= 1 else max(1, int(self.gamma * k))
        survivors = min(budget // n_in + 1, n_out)
        least = min(least, int(np.sort(salient)[n_out - survivors]))
        alive = salient >= least
        if int(alive.sum()) > budget:
            # Fewer weights than neurons: one each to the neurons with most salient weights.
            alive = np.zeros(n_out, dtype=bool)
            alive[np.argsort(-salient, kind="stable")[:budget]] = True
        return alive


def fan_in_after_ablation(budget: int, neurons: int, n_in: int) -> int:
    """The fan-in that spends the budget on the active neurons: at least 1, at most n_in.

    >>> fan_in_after_ablation(128, 12, 32)
    10
    """
    return min(max(budget // neurons, 1), n_in)


def _regrown(
    magnitude: np.ndarray,
    growth: np.ndarray,
    mask: np.ndarray,
    alive: np.ndarray,
    n_keep: int,
    budget: int,
) -> np.ndarray:
    """Step 4, under the fan-in of step 3."""
    n_out, n_in = mask.shape
    neurons = int(alive.sum())
    if neurons == 0:
        return filled(mask.shape, False, mask)
    fan_in = fan_in_after_ablation(budget, neurons, n_in)
    edges = np.array([0, n_in], dtype=np.int64)
    quotas = beside(np.where(alive, fan_in, 0).astype(np.int64).reshape(n_out, 1), mask)
    candidates = mask & beside(alive[:, None], mask)
    best = top_k(magnitude, min(n_keep, count(candidates)), candidates)
    kept = select(magnitude, best, quotas, edges)
    missing = quotas - kept.sum(1).reshape(n_out, 1)
    return kept | select(growth, ~kept, missing, edges)


ALGORITHM = SRigL
