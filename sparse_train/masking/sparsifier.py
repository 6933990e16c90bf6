"""Keeps a model sparse while it trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from hwsim.mask import Mask
from sparse_train.algorithms import Algorithm, Outcome, View
from sparse_train.masking import _state, optimizer_state
from sparse_train.masking._dense import DenseGradients
from sparse_train.masking._reserve import Reserve
from sparse_train.masking.figures import run_figures
from sparse_train.masking.layers import MaskedLayer, Selection, zero_where_not_
from sparse_train.masking.plan import Plan
from sparse_train.patterns import Projection
from sparse_train.regularisers import Regulariser


class Sparsifier:
    """Keeps a model sparse. Made by `sparsify`; call `step()` after each `optimizer.step()`.

    Attributes:
        steps: optimizer steps so far.
        version: how often masks have changed.
        layers: layer name → MaskedLayer.
        skipped: weights of rank 2 or more that are not masked → why.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        selection: Selection,
        algorithm: Algorithm,
        pattern: Projection,
        plan: Plan,
        seed: int,
        *,
        first: str | Mapping[str, np.ndarray | Mask],
        replace_step: bool = False,
        regulariser: Regulariser | None = None,
        scaler: Any = None,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InputError(f"seed: value is {seed!r}; allowed is an integer of at least 0")
        self.model = model
        self.optimizers = tuple(optimizers)
        self.algorithm = algorithm
        self.pattern = pattern
        self.plan = plan
        self.seed = seed
        self.layers = {layer.name: layer for layer in selection.layers}
        self.skipped = dict(selection.skipped)
        self.steps = 0
        self.version = 0
        self.output_layer = selection.output_layer
        self._replace_step = replace_step
        self._regulariser = regulariser
        self._stepped = False
        self._dense = DenseGradients(algorithm, scaler)
        self._reserve = Reserve()
        self._snapshots: dict[str, tuple[Any, Mask]] = {}
        self._handles: list[Any] = []
        for layer in self.layers.values():
            layer.check()
        masks = self._first_masks(first)
        self._state = self._start(masks)
        for name, layer in self.layers.items():
            layer.add_mask()
            layer.set_mask(masks[name])
            if algorithm.dense_weights:
                self._reserve.split(layer)
            else:
                layer.zero_inactive()
            optimizer_state.zero_moments(self.optimizers, layer.parameter, self._gate(layer))
        self._attach()

    # What a user asks.

    def step(self) -> bool:
        """Finish a training step: update masks if it is time, and zero inactive weights.

        Call it once after `optimizer.step()`. A step that the optimizer did not make (a
        GradScaler skipped it) is not counted, so that a mask update due in it comes with the next.

        Returns:
            Whether a mask changed.

        Raises:
            InputError: weights or gradients with NaN or infinity; masks are then as they were.
        """
        if self.optimizers and not self._stepped:
            self._dense.forget()
            return False
        self._stepped = False
        step = self.steps + 1
        for layer in self.layers.values():
            layer.zero_inactive()
        self._dense.close_step()
        try:
            changed = self._update(step) if self.is_update_step(step) else False
        finally:
            self._dense.forget()
        self.steps = step
        self.version += changed
        return changed

    def is_update_step(self, step: int | None = None) -> bool:
        """Whether masks are updated in step number `step`, counted from 1; None is the next."""
        return self.plan.is_update_step(self.steps + 1 if step is None else step)

    @property
    def needs_dense_gradient(self) -> bool:
        """Whether update steps (or all steps) need the gradient of inactive weights too."""
        return self.algorithm.gradient != "never"

    @property
    def needs_dense_gradient_now(self) -> bool:
        """Whether the step under way needs the gradient of inactive weights too."""
        wanted = self.algorithm.gradient
        return wanted == "always" or (wanted == "update" and self.is_update_step())

    def masks(self) -> dict[str, Mask]:
        """Layer name → mask, a snapshot; the same objects until a mask changes."""
        for name, layer in self.layers.items():
            # The buffer may have been changed by load_state_dict too, so ask the tensor itself.
            stamp = (id(layer.mask), layer.mask._version)
            known = self._snapshots.get(name)
            if known is None or known[0] != stamp:
                self._snapshots[name] = (stamp, layer.snapshot())
        return {name: self._snapshots[name][1] for name in self.layers}

    def trained_mask(self, name: str) -> Tensor:
        """Where the optimizer trains a layer's weight: the mask, unless inactive weights train."""
        return self._gate(self.layers[name])

    def trained_masks(self) -> dict[str, Mask]:
        """Layer → the weights that the optimizer trains; empty where those are the active ones."""
        return {
            name: Mask(self.layers[name].array(trained).astype(bool), copy=False)
            for name, trained in self._reserve.trained.items()
        }

    def densities(self) -> dict[str, float]:
        """Layer name → share of its weights that is active."""
        return {name: mask.density for name, mask in self.masks().items()}

    @property
    def density(self) -> float:
        """Share of all masked weights that is active."""
        masks = self.masks().values()
        return sum(m.nnz for m in masks) / sum(m.size for m in masks)

    @property
    def coverage(self) -> float:
        """Share of the model's parameters that lies under a mask."""
        total = sum(p.numel() for p in self.model.parameters())
        return sum(layer.parameter.numel() for layer in self.layers.values()) / total

    def figures(self) -> dict[str, float | int]:
        """Density, coverage, and bytes of weights, indices and moments as the pattern packs."""
        return run_figures(self)

    def remove(self) -> None:
        """Take hooks and masks off the model; inactive weights stay zero, and can then train."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for layer in self.layers.values():
            layer.remove_mask()
        self.layers = {}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on to the bit, with the model's and optimizer's own.

        Tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it.
        """
        return {
            "format": 1,
            "algorithm": type(self.algorithm).__name__,
            "layers": {name: list(layer.weight_shape) for name, layer in self.layers.items()},
            "seed": self.seed,
            "steps": self.steps,
            "version": self.version,
            "state": _state.to_torch(self._state),
            "averages": _state.copied(self._dense.averages),
            "reserve": _state.copied(self._reserve.state()),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state. Load the model (with its masks) and the optimizer too.

        Raises:
            InputError: a state of another format, algorithm or model; nothing is changed then.
        """
        _state.check(saved, self.state_dict())
        self.seed = int(saved["seed"])
        self.steps = int(saved["steps"])
        self.version = int(saved["version"])
        self._state = _state.to_numpy(saved["state"])
        self._dense.averages = self._placed(saved["averages"])
        self._reserve.load(*(self._placed(saved["reserve"][k]) for k in ("values", "trained")))
        self._dense.forget()
        self._stepped = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Sparsifier:
        """A sparsifier of copies of the model and its optimizers, with hooks of its own."""
        new = object.__new__(type(self))
        memo[id(self)] = new
        apart = ("_handles", "layers", "_snapshots")
        for key, value in self.__dict__.items():
            if key not in apart:
                setattr(new, key, copy.deepcopy(value, memo))
        new._handles, new._snapshots = [], {}
        new.layers = {
            name: MaskedLayer(name, copy.deepcopy(layer.module, memo), layer.attribute)
            for name, layer in self.layers.items()
        }
        new._attach()
        return new

    # How it works.

    def _attach(self) -> None:
        for layer in self.layers.values():
            hook = self._gradient_hook(layer)
            self._handles.append(layer.parameter.register_post_accumulate_grad_hook(hook))
        for optimizer in self.optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def _gate(self, layer: MaskedLayer) -> Tensor:
        """Where the optimizer trains: where active, unless inactive weights have values too."""
        return self._reserve.trained.get(layer.name, layer.mask)

    def _gradient_hook(self, layer: MaskedLayer) -> Callable[[Tensor], None]:
        def masked(parameter: Tensor) -> None:
            if parameter.grad is None:
                return
            gradient = parameter.grad.detach()
            if self._dense.wanted(self.is_update_step()):
                self._dense.add(layer, gradient)
            zero_where_not_(gradient, self._gate(layer))

        return masked

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self._replace_step and self.is_update_step():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        for layer in self.layers.values():
            self._reserve.merge(layer)
            gradient = layer.parameter.grad
            if gradient is None:
                continue
            if self.algorithm.dense_weights and layer.name not in self._reserve.pulls:
                density = float(layer.array(layer.mask).astype(bool).mean())
                self._reserve.pulls[layer.name] = self.algorithm.pulls(density)
            self._reserve.pull(layer, gradient)
            if self._regulariser is not None:
                weight = layer.parameter.detach()
                strength = self._regulariser.strength_at(self.plan.progress(self.steps))
                push = self._regulariser.gradient(weight.reshape(layer.shape)).view_as(gradient)
                zero_where_not_(push, self._gate(layer))
                gradient.add_(push, alpha=strength)

    def _after_step(self, *_: Any) -> None:
        self._stepped = True
        for layer in self.layers.values():
            self._reserve.split_again(layer)

    def _start(self, masks: dict[str, np.ndarray]) -> dict[str, Any]:
        """The algorithm's first state; with dense weights its own first masks are taken."""
        view = self._view(0, None, masks)
        state = dict(self.algorithm.start(view))
        if self.algorithm.dense_weights:
            outcome = self.algorithm.update(view, state)
            state = dict(outcome.state)
            for name, layer in self.layers.items():
                masks[name] = outcome.masks[name]
                self._train(layer, outcome)
        return state

    def _train(self, layer: MaskedLayer, outcome: Outcome) -> None:
        """Take over which weights the optimizer trains; how they are pulled follows the mask."""
        mask = outcome.masks[layer.name]
        trained = mask if outcome.trained is None else outcome.trained[layer.name]
        self._reserve.trained[layer.name] = layer.tensor(trained)
        self._reserve.pulls.pop(layer.name, None)

    def _first_masks(self, first: str | Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not isinstance(first, str):
            return self._given_masks(first)
        rng = self._rng(0)
        masks = {}
        for name, budget in self.plan.budgets(0).items():
            layer = self.layers[name]
            if first == "dense":
                masks[name] = np.ones(layer.shape, dtype=bool)
            elif first == "magnitude":
                scores = np.abs(layer.array(layer.parameter))
                masks[name] = self.pattern.project(scores, budget)
            else:
                scores = rng.random(layer.shape, dtype=np.float32)
                masks[name] = self.pattern.project(scores, budget)
        return masks

    def _given_masks(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if set(given) != set(self.layers):
            odd = sorted(set(given) ^ set(self.layers))[0]
            raise InputError(
                f"initial_masks: layer {odd!r} is in only one of masks and model; "
                f"allowed is one mask for each of {', '.join(self.layers)}"
            )
        masks = {}
        for name, layer in self.layers.items():
            mask = given[name] if isinstance(given[name], Mask) else Mask(given[name])
            if mask.shape != layer.shape:
                raise InputError(
                    f"initial_masks: shape of {name!r} is {mask.shape}; allowed is {layer.shape}"
                )
            masks[name] = mask.array
        return masks

    def _rng(self, step: int) -> np.random.Generator:
        """The stream of one step: from seed and step alone, so that a resumed run has the same."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, step)))

    def _view(
        self,
        step: int,
        gradients: Mapping[str, np.ndarray] | None,
        masks: Mapping[str, np.ndarray] | None = None,
    ) -> View:
        layers = self.layers.items()
        if masks is None:
            masks = {name: layer.mask_array() for name, layer in layers}
        weights = {name: layer.array(self._reserve.whole(layer)) for name, layer in layers}
        if step == 0 and not self.algorithm.dense_weights:
            weights = {name: np.where(masks[name], w, np.float32(0)) for name, w in weights.items()}
        return View(
            step=step,
            weights={name: _locked(array) for name, array in weights.items()},
            masks={name: _locked(array) for name, array in masks.items()},
            budgets=self.plan.budgets(step),
            gradients=gradients,
            drop_fraction=self.plan.drop_fraction_at(step),
            pattern=self.pattern,
            rng=self._rng(step),
            learning_rates={
                name: optimizer_state.learning_rate(self.optimizers, layer.parameter)
                for name, layer in layers
            },
            output_layer=self.output_layer,
            update=self.plan.updates_until(step),
        )

    def _update(self, step: int) -> bool:
        gradients = None
        if self._dense.seen:
            found = self._dense.arrays(self.layers)
            gradients = {name: _locked(array) for name, array in found.items()}
        view = self._view(step, gradients)
        try:
            outcome = self.algorithm.update(self._rearranged(view), self._state)
        except InputError as error:
            where = _not_finite(view)
            raise InputError(f"mask update in step {step}: {where or error}") from None
        self._state = dict(outcome.state)
        changes = [self._take_over(layer, view, outcome) for layer in self.layers.values()]
        return any(changes)

    def _rearranged(self, view: View) -> View:
        """What the algorithm starts from: masks that the pattern may have rearranged first."""
        masks = {
            name: self.pattern.rearranged(view.weights[name], mask, view.budgets[name], view.update)
            for name, mask in view.masks.items()
        }
        return replace(view, masks={name: _locked(mask) for name, mask in masks.items()})

    def _take_over(self, layer: MaskedLayer, view: View, outcome: Outcome) -> bool:
        """Write one layer's new mask; weights and moments follow. Whether the mask changed."""
        old, new = view.masks[layer.name], outcome.masks[layer.name]
        reset = None if outcome.reset is None else outcome.reset.get(layer.name)
        changed = not np.array_equal(old, new)
        if self.algorithm.dense_weights:
            layer.parameter.data.copy_(self._reserve.whole(layer))
            self._reserve.values.pop(layer.name)
            layer.set_mask(new)
            self._train(layer, outcome)
            self._reserve.split(layer)
            optimizer_state.zero_moments(self.optimizers, layer.parameter, self._gate(layer))
            return changed
        if outcome.weights is not None:
            values = np.where(new, outcome.weights[layer.name], np.float32(0))
            layer.parameter.data.copy_(layer.tensor(values))
        if changed or reset is not None:
            kept = layer.tensor(old & new if reset is None else old & new & ~reset)
            if outcome.weights is None:
                zero_where_not_(layer.parameter.data, kept)
            optimizer_state.zero_moments(self.optimizers, layer.parameter, kept)
        if changed:
            layer.set_mask(new)
        return changed

    def _placed(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Saved tensors on the devices of their layers' weights."""
        return {
            name: value.to(self.layers[name].parameter.device, copy=True)
            for name, value in saved.items()
        }


def _not_finite(view: View) -> str:
    """Which array of a view has NaN or infinity; empty if none has."""
    for what, arrays in (("weight", view.weights), ("gradient", view.gradients or {})):
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                return f"the {what} of layer {name!r} has NaN or infinity; allowed is finite"
    return ""


def _locked(array: np.ndarray) -> np.ndarray:
    """A read-only view: an algorithm that writes to its input fails at once."""
    view = array.view()
    view.flags.writeable = False
    return view
