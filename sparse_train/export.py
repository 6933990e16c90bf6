"""A trained sparse model for use elsewhere: plain, or its weights in their packed form."""

from __future__ import annotations

import copy

from torch import nn

from hwsim.patterns import Packed
from sparse_train.sparsify import Sparsifier


def plain(sparsifier: Sparsifier) -> nn.Module:
    """A copy of the model without masks or hooks; inactive weights are zeros."""
    model = copy.deepcopy(sparsifier.model)
    for name, module in model.named_modules():
        for layer in sparsifier.layers.values():
            if sparsifier.model.get_submodule(name) is layer.module:
                delattr(module, layer.buffer)
    return model


def condensed(sparsifier: Sparsifier) -> dict[str, Packed]:
    """Layer name → the weight packed by the sparsifier's pattern (CSR, condensed, BSR, …)."""
    definition = sparsifier.pattern.definition
    masks = sparsifier.masks()
    return {
        name: definition.pack(masks[name], layer.array(layer.parameter))
        for name, layer in sparsifier.layers.items()
    }
