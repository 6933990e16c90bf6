"""The dense gradients that growth is decided by, held no longer than they are needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparse_train.algorithms import Algorithm
from sparse_train.masking._sync import average_over_ranks, several_ranks
from sparse_train.masking.bits import whole, zero_where_not_
from sparse_train.masking.layers import MaskedLayer


class DenseGradients:
    """Sums the dense gradient over the backward passes of a step; averages it over steps.

    Attributes:
        now: layer → sum of the passes since its gradient was last emptied.
        averages: layer → v of v ← momentum · v + g, of algorithms that ask for it.
        used: whether an optimizer has ever used a gradient.
    """

    def __init__(self, algorithm: Algorithm, scaler: Any) -> None:
        self.now: dict[str, Tensor] = {}
        self.averages: dict[str, Tensor] = {}
        self.used = False
        self._used: dict[str, _Used] = {}
        self._on_updates = algorithm.gradient == "update"
        self._averages = algorithm.gradient == "always" and not algorithm.dense_weights
        self._momentum = float(getattr(algorithm, "momentum", 0.0))
        self._scaler = scaler

    @property
    def seen(self) -> bool:
        """Whether the algorithm's updates see gradients."""
        return self._on_updates or self._averages

    def wanted(self, update_step: bool) -> bool:
        """Whether the step under way has to collect its dense gradient."""
        return self._averages or (self._on_updates and update_step)

    def before(self, layer: MaskedLayer) -> None:
        """A pass is about to be added to the parameter's gradient: was that emptied since?"""
        if layer.name in self.now:
            gradient = layer.parameter.grad
            if gradient is None or not (untouched(gradient) or gradient.any()):
                del self.now[layer.name]

    @torch.no_grad()
    def add(self, layer: MaskedLayer, gradient: Tensor) -> None:
        """Add one backward pass. `gradient` is the parameter's, not yet masked for this pass.

        Where active it holds the sum over all passes so far; where inactive only this pass, since
        the earlier ones were zeroed there.
        """
        known = self.now.get(layer.name)
        # A sharded gradient comes without a word before; a new tensor then begins a new sum.
        if known is None or (hasattr(gradient, "full_tensor") and not hasattr(gradient, _STAMP)):
            self.now[layer.name] = gradient.clone()
        else:
            zero_where_not_(known, ~layer.mask)
            known.add_(gradient)
        if self._scaler is not None and not bool(torch.isfinite(gradient).all()):
            gradient.fill_(float("nan"))  # The scaler skips the step and lowers its scale.

    def use(self, layer: MaskedLayer, scale: float) -> None:
        """The optimizer is about to use the parameter's gradient, which is `scale` times true."""
        gradient = layer.parameter.grad
        if gradient is None:
            self._used.pop(layer.name, None)
        else:
            self.used = True
            summed = hasattr(gradient, _STAMP)
            held = self.now.get(layer.name)
            held = None if held is None else whole(held)
            if held is not None and not several_ranks() and _alike(held, gradient, layer.mask):
                # Nothing has changed it since the last pass: it is our sum where active.
                self._used[layer.name] = _Used(held, held, True, scale)
                return
            self._used[layer.name] = _Used(held, whole(gradient.detach()).clone(), summed, scale)

    def close_step(self, layers: Mapping[str, MaskedLayer]) -> None:
        """The optimizer has made its step: the average takes the gradient up."""
        if not self._averages:
            return
        for name, layer in layers.items():
            gradient = self._resolved(layer)
            if gradient is not None:
                average = self.averages.setdefault(name, torch.zeros_like(gradient))
                average.mul_(self._momentum).add_(gradient)

    def forget(self) -> None:
        """Lets go of the gradients of this step."""
        self.now.clear()
        self._used.clear()

    def drop(self, layer: MaskedLayer) -> None:
        """The step that was to use this gradient was not made."""
        self.now.pop(layer.name, None)
        self._used.pop(layer.name, None)

    def tensors(self, layers: Mapping[str, MaskedLayer]) -> dict[str, Tensor]:
        """Layer → its gradient, the same on every rank; layers without one are left out.

        A gradient that is 0 everywhere is none: the layer was not used.
        """
        found = {}
        for name, layer in layers.items():
            one = self.averages.get(name) if self._averages else self._resolved(layer)
            if one is not None and _any(one):
                found[name] = one
        return found

    def _resolved(self, layer: MaskedLayer) -> Tensor | None:
        """The gradient of every weight in the step that the optimizer has made."""
        used = self._used.get(layer.name)
        if not several_ranks() or hasattr(layer.parameter, "full_tensor"):
            return None if used is None else used.resolved(whole(layer.mask))
        # Every rank takes part for every layer, in the same order, whether it used it or not.
        zero = torch.zeros_like(layer.parameter)
        own = _Used(None, zero, True, 1.0) if used is None else used
        held = average_over_ranks(zero if own.held is None else own.held)
        found = _Used(held, own.gradient, own.summed, own.scale).resolved(layer.mask)
        return average_over_ranks(found)


