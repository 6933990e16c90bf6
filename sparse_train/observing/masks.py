"""Masks as a model has them, by the layers that a step's products have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hwsim.errors import InputError, unknown
from hwsim.mask import Mask
from hwsim.masks.statistical import StatisticalMask
from hwsim.workload import Workload
from sparse_train.naming import layer_name

if TYPE_CHECKING:
    from torch import nn

    from sparse_train.masking.kinds import Weight


def rows_of(name: str) -> tuple[str, tuple[int, int]]:
    """("attn.in_proj_weight", (0, 64)) of "attn.in_proj_weight[0:64]"."""
    found = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", name)
    return (found[1], (int(found[2]), int(found[3]))) if found else ("", (0, 0))


def by_layer(
    masks: Mapping[str, Mask], step: Workload, model: nn.Module
) -> tuple[dict[str, Mask], tuple[str, ...]]:
    """Masks by the layers of the step, and the layers whose mask acts on nothing in it.

    One of a whole parameter is cut into the blocks that are used; those of experts are stacked; one
    of a transposed convolution is turned, since its price is that of its weight as stored.

    Raises:
        InputError: a name that is no parameter's, or a mask of another shape.
    """
    from sparse_train.masking.kinds import weights_of

    layers = step.layers
    known = {layer_name(weight.name): weight for weight in weights_of(model)}
    found: dict[str, Mask] = {}
    unmasked: list[str] = []
    for name, mask in _stacked(masks, known).items():
        blocks = [label for label in layers if rows_of(label)[0] == name]
        if name in layers:
            turned = layers[name] != mask.shape and layers[name] == mask.shape[::-1]
            found[name] = Mask(mask.array.T) if turned and _turned(known.get(name)) else mask
        elif blocks:
            found |= _cut(name, mask, blocks, layers)
        elif name in known:
            unmasked.append(name)
        else:
            raise InputError(unknown("layer", name, sorted({*layers, *known})))
    return found, tuple(unmasked)


def _stacked(masks: Mapping[str, Mask], known: Mapping[str, Weight]) -> dict[str, Mask]:
    """Masks of experts, `name[expert]`, on top of each other under their layer's name."""
    found: dict[str, Mask] = {}
    experts: dict[str, dict[int, Mask]] = {}
    for name, mask in masks.items():
        if not isinstance(mask, Mask):
            raise InputError(
                f"mask of {name!r}: type is {type(mask).__name__}; allowed is hwsim.Mask"
            )
        part = re.fullmatch(r"(.*)\[(\d+)\]", name)
        if part is None or part[1] not in known:
            found[name] = mask
        else:
            experts.setdefault(part[1], {})[int(part[2])] = mask
    for name, parts in experts.items():
        layout = known[name].layout
        groups = 1 if layout is None else layout.groups
        if sorted(parts) != list(range(groups)):
            raise InputError(
                f"mask of {name!r}: experts are {sorted(parts)}; allowed is one for each of "
                f"{groups}"
            )
        found[name] = Mask(np.concatenate([parts[g].array for g in range(groups)]))
    return found


def as_used(masks: Mapping[str, Mask], layers: Mapping[str, tuple[int, int]]) -> dict[str, Mask]:
    """Masks of experts, `name[expert]`, by how a step's products hold them: all in one, or rows.

    What a step has neither way is left out.
    """
    found: dict[str, Mask] = {}
    experts: dict[str, list[Mask]] = {}
    for name, mask in masks.items():
        part = re.fullmatch(r"(.*)\[(\d+)\]", name)
        if name in layers or part is None:
            found[name] = mask
        elif part[1] in layers:
            experts.setdefault(part[1], []).append(mask)
        else:
            start = int(part[2]) * mask.shape[0]
            block = f"{part[1]}[{start}:{start + mask.shape[0]}]"
            if block in layers:
                found[block] = mask
    made: dict[tuple[int, ...], Mask] = {}  # equal layers of a giant share their masks
    for name, parts in experts.items():
        alike = tuple(map(id, parts))
        if alike not in made:
            made[alike] = _on_top(parts)
        found[name] = made[alike]
    return found


def _on_top(parts: list[Mask]) -> Mask:
    """Masks of one width on top of each other; known by their statistics where the first is."""
    first = parts[0]
    if isinstance(first, StatisticalMask):
        rows = sum(part.shape[0] for part in parts)
        share = sum(part.density * part.size for part in parts) / sum(p.size for p in parts)
        return StatisticalMask((rows, first.shape[1]), share, first.kind)
    return Mask(np.concatenate([part.array for part in parts]))


def _turned(weight: Weight | None) -> bool:
    return weight is not None and weight.layout is not None and weight.layout.transposed


def _cut(
    name: str, mask: Mask, blocks: list[str], layers: Mapping[str, tuple[int, int]]
) -> dict[str, Mask]:
    n_out, n_in = max(rows_of(b)[1][1] for b in blocks), layers[blocks[0]][1]
    if mask.shape[1] != n_in or mask.shape[0] < n_out:
        raise InputError(
            f"mask of {name!r}: shape is {mask.shape}; allowed is (n, k) = {(n_out, n_in)}"
        )
    cut = {}
    for block in blocks:
        start, stop = rows_of(block)[1]
        cut[block] = Mask(mask.array[start:stop])
    return cut
