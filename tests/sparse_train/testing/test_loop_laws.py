"""The kit's laws of loops hold for ours, and find each fault when it is planted."""

import sys

import pytest
import torch

from sparse_train import averaging
from sparse_train.algorithms import ALGORITHMS
from sparse_train.algorithms.rigl import RigL
from sparse_train.algorithms.set import Set
from sparse_train.masking import _dense, _following, _state, kinds, layers, optimizer_state, persist
from sparse_train.masking.bits import zero_where_not_
from sparse_train.masking.plan import MaskCalendar
from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.observing import masks as masks_of_a_step
from sparse_train.selection import on_device
from sparse_train.testing import check_loops, check_ranks, maker

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


class DeafToOthers(Sparsifier):
    """Only the optimizer that was given is followed."""

    def before_step(self, optimizer, args, kwargs):
        if optimizer in self.optimizers:
            return super().before_step(optimizer, args, kwargs)
        return None

    def after_step(self, optimizer):
        if optimizer in self.optimizers:
            super().after_step(optimizer)


class PushesForEachOptimizer(Sparsifier):
    """What draws weights to zero is added whenever any optimizer makes a step."""

    def before_step(self, optimizer, args, kwargs):
        held = [id(p) for group in optimizer.param_groups for p in group["params"]]
        for layer in self.layers.values():
            if id(layer.parameter) not in held and layer.parameter.grad is not None:
                self._push(layer, layer.parameter.grad, 1.0)
                self._pushed.discard(layer.name)
        return super().before_step(optimizer, args, kwargs)


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
        (DeafToOthers, "no torch.optim.Optimizer that holds it"),
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


def test_a_push_for_each_optimizer_is_found():
    def make(model, optimizer):
        sparsifier = maker(ALGORITHMS.get("top_kast")())(model, optimizer)
        sparsifier.__class__ = PushesForEachOptimizer
        return sparsifier

    with pytest.raises(AssertionError, match=r"by two optimizers: other (masks|weights)"):
        check_loops(make)


def test_masks_that_a_module_of_its_own_state_loses_are_found(monkeypatch):
    monkeypatch.setattr(persist, "_saved", lambda *_: None)
    with pytest.raises(AssertionError, match="a module that saves itself loses its mask"):
        check_loops(maker(RigL()))


def test_a_foreign_state_that_is_taken_is_found(monkeypatch):
    monkeypatch.setattr(_state, "check", lambda *_: None)
    with pytest.raises(Exception, match=r"of another model's sparsifier is taken|size|shape|0"):
        check_loops(maker(RigL()))


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


def test_a_weight_that_is_masked_along_the_wrong_side_is_found(monkeypatch):
    monkeypatch.setattr(kinds, "_by_sizes", lambda module, parameter: kinds.STORED_OUT_IN)
    with pytest.raises(AssertionError, match=r"'stored' is masked as \(12, 8\), not \(8, 12\)"):
        check_loops(maker(RigL()))


def test_a_norms_gain_that_is_masked_is_found(monkeypatch):
    right = kinds.layout_of

    def mixed_up(module, attribute, parameter):
        if hasattr(module, "parametrizations"):
            return None if attribute else kinds.STORED_OUT_IN
        return right(module, attribute, parameter)

    monkeypatch.setattr(kinds, "layout_of", mixed_up)
    monkeypatch.setattr(layers, "_norm_or_filling", lambda layer: "")
    with pytest.raises(AssertionError, match="a gain is masked"):
        check_loops(maker(RigL()))


def test_experts_under_one_mask_are_found(monkeypatch):
    whole = kinds.STORED_OUT_IN
    monkeypatch.setattr(kinds, "_of_experts", lambda module, attribute, parameter: whole)
    with pytest.raises(AssertionError, match=r"'experts.up\[0\]' has no mask of its own"):
        check_loops(maker(RigL()))


def test_a_frozen_layer_that_goes_on_growing_is_found(monkeypatch):
    monkeypatch.setattr(
        _following, "alive_parts", lambda layer, gradient: dict.fromkeys(layer.parts, True)
    )
    monkeypatch.setattr(
        Sparsifier,
        "_awake",
        lambda self: (None, [p for one in self.layers.values() for p in one.parts]),
    )
    with pytest.raises(AssertionError, match="is frozen; its mask changed"):
        check_loops(maker(Set()))


def test_an_average_that_is_denser_than_its_model_is_found(monkeypatch):
    monkeypatch.setattr(averaging, "mask_average", lambda average, sparsifier: None)
    with pytest.raises(AssertionError, match="denser in SparseAverage"):
        check_loops(maker(RigL()))


@pytest.mark.parametrize("pattern", ["fan_in", "block:4,4", "neuron"])
def test_a_budget_lost_to_rounding_is_found(monkeypatch, pattern):
    check_loops(maker(Set(), pattern), steps=6)
    monkeypatch.setattr(MaskCalendar, "_in_steps", lambda plan, wanted: wanted)
    with pytest.raises(AssertionError, match="weights are active; asked"):
        check_loops(maker(Set(), pattern), steps=6)


def test_masks_of_experts_that_cannot_be_priced_are_found(monkeypatch):
    monkeypatch.setattr(masks_of_a_step, "_stacked", lambda masks, known: dict(masks))
    with pytest.raises(Exception, match=r"experts.up\[0\]"):
        check_loops(maker(RigL()))


def test_a_layer_out_of_reach_that_is_an_error_is_found(monkeypatch):
    def reached(masks, step, model):
        return dict(masks), ()

    monkeypatch.setattr(sys.modules["sparse_train.workload"], "by_layer", reached)
    with pytest.raises(Exception, match=r"'unused'|experts.up\[0\]"):
        check_loops(maker(RigL()))


def alone(model, optimizer):
    """Each rank takes its own dense gradient for everybody's."""
    _dense.average_over_ranks = lambda values: values
    return maker(RigL())(model, optimizer)


def test_two_ranks_have_equal_masks():
    check_ranks(maker(RigL()))


def test_ranks_that_grow_by_their_own_gradients_are_found():
    with pytest.raises(AssertionError, match="differs between ranks after 3"):
        check_ranks(alone)


def test_ties_that_are_broken_otherwise_on_a_device_are_found(monkeypatch):
    right = on_device.top_k

    def last_first(scores, k, candidates=None):
        turned = None if candidates is None else candidates.flip((0, -1))
        return right(scores.flip((0, -1)), k, turned).flip((0, -1))

    monkeypatch.setattr(on_device, "top_k", last_first)
    with pytest.raises(AssertionError, match="chosen on a device: other masks"):
        check_loops(maker(RigL()))
