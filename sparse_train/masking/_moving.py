"""How a sparsifier's masks move: what an algorithm is shown, and what it decided taken over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import InputError
from sparse_train.algorithms import Algorithm, Outcome, View
from sparse_train.masking import _state, optimizer_state
from sparse_train.masking._first import not_finite
from sparse_train.masking._following import Following, alive_parts
from sparse_train.masking._places import Arrays, at, locked, place
from sparse_train.masking._sync import on_any_rank
from sparse_train.masking.bits import zero_where_not_
from sparse_train.masking.layers import MaskedLayer
from sparse_train.patterns import Projection
from sparse_train.selection.arrays import as_bool, below, equal, filled, where


class Moving(Following):
    """Shows an algorithm its view in update steps, and writes down what it decided.

    Attributes:
        choose_on: "auto", "host" or "device"; see `chosen_on`.
    """

    pattern: Projection
    seed: int
    output_layer: str | None
    choose_on: str = "auto"
    _state: dict[str, Any]

    @property
    def chosen_on(self) -> str:
        """Where masks are chosen: a device, "host", or "host: " and why not on the device."""
        device, why = self._place()
        return str(device) if device is not None else f"host: {why}" if why else "host"

    def _place(self) -> tuple[torch.device | None, str]:
        return place(self.choose_on, self.algorithm, self.pattern, self.layers.values())

    def _start(self, masks: dict[str, Any]) -> dict[str, Any]:
        """The algorithm's first state; with dense weights its own first masks are taken."""
        view = self._view(0, None, masks=masks)
        state = dict(self.algorithm.start(view))
        if self.algorithm.dense_weights:
            outcome = self.algorithm.update(view, state)
            state = dict(outcome.state)
            masks.update(outcome.masks)
            for layer in self.layers.values():
                self._train(layer, outcome, stacked(layer, masks))
        return state

    def _train(self, layer: MaskedLayer, outcome: Outcome, mask: Any) -> None:
        """Take over which weights the optimizer trains; how they are pulled follows the mask."""
        trained = mask
        if outcome.trained is not None:
            known = self._reserve.trained.get(layer.name)
            rest = mask if known is None else as_bool(self._shown(layer, known))
            trained = stacked(layer, outcome.trained, rest)
        self._reserve.trained[layer.name] = layer.tensor(trained)
        self._reserve.pulls.pop(layer.name, None)

    def _shown(self, layer: MaskedLayer, values: Tensor) -> Any:
        """A tensor of the weight's shape as an algorithm sees it: float32 (n_out, n_in)."""
        return layer.array(values) if self._place()[0] is None else layer.matrix(values)

    def _seen(self, layer: MaskedLayer, weight: Tensor) -> Tensor | None:
        if type(self.algorithm).shows is Algorithm.shows:
            return None
        values, active = self._shown(layer, weight), as_bool(self._shown(layer, layer.mask))
        shown = {
            part: self.algorithm.shows(part, values[rows], active[rows], self.pattern, self._state)
            for part, rows in layer.parts.items()
        }
        return layer.tensor(where(active, stacked(layer, shown), 0))

    def _rng(self, step: int) -> np.random.Generator:
        """The stream of one step: from seed and step alone, so that a resumed run has the same."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, step)))

    def _view(
        self,
        step: int,
        gradients: Mapping[str, Any] | None,
        *,
        masks: Mapping[str, Any] | None = None,
        awake: Iterable[str] | None = None,
    ) -> View:
        parts = {part: layer for layer in self.layers.values() for part in layer.parts}
        names = list(parts) if awake is None else [part for part in parts if part in set(awake)]
        layers = {parts[name].name: parts[name] for name in names}
        device, _ = self._place()
        array = MaskedLayer.array if device is None else MaskedLayer.matrix
        weights: Mapping[str, Any] = Arrays(
            layers.values(), lambda layer: array(layer, self._reserve.whole(layer))
        )
        if masks is None:
            shown = MaskedLayer.mask_array if device is None else MaskedLayer.mask_matrix
            masks = Arrays(layers.values(), shown)
        elif step == 0 and not self.algorithm.dense_weights:
            first = {layer.name: stacked(layer, masks) for layer in layers.values()}
            weights = Arrays(
                layers.values(),
                lambda layer: where(first[layer.name], array(layer, layer.parameter), 0),
            )
        rates = {
            name: optimizer_state.learning_rate(self.optimizers, layer.parameter)
            for name, layer in layers.items()
        }
        budgets = self.plan.budgets(step)
        return View(
            step=step,
            weights=_only(weights, names),
            masks=_only(masks, names),
            budgets={name: budgets[name] for name in names},
            gradients=None if gradients is None else _only(gradients, names),
            drop_fraction=self.plan.drop_fraction_at(step),
            pattern=self.pattern,
            rng=self._rng(step),
            learning_rates={name: rates[parts[name].name] for name in names},
            output_layer=self.output_layer if self.output_layer in names else None,
            update=self.plan.updates_until(step),
        )

    def _update(self, step: int) -> bool:
        gradients, awake = self._awake()
        if not awake:
            return False
        view = self._view(step, gradients, awake=awake)
        try:
            state = at(self._state, self._place()[0])
            outcome = self.algorithm.update(self._rearranged(view), state)
        except InputError as error:
            where = not_finite(view)
            raise InputError(f"mask update in step {step}: {where or error}") from None
        self._state = _state.merged(state, dict(outcome.state), set(view.masks))
        touched = [one for one in self.layers.values() if set(one.parts) & set(view.masks)]
        changes = [self._take_over(layer, view, outcome) for layer in touched]
        return any(changes)

    def _awake(self) -> tuple[Mapping[str, Any] | None, list[str]]:
        """Dense gradients, and the parts that had one in this step; the others rest."""
        everything = [part for layer in self.layers.values() for part in layer.parts]
        if self._dense.seen:
            if not (self._dense.used or self._dense.averages):
                raise InputError(
                    "mask update: no gradient was seen in any step; "
                    "call backward() before optimizer.step() and step()"
                )
            found = self._dense.tensors(self.layers)
            layers = {name: self.layers[name] for name in found}
            gradients = Arrays(layers.values(), lambda layer: self._shown(layer, found[layer.name]))
            awake: set[str] = set()
            for name, layer in layers.items():
                several = layer.layout.groups > 1
                alive = alive_parts(layer, found[name]) if several else {name: True}
                awake |= {part for part, flag in alive.items() if flag}
            return gradients, [part for part in everything if part in awake]
        if not self.optimizers:
            return None, everything
        device = next(iter(self.layers.values())).parameter.device
        flags = on_any_rank([self._alive.get(part, False) for part in everything], device)
        return None, [part for part, alive in zip(everything, flags, strict=True) if alive]

    def _rearranged(self, view: View) -> View:
        """What the algorithm starts from: masks that the pattern may have rearranged first."""
        if type(self.pattern).rearranged is Projection.rearranged:
            return view
        masks = {
            name: self.pattern.rearranged(view.weights[name], mask, view.budgets[name], view.update)
            for name, mask in view.masks.items()
        }
        return replace(view, masks={name: locked(mask) for name, mask in masks.items()})

    def _take_over(self, layer: MaskedLayer, view: View, outcome: Outcome) -> bool:
        """Write one layer's new mask; weights and moments follow. Whether the mask changed."""
        old = stacked(layer, view.masks) if set(layer.parts) <= set(view.masks) else None
        if old is None:
            old = layer.mask_array() if self._place()[0] is None else layer.mask_matrix()
        new = stacked(layer, outcome.masks, old)
        reset = None
        if outcome.reset is not None and set(layer.parts) & set(outcome.reset):
            reset = stacked(layer, outcome.reset, filled(tuple(old.shape), False, old))
        changed = not equal(old, new)
        if self.algorithm.dense_weights:
            layer.parameter.data.copy_(self._reserve.whole(layer))
            self._reserve.values.pop(layer.name)
            trained_before = self._gate(layer)
            layer.set_mask(new)
            self._train(layer, outcome, new)
            gate = self._gate(layer)
            seen = layer.parameter.detach().clone()  # by the optimizer: what it trains, else 0
            zero_where_not_(seen, gate)
            kept = gate & trained_before
            optimizer_state.zero_moments(self.optimizers, layer.parameter, kept, seen)
            self._reserve.split(layer)
            return changed
        if outcome.weights is not None:
            own = self._shown(layer, layer.parameter)
            values = where(new, stacked(layer, outcome.weights, own), 0)
            layer.parameter.data.copy_(layer.tensor(values))
        if changed or reset is not None:
            kept = layer.tensor(old & new if reset is None else old & new & ~reset)
            if outcome.weights is None:
                zero_where_not_(layer.parameter.data, kept)
            optimizer_state.zero_moments(self.optimizers, layer.parameter, kept)
        if changed:
            layer.set_mask(new)
        return changed


def stacked(layer: MaskedLayer, parts: Mapping[str, Any], rest: Any = None) -> Any:
    """(n_out, n_in) of a layer from those of its parts; one that is not there is as in `rest`."""
    rows = layer.parts
    if len(rows) == 1:
        return parts[layer.name] if layer.name in parts or rest is None else rest
    return below([parts[p] if p in parts else rest[rows[p]] for p in rows])


def _only(arrays: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, Any]:
    if isinstance(arrays, Arrays):
        return arrays.only(names)
    return {name: locked(arrays[name]) for name in names}
