"""Batches and outputs of any kind: the tensors in them, as arguments, and as a loss."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hwsim.errors import InputError

_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same value with every tensor replaced: in containers, dataclasses, graphs, objects."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, _PLAIN) or callable(value):
        return value
    if isinstance(value, tuple):
        parts = [map_tensors(function, item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [map_tensors(function, item) for item in value]
    if isinstance(value, dict):
        new = copy.copy(value)
        new.update({key: map_tensors(function, item) for key, item in value.items()})
        return new
    if hasattr(value, "apply") and hasattr(value, "clone"):  # torch_geometric's Data
        return value.clone().apply(function)
    if hasattr(value, "__dict__"):
        new = copy.copy(value)
        for name, item in vars(value).items():
            object.__setattr__(new, name, map_tensors(function, item))
        return new
    return value


def all_tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of a value, in order; of an object, those of its attributes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, _PLAIN) or callable(value):
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from all_tensors(item)
    elif isinstance(value, (tuple, list, set)):
        for item in value:
            yield from all_tensors(item)
    elif dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield from all_tensors(getattr(value, one.name))
    elif hasattr(value, "__dict__"):
        yield from all_tensors(vars(value))


def arguments(batch: Any) -> tuple[tuple, dict[str, Any]]:
    """Positional and keyword arguments of a model.

    A tuple (or list) is the positional ones, a mapping the keyword ones, ((…), {…}) both; anything
    else is one positional argument.

    Raises:
        InputError: a batch without a tensor.
    """
    if next(all_tensors(batch), None) is None:
        raise InputError(
            f"batch: type is {type(batch).__name__}, without a tensor; allowed is a tensor, a "
            "tuple, a dict, (tuple, dict), or an object that holds tensors"
        )
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2 and isinstance(batch[0], (tuple, list)) and _named(batch[1]):
            return tuple(batch[0]), dict(batch[1])
        return tuple(batch), {}
    return (batch,), {}


def _named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def scalar_of(output: Any, loss: Callable[[Any], Tensor] | None) -> Tensor:
    """What the backward pass starts from: the loss that is given or found, else a sum of outputs.

    Raises:
        InputError: no tensor with a gradient, or a loss of more than one element.
    """
    if loss is not None:
        found = loss(output)
    else:
        found = output.get("loss") if isinstance(output, Mapping) else None
        found = getattr(output, "loss", None) if found is None else found
    if found is None:
        parts = [t for t in all_tensors(output) if t.requires_grad]
        if not parts:
            raise InputError(
                f"model: output of type {type(output).__name__} has no tensor with a gradient; "
                "give loss"
            )
        if len(parts) == 1 and parts[0].numel() == 1:
            return parts[0]
        found = torch.stack([t.sum() for t in parts]).sum() if len(parts) > 1 else parts[0].sum()
    if not isinstance(found, Tensor) or found.numel() != 1:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"loss: is {given}; allowed is a tensor of one element")
    return found
