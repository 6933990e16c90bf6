"""The masks that a run starts with, and what an update shows and says of a view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hwsim.errors import InputError
from hwsim.mask import Mask
from sparse_train.algorithms import View
from sparse_train.masking._places import at
from sparse_train.masking.layers import MaskedLayer
from sparse_train.patterns import Projection
from sparse_train.selection.arrays import finite


def first_masks(
    first: str | Mapping[str, Any],
    layers: Mapping[str, MaskedLayer],
    budgets: Mapping[str, int],
    pattern: Projection,
    rng: np.random.Generator,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Part → bool (n_out, n_in): "random", by "magnitude", "dense", or as given.

    Arrays on the host, or tensors on a device.

    Raises:
        InputError: masks that are given for other layers, or of other shapes.
    """
    if not isinstance(first, str):
        return at(_given(first, layers), device)
    masks = {}
    for layer in layers.values():
        shape = layer.layout.matrix(layer.weight_shape)
        values: Any = None
        for part, rows in layer.parts.items():
            if first == "dense":
                masks[part] = at(np.ones(shape, dtype=bool), device)
                continue
            if first == "magnitude":
                if values is None:
                    values = (layer.array if device is None else layer.matrix)(layer.parameter)
                scores: Any = abs(values[rows])
            else:
                scores = at(rng.random(shape, dtype=np.float32), device)
            masks[part] = pattern.project(scores, budgets[part])
    return masks


def _given(given: Mapping[str, Any], layers: Mapping[str, MaskedLayer]) -> dict[str, np.ndarray]:
    parts = {part: layer for layer in layers.values() for part in layer.parts}
    if set(given) != set(parts):
        odd = sorted(set(given) ^ set(parts))[0]
        raise InputError(
            f"initial_masks: layer {odd!r} is in only one of masks and model; "
            f"allowed is one mask for each of {', '.join(parts)}"
        )
    masks = {}
    for name, layer in parts.items():
        mask = given[name] if isinstance(given[name], Mask) else Mask(given[name])
        shape = layer.layout.matrix(layer.weight_shape)
        if mask.shape != shape:
            raise InputError(
                f"initial_masks: shape of {name!r} is {mask.shape}; allowed is {shape}"
            )
        masks[name] = mask.array
    return masks


def not_finite(view: View) -> str:
    """Which array of a view has NaN or infinity; empty if none has."""
    for what, arrays in (("weight", view.weights), ("gradient", view.gradients or {})):
        for name, array in arrays.items():
            if not finite(array):
                return f"the {what} of layer {name!r} has NaN or infinity; allowed is finite"
    return ""
