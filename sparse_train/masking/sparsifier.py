"""Keeps a model sparse while it trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from hwsim.mask import Mask
from sparse_train.algorithms import Algorithm
from sparse_train.masking import _state, optimizer_state
from sparse_train.masking._first import first_masks
from sparse_train.masking._following import check_free
from sparse_train.masking._moving import Moving, stacked
from sparse_train.masking._places import check_place
from sparse_train.masking.figures import run_figures
from sparse_train.masking.layers import Selection
from sparse_train.masking.plan import MaskCalendar
from sparse_train.patterns import Projection
from sparse_train.regularisers import Regulariser


class Sparsifier(Moving):
    """Keeps a model sparse. Made by `sparsify`; call `step()` after each `optimizer.step()`.

    Attributes:
        steps: optimizer steps so far.
        version: how often masks have changed.
        layers: layer name → MaskedLayer.
        skipped: weights of rank 2 or more that are not masked → why.
        choose_on: where masks are chosen, as in `sparsify`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        selection: Selection,
        algorithm: Algorithm,
        pattern: Projection,
        plan: MaskCalendar,
        seed: int,
        *,
        first: str | Mapping[str, np.ndarray | Mask],
        replace_step: bool = False,
        regulariser: Regulariser | None = None,
        scaler: Any = None,
        choose_on: str = "auto",
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InputError(f"seed: value is {seed!r}; allowed is an integer of at least 0")
        super().__init__(
            model, optimizers, selection, algorithm, plan,
            replace_step=replace_step, regulariser=regulariser, scaler=scaler,
        )  # fmt: skip
        self.pattern = pattern
        self.seed = seed
        self.skipped = dict(selection.skipped)
        self.version = 0
        self.output_layer = selection.output_layer
        self.choose_on = check_place(choose_on)
        self._snapshots: dict[str, tuple[Any, dict[str, Mask]]] = {}
        check_free(self.layers.values())
        for layer in self.layers.values():
            layer.check()
            optimizer_state.check(self.optimizers, layer.parameter)
        device, _ = self._place()
        masks = first_masks(first, self.layers, plan.budgets(0), pattern, self._rng(0), device)
        self._state: dict[str, Any] = self._start(masks)
        self._begin(masks)

    def _begin(self, masks: Mapping[str, Any]) -> None:
        """Masks and hooks onto the model; if that fails, the model is as it was."""
        before = {name: layer.parameter.detach().clone() for name, layer in self.layers.items()}
        try:
            for layer in self.layers.values():
                layer.add_mask()
                layer.set_mask(stacked(layer, masks))
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
        for layer in self._unsteady:
            optimizer_state.zero_moments(self.optimizers, layer.parameter, self._gate(layer))
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

    @property
    def needs_dense_gradient(self) -> bool:
        """Whether update steps (or all steps) need the gradient of inactive weights too."""
        return self.algorithm.gradient != "never"

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
        where = [] if self.chosen_on == "host" else [f"masks are chosen on {self.chosen_on}"]
        return "\n".join([head, *lines, *where, *left])

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

    def _placed(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Saved tensors on the devices of their layers' weights."""
        return {
            name: value.detach().clone().to(self.layers[name].parameter.device)
            for name, value in saved.items()
        }

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
