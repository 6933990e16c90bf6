"""Every algorithm and pattern through the kit that is shipped to users; planted bugs are caught."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.algorithms import ALGORITHMS
from sparse_train.algorithms._base import Outcome
from sparse_train.algorithms.rigl import RigL
from sparse_train.algorithms.set import Set
from sparse_train.patterns.unstructured import Unstructured
from sparse_train.sparsify import Sparsifier
from sparse_train.testing import (
    check_algorithm,
    check_pattern,
    check_training,
    check_update,
    machine,
    maker,
    small_model,
)

torch.set_num_threads(1)

PATTERNS = (
    "unstructured", "2:4", "n_m:1,4,0", "transposable_n_m", "fan_in", "balanced:4", "group:3",
    "block:2,3", "neuron", "neuron:1",
)  # fmt: skip
GLOBAL = ("granet", "snfs", "growth_per_microsecond")


def goes(name, pattern):
    kind = ALGORITHMS.get(name)
    fixed = pattern in ("2:4", "n_m:1,4,0", "transposable_n_m")
    if kind.patterns:
        return pattern.split(":")[0] in kind.patterns
    # Algorithms that start dense, or move weights between layers, have no fixed density.
    return not (fixed and (name in GLOBAL or kind.first_mask == "dense"))


PAIRS = [(a, p) for a in ALGORITHMS.names() for p in PATTERNS if goes(a, p)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_keeps_its_laws(pattern):
    check_pattern(pattern, examples=60)


@pytest.mark.parametrize(("name", "pattern"), PAIRS)
def test_every_algorithm_keeps_its_laws_under_every_pattern(name, pattern):
    check_algorithm(ALGORITHMS.get(name)(), pattern, examples=25)


@pytest.mark.parametrize("name", GLOBAL)
def test_a_pattern_of_fixed_density_is_refused_with_the_reason(name):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(
        model, optimizer, name, 0.5, "2:4", "uniform", "constant", update_interval=1
    )
    model(torch.randn(4, 3, 7)).square().mean().backward()
    optimizer.step()
    with pytest.raises(InputError, match="fixes every layer's density"):
        sparsifier.step()


@pytest.mark.parametrize("name", ["srigl", "deep_r", "nest"])
def test_an_algorithm_with_a_pattern_of_its_own_refuses_others(name):
    with pytest.raises(InputError, match="does not go with"):
        sparsify(small_model(), None, name, pattern="block")


TestRigLMachine = machine(RigL()).TestCase
TestSRigLMachine = machine(ALGORITHMS.get("srigl")()).TestCase
TestTopKastMachine = machine(ALGORITHMS.get("top_kast")()).TestCase
TestSNFSMachine = machine(ALGORITHMS.get("snfs")()).TestCase


# The bugs of public codes, planted one by one.


@dataclass(frozen=True)
class LosesOne(Set):
    def update(self, view, state):
        masks = {n: m.copy() for n, m in super().update(view, state).masks.items()}
        for mask in masks.values():
            mask.reshape(-1)[np.flatnonzero(mask)[:1]] = False
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
    def update(self, view, state):
        return Outcome(super().update(view, state).masks, state)

    def _kept(self, view, layer):
        return Unstructured().keep(self.drop_scores(view, layer), view.masks[layer], 0, 0)


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


@pytest.mark.parametrize(
    ("double", "law"),
    [
        (LosesOne(), "units active; the budget is"),
        (SortsBooleans(), "largest weights"),
        (DropsTheLargest(), "largest weights"),
        (WritesToItsInput(), "writes to its input"),
        (GlobalChance(), "chance beside rng"),
        (FloatMasks(), "is of float32, not bool"),
        (StaleWeights(), "a grown weight starts at"),
        (EmptiesALayer(), "is emptied"),
        (RoundsTheSchedule(), "the budget is|largest weights"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Set) else "",
)
def test_a_planted_bug_of_an_algorithm_is_caught(double, law):
    with pytest.raises(AssertionError, match=law):
        check_update(double, examples=200)


def test_the_sound_original_of_the_doubles_passes():
    check_update(Set(), examples=200)


class MomentsLiveOn(Sparsifier):
    """Masks change, Adam's averages stay: survivors hold another weight's moments."""

    def _take_over(self, layer, view, outcome):
        changed = not np.array_equal(view.masks[layer.name], outcome.masks[layer.name])
        layer.set_mask(outcome.masks[layer.name])
        layer.zero_inactive()
        return changed


class WeightsComeBack(Sparsifier):
    """Inactive weights are zeroed only when masks change: weight decay and momentum move them."""

    def _take_over(self, layer, view, outcome):
        layer.set_mask(outcome.masks[layer.name])
        return True


class ForgetsItsStep(Sparsifier):
    def load_state_dict(self, saved):
        super().load_state_dict({**saved, "steps": 0})


class SaysNothing(Sparsifier):
    def step(self):
        super().step()
        return False


@pytest.mark.parametrize(
    ("double", "law"),
    [
        (MomentsLiveOn, "lives"),
        (WeightsComeBack, "an inactive weight is|a grown weight|lives"),
        (ForgetsItsStep, "resumed after"),
        (SaysNothing, "does not say"),
    ],
)
def test_a_planted_bug_of_a_sparsifier_is_caught(double, law):
    def make(model, optimizer):
        made = maker(RigL())(model, optimizer)
        made.__class__ = double
        return made

    with pytest.raises(AssertionError, match=law):
        check_training(make)


@dataclass(frozen=True)
class OffByOnePattern(Unstructured):
    def fill(self, scores, kept, budget):
        return super().fill(scores, kept, max(budget - 1, int(kept.sum())))


def test_a_planted_bug_of_a_pattern_is_caught():
    with pytest.raises(AssertionError, match=r"units; asked|empty layer"):
        check_pattern(OffByOnePattern())


def test_the_documented_slip_is_found():
    page = (Path(__file__).parents[2] / "docs" / "testing-your-algorithm.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    with pytest.raises(AssertionError, match=r"largest weights .* only .* were kept"):
        exec(code, {"__name__": "documentation"})
