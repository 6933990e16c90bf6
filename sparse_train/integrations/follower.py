"""What all loops need: a sparsifier that begins, goes on, is saved, and tells its figures."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim import Device, Mask, load_device
from hwsim.errors import InputError
from sparse_train.masking.figures import Explored
from sparse_train.observing.values import map_tensors
from sparse_train.sparsify import Sparsifier, sparsify
from sparse_train.workload import OPTIMIZERS, workload


class Follower:
    """One sparse run within a loop that is another's.

    Args:
        devices: hwsim devices (or names of them) on which net time is counted.
        batch: what the model is called with, for net time; None takes the first call's.
        settings: of `sparsify`, but for model, optimizer and total_steps.

    Attributes:
        sparsifier: once the run has begun.
        net_time_s: device → seconds that the training steps so far take there.
    """

    def __init__(
        self, *, devices: Sequence[str | Device] = (), batch: Any = None, **settings: Any
    ) -> None:
        self._devices = [_device(one) for one in devices]
        self._batch = batch
        self._settings = settings
        self._saved: Mapping[str, Any] | None = None
        self._explored = Explored()
        self._prices: dict[str, tuple[float, float]] = {}
        self._hook: Any = None
        self.sparsifier: Sparsifier | None = None
        self.net_time_s: dict[str, float] = {one.name: 0.0 for one in self._devices}

    def begin(
        self, model: nn.Module, optimizer: Optimizer | Sequence[Optimizer], total_steps: int | None
    ) -> Sparsifier:
        """Sparsify, or go on with what `load_state_dict` was given: weights then stay."""
        settings = dict(self._settings)
        if total_steps is not None:
            settings.setdefault("total_steps", total_steps)
        saved = self._saved
        if saved is None:
            self.sparsifier = sparsify(model, optimizer, **settings)
        else:
            self.sparsifier = self._resumed(model, optimizer, settings, saved)
            self.net_time_s = dict(saved["net_time_s"])
            self._explored.add(_masks(saved, "explored"))
        self._saved = None
        self._explored.add(self.sparsifier.masks())
        if self._devices and self._batch is None:
            self._hook = model.register_forward_pre_hook(self._note_batch, with_kwargs=True)
        return self.sparsifier

    def _resumed(
        self, model: nn.Module, optimizer: Any, settings: dict[str, Any], saved: Mapping[str, Any]
    ) -> Sparsifier:
        """New masks are put on and replaced; weights and moments stay what they are."""
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        given = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        moments = [copy.deepcopy(one.state_dict()) for one in given]
        sparsifier = sparsify(model, optimizer, **settings)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        for one, state in zip(given, moments, strict=True):
            one.load_state_dict(state)
        sparsifier.load_state_dict(saved["sparsifier"])
        return sparsifier

    def step(self) -> bool:
        """Call after each batch; only a step that an optimizer has made counts.

        Returns:
            Whether a mask changed.
        """
        sparsifier = self._running()
        if not sparsifier.step_made:
            return False
        growing = sparsifier.is_update_step() and sparsifier.needs_dense_gradient
        for name, (usual, grown) in self._priced().items():
            self.net_time_s[name] += grown if growing else usual
        changed = sparsifier.step()
        if changed:
            self._explored.add(sparsifier.masks())
            self._prices.clear()
        return changed

    def figures(self) -> dict[str, float]:
        """What is logged: density, explored share (ITOP's Rs), updates so far, net time."""
        sparsifier = self._running()
        found = {
            "sparse/density": sparsifier.density,
            "sparse/explored": self._explored.rate,
            "sparse/updates": float(sparsifier.plan.updates_until(sparsifier.steps)),
        }
        for name, seconds in self.net_time_s.items():
            found[f"sparse/net_time_s/{name}"] = seconds
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a run goes on from; `torch.load(weights_only=True)` reads it."""
        if self.sparsifier is None:
            return {} if self._saved is None else dict(self._saved)
        masks = self.sparsifier.masks()
        return {
            "sparsifier": self.sparsifier.state_dict(),
            "shapes": {name: list(mask.shape) for name, mask in masks.items()},
            "masks": {name: torch.from_numpy(mask.bits) for name, mask in masks.items()},
            "explored": {n: torch.from_numpy(b) for n, b in self._explored.bits.items()},
            "net_time_s": dict(self.net_time_s),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a state: at once, or when the run begins.

        Raises:
            InputError: a state of another algorithm, density, pattern, interval or model.
        """
        if not saved:
            return
        if self.sparsifier is None:
            self._saved = saved
            return
        self.sparsifier.load_state_dict(saved["sparsifier"])
        self.net_time_s = dict(saved["net_time_s"])
        self._explored = Explored()
        self._explored.add(_masks(saved, "explored"))
        self._prices.clear()

    def mask_keys(self, model: nn.Module) -> set[str]:
        """Keys of the masks in the model's state_dict."""
        layers = self._running().layers.values()
        owned = {id(layer.module): set() for layer in layers}
        for layer in layers:
            owned[id(layer.module)].add(layer.buffer)
        return {
            f"{path}.{buffer}" if path else buffer
            for path, module in model.named_modules()
            for buffer in owned.get(id(module), ())
        }

    def _running(self) -> Sparsifier:
        if self.sparsifier is None:
            raise InputError("sparse training: has not begun; call it after training has started")
        return self.sparsifier

    def _note_batch(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        def kept(tensor: Tensor) -> Tensor:
            return tensor.detach().clone()

        self._batch = (map_tensors(kept, args), map_tensors(kept, kwargs))
        self._hook.remove()

    def _priced(self) -> dict[str, tuple[float, float]]:
        """Device → seconds of a step, and of one whose gradients are dense and that grows."""
        if self._prices or not self._devices:
            return self._prices
        sparsifier = self._running()
        if self._batch is None:
            raise InputError("devices: net time needs a batch, and the model's forward saw none")
        masks = sparsifier.masks()
        name = _optimizer_name(sparsifier.optimizers[0])
        step = workload(sparsifier.model, self._batch, masks, name)
        grown = step.growth_step(dense_gradient=sparsifier.needs_dense_gradient)
        for device in self._devices:
            self._prices[device.name] = (
                float(device.estimate(step).seconds), float(device.estimate(grown).seconds)
            )  # fmt: skip
        return self._prices


def _device(given: str | Device) -> Device:
    return given if isinstance(given, Device) else load_device(given)


def _masks(saved: Mapping[str, Any], key: str = "masks") -> dict[str, Mask]:
    found = {}
    for name, bits in saved[key].items():
        shape = tuple(saved["shapes"][name])
        flat = np.unpackbits(bits.numpy(), count=math.prod(shape))
        found[name] = Mask(flat.astype(bool).reshape(shape))
    return found


def _optimizer_name(optimizer: Optimizer) -> str:
    """The optimizer as `workload` prices it; those that it does not know as AdamW."""
    name = type(getattr(optimizer, "optimizer", optimizer)).__name__.lower()
    if name == "sgd":
        return "sgd_momentum" if optimizer.param_groups[0].get("momentum") else "sgd"
    return name if name in OPTIMIZERS else "adamw"
