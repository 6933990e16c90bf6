"""Keeps a model sparse while it trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from hwsim.mask import Mask
from sparse_train.algorithms import Algorithm, Outcome, View
from sparse_train.masking import _state, optimizer_state, persist, steps
from sparse_train.masking._dense import DenseGradients, stamp, untouched
from sparse_train.masking._first import first_masks, locked, not_finite
from sparse_train.masking._reserve import Reserve
from sparse_train.masking._sync import on_any_rank
from sparse_train.masking.bits import whole, zero_where_not_
from sparse_train.masking.figures import run_figures
from sparse_train.masking.layers import MaskedLayer, Selection
from sparse_train.masking.plan import Plan
from sparse_train.patterns import Projection
from sparse_train.regularisers import Regulariser

_PATIENCE = 100  # calls of step() without an optimizer's step: no loss scale takes so long to fit


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
        self._dense = DenseGradients(algorithm, scaler)
        self._reserve = Reserve()
        self._snapshots: dict[str, tuple[Any, dict[str, Mask]]] = {}
        self._handles: list[Any] = []
        self._ids: dict[int, MaskedLayer] = {}
        self._new_round()
        self._idle = 0
        _check_free(self.layers.values())
        for layer in self.layers.values():
            layer.check()
            optimizer_state.check(self.optimizers, layer.parameter)
        masks = first_masks(first, self.layers, plan.budgets(0), pattern, self._rng(0))
        self._state: dict[str, Any] = self._start(masks)
        self._begin(masks)

    def _begin(self, masks: Mapping[str, np.ndarray]) -> None:
        """Masks and hooks onto the model; if that fails, the model is as it was."""
        before = {name: layer.parameter.detach().clone() for name, layer in self.layers.items()}
        try:
            for layer in self.layers.values():
                layer.add_mask()
                layer.set_mask(_stacked(layer, masks))
                if self.algorithm.dense_weights:
                    self._reserve.split(layer)
                else:
                    layer.zero_inactive()
            self._attach()
            for layer in self.layers.values():
                gate = self._gate(layer)
                optimizer_state.zero_moments(self.optimizers, layer.parameter, gate)
        except BaseException:
            for name, layer in self.layers.items():
                layer.parameter.data.copy_(before[name])
            self._detach()
            raise
        self._note_versions()

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
            self._check_idle()
            self._new_round()
            return False
        self._idle = 0
        step = self.steps + 1
        for layer in self.layers.values():
            layer.zero_inactive()
        self._dense.close_step(self.layers)
        try:
            changed = self._update(step) if self.is_update_step(step) else False
        finally:
            self._dense.forget()
            self._new_round()
            self._note_versions()
        self.steps = step
        self.version += changed
        return changed

    @property
    def step_made(self) -> bool:
        """Whether an optimizer has made a step since the last call of `step()`."""
        return self._stepped

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
        found: dict[str, Mask] = {}
        for name, layer in self.layers.items():
            # The buffer may have been changed by load_state_dict too, so ask the tensor itself.
            mask = self._snapshots.get(name)
            key = (id(layer.mask), layer.mask._version)
            if mask is None or mask[0] != key:
                mask = self._snapshots[name] = (key, layer.snapshots())
            found |= mask[1]
        return found

    def trained_mask(self, name: str) -> Tensor:
        """Where the optimizer trains a layer's weight: the mask, unless inactive weights train."""
        return self._gate(self.layers[name])

    def trained_masks(self) -> dict[str, Mask]:
        """Layer → the weights that the optimizer trains; empty where those are the active ones."""
        found: dict[str, Mask] = {}
        for name, trained in self._reserve.trained.items():
            layer = self.layers[name]
            array = layer.array(trained).astype(bool)
            found |= {part: Mask(array[rows], copy=False) for part, rows in layer.parts.items()}
        return found

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

    def summary(self) -> str:
        """A table for people: each masked layer, and why other weights are not masked."""
        rows = [("layer", "shape", "active", "density")]
        masks = self.masks()
        for name, mask in masks.items():
            shape = f"{mask.shape[0]} × {mask.shape[1]}"
            rows.append((name, shape, f"{mask.nnz:,}", f"{mask.density:.4f}"))
        active, size = sum(m.nnz for m in masks.values()), sum(m.size for m in masks.values())
        rows.append(("all", f"{size:,}", f"{active:,}", f"{active / size:.4f}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in rows
        ]
        head = (
            f"{type(self.algorithm).__name__}, {self.pattern.name}, step {self.steps}, "
            f"{self.coverage:.1%} of the parameters masked"
        )
        left = [f"not masked: {name} ({why})" for name, why in self.skipped.items()]
        return "\n".join([head, *lines, *left])

    def remove(self) -> None:
        """Take hooks and masks off the model; inactive weights stay zero, and can then train."""
        self._detach()
        self.layers = {}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on to the bit, with the model's and optimizer's own.

        Tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it.
        """
        return {
            "format": 2,
            "algorithm": type(self.algorithm).__name__,
            "layers": {name: list(layer.weight_shape) for name, layer in self.layers.items()},
            "pattern": repr(self.pattern),
            "update_interval": self.plan.update_interval,
            "density": self.plan.density,
            "seed": self.seed,
            "steps": self.steps,
            "version": self.version,
            "masks": {name: _state.packed(layer.mask) for name, layer in self.layers.items()},
            "state": _state.to_torch(self._state),
            "averages": _state.copied(self._dense.averages),
            "reserve": _state.copied(self._reserve.state()),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state. Load the model and the optimizer too.

        Raises:
            InputError: a state of another format, algorithm, density, pattern, interval or model;
                nothing is changed then.
        """
        _state.check(saved, self.state_dict())
        self.seed = int(saved["seed"])
        self.steps = int(saved["steps"])
        self.version = int(saved["version"])
        for name, layer in self.layers.items():
            layer.mask.copy_(_state.unpacked(saved["masks"][name], layer.mask))
            layer.zero_inactive()
        self._state = _state.to_numpy(saved["state"])
        self._dense.averages = self._placed(saved["averages"])
        self._reserve.load(*(self._placed(saved["reserve"][k]) for k in ("values", "trained")))
        self._dense.forget()
        self._new_round()
        self._note_versions()

    def __deepcopy__(self, memo: dict[int, Any]) -> Sparsifier:
        """A sparsifier of copies of the model and its optimizers, with hooks of its own."""
        new = object.__new__(type(self))
        memo[id(self)] = new
        apart = ("_handles", "layers", "_snapshots", "_ids")
        for key, value in self.__dict__.items():
            if key not in apart:
                setattr(new, key, copy.deepcopy(value, memo))
        new._handles, new._snapshots, new._ids = [], {}, {}
        new.layers = {
            name: replace(layer, module=copy.deepcopy(layer.module, memo))
            for name, layer in self.layers.items()
        }
        new._attach()
        new._note_versions()
        return new

    # What optimizers and gradients tell.

    def _attach(self) -> None:
        self._handles.append(persist.attach_root(self.model))
        for layer in self.layers.values():
            self._handles += persist.attach(layer.module, layer.attribute)
            self._ids[id(layer.parameter)] = layer
            if not layer.parameter.requires_grad:
                continue
            before, after = self._gradient_hooks(layer)
            self._handles.append(layer.parameter.register_hook(before))
            self._handles.append(layer.parameter.register_post_accumulate_grad_hook(after))
        steps.watch(self)

    def _detach(self) -> None:
        steps.unwatch(self)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for layer in self.layers.values():
            if hasattr(layer.module, layer.buffer):
                layer.remove_mask()

    def _gradient_hooks(
        self, layer: MaskedLayer
    ) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
        def before(_: Tensor) -> None:
            self._dense.before(layer)

        def masked(parameter: Tensor) -> None:
            if parameter.grad is None:
                return
            if self._dense.wanted(self.is_update_step()):
                self._dense.add(layer, parameter.grad)
            zero_where_not_(parameter.grad.detach(), self._gate(layer))
            stamp(parameter.grad)
            self._pushed.discard(layer.name)

        return before, masked

    def before_step(
        self, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        """An optimizer is about to make a step; any optimizer of the process.

        With a closure the gradients come within the step: it is wrapped. Else they are there.
        """
        layers = self._held_by(optimizer)
        if not layers:
            return None
        if not any(known is optimizer for known in self.optimizers):
            self.optimizers = (*self.optimizers, optimizer)
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None and bool(overflow):
            # A fused optimizer is called in steps that the scaler skips, and does nothing.
            self._skipping.add(id(optimizer))
            for layer in layers:
                self._dense.drop(layer)
            return None
        self._skipping.discard(id(optimizer))
        given = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(given):
            self._prepare(optimizer, layers)
            return None

        def closure(*inner: Any, **named: Any) -> Any:
            for layer in layers:
                self._reserve.split_again(layer)
            loss = given(*inner, **named)
            self._prepare(optimizer, layers)
            return loss

        if len(args) > 1:
            return (args[0], closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure}

    def after_step(self, optimizer: Optimizer) -> None:
        """An optimizer has made its step."""
        if id(optimizer) in self._skipping:
            self._skipping.discard(id(optimizer))
            self._overflowed = True
            return
        layers = self._held_by(optimizer)
        for layer in layers:
            self._reserve.split_again(layer)
        self._stepped |= bool(layers)

    def _held_by(self, optimizer: Optimizer) -> list[MaskedLayer]:
        held = (
            self._ids.get(id(parameter))
            for group in optimizer.param_groups
            for parameter in group["params"]
        )
        return [layer for layer in held if layer is not None]

    def _prepare(self, optimizer: Optimizer, layers: Sequence[MaskedLayer]) -> None:
        """Gradients are what the optimizer will use: note them, mask them, push."""
        updates = self.is_update_step()
        wanted = self._dense.wanted(updates)
        scale = getattr(optimizer, "grad_scale", None)
        scale = 1.0 if scale is None else float(scale)
        for layer in layers:
            if wanted:
                self._dense.use(layer, scale)
            gradient = layer.parameter.grad
            if gradient is not None:
                if not untouched(gradient):
                    zero_where_not_(gradient.detach(), self._gate(layer))
                    stamp(gradient)
                if updates and not wanted:
                    self._alive |= _alive(layer, gradient)
            if updates and self._replace_step:
                continue
            self._reserve.merge(layer)
            if gradient is not None and layer.name not in self._pushed:
                self._push(layer, gradient, scale)
        if updates and self._replace_step:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def _push(self, layer: MaskedLayer, gradient: Tensor, scale: float) -> None:
        """What draws weights to zero, once for each gradient."""
        if self.algorithm.dense_weights and layer.name not in self._reserve.pulls:
            density = float(layer.array(layer.mask).astype(bool).mean())
            self._reserve.pulls[layer.name] = self.algorithm.pulls(density)
        pushed = self._reserve.pull(layer, gradient, scale)
        if self._regulariser is not None:
            weight = layer.layout.stacked(layer.parameter.detach())
            strength = self._regulariser.strength_at(self.plan.progress(self.steps))
            push = self._regulariser.gradient(weight)
            push = layer.layout.unstacked(push, layer.weight_shape).to(gradient.dtype)
            zero_where_not_(push, self._gate(layer))
            gradient.add_(push, alpha=strength * scale)
            pushed = True
        if pushed:
            self._pushed.add(layer.name)
            stamp(gradient)

    def _new_round(self) -> None:
        """What is known of the steps since the last call of `step`."""
        self._stepped = False
        self._overflowed = False
        self._skipping: set[int] = set()
        self._pushed: set[str] = set()
        self._alive: dict[str, bool] = {}

    def _note_versions(self) -> None:
        self._versions = {n: layer.parameter._version for n, layer in self.layers.items()}

    def _check_idle(self) -> None:
        """No optimizer has made a step: did a scaler skip it, or is the model trained otherwise?

        Raises:
            InputError: weights have changed all the same, or this goes on for ever.
        """
        self._idle = 0 if self._overflowed else self._idle + 1
        moved = [n for n, v in self._versions.items() if self.layers[n].parameter._version != v]
        self._note_versions()
        replaced = [n for n, one in self.layers.items() if id(one.parameter) not in self._ids]
        if replaced:
            raise InputError(
                f"step: the weight of layer {replaced[0]!r} is another tensor than it was; shard "
                "or replace weights first (fully_shard), then make the optimizer, then sparsify"
            )
        if moved and not self._overflowed:
            raise InputError(
                f"step: the weight of layer {moved[0]!r} has changed, but no torch.optim.Optimizer "
                "that holds it has made a step since the last call; train it by one"
            )
        if self._idle >= _PATIENCE:
            raise InputError(
                f"step: no optimizer that holds a masked weight made a step in {_PATIENCE} calls; "
                "call optimizer.step() before each"
            )

    # How masks move.

    def _gate(self, layer: MaskedLayer) -> Tensor:
        """Where the optimizer trains: where active, unless inactive weights have values too."""
        return self._reserve.trained.get(layer.name, layer.mask)

    def _start(self, masks: dict[str, np.ndarray]) -> dict[str, Any]:
        """The algorithm's first state; with dense weights its own first masks are taken."""
        view = self._view(0, None, masks=masks)
        state = dict(self.algorithm.start(view))
        if self.algorithm.dense_weights:
            outcome = self.algorithm.update(view, state)
            state = dict(outcome.state)
            masks.update(outcome.masks)
            for layer in self.layers.values():
                self._train(layer, outcome, _stacked(layer, masks))
        return state

    def _train(self, layer: MaskedLayer, outcome: Outcome, mask: np.ndarray) -> None:
        """Take over which weights the optimizer trains; how they are pulled follows the mask."""
        known = self._reserve.trained.get(layer.name)
        old = mask if known is None else layer.array(known).astype(bool)
        trained = mask if outcome.trained is None else _stacked(layer, outcome.trained, old)
        self._reserve.trained[layer.name] = layer.tensor(trained)
        self._reserve.pulls.pop(layer.name, None)

    def _rng(self, step: int) -> np.random.Generator:
        """The stream of one step: from seed and step alone, so that a resumed run has the same."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, step)))

    def _view(
        self,
        step: int,
        gradients: Mapping[str, np.ndarray] | None,
        *,
        masks: Mapping[str, np.ndarray] | None = None,
        awake: Iterable[str] | None = None,
    ) -> View:
        parts = {part: layer for layer in self.layers.values() for part in layer.parts}
        names = list(parts) if awake is None else [part for part in parts if part in set(awake)]
        layers = {parts[name].name: parts[name] for name in names}
        if masks is None:
            masks = _in_parts(layers, lambda layer: layer.mask_array())
        weights = _in_parts(layers, lambda layer: layer.array(self._reserve.whole(layer)))
        if step == 0 and not self.algorithm.dense_weights:
            weights = {name: np.where(masks[name], w, np.float32(0)) for name, w in weights.items()}
        rates = {
            name: optimizer_state.learning_rate(self.optimizers, layer.parameter)
            for name, layer in layers.items()
        }
        budgets = self.plan.budgets(step)
        return View(
            step=step,
            weights={name: locked(weights[name]) for name in names},
            masks={name: locked(masks[name]) for name in names},
            budgets={name: budgets[name] for name in names},
            gradients=None if gradients is None else {name: gradients[name] for name in names},
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
            outcome = self.algorithm.update(self._rearranged(view), self._state)
        except InputError as error:
            where = not_finite(view)
            raise InputError(f"mask update in step {step}: {where or error}") from None
        self._state = _state.merged(self._state, dict(outcome.state), set(view.masks))
        touched = [one for one in self.layers.values() if set(one.parts) & set(view.masks)]
        changes = [self._take_over(layer, view, outcome) for layer in touched]
        return any(changes)

    def _awake(self) -> tuple[dict[str, np.ndarray] | None, list[str]]:
        """Dense gradients, and the parts that had one in this step; the others rest."""
        everything = [part for layer in self.layers.values() for part in layer.parts]
        if self._dense.seen:
            if not (self._dense.used or self._dense.averages):
                raise InputError(
                    "mask update: no gradient was seen in any step; "
                    "call backward() before optimizer.step() and step()"
                )
            found = self._dense.arrays(self.layers)
            layers = {name: self.layers[name] for name in found}
            arrays = _in_parts(layers, lambda layer: found[layer.name])
            gradients = {part: locked(a) for part, a in arrays.items()}
            single = {part for layer in layers.values() for part in layer.parts}
            awake = [p for p in single if len(layers) == len(single) or gradients[p].any()]
            return gradients, [part for part in everything if part in set(awake)]
        if not self.optimizers:
            return None, everything
        device = next(iter(self.layers.values())).parameter.device
        flags = on_any_rank([self._alive.get(part, False) for part in everything], device)
        return None, [part for part, alive in zip(everything, flags, strict=True) if alive]

    def _rearranged(self, view: View) -> View:
        """What the algorithm starts from: masks that the pattern may have rearranged first."""
        masks = {
            name: self.pattern.rearranged(view.weights[name], mask, view.budgets[name], view.update)
            for name, mask in view.masks.items()
        }
        return replace(view, masks={name: locked(mask) for name, mask in masks.items()})

    def _take_over(self, layer: MaskedLayer, view: View, outcome: Outcome) -> bool:
        """Write one layer's new mask; weights and moments follow. Whether the mask changed."""
        whole = len(layer.parts) == 1
        old = view.masks[layer.name] if whole else layer.mask_array()
        new = _stacked(layer, outcome.masks, old)
        reset = None
        if outcome.reset is not None and set(layer.parts) & set(outcome.reset):
            reset = _stacked(layer, outcome.reset, np.zeros_like(old))
        changed = not np.array_equal(old, new)
        if self.algorithm.dense_weights:
            layer.parameter.data.copy_(self._reserve.whole(layer))
            self._reserve.values.pop(layer.name)
            layer.set_mask(new)
            self._train(layer, outcome, new)
            self._reserve.split(layer)
            optimizer_state.zero_moments(self.optimizers, layer.parameter, self._gate(layer))
            return changed
        if outcome.weights is not None:
            own = layer.array(layer.parameter)
            values = np.where(new, _stacked(layer, outcome.weights, own), np.float32(0))
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
            name: value.detach().clone().to(self.layers[name].parameter.device)
            for name, value in saved.items()
        }


def _check_free(layers: Iterable[MaskedLayer]) -> None:
    """An InputError if another sparsifier has a mask on one of these weights.

    A mask that came with a copy of a model, or with a model that was loaded, belongs to nobody.
    """
    mine = list(layers)
    for other in steps.watchers():
        for known in other.layers.values():
            for layer in mine:
                if known.module is layer.module and known.attribute == layer.attribute:
                    raise InputError(
                        f"layer {layer.name!r}: has a mask already; call remove() on its "
                        "Sparsifier first"
                    )


def _in_parts(
    layers: Mapping[str, MaskedLayer], array: Callable[[MaskedLayer], np.ndarray]
) -> dict[str, np.ndarray]:
    """Part → its rows of its layer's array."""
    found = {}
    for layer in layers.values():
        whole = array(layer)
        found |= {part: whole[rows] for part, rows in layer.parts.items()}
    return found


def _stacked(
    layer: MaskedLayer, parts: Mapping[str, np.ndarray], rest: np.ndarray | None = None
) -> np.ndarray:
    """(n_out, n_in) of a layer from those of its parts; one that is not there is as in `rest`."""
    rows = layer.parts
    if len(rows) == 1:
        return parts[layer.name] if layer.name in parts or rest is None else rest
    return np.concatenate([parts[p] if p in parts else rest[rows[p]] for p in rows])  # type: ignore[index]


def _alive(layer: MaskedLayer, gradient: Tensor) -> dict[str, bool]:
    """Part → whether its gradient is other than 0 somewhere."""
    gradient = whole(gradient.detach())
    if layer.layout.groups == 1:
        return {layer.name: bool(gradient.any())}
    each = (gradient != 0).flatten(1).any(1).tolist()
    return dict(zip(layer.parts, each, strict=True))
