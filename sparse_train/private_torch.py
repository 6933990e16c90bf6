"""Every name of torch's that it does not document, and that nothing public stands for.

Torch may move them in any version: what breaks then breaks here. `make test-oldest` runs the
suite at the other end of the versions that are allowed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.modules.conv import _ConvNd as AnyConv
from torch.nn.modules.conv import _ConvTransposeNd as AnyTransposedConv
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode,
)

__all__ = [
    "CPU_AUTOCAST",
    "AnyConv",
    "AnyTransposedConv",
    "FakeTensor",
    "FakeTensorMode",
    "TorchDispatchMode",
    "current_autograd_node",
    "current_dispatch_mode",
    "flop_formulas",
    "forget",
    "fused_libraries",
    "has_cpu_autocast",
    "last_node_number",
    "number_of",
    "plain_attention",
    "pytree",
    "saves_by_hooks",
    "unseen",
    "without_autocast",
]

CPU_AUTOCAST = "AutocastCPU"
# The built-in function, whatever torch.nn.functional's name is bound to.
plain_attention: Callable[..., Any] = torch._C._nn.scaled_dot_product_attention


def current_autograd_node() -> Any:
    """The node whose backward pass is being run; None outside of any."""
    return torch._C._current_autograd_node()


def number_of(node: Any) -> int:
    """Of an autograd node, in the order in which the forward pass made them."""
    return node._sequence_nr()


def last_node_number() -> int:
    """Number of the node that the forward pass made last."""
    return torch.autograd._get_sequence_nr() - 1


def current_dispatch_mode() -> Any:
    """The innermost mode that sees operators; None without any."""
    return _get_current_dispatch_mode()


def saves_by_hooks() -> bool:
    """Whether hooks change what is saved for the backward pass, as checkpoints do."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Operators inside are seen by no mode."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def has_cpu_autocast(operator: str) -> bool:
    """Whether an operator of aten has a kernel for autocast on CPUs."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{operator}", CPU_AUTOCAST)


def forget(library: torch.library.Library) -> None:
    """Takes back what a library has registered."""
    library._destroy()


def without_autocast() -> contextlib.AbstractContextManager:
    """Operators inside run as they would without autocast on CPUs."""
    key = torch._C.DispatchKey.AutocastCPU
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key))


def fused_libraries() -> tuple[tuple[Callable[[bool], None], bool], ...]:
    """Switch and setting of oneDNN, of cuDNN and of the encoder's fast path."""
    return (
        (torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled()),
        (torch._C._set_cudnn_enabled, torch._C._get_cudnn_enabled()),
        (torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()),
    )


@functools.cache
def flop_formulas() -> dict[Any, Any]:
    """Operator → torch's formula for its FLOPs.

    A CUDA build without Triton (Windows has none) warns of Triton's own kernels, which are not
    asked for here.
    """
    logger = logging.getLogger("torch.utils.flop_counter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from torch.utils.flop_counter import flop_registry
    finally:
        logger.setLevel(level)
    return flop_registry
