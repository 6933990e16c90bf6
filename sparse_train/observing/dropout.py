"""Dropout as one kernel, as CUDA runs it, whatever the machine that traces would make of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DropoutInOne(TorchFunctionMode):
    """Dropout reads its input and writes its result and a mask of one byte an element.

    A CPU draws a floating mask, scales it and multiplies, in three passes.
    Source: torch 2.13, Dropout.cpp: on CUDA, dropout that trains is `native_dropout`.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is F.dropout or func is torch.dropout:
            return _dropped(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _dropped(
    plain: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False,
    *, train: bool | None = None,
) -> Tensor:  # fmt: skip
    """`torch.dropout` calls `train` what `F.dropout` calls `training`."""
    on = training if train is None else train
    if inplace or not on or not 0.0 < p < 1.0 or input.numel() == 0:
        return plain(input, p, on, inplace) if plain is F.dropout else plain(input, p, on)
    return torch.native_dropout(input, p, True)[0]
