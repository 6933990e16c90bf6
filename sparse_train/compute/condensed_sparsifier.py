"""Drop and grow for a condensed output layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from hwsim.mask import Mask
from sparse_train.algorithms import Algorithm, rounded
from sparse_train.algorithms.rigl import RigL
from sparse_train.algorithms.set import Set
from sparse_train.algorithms.srigl import SRigL
from sparse_train.algorithms.static import Static
from sparse_train.compute import _condensed_kernels as kernels
from sparse_train.compute.condensed import CondensedLinear, by_output, columns
from sparse_train.masking import optimizer_state
from sparse_train.masking.plan import MaskCalendar

_NO_MOMENTS = np.empty((0, 0), np.float32)


class CondensedSparsifier:
    """Keeps one CondensedLinear at constant fan-in while it trains; has what a trainer asks.

    Static, SET, RigL and SRigL under constant fan-in, as they treat an output layer: it is never
    ablated, so that RigL and SRigL are the same. Of n weights int(n · drop fraction) with the
    smallest magnitudes in the whole layer go; each output grows as many as it lost.

    Deviation: the gradient that growth looks at is that of the last batch at the output weights
    after the optimizer's step, since it is only then computed, output by output; elsewhere it is
    that before the step. Memory beyond the weights is (batch + n_in) numbers.

    Attributes:
        steps: optimizer steps so far.
        version: how often the mask has changed.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        optimizer: Optimizer,
        algorithm: Algorithm,
        plan: MaskCalendar,
        seed: int,
    ) -> None:
        layer = model.get_submodule(name)
        if not isinstance(layer, CondensedLinear):
            raise InputError(f"layer {name!r}: is {type(layer).__name__}; allowed: CondensedLinear")
        if type(algorithm) not in (Static, Set, RigL, SRigL):
            raise InputError(
                f"algorithm: {type(algorithm).__name__} does not keep constant fan-in in a "
                "condensed layer; allowed: static, set, rigl, srigl"
            )
        if getattr(algorithm, "reinit_when_same", False):
            raise InputError("reinit_when_same: value is True; allowed in a condensed layer: False")
        self.model, self.name, self.layer = model, name, layer
        self.optimizer = optimizer
        self.algorithm = algorithm
        self.plan = plan
        self.seed = seed
        self.steps = 0
        self.version = 0

    def is_update_step(self, step: int | None = None) -> bool:
        """Whether the mask is updated in step number `step`, counted from 1; None is the next."""
        return self.plan.is_update_step(self.steps + 1 if step is None else step)

    def masks(self) -> dict[str, Mask]:
        """Layer name → mask, made anew each time."""
        return {self.name: self.layer.mask}

    @property
    def density(self) -> float:
        """Active share of the layer's weights."""
        return self.layer.fan_in / self.layer.n_in

    @property
    def coverage(self) -> float:
        """Share of the weights under the mask, the layer counted as if it were dense."""
        size = self.layer.n_out * self.layer.n_in
        others = sum(p.numel() for p in self.model.parameters()) - self.layer.values.numel()
        return size / (size + others)

    def figures(self) -> dict[str, float | int]:
        """As `sparse_train.masking.figures.run_figures`; bytes are those in use."""
        values = self.layer.values
        moments = list(optimizer_state.moments([self.optimizer], values))
        dense_bytes = self.layer.n_out * self.layer.n_in * values.element_size()
        return {
            "density": self.density,
            "coverage": self.coverage,
            "weight_bytes": values.numel() * values.element_size(),
            "index_bytes": self.layer.inputs.numel() * self.layer.inputs.element_size(),
            "moment_bytes": sum(m.numel() * m.element_size() for m in moments),
            "dense_bytes": dense_bytes * (1 + len(moments)),
        }

    def step(self) -> bool:
        """Finishes a training step, after `optimizer.step()`; whether the mask changed.

        Raises:
            InputError: weights or activations with NaN or infinity; the mask is then as it was.
        """
        self.steps += 1
        self.layer.values.grad = None  # was used; as large as the weights
        changed = self.is_update_step(self.steps) and self._update(self.steps)
        self.version += changed
        return changed

    def _update(self, step: int) -> bool:
        layer = self.layer
        values = layer.values.detach().numpy()
        n = values.size
        drop = self.plan.drop_fraction_at(step)
        n_drop = rounded(n * drop, getattr(self.algorithm, "rounding", "floor"))
        if n_drop == 0 or layer.fan_in == layer.n_in:
            return False
        by_gradient = self.algorithm.gradient == "update"
        x, labels = self._seen() if by_gradient else (np.zeros((layer.n_in, 1), np.float32), None)
        if not np.isfinite(values.sum()) or not np.isfinite(x).all():
            raise InputError(
                f"mask update in step {step}: layer {self.name!r} has NaN or infinity in its "
                "weights or inputs; allowed is finite"
            )
        threshold, ties = _kept(values, n - n_drop)
        none = torch.empty(0, 0, dtype=torch.long)
        pairs = by_output(none if labels is None else labels, layer.n_out)
        moments = [m.numpy() for m in optimizer_state.moments([self.optimizer], layer.values)]
        first, second = [*moments, _NO_MOMENTS, _NO_MOMENTS][:2]
        seed = np.random.SeedSequence((self.seed, step)).generate_state(1, np.uint64)[0]
        moved = kernels.regrow(
            values, first, second, layer.inputs.numpy(), layer.bias.detach().numpy(), x,
            *pairs, threshold, ties, by_gradient, seed,
        )  # fmt: skip
        return moved > 0

    def _seen(self) -> tuple[np.ndarray, Tensor]:
        if self.layer.seen is None:
            raise InputError(f"layer {self.name!r}: no training step was made before the update")
        x, labels = self.layer.seen
        return columns(x), labels

    def state_dict(self) -> dict[str, Any]:
        """What goes on beside the model's and the optimizer's own state."""
        return {
            "format": 1,
            "algorithm": type(self.algorithm).__name__,
            "layers": {self.name: [self.layer.n_out, self.layer.n_in, self.layer.fan_in]},
            "seed": self.seed,
            "steps": self.steps,
            "version": self.version,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
            InputError: a state of another algorithm or layer.
        """
        mine = self.state_dict()
        for key in ("format", "algorithm", "layers"):
            if saved.get(key) != mine[key]:
                raise InputError(
                    f"sparsifier state: {key} is {saved.get(key)}; allowed is {mine[key]}"
                )
        self.seed = int(saved["seed"])
        self.steps = int(saved["steps"])
        self.version = int(saved["version"])


def _kept(values: np.ndarray, n_keep: int) -> tuple[np.float32, int]:
    """The magnitude of the n_keep-th largest weight, and how many of just that size stay."""
    if n_keep == 0:
        return np.float32(np.inf), 0
    sizes = np.abs(values).ravel()
    sizes.partition(sizes.size - n_keep)
    threshold = sizes[sizes.size - n_keep]
    above = int(np.count_nonzero(sizes[sizes.size - n_keep :] > threshold))
    return threshold, n_keep - above
