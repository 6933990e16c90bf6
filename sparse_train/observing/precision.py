"""Mixed precision as CUDA's autocast does it, observed on tensors that lie on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from sparse_train.private_torch import CPU_AUTOCAST, forget, has_cpu_autocast, without_autocast

# Operators that CUDA's autocast runs in float32 and the CPU's leaves as they come.
# Source: torch's page "Automatic Mixed Precision package", CUDA ops that autocast to float32.
_IN_FLOAT32 = (
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2",
    "reciprocal", "rsqrt", "sinh", "tan", "softplus", "layer_norm", "native_layer_norm",
    "group_norm", "cosine_similarity", "cosine_embedding_loss", "nll_loss", "nll_loss_nd",
    "nll_loss2d", "hinge_embedding_loss", "kl_div", "l1_loss", "smooth_l1_loss", "huber_loss",
    "mse_loss", "margin_ranking_loss", "soft_margin_loss", "triplet_margin_loss",
    "binary_cross_entropy_with_logits", "cumsum", "cumprod", "dist", "renorm", "logsumexp",
    "cross_entropy_loss", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "prod",
)  # fmt: skip


@contextlib.contextmanager
def autocast_as_on_cuda(dtype: torch.dtype | None = None) -> Iterator[None]:
    """Makes `torch.autocast("cuda")` act on what is observed, and turns it on where asked.

    Meanwhile autocast for "cuda" is autocast for "cpu" with CUDA's list of what stays in float32.

    Args:
        dtype: of the products, to run everything inside under autocast; None leaves that to the
            model.
    """
    library = torch.library.Library("aten", "IMPL")
    for name in _IN_FLOAT32:
        if not has_cpu_autocast(name):
            library.impl(name, _in_float32(name), CPU_AUTOCAST)
    plain = torch.amp.autocast_mode.autocast.__init__
    asked = torch.is_autocast_enabled

    def redirected(self: Any, device_type: str, dtype: Any = None, *rest: Any, **more: Any) -> None:
        if device_type == "cuda":
            dtype = torch.get_autocast_dtype("cuda") if dtype is None else dtype
            device_type = "cpu"
        plain(self, device_type, dtype, *rest, **more)

    def enabled(*device: str) -> bool:
        return asked("cpu") if device in ((), ("cuda",)) else asked(*device)

    torch.amp.autocast_mode.autocast.__init__ = redirected
    torch.is_autocast_enabled = enabled  # pyrefly: ignore
    try:
        turned_on = torch.autocast("cuda", dtype) if dtype else contextlib.nullcontext()
        with turned_on:
            yield
    finally:
        torch.is_autocast_enabled = asked
        torch.amp.autocast_mode.autocast.__init__ = plain
        forget(library)


def _in_float32(name: str) -> Callable[..., Any]:
    base, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, base), overload or "default")

    def cast(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16):
            return value.float()
        if isinstance(value, (list, tuple)):
            return type(value)(cast(v) for v in value)
        return value

    def run(*args: Any, **kwargs: Any) -> Any:
        with without_autocast():
            return operator(*cast(args), **{k: cast(v) for k, v in kwargs.items()})

    return run
