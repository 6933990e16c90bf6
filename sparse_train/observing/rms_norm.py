"""RMS norm as one kernel, as CUDA runs it, whatever the machine that traces would make of it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hwsim.workload import Op
from sparse_train.observing.operators import dtype_name, stored_bytes
from sparse_train.private_torch import unseen

_FLOPS, _STATISTIC_BYTES = 5, 4  # of an element; of a row, whose root is kept in float32


class RmsNormInOne(TorchFunctionMode):
    """An RMS norm is one op forward and one backward where tensor and weight are of one type.

    A CPU computes squares, means and roots one by one.
    Source: torch 2.13, layer_norm.cpp: on CUDA `rms_norm` is `_fused_rms_norm`, unless types mix.
    """

    def __init__(self, observer: Any) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is F.rms_norm or func is torch.rms_norm:
            return self._normed(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _normed(
        self, plain: Callable, input: Tensor, normalized_shape: Any, weight: Tensor | None = None,
        eps: float | None = None,
    ) -> Tensor:  # fmt: skip
        shape = tuple(normalized_shape)
        mixed = weight is not None and weight.dtype != input.dtype
        if mixed or input.numel() == 0 or input.shape[-len(shape) :] != shape:
            return plain(input, normalized_shape, weight, eps)
        return _RmsNorm.apply(self._observer, plain, (shape, eps), input, weight)  # pyrefly: ignore


class _RmsNorm(torch.autograd.Function):
    """Writes itself down with the observer; computes only where tensors have data."""

    @staticmethod
    def forward(
        ctx: Any, observer: Any, plain: Callable, options: tuple, x: Tensor, weight: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.known = observer, plain, options, observer.here
        with unseen():
            if observer.fake is None:
                out = plain(x, options[0], weight, options[1])
            else:
                with observer.fake:
                    out = torch.empty_like(x)
        read = [t for t in (x, weight) if t is not None]
        _write(observer, "forward", observer.here, options[0], read, [out])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyrefly: ignore
        x, weight = ctx.saved_tensors
        observer, plain, options, here = ctx.known
        given = [t for t in (x, weight) if t is not None]
        asked = [t for t, w in zip((x, weight), ctx.needs_input_grad[3:], strict=True) if w]
        with unseen():
            if observer.fake is None:
                with torch.enable_grad():
                    again = [t.detach().requires_grad_() for t in given]
                    out = plain(again[0], options[0], *again[1:], eps=options[1])
                    every = torch.autograd.grad(out, again, grad)
                found = {id(t): g for t, g in zip(given, every, strict=True)}
            else:
                with observer.fake:
                    found = {id(t): torch.empty_like(t) for t in asked}
        grads = [found[id(t)] for t in asked]
        _write(observer, "grad_input", here, options[0], [*given, grad], grads)
        of = {id(t): g for t, g in zip(asked, grads, strict=True)}
        return (None, None, None, of.get(id(x)), None if weight is None else of.get(id(weight)))


def _write(
    observer: Any, phase: str, here: str, shape: tuple[int, ...], read: list[Tensor],
    written: list[Tensor],
) -> None:  # fmt: skip
    width, x = prod(shape), read[0]
    rows = x.numel() // width
    op = Op(
        "norm", phase, here, rows, width, dtype=dtype_name(x.dtype),
        dense_flops=_FLOPS * x.numel(),
        activation_bytes=sum(map(stored_bytes, (*read, *written))) + _STATISTIC_BYTES * rows,
    )  # fmt: skip
    observer.write(op, read, written)
