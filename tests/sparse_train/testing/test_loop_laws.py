"""The kit's laws of loops hold for ours, and find each fault when it is planted."""

import pytest
import torch

from sparse_train.algorithms import ALGORITHMS
from sparse_train.algorithms.rigl import RigL
from sparse_train.masking import optimizer_state, persist
from sparse_train.masking.bits import zero_where_not_
from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.testing import check_loops, maker

torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["rigl", "set", "srigl", "top_kast", "snfs"])
def test_the_laws_of_loops_hold(name):
    check_loops(maker(ALGORITHMS.get(name)()))


class BeforeTheClosure(Sparsifier):
    """Gradients are taken before the closure has made them."""

    def before_step(self, optimizer, args, kwargs):
        super().before_step(optimizer, args[:1], {})


class CountsSkippedSteps(Sparsifier):
    """A fused optimizer's skipped step is a step."""

    def before_step(self, optimizer, args, kwargs):
        found = super().before_step(optimizer, args, kwargs)
        self._skipping.clear()
        return found


class KeepsThrownAway(Sparsifier):
    """The buffer of dense gradients is not told that gradients were emptied."""

    def _gradient_hooks(self, layer):
        return (lambda _: None), super()._gradient_hooks(layer)[1]


class MasksOnlyAtAccumulation(Sparsifier):
    """What is not accumulated reaches the moments."""

    def _prepare(self, optimizer, layers):
        held = [layer.parameter.grad for layer in layers]
        kept = [None if g is None else g.clone() for g in held]
        super()._prepare(optimizer, layers)
        for gradient, before in zip(held, kept, strict=True):
            if gradient is not None:
                gradient.copy_(before)


class NeverRests(Sparsifier):
    """Layers without a gradient change as the others do."""

    def _awake(self):
        found = super()._awake()[0] or {}
        everything = list(self.plan.shapes)
        shapes = {n: layer.shape for n, layer in self.layers.items()}
        noise = {n: self._rng(9).random(shapes[n]).astype("float32") for n in everything}
        return {**noise, **found}, everything


@pytest.mark.parametrize(
    ("double", "law"),
    [
        (BeforeTheClosure, "in a closure"),
        (CountsSkippedSteps, "are counted|under a scaler|NaN|no gradient"),
        (KeepsThrownAway, "thrown away|NaN"),
        (MasksOnlyAtAccumulation, "lives on|other weights"),
        (NeverRests, "is frozen"),
    ],
)
def test_a_planted_fault_of_a_loop_is_found(double, law):
    def make(model, optimizer):
        sparsifier = maker(RigL())(model, optimizer)
        sparsifier._detach()
        for layer in sparsifier.layers.values():
            layer.add_mask()
            layer.set_mask(layer.array(layer.parameter) != 0)
        sparsifier.__class__ = double
        sparsifier._attach()
        return sparsifier

    with pytest.raises(Exception, match=law):
        check_loops(make)


def zeros_everywhere(optimizers, parameter, keep):
    for value in optimizer_state.moments(optimizers, parameter):
        zero_where_not_(value, keep)


def test_a_state_that_is_zeroed_whatever_its_optimizer_is_found(monkeypatch):
    monkeypatch.setattr(optimizer_state, "zero_moments", zeros_everywhere)
    with pytest.raises(AssertionError, match="step_size of Rprop is not a new parameter's"):
        check_loops(maker(RigL()))


def test_a_dense_checkpoint_that_is_not_masked_is_found(monkeypatch):
    monkeypatch.setattr(persist, "_loaded", lambda *_: None)
    with pytest.raises(AssertionError, match="an inactive weight is"):
        check_loops(maker(RigL()))