_STAMP = "_masked_at"


def _alike(held: Tensor, gradient: Tensor, mask: Tensor) -> bool:
    """Whether a gradient is still our sum where active.

    A scaler divides without a trace in the tensor's version, so some values are compared too.
    """
    if not untouched(gradient) or hasattr(gradient, "full_tensor"):
        return False
    some = slice(None, None, max(1, gradient.numel() // 4096))
    ours, theirs, active = (t.reshape(-1)[some] for t in (held, gradient, mask))
    return torch.equal(ours * active, theirs * active)


def _any(values: Tensor) -> bool:
    """Whether a value is not 0; mostly one of the first ones is."""
    return bool(values.reshape(-1)[:1024].any()) or bool(values.any())


def stamp(gradient: Tensor) -> None:
    """Note that a gradient is masked as it is now."""
    setattr(gradient, _STAMP, gradient._version)


def untouched(gradient: Tensor) -> bool:
    """Whether nothing has written to a gradient since it was masked."""
    return getattr(gradient, _STAMP, None) == gradient._version


class _Used:
    """What an optimizer used: the passes summed by us, and the gradient that it was given.

    Attributes:
        held: the sum of the passes; None if the gradient came on another way.
        gradient: the parameter's, before it was masked for the last time.
        summed: whether it is the tensor that the passes were added up in.
        scale: of a loss that was scaled.
    """

    def __init__(self, held: Tensor | None, gradient: Tensor, summed: bool, scale: float) -> None:
        self.held, self.gradient, self.summed, self.scale = held, gradient, summed, scale

    def resolved(self, mask: Tensor) -> Tensor:
        """The gradient of every weight, active or not.

        Where active it is the one used. Where inactive it is our sum, by the factor that clipping
        or unscaling has brought the active ones by, and what was added later; the whole gradient
        where it did not come through our sum.
        """
        if self.held is self.gradient:
            return self._true(self.gradient)
        later = self.gradient.clone()
        zero_where_not_(later, ~mask)
        added = bool(later.any())
        if self.held is None or (added and not self.summed):
            return self._true(self.gradient)
        known, used = self.held.clone(), self.gradient.clone()
        zero_where_not_(known, mask)
        zero_where_not_(used, mask)
        if not added and torch.equal(known, used):
            return self._true(self.held)
        factor = _factor(known, used, rounded=added)
        inactive = self.held * factor
        zero_where_not_(inactive, ~mask)
        return self._true(inactive + used + later)

    def _true(self, gradient: Tensor) -> Tensor:
        return gradient if self.scale == 1.0 else gradient / self.scale


def _factor(known: Tensor, used: Tensor, *, rounded: bool) -> float:
    """used / known where known is largest; a power of two where more than a factor has changed."""
    if not known.any():
        return 1.0
    place = int(known.abs().argmax())
    before, after = float(known.flatten()[place]), float(used.flatten()[place])
    ratio = after / before if math.isfinite(before) else 1.0
    if not math.isfinite(ratio):
        return 1.0
    if rounded:
        return 2.0 ** round(math.log2(ratio)) if ratio > 0 else 1.0
    return ratio
