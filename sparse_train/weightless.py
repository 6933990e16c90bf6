"""Building a model without its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# In place and at random, of a tensor and of torch.nn.init: they change no shape.
_FILLS = frozenset(
    (
        "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_",
        "geometric_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_",
        "trunc_normal_", "orthogonal_",
    )
)  # fmt: skip


class _Unfilled(TorchFunctionMode):
    """Leaves tensors on "meta" as they are where they would be filled."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return func(*args, **kwargs)


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """What is built inside lies on the "meta" device: a model of any size takes no memory.

    Random fills are left out: without data they are nothing, and what torch does for them takes
    longer than all else.

    >>> with weightless():
    ...     layer = torch.nn.Linear(1 << 20, 1 << 20)
    >>> layer.weight.device.type
    'meta'
    """
    with torch.device("meta"), _Unfilled():
        yield
