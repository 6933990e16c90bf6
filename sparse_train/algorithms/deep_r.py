"""DeepR: weights walk at random, and leave where they would change sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.checks import check_number
from hwsim.errors import InputError
from sparse_train.algorithms._base import Algorithm, Outcome, State, View
from sparse_train.algorithms._global import count_best
from sparse_train.selection import top_k
from sparse_train.selection.arrays import (
    as_int8,
    beside,
    copied,
    count,
    finite,
    first_least,
    joined,
    parted,
    places,
    sign,
    size,
    where,
)


@dataclass(frozen=True)
class DeepR(Algorithm):
    """Deep rewiring: each connection has a fixed sign s and a strength θ = s·w.

    After every optimizer step (which did θ ← θ − η·g), active θ ← θ − η·α + √(2ηT)·ν. A connection
    with θ < 0 goes dormant. As many as are then missing from the sum of all budgets are
    reactivated at θ = 0, chosen uniformly among all dormant ones of all layers. Where the schedule
    lowers the density, the smallest θ go dormant too.

    Args:
        l1: α, the strength of the L1 prior.
        temperature: T of the random walk.

    Source: Bellec et al. 2018, algorithm 1.
    """

    on_device: ClassVar[bool] = True
    update_interval: ClassVar[int] = 1
    budget: ClassVar[str] = "total"
    patterns: ClassVar[tuple[str, ...]] = ("unstructured",)
    patterns_reason: ClassVar[str] = "in which single weights change sign at any time"
    l1: float = 1e-5
    temperature: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "temperature"):
            check_number(name, getattr(self, name), least=0)

    def start(self, view: View) -> State:
        """Signs: an active weight's own, a dormant one's by chance."""
        signs = {}
        for name, weight in view.weights.items():
            drawn = view.rng.integers(0, 2, tuple(weight.shape), dtype=np.int8) * 2 - 1
            signs[name] = where(weight != 0, as_int8(sign(weight)), beside(drawn, weight))
        return {"signs": signs}

    def update(self, view: View, state: State) -> Outcome:
        strengths = {name: self._walk(view, name, state) for name in view.masks}
        alive = {name: view.masks[name] & (theta >= 0) for name, theta in strengths.items()}
        missing = sum(view.budgets.values()) - sum(count(m) for m in alive.values())
        masks = _shrunk(strengths, alive, -missing) if missing < 0 else alive
        if missing > 0:
            masks = _reactivated(alive, missing, view.rng)
        masks = _none_empty(masks, strengths, view)
        weights = {
            name: where(masks[name] & alive[name], theta, 0) * state["signs"][name]
            for name, theta in strengths.items()
        }
        # A connection that went dormant and came back in one step starts anew.
        reset = {name: masks[name] & ~alive[name] for name in masks}
        return Outcome(masks, state, weights=weights, reset=reset)

    def _walk(self, view: View, name: str, state: State) -> np.ndarray:
        rate = view.learning_rates.get(name, 0.0)
        theta = view.weights[name] * state["signs"][name] - float(np.float32(rate * self.l1))
        if self.temperature > 0:
            noise = beside(view.rng.standard_normal(tuple(theta.shape), dtype=np.float32), theta)
            theta = theta + float(np.float32(math.sqrt(2 * rate * self.temperature))) * noise
        if not finite(theta[view.masks[name]]):
            raise InputError(f"weight of {name!r}: NaN or infinity; allowed is finite")
        return theta


def _reactivated(
    alive: dict[str, np.ndarray], missing: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    flat = joined(list(alive.values()))
    dormant = places(~flat)
    chosen = rng.choice(size(dormant), min(missing, size(dormant)), replace=False)
    flat[dormant[beside(chosen, dormant)]] = True
    parts = parted(flat, [size(mask) for mask in alive.values()])
    return {name: p.reshape(m.shape) for (name, m), p in zip(alive.items(), parts, strict=True)}


def _none_empty(
    masks: dict[str, np.ndarray], strengths: dict[str, np.ndarray], view: View
) -> dict[str, np.ndarray]:
    """An emptied layer gets one connection by chance, in exchange for the fullest's weakest."""
    masks = {name: copied(mask) for name, mask in masks.items()}
    for name, mask in masks.items():
        if mask.any() or view.budgets[name] == 0:
            continue
        mask.reshape(-1)[int(view.rng.integers(size(mask)))] = True
        fullest = max(masks, key=lambda n: count(masks[n]))
        if count(masks[fullest]) > 1:
            theta = where(masks[fullest], strengths[fullest], math.inf)
            masks[fullest].reshape(-1)[first_least(theta)] = False
    return masks


def _shrunk(
    strengths: dict[str, np.ndarray], alive: dict[str, np.ndarray], surplus: int
) -> dict[str, np.ndarray]:
    scores = {name: where(alive[name], theta, 0) for name, theta in strengths.items()}
    total = sum(count(mask) for mask in alive.values()) - surplus
    counts = count_best(scores, total, alive)
    return {name: top_k(scores[name], counts[name], alive[name]) for name in scores}


ALGORITHM = DeepR
