"""Lottery ticket: iterative magnitude pruning that goes back to early weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError
from sparse_train.algorithms._base import Outcome, State, View
from sparse_train.algorithms.iterative import Iterative
from sparse_train.selection.arrays import copied, equal


@dataclass(frozen=True)
class Lottery(Iterative):
    """After each pruning the masked weights go back to what they were, their moments to 0.

    `update_interval` is the length of one round of training. Weights that are not masked (biases,
    norms), their moments and the learning rate are the training loop's to put back; the trainer
    does (`sparse_train.runs.rewind`).

    Args:
        scope, share: as in iterative pruning.
        rewind_step: go back to the weights after this step: 0 for the initial ones, else an
            update step, in which nothing is pruned.

    Source: Frankle & Carbin 2019, section 1; Frankle et al. 2020, section 3 (late rewinding).
    """

    on_device: ClassVar[bool] = True
    rewind_step: int = 0

    def least_updates(self, density: float) -> int:
        return super().least_updates(density) + int(self.rewind_step > 0)

    def start(self, view: View) -> State:
        return {"early": _copied(view)} if self.rewind_step == 0 else {}

    def update(self, view: View, state: State) -> Outcome:
        if view.step == self.rewind_step:
            return Outcome(dict(view.masks), {"early": _copied(view)})
        if "early" not in state:
            if view.step < self.rewind_step:
                return Outcome(dict(view.masks), state)
            raise InputError(
                f"rewind_step: value is {self.rewind_step}; allowed is 0 or a step in which masks "
                "are updated"
            )
        masks = super().update(view, state).masks
        if all(equal(masks[name], view.masks[name]) for name in masks):
            return Outcome(masks, state)
        return Outcome(masks, state, weights=state["early"], reset=dict(masks))


def _copied(view: View) -> dict[str, np.ndarray]:
    return {name: copied(weight) for name, weight in view.weights.items()}


ALGORITHM = Lottery
