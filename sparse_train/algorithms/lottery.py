"""Lottery ticket: iterative magnitude pruning that goes back to early weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError, unknown
from sparse_train.algorithms._base import Outcome, State, View, chance
from sparse_train.algorithms.iterative import Iterative
from sparse_train.selection.arrays import beside, copied, count, equal, size

TICKET, REINITIALISED, RANDOM_MASK = "ticket", "reinitialised", "random_mask"
TRAINS = (TICKET, REINITIALISED, RANDOM_MASK)


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
        trains: what the last round trains: the "ticket"; or a control of it: its mask
            "reinitialised", the early weights of each layer in a random order; or a "random_mask"
            of as many weights in each layer, with the early weights.

    Source: Frankle & Carbin 2019, section 1, and section 2 for the controls; Frankle et al. 2020,
    section 3 (late rewinding).
    """

    on_device: ClassVar[bool] = True
    rewind_step: int = 0
    trains: str = TICKET

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trains not in TRAINS:
            raise InputError(unknown("trains", self.trains, TRAINS))

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
        weights = state["early"]
        if self.targets(view) == dict(view.budgets):
            if self.trains == RANDOM_MASK:
                masks = {n: view.pattern.project(chance(view, n), count(m)) for n, m in
                         masks.items()}  # fmt: skip
            elif self.trains == REINITIALISED:
                weights = {name: _shuffled(view, early) for name, early in weights.items()}
        return Outcome(masks, state, weights=weights, reset=dict(masks))


def _shuffled(view: View, values: np.ndarray) -> np.ndarray:
    """The same values at random places: another draw of the same distribution."""
    order = beside(view.rng.permutation(size(values)), values)
    return values.reshape(-1)[order].reshape(values.shape)


def _copied(view: View) -> dict[str, np.ndarray]:
    return {name: copied(weight) for name, weight in view.weights.items()}


ALGORITHM = Lottery
