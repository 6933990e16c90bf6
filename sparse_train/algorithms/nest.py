"""NeST: a small seed grows by gradient, then is pruned by magnitude; neurons too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.checks import check_number
from sparse_train.algorithms._base import Algorithm, Outcome, State, View
from sparse_train.algorithms.gmp import pruned
from sparse_train.schedules import Piecewise, piecewise
from sparse_train.segments import select
from sparse_train.selection import top_k
from sparse_train.selection.arrays import count, single, sums


@dataclass(frozen=True)
class NeST(Algorithm):
    """The schedule's density rises (growth phase), then falls (pruning phase).

    While a layer's budget is above what it has, weights of largest |gradient| are grown and none
    is dropped; part of the growth goes to dormant neurons, those with no input, first the ones
    with the largest gradient. While the budget is below, the smallest weights are pruned, and with
    them whole neurons: one that is left with less than `weak` of the mean number of inputs loses
    them all, and its weights go to others. Use `nest_schedule` for a schedule with a peak.

    Deviations: a grown weight starts at 0, not at a share of its gradient; a dormant neuron is
    chosen by the gradient of its own weights, not of the bridging weights past it.

    Args:
        neuron_share: of the growth that may go to dormant neurons, 0 to 1.
        weak: share of the mean fan-in below which a neuron is pruned, 0 to 1.

    Source: Dai et al. 2018, sections 3.1 to 3.3.
    """

    on_device: ClassVar[bool] = True
    gradient: ClassVar[str] = "update"
    patterns: ClassVar[tuple[str, ...]] = ("unstructured",)
    patterns_reason: ClassVar[str] = "which grows and prunes single weights and whole neurons"
    neuron_share: float = 0.3
    weak: float = 0.1

    def __post_init__(self) -> None:
        for name in ("neuron_share", "weak"):
            value = getattr(self, name)
            check_number(name, value, least=0, most=1)

    def update(self, view: View, state: State) -> Outcome:
        return Outcome({name: self._layer(view, name) for name in view.masks}, state)

    def _layer(self, view: View, name: str) -> np.ndarray:
        assert view.gradients is not None
        mask, budget = view.masks[name], view.budgets[name]
        growth = abs(view.gradients[name])
        missing = budget - count(mask)
        if missing < 0:
            magnitude = abs(view.weights[name])
            left = self._without_weak(magnitude, pruned(view, name, magnitude, budget))
            # What weak neurons held goes back to the others first, to themselves if need be.
            alive = left.any(1).reshape(-1, 1)
            for candidates in (mask & alive, mask):
                free = candidates & ~left
                lacking = budget - count(left)
                left = left | top_k(magnitude, min(lacking, count(free)), free)
            return left
        woken = self._woken(mask, growth, int(self.neuron_share * missing))
        mask = mask | woken
        return mask | top_k(growth, budget - count(mask), ~mask)

    def _woken(self, mask: np.ndarray, growth: np.ndarray, allowance: int) -> np.ndarray:
        """Inputs of dormant neurons, at most `allowance`, each neuron with the mean fan-in."""
        fan_in = mask.sum(1)
        dormant = fan_in == 0
        active = count(~dormant)
        each = max(1, int(fan_in.sum()) // active) if active else mask.shape[1]
        neurons = min(allowance // each, count(dormant))
        strongest = top_k(single(sums(growth, 1)), neurons, dormant)
        quotas = strongest.reshape(-1, 1) * each
        edges = np.array([0, mask.shape[1]], dtype=np.int64)
        return select(growth, ~mask, quotas, edges)

    def _without_weak(self, magnitude: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`mask` less its weakest neurons, as far as the others have room for what they held."""
        fan_in = mask.sum(1)
        neurons = count(fan_in > 0)
        if not neurons:
            return mask
        weak = (fan_in > 0) & (fan_in < math.ceil(self.weak * (count(mask) / neurons)))
        return mask & ~weak[:, None]


def nest_schedule(seed: float, peak: float, end: float, *, turn: float = 0.5) -> Piecewise:
    """Density `seed` → `peak` until progress `turn`, then → `end`.

    >>> nest_schedule(0.1, 0.4, 0.2)(0.5)
    0.4
    """
    return piecewise([(0.0, seed), (turn, peak), (1.0, end)])


ALGORITHM = NeST
