"""Each bug of a public code, planted in a test double, is caught by the kit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from sparse_train.algorithms import Outcome
from sparse_train.algorithms.granet import GraNet
from sparse_train.algorithms.rigl import RigL
from sparse_train.algorithms.set import Set
from sparse_train.algorithms.srigl import SRigL
from sparse_train.testing import (
    check_option,
    check_update,
)

torch.set_num_threads(1)


@dataclass(frozen=True)
class LosesOne(Set):
    def update(self, view, state):
        masks = {n: m.copy() for n, m in super().update(view, state).masks.items()}
        for mask in masks.values():
            mask.reshape(-1)[np.flatnonzero(mask)[:1]] = False
        return Outcome(masks, state)


@dataclass(frozen=True)
class LosesOneOfTheTotal(GraNet):
    def update(self, view, state):
        masks = {n: m.copy() for n, m in super().update(view, state).masks.items()}
        largest = max(masks.values(), key=np.count_nonzero).reshape(-1)
        if np.count_nonzero(largest) > 1:
            largest[np.flatnonzero(largest)[:1]] = False
        return Outcome(masks, state)


@dataclass(frozen=True)
class SortsBooleans(Set):
    """Drops by a sort of the mask instead of the magnitudes."""

    def drop_scores(self, view, layer):
        return view.masks[layer].astype(np.float32)


@dataclass(frozen=True)
class DropsTheLargest(Set):
    def drop_scores(self, view, layer):
        magnitude = np.abs(view.weights[layer])
        return magnitude.max() - magnitude


@dataclass(frozen=True)
class WritesToItsInput(Set):
    def update(self, view, state):
        for weight in view.weights.values():
            weight *= np.float32(0.5)
        return super().update(view, state)


@dataclass(frozen=True)
class GlobalChance(Set):
    def grow_scores(self, view, layer):
        return np.random.rand(*view.masks[layer].shape).astype(np.float32)  # noqa: NPY002


@dataclass(frozen=True)
class SaltedChance(Set):
    """A stream for each layer, seeded by hash(str): another one in each process and rank."""

    def grow_scores(self, view, layer):
        rng = np.random.default_rng(abs(hash(layer)))
        return rng.random(view.masks[layer].shape, dtype=np.float32)


@dataclass(frozen=True)
class FloatMasks(Set):
    def update(self, view, state):
        return Outcome(
            {n: m.astype(np.float32) for n, m in super().update(view, state).masks.items()}, state
        )


@dataclass(frozen=True)
class StaleWeights(Set):
    def update(self, view, state):
        outcome = super().update(view, state)
        stale = {n: np.where(view.masks[n], w, np.float32(7)) for n, w in view.weights.items()}
        return Outcome(outcome.masks, state, weights=stale)


@dataclass(frozen=True)
class LeavesThePattern(Set):
    """Moves one weight to where it is largest: n of m, or the equal fan-in, is forgotten."""

    def update(self, view, state):
        masks = {n: m.copy() for n, m in super().update(view, state).masks.items()}
        for mask in masks.values():
            if mask.any() and not mask.all() and view.drop_fraction > 0:
                flat = mask.reshape(-1)
                flat[np.flatnonzero(~flat)[0]], flat[np.flatnonzero(flat)[-1]] = True, False
        return Outcome(masks, state)


@dataclass(frozen=True)
class EmptiesALayer(Set):
    budget: ClassVar[str] = "own"
    keeps_largest: ClassVar[bool] = False

    def update(self, view, state):
        masks = dict(super().update(view, state).masks)
        first = next(iter(masks))
        return Outcome({**masks, first: np.zeros_like(masks[first])}, state)


@dataclass(frozen=True)
class RoundsTheSchedule(Set):
    """Meets 0.8984 of a budget of 0.9."""

    def update(self, view, state):
        masks = {}
        for layer in view.masks:
            budget = int(view.budgets[layer] * 0.8984 / 0.9)
            kept = view.pattern.keep(self.drop_scores(view, layer), view.masks[layer], 0, budget)
            masks[layer] = view.pattern.fill(self.grow_scores(view, layer), kept, budget)
        return Outcome(masks, state)


@dataclass(frozen=True)
class FreezesForEver(Set):
    """Grows as many as it drops: a layer that was once empty stays so."""

    def update(self, view, state):
        masks = {}
        for layer, old in view.masks.items():
            kept = self._kept(view, layer)
            masks[layer] = view.pattern.fill(self.grow_scores(view, layer), kept, int(old.sum()))
        return Outcome(masks, state)


@dataclass(frozen=True)
class AlwaysChanges(Set):
    """Drops at least one weight, also where there is nothing to do."""

    keeps_largest: ClassVar[bool] = True

    def _kept(self, view, layer):
        kept = super()._kept(view, layer).copy()
        if kept.sum() > 1 and view.drop_fraction == 0:
            kept.reshape(-1)[np.flatnonzero(kept)[:1]] = False
        return kept


@dataclass(frozen=True)
class AblatesTheOutput(SRigL):
    def update(self, view, state):
        masks = {n: m.copy() for n, m in super().update(view, state).masks.items()}
        for mask in masks.values():
            if mask.any(axis=1).sum() > 1:
                mask[np.flatnonzero(mask.any(axis=1))[0]] = False
        return Outcome(masks, state)


@dataclass(frozen=True)
class UnevenFanIn(SRigL):
    """Cut to the fan-in before growth, but not filled up."""

    def update(self, view, state):
        masks = {n: m.copy() for n, m in super().update(view, state).masks.items()}
        for mask in masks.values():
            busy = np.flatnonzero(mask.sum(axis=1) > 1)
            if len(busy):
                mask[busy[0], np.flatnonzero(mask[busy[0]])[0]] = False
        return Outcome(masks, state)


@pytest.mark.parametrize(
    ("double", "pattern", "law"),
    [
        (LosesOne(), None, "units active; the budget is"),
        (LosesOneOfTheTotal(), None, "in all; the budgets are|the budget is|nothing to drop"),
        (SortsBooleans(), None, "largest weights"),
        (DropsTheLargest(), None, "largest weights"),
        (WritesToItsInput(), None, "writes to its input"),
        (GlobalChance(), None, "chance beside rng"),
        (SaltedChance(), None, "a salted hash"),
        (FloatMasks(), None, "is of float32, not bool"),
        (StaleWeights(), None, "a grown weight starts at"),
        (LeavesThePattern(), "2:4", "leaves the pattern|the budget is"),
        (LeavesThePattern(), "fan_in", "the budget is|leaves the pattern"),
        (LeavesThePattern(), "block:2,3", "leaves the pattern|the budget is"),
        (EmptiesALayer(), None, "is emptied"),
        (RoundsTheSchedule(), None, "the budget is|largest weights"),
        (FreezesForEver(), None, "units active; the budget is"),
        (AlwaysChanges(), None, "nothing to drop nor to grow|largest weights"),
        (AblatesTheOutput(), None, "a neuron is ablated"),
        (UnevenFanIn(), None, "leaves the pattern"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, (Set, SRigL, GraNet)) else None,
)
def test_a_planted_bug_of_an_algorithm_is_caught(double, pattern, law):
    with pytest.raises(AssertionError, match=law):
        check_update(double, pattern, examples=400, shrink=False)


@pytest.mark.parametrize("sound", [Set(), RigL(), GraNet(), SRigL()], ids=str)
def test_the_sound_originals_of_the_doubles_pass(sound):
    check_update(sound, examples=100)


@dataclass(frozen=True)
class DeafToGamma(SRigL):
    def _alive(self, salient, mask, budget):
        return np.ones(len(mask), dtype=bool)


def test_an_option_without_effect_is_caught():
    check_option(lambda gamma: SRigL(gamma=gamma), (None, 0.3, 0.95), examples=100)
    with pytest.raises(AssertionError, match="equal masks always"):
        check_option(lambda gamma: DeafToGamma(gamma=gamma), (0.3, 0.95), examples=100)
