"""The dense gradients that growth is decided by, held no longer than they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import InputError
from sparse_train.algorithms import Algorithm
from sparse_train.masking._sync import average_over_ranks
from sparse_train.masking.layers import MaskedLayer, zero_where_not_


class DenseGradients:
    """Sums the dense gradient over the backward passes of a step; averages it over steps.

    Attributes:
        now: layer name → dense gradient of the step under way.
        averages: layer name → v of v ← momentum · v + g, of algorithms that ask for it.
    """

    def __init__(self, algorithm: Algorithm, scaler: Any) -> None:
        self.now: dict[str, Tensor] = {}
        self.averages: dict[str, Tensor] = {}
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

    def add(self, layer: MaskedLayer, gradient: Tensor) -> None:
        """Add one backward pass. `gradient` is the parameter's, not yet masked for this pass.

        Where active it holds the sum over all passes so far; where inactive only this pass, since
        the earlier ones were zeroed there.
        """
        known = self.now.get(layer.name)
        if known is None:
            self.now[layer.name] = gradient.clone()
        else:
            zero_where_not_(known, ~layer.mask)
            known.add_(gradient)
        if self._scaler is not None and not bool(torch.isfinite(gradient).all()):
            gradient.fill_(float("nan"))  # The scaler skips the step and lowers its scale.

    def close_step(self) -> None:
        """The optimizer has made its step: the average takes the gradient up."""
        if not self._averages:
            return
        scale = 1.0 if self._scaler is None else float(self._scaler.get_scale())
        for name, gradient in self.now.items():
            average = self.averages.setdefault(name, torch.zeros_like(gradient))
            average.mul_(self._momentum).add_(average_over_ranks(gradient), alpha=1 / scale)

    def forget(self) -> None:
        self.now.clear()

    def arrays(self, layers: Mapping[str, MaskedLayer]) -> dict[str, np.ndarray]:
        """Layer name → float32 (n_out, n_in), the same on every rank; 0 for a layer not used.

        Raises:
            InputError: no layer has a gradient.
        """
        held = self.averages if self._averages else self.now
        if not held:
            raise InputError(
                "mask update: no gradient was seen since the last step; "
                "call backward() before optimizer.step() and step()"
            )
        arrays = {}
        for name, layer in layers.items():
            value = held.get(name)
            if value is None:
                value = torch.zeros_like(layer.parameter)
            if not self._averages:
                value = average_over_ranks(value)
            arrays[name] = layer.array(value)
        return arrays
