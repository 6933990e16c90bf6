"""The contract of an algorithm: a pure function from what a network is to its next masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hwsim.errors import InputError, unknown
from sparse_train.patterns import Projection
from sparse_train.selection.arrays import beside

State = Mapping[str, Any]
ROUNDINGS = {"floor": math.floor, "round": round, "ceil": math.ceil}


@dataclass(frozen=True)
class View:
    """What an update sees. Arrays are (n_out, n_in) and must not be written to.

    They are numpy's; for an algorithm that says `on_device`, torch's where the model is on one.

    Attributes:
        step: number of the training step, from 1; 0 when masks are made.
        weights: layer name → float32, zero where inactive.
        masks: layer name → bool.
        budgets: layer name → active weights that the layer is to have after the update.
        gradients: layer name → float32 for every weight, active or not (their running average,
            if the algorithm asks for that); None if it does not ask for them.
        drop_fraction: share of the active weights to drop.
        pattern: what masks must look like.
        rng: the only source of chance.
        learning_rates: layer name → the optimizer's present learning rate.
        output_layer: the layer that gives the model's output, if it is masked.
        update: number of this update, from 1; 0 when masks are made.
    """

    step: int
    weights: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray]
    budgets: Mapping[str, int]
    gradients: Mapping[str, np.ndarray] | None
    drop_fraction: float
    pattern: Projection
    rng: np.random.Generator
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    output_layer: str | None = None
    update: int = 0


class Outcome(NamedTuple):
    """What an update decided.

    Attributes:
        masks: layer name → bool, for every layer of the view.
        state: the algorithm's memory, arrays and numbers only.
        weights: layer name → values that active weights are to take; None leaves kept weights as
            they are and starts grown ones at 0.
        reset: layer name → bool; active weights that start anew, at 0 and without moments, though
            they were active before.
        trained: layer name → bool; of algorithms with `dense_weights`, the weights that the
            optimizer trains, whether active or not.
    """

    masks: Mapping[str, np.ndarray]
    state: State
    weights: Mapping[str, np.ndarray] | None = None
    reset: Mapping[str, np.ndarray] | None = None
    trained: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Algorithm:
    """Base of all algorithms; its fields are the algorithm's options.

    Attributes:
        gradient: dense gradients are needed "never", on "update" steps, or "always". An algorithm
            that always needs them and has a field `momentum` sees their average over all steps,
            v ← momentum · v + g; one with `dense_weights` trains with them and sees none.
        first_mask: where masks come from: "random", "magnitude" or "dense".
        schedule: the density schedule, if the user names none.
        update_interval: steps between updates, if the user names none; 0 for no updates at all.
        pattern: the pattern, if the user names none.
        patterns: the patterns that the algorithm can make, its own first; empty for all.
        patterns_reason: why not the others.
        budget: what a budget of single weights binds: "layer" (each layer's is met to the integer),
            "total" (the sum of all is), or "own" (masks never grow beyond the larger of the sum of
            the budgets and what is active).
        keeps_largest: the n − ⌈n · drop fraction⌉ largest active weights of a layer, as far as its
            budget goes, are active after an update.
        dense_weights: inactive weights keep a value, out of the model's sight; views show it.
        on_device: `start` and `update` take views of tensors too, and answer in tensors of the same
            bits. Asked of the class that states it: one that inherits it is not taken for able.
    """

    gradient: ClassVar[str] = "never"
    first_mask: ClassVar[str] = "random"
    schedule: ClassVar[str] = "constant"
    update_interval: ClassVar[int] = 100
    pattern: ClassVar[str] = "unstructured"
    patterns: ClassVar[tuple[str, ...]] = ()
    patterns_reason: ClassVar[str] = ""
    budget: ClassVar[str] = "layer"
    keeps_largest: ClassVar[bool] = False
    dense_weights: ClassVar[bool] = False
    on_device: ClassVar[bool] = False

    @property
    def by_layer(self) -> bool:
        """Whether every layer comes to a budget of its own, and not the sum of all alone."""
        return True

    def start(self, view: View) -> State:
        """The state before the first update."""
        return {}

    def least_updates(self, density: float) -> int:
        """How many updates it takes to reach a density from its first mask."""
        return 1

    def pulls(self, density: float) -> tuple[float, float]:
        """With `dense_weights`: (a, b) adds a·w to active and b·w to other trained gradients."""
        return 0.0, 0.0

    def shows(
        self, layer: str, weight: Any, mask: Any, pattern: Projection, state: State
    ) -> Any | None:
        """With `dense_weights`: what the model sees of a layer's weight, 0 where inactive.

        None, the default, is weight · mask. Arrays are (n_out, n_in), numpy's or, for an algorithm
        that says `on_device`, torch's. The gradient is taken for that of the weight itself.
        """
        return None

    def update(self, view: View, state: State) -> Outcome:
        """The next masks. Pure: equal inputs give equal outputs, and no input is changed."""
        raise TypeError(f"{type(self).__name__} must define update(view, state)")


def chance(view: View, layer: str) -> np.ndarray:
    """A random number for every weight of a layer, float32 of 0 … 1, where the layer is."""
    values = view.rng.random(tuple(view.masks[layer].shape), dtype=np.float32)
    return beside(values, view.masks[layer])


def rounded(value: float, rounding: str) -> int:
    """`value` as an integer; published codes differ only in this.

    >>> rounded(10.5, "floor"), rounded(10.5, "ceil")
    (10, 11)
    """
    # 0.3 · 130 is 39, though floating point gives 38.999…: round off what is no information.
    return int(ROUNDINGS[rounding](round(value, 9)))


def check_rounding(rounding: str) -> None:
    if rounding not in ROUNDINGS:
        raise InputError(unknown("rounding", rounding, tuple(ROUNDINGS)))
