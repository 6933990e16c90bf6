"""SNFS: momentum decides where weights grow, and how many each layer gets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparse_train.algorithms._base import Outcome, State, View
from sparse_train.algorithms._global import unstructured_only, within
from sparse_train.algorithms.rigl import RigL
from sparse_train.selection.arrays import count, size, sum_of, where


@dataclass(frozen=True)
class SNFS(RigL):
    """Sparse networks from scratch: `gradients` is the momentum of the dense gradient.

    Each layer drops its smallest weights. What was dropped is shared out by mean |momentum| over a
    layer's active weights, normalised: a layer grows ceil(share · removed), at most 0.99 of what
    is free; the rest is spread evenly. It needs the dense gradient in every step.

    Args:
        rounding: of the number dropped; the authors round up.
        momentum: of the dense gradient: v ← momentum · v + g.
        exact: give back what the rounding up grew too much, from the layers that grow most, so
            that the sum of the budgets is met to the integer. The authors' code does not.

    Source: Dettmers & Zettlemoyer 2019, section 3 and algorithm 1.
    """

    on_device: ClassVar[bool] = True
    gradient: ClassVar[str] = "always"
    budget: ClassVar[str] = "total"
    rounding: str = "ceil"
    momentum: float = 0.9
    exact: bool = True

    def update(self, view: View, state: State) -> Outcome:
        unstructured_only(view.pattern, "SNFS")
        assert view.gradients is not None
        kept = {name: self._kept(view, name) for name in view.masks}
        total = sum(view.budgets.values()) - sum(count(mask) for mask in kept.values())
        grown = self._shares(view, kept, max(total, 0))
        masks = {}
        for name, mask in kept.items():
            target = count(mask) + grown[name]
            mask = within(view, name, self.drop_scores(view, name), mask, target)
            masks[name] = view.pattern.fill(self.grow_scores(view, name), mask, target)
        return Outcome(masks, state)

    def _shares(self, view: View, kept: dict[str, np.ndarray], total: int) -> dict[str, int]:
        """Layer name → weights to grow, out of `total`."""
        assert view.gradients is not None
        means = {
            name: sum_of(where(mask, abs(view.gradients[name]), 0)) / max(count(mask), 1)
            for name, mask in view.masks.items()
        }
        whole = sum(means.values())
        free = {name: size(mask) - count(mask) for name, mask in kept.items()}
        grown, most = {}, {}
        for name, mean in means.items():
            share = mean / whole if whole > 0 else 1 / len(means)
            most[name] = math.floor(0.99 * free[name])
            grown[name] = min(math.ceil(round(share * total, 9)), most[name])
        left = total - sum(grown.values())
        while left > 0:
            room = [n for n in grown if grown[n] < most[n]] or [
                n for n in grown if grown[n] < free[n]
            ]
            if not room:
                break
            for name in room[:left]:
                grown[name] += 1
            left = total - sum(grown.values())
        # No layer may run empty.
        least = {n: int(not mask.any() and view.budgets[n] > 0) for n, mask in kept.items()}
        for name in kept:
            if grown[name] < least[name]:
                grown[name] += 1
                left -= 1
        while self.exact and left < 0:
            spare = {n: grown[n] for n in grown if grown[n] > least[n]}
            if not spare:
                break
            grown[max(spare, key=lambda n: spare[n])] -= 1
            left += 1
        return grown


ALGORITHM = SNFS
