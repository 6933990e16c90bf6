"""A sparsifier's state as tensors, numbers and strings, and whether a saved one fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import InputError
from sparse_train.masking.bits import placed_as, whole


def to_torch(value: Any) -> Any:
    """Arrays become tensors (copies), all the way down."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: to_torch(item) for key, item in value.items()}
    return value


def to_numpy(value: Any) -> Any:
    """Tensors become arrays (copies), all the way down."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, Mapping):
        return {key: to_numpy(item) for key, item in value.items()}
    return value


def copied(value: Any) -> Any:
    """Tensors are cloned, all the way down."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return {key: copied(item) for key, item in value.items()}


def packed(mask: Tensor) -> Tensor:
    """A mask as bits, eight to a byte."""
    return torch.from_numpy(np.packbits(whole(mask.detach()).cpu().numpy().reshape(-1)))


def unpacked(bits: Tensor, like: Tensor) -> Tensor:
    """The mask that was packed."""
    flat = np.unpackbits(bits.cpu().numpy(), count=like.numel()).astype(bool)
    return placed_as(torch.from_numpy(flat).view(like.shape), like)


def merged(old: Mapping[str, Any], new: dict[str, Any], awake: set[str]) -> dict[str, Any]:
    """An algorithm's new memory, with what the old one had of layers that it was not shown."""
    whole = dict(new)
    for key, value in old.items():
        if isinstance(value, Mapping) and isinstance(whole.get(key), Mapping):
            kept = {name: item for name, item in value.items() if name not in awake}
            whole[key] = {**kept, **whole[key]}
    return whole


def check(saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """An InputError unless `saved` is of the same format, algorithm and layers as `mine`."""
    if set(saved) != set(mine):
        odd = sorted(set(saved) ^ set(mine))
        raise InputError(f"sparsifier state: keys {odd} are missing or not known")
    for key in ("format", "algorithm", "layers", "pattern", "update_interval", "density"):
        if saved[key] != mine[key]:
            raise InputError(
                f"sparsifier state: {key} is {_short(saved[key], mine[key])}; allowed is "
                f"{_short(mine[key], saved[key])}"
            )


def _short(value: Any, other: Any) -> str:
    """A value for an error; of two mappings, the first entry in which they differ."""
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        for key in [*value, *other]:
            if value.get(key) != other.get(key):
                return f"{{{key!r}: {value.get(key)}}}"
    return repr(value)
