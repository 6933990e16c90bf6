"""What a population needs of its model: losses as functions, a look at outputs, what it allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.errors import InputError
from sparse_train.masking.layers import MaskedLayer
from sparse_train.tasks import Batch, Prepared


class Measured(nn.Module):
    """A model and its task as one module, so that the loss is a function of the weights."""

    def __init__(self, model: nn.Module, task: Prepared) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(self, batch: Batch, everything: bool) -> dict[str, Tensor]:
        if everything:
            return self._task.measure(self.model, batch)
        return {"loss": self._task.loss(self.model, batch)}


class Watch:
    """Mean and variance of the outputs of masked layers, noted while `on`."""

    def __init__(self, layers: Sequence[MaskedLayer]) -> None:
        self.on = False
        self.seen: list[Tensor] = []
        for layer in layers:
            layer.module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, given: Any, output: Tensor) -> None:
        if self.on:
            values = output.detach()
            self.seen.append(torch.stack([values.mean(), values.var(correction=0)]))


def written_out(model: nn.Module, task: Prepared) -> Any:
    """The module that has this model's gradients written out; None if none has."""

    from sparse_train.population import bert, mlp

    found = (one for one in (bert, mlp) if one.fits(model, task))
    return next(found, None)


def check_stateless(model: nn.Module) -> None:
    """An InputError if a module keeps statistics or draws random numbers."""
    for name, module in model.named_modules():
        if getattr(module, "track_running_stats", False):
            raise InputError(
                f"model: {name or type(model).__name__} is {type(module).__name__} with running "
                "statistics; allowed are modules that keep nothing from step to step (LayerNorm, "
                "GroupNorm)"
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise InputError(
                f"model: {name} is {type(module).__name__} with p = {module.p}; allowed is 0, "
                "since networks trained together draw no random numbers in a step"
            )
