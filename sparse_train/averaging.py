"""Averages of sparse weights (EMA, SWA) that are as sparse as the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hwsim.errors import InputError
from sparse_train.export import strip
from sparse_train.masking.bits import zero_where_not_
from sparse_train.sparsify import Sparsifier


class SparseAverage:
    """An average of a model's weights over its training, under the model's present masks.

        average = SparseAverage(sparsifier, decay=0.999)
        ...
        sparsifier.step()
        average.update()
        evaluate(average.model)

    A plain average is denser than its model: a weight that was dropped leaves a trace, which fades
    only slowly. Here it is forgotten, and one that comes back begins anew. Buffers are copied.

    Args:
        decay: a ← decay · a + (1 − decay) · w (EMA); None is the mean of all updates (SWA).

    Attributes:
        model: a copy of the model without masks, whose weights are the averages.
        updates: how many weights went into it.

    Sources: Izmailov et al. 2018 (SWA), section 3.
    """

    def __init__(self, sparsifier: Sparsifier, decay: float | None = 0.999) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise InputError(f"decay: value is {decay!r}; allowed is 0 to below 1, or None")
        self._sparsifier, self._decay = sparsifier, decay
        self.model = strip(copy.deepcopy(sparsifier.model)).requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take up the model's weights as they are; call it after the sparsifier's `step()`."""
        new = 1 / (self.updates + 1)
        if self._decay is not None:
            new = 1.0 if self.updates == 0 else 1 - self._decay
        theirs = dict(self._sparsifier.model.named_parameters())
        for name, mine in self.model.named_parameters():
            mine.lerp_(theirs[name].to(mine.device), new)
        buffers = dict(self._sparsifier.model.named_buffers())
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
        mask_average(self.model, self._sparsifier)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averages and how many weights went into them."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.model.load_state_dict(saved["model"])
        self.updates = int(saved["updates"])


def mask_average(average: nn.Module, sparsifier: Sparsifier) -> None:
    """Zero what is inactive in an average that another tool keeps (AveragedModel, timm's EMA).

    Call it after that tool's update. Masks that it has copied become the model's again, boolean.

    Args:
        average: a copy of the sparsifier's model, or what holds it as `module`.

    Raises:
        InputError: a model of another structure.
    """
    if isinstance(getattr(average, "module", None), type(sparsifier.model)):
        average = average.module  # type: ignore[assignment]
    paths = {id(module): path for path, module in sparsifier.model.named_modules()}
    for name, layer in sparsifier.layers.items():
        try:
            module = average.get_submodule(paths[id(layer.module)])
            weight = getattr(module, layer.attribute)
        except AttributeError:
            raise InputError(
                f"average: {type(average).__name__} has no layer {name!r}; allowed is a copy of "
                "the model"
            ) from None
        zero_where_not_(weight.data, layer.mask.to(weight.device))
        if layer.buffer in module._buffers:
            module._buffers[layer.buffer] = layer.mask.clone().to(weight.device)
