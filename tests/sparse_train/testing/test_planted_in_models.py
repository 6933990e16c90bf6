"""The kit finds bugs planted in what keeps a model sparse, in patterns and in schedules."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparse_train import sparsify
from sparse_train.algorithms.rigl import RigL
from sparse_train.distributions import budgets
from sparse_train.patterns.block import Block
from sparse_train.patterns.fan_in import FanIn
from sparse_train.patterns.n_m import NM
from sparse_train.patterns.unstructured import Unstructured
from sparse_train.schedules import cubic
from sparse_train.sparsify import Sparsifier
from sparse_train.testing import (
    OPTIMIZERS,
    check_budgets,
    check_gradients,
    check_invariants,
    check_pattern,
    check_schedule,
    check_training,
    maker,
    small_model,
    train_step,
)

torch.set_num_threads(1)


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
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_planted_bug_of_a_sparsifier_is_caught(double, law, optimizer):
    def make(model, optimizer):
        made = maker(RigL())(model, optimizer)
        made.__class__ = double
        return made

    with pytest.raises(AssertionError, match=law):
        check_training(make, optimizers=(optimizer,))


def test_growth_by_a_gradient_that_was_masked_before_is_caught():
    class MaskedFirst(Sparsifier):
        """Growth scores are lost: candidates have gradient zero."""

        def _view(self, step, gradients, **others):
            if gradients is not None:
                gradients = {n: g * self.layers[n].mask_array() for n, g in gradients.items()}
            return super()._view(step, gradients, **others)

    def make(model, optimizer):
        made = maker(RigL())(model, optimizer)
        made.__class__ = MaskedFirst
        return made

    check_gradients(maker(RigL()))
    with pytest.raises(AssertionError, match="growth sees another gradient"):
        check_gradients(make)


def made(model=None, **options):
    model = model or small_model()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    return sparsify(model, optimizer, "set", 0.3, **options), optimizer


def test_a_mask_that_is_a_parameter_is_caught():
    sparsifier, optimizer = made()
    layer = next(iter(sparsifier.layers.values()))
    mask = nn.Parameter(layer.mask.clone(), requires_grad=False)
    del layer.module._buffers[layer.buffer]
    layer.module.register_parameter(layer.buffer, mask)
    with pytest.raises(AssertionError, match="is counted as a parameter"):
        check_invariants(sparsifier, optimizer)


def test_a_mask_of_floats_is_caught():
    sparsifier, optimizer = made()
    layer = next(iter(sparsifier.layers.values()))
    layer.module._buffers[layer.buffer] = layer.mask.float()
    with pytest.raises(AssertionError, match=r"is torch\.float32"):
        check_invariants(sparsifier, optimizer)


class AttentionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.output = nn.Linear(8, 3)

    def forward(self, x):
        return self.output(self.attention(x, x, x)[0])


def test_attention_without_its_in_proj_under_a_mask_is_caught():
    sparsifier, optimizer = made(AttentionModel())
    check_invariants(sparsifier, optimizer)
    del sparsifier.layers[next(name for name in sparsifier.layers if "in_proj" in name)]
    with pytest.raises(AssertionError, match=r"in_proj.* is not masked"):
        check_invariants(sparsifier, optimizer)


def test_a_mask_on_the_gains_of_a_norm_is_caught():
    sparsifier, optimizer = made()
    layer = next(iter(sparsifier.layers.values()))
    norm = next(m for m in sparsifier.model.modules() if isinstance(m, nn.LayerNorm))
    other = type(layer)("norm", norm, "weight")
    norm.register_buffer(other.buffer, torch.ones_like(norm.weight, dtype=torch.bool))
    sparsifier.layers["norm"] = other
    with pytest.raises(AssertionError, match="of rank 1 is masked"):
        check_invariants(sparsifier, optimizer)


# In patterns, schedules and budgets.


@dataclass(frozen=True)
class OffByOnePattern(Unstructured):
    def fill(self, scores, kept, budget):
        return super().fill(scores, kept, max(budget - 1, int(kept.sum())))


@dataclass(frozen=True)
class FanInOfZero(FanIn):
    """10 × 10 at 90 % sparse has fan-in 1; fewer weights than neurons give fan-in 0."""

    def project(self, scores, budget):
        if budget < len(scores):
            return np.zeros(scores.shape, dtype=bool)
        return super().project(scores, budget)


@dataclass(frozen=True)
class OneTooManyOfM(NM):
    def fill(self, scores, kept, budget):
        mask = super().fill(scores, kept, budget)
        mask[0] = True
        return mask


@dataclass(frozen=True)
class ForgetsTheEdge(Block):
    """Only whole blocks: what a block does not divide is never active."""

    def fill(self, scores, kept, budget):
        mask = super().fill(scores, kept, budget)
        rows, columns = (size // side * side for size, side in zip(mask.shape, (2, 3), strict=True))
        mask[rows:], mask[:, columns:] = False, False
        return mask


@pytest.mark.parametrize(
    ("double", "law"),
    [
        # Which law sees the slip first depends on what Hypothesis draws.
        (OffByOnePattern(), "units; asked|empty layer|misses the budget"),
        (FanInOfZero(), "units; asked|empty layer|misses the budget"),
        (OneTooManyOfM(2, 4), "leaves the pattern|units; asked|misses the budget"),
        (ForgetsTheEdge(2, 3), "units; asked|empty layer|leaves the pattern|misses the budget"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_planted_bug_of_a_pattern_is_caught(double, law):
    with pytest.raises(AssertionError, match=law):
        check_pattern(double, shrink=False)


def test_a_schedule_that_misses_its_target_is_caught():
    check_schedule(cubic(1.0, 0.1), 1.0, 0.1)
    with pytest.raises(AssertionError, match=r"ends at 0\.1016\d*, not at 0\.1"):
        check_schedule(lambda p: 1.0 - 0.8984 * p, 1.0, 0.1)
    with pytest.raises(AssertionError, match="at progress"):
        check_schedule(lambda p: 0.1 if p == 1 else 1.0 + p * (1 - p), 1.0, 0.1)


def test_budgets_that_lose_a_weight_on_the_way_are_caught():
    def floored(shapes, densities):
        return {n: int(a * b * densities[n]) for n, (a, b) in shapes.items()}

    check_budgets(budgets)
    with pytest.raises(AssertionError, match="active weights give budgets"):
        check_budgets(floored)


def test_the_documented_slip_is_found():
    page = (Path(__file__).parents[3] / "docs" / "testing-your-algorithm.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    with pytest.raises(AssertionError, match=r"largest weights .* only .* were kept"):
        exec(code, {"__name__": "documentation"})


def test_an_invariant_that_training_breaks_is_seen_in_the_step_that_breaks_it():
    sparsifier, optimizer = made(update_interval=2)
    train_step(sparsifier.model, optimizer, sparsifier, 0)
    check_invariants(sparsifier, optimizer)
    layer = next(iter(sparsifier.layers.values()))
    with torch.no_grad():
        layer.parameter.add_(1.0)
    with pytest.raises(AssertionError, match="an inactive weight is"):
        check_invariants(sparsifier, optimizer)
