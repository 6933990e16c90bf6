"""A trained sparse model for use elsewhere: plain, or its weights in their packed form."""

from __future__ import annotations

import copy

import torch
from torch import nn

from hwsim.errors import InputError
from hwsim.patterns import Packed
from sparse_train.masking.persist import detach
from sparse_train.masking.steps import watchers
from sparse_train.sparsify import Sparsifier


def plain(sparsifier: Sparsifier) -> nn.Module:
    """A copy of the model without masks or hooks; inactive weights are zeros."""
    return strip(copy.deepcopy(sparsifier.model))


def strip(model: nn.Module) -> nn.Module:
    """Take the masks off a model that was copied or loaded; its inactive weights are zeros.

    Returns:
        The model itself.

    Raises:
        InputError: a Sparsifier still keeps the model; call its `remove()`.
    """
    kept = {id(layer.module) for watcher in watchers() for layer in watcher.layers.values()}
    for name, module in model.named_modules():
        for attribute, _ in list(module.named_parameters(recurse=False)):
            mask = module._buffers.get(f"{attribute}_mask")
            if mask is None or mask.dtype != torch.bool:
                continue
            if id(module) in kept:
                raise InputError(
                    f"model: a Sparsifier keeps {name!r} sparse; call its remove() instead, or "
                    "strip a copy"
                )
            delattr(module, f"{attribute}_mask")
            detach(module, attribute)
    return model


def condensed(sparsifier: Sparsifier) -> dict[str, Packed]:
    """Layer name → the weight packed by the sparsifier's pattern (CSR, condensed, BSR, …)."""
    definition = sparsifier.pattern.definition
    masks = sparsifier.masks()
    found = {}
    for layer in sparsifier.layers.values():
        array = layer.array(layer.parameter)
        for part, rows in layer.parts.items():
            found[part] = definition.pack(masks[part], array[rows])
    return found
