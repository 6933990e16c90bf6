"""Random draws laid as the weights are, so that a trial in another order can be compared."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def placed(value: Tensor, shape: torch.Size) -> Tensor | None:
    """A view (..., *shape) of a state tensor with a place for each weight; None of any other.

    It may be flat, and may hold several for each weight along a first side.
    """
    if value.shape == shape:
        return value
    n = math.prod(shape)
    if value.ndim == 0 or n == 0 or value.numel() % n or not value.is_contiguous():
        return None
    if hasattr(value, "placements"):
        return None  # sharded: views of it are another matter
    squeezed = [side for side in value.shape if side != 1]
    wanted = [side for side in shape if side != 1]
    if value.shape[-len(shape) :] == shape or squeezed == wanted or value.shape == (n,):
        return value.view(-1, *shape)
    return None


def turned(values: Tensor, sides: int | None = None) -> Tensor:
    """The last `sides` sides (all by default) in reverse."""
    return values.flip(tuple(range(-(sides or values.ndim), 0)))


class TurnedDraws(TorchDispatchMode):
    """Within it, what is drawn for each weight of a shape is drawn in the weights' reverse order.

    A draw that hangs on values (torch.bernoulli) sees them in the order of before. Draws that have
    no place for each weight are left as they are.
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self._shape = shape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        drawn = func(*map(self._turn, args), **{k: self._turn(v) for k, v in kwargs.items()})
        if not func._schema.is_mutable:
            return tuple(map(self._turn, drawn)) if isinstance(drawn, tuple) else self._turn(drawn)
        target = kwargs.get("out", args[0] if args else None)
        if isinstance(target, Tensor) and isinstance(drawn, Tensor):
            target.copy_(self._turn(drawn))
            return target
        return drawn

    def _turn(self, value: Any) -> Any:
        view = placed(value, self._shape) if isinstance(value, Tensor) else None
        return value if view is None else turned(view, len(self._shape)).reshape(value.shape)
