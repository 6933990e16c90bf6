"""Attention as one operation, whatever the machine that traces would make of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hwsim.workload import Op
from sparse_train.observing.operators import dtype_name, stored_bytes
from sparse_train.private_torch import plain_attention, unseen

# Source: torch 2.13, sdp_utils: fused kernels want (batch, heads, length, size), size at most this.
_WIDEST = 256


@contextlib.contextmanager
def attention_in_one(observer: Any) -> Iterator[None]:
    """Scaled dot-product attention becomes one op forward and one backward, with its mask's share.

    A device with a fused kernel runs it so with dropout, with a bias, and in any precision. What
    causality leaves out is not computed: flash kernels skip whole tiles.
    """
    plain = F.scaled_dot_product_attention
    if plain is not plain_attention:
        yield  # somebody's own: it is what would run
        return

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if query.ndim not in (3, 4) or query.shape[-1] > _WIDEST or not _fused_allowed():
            # No fused kernel takes these: it is computed by products and a softmax.
            return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            query, key, value = (t.to(kind) for t in (query, key, value))
        options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
        options["enable_gqa"] = enable_gqa
        return _Attention.apply(observer, plain, options, query, key, value, attn_mask)

    class Direct(TorchFunctionMode):
        """For those who hold the function itself, imported by name."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
        ) -> Any:
            if func is plain:
                return attention(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    F.scaled_dot_product_attention = attention
    try:
        with Direct():
            yield
    finally:
        F.scaled_dot_product_attention = plain


def in_one(observer: Any, options: dict, *given: Tensor) -> Tensor:
    """Attention on tensors without data, written down as one op."""
    return _Attention.apply(observer, plain_attention, options, *given, None)


def pairs_of(queries: int, keys: int, causal: bool) -> int:
    """Query and key pairs that attention looks at: those not after the query, where causal.

    >>> pairs_of(4, 4, True), pairs_of(2, 8, True), pairs_of(3, 5, False)
    (10, 3, 15)
    """
    if not causal:
        return queries * keys
    full = max(queries - keys, 0)
    rows = queries - full
    return rows * (rows + 1) // 2 + full * keys


def _fused_allowed() -> bool:
    """Whether the user left any fused kernel on (`torch.nn.attention.sdpa_kernel`)."""
    allowed = torch.backends.cuda
    return allowed.flash_sdp_enabled() or allowed.mem_efficient_sdp_enabled()


class _Attention(torch.autograd.Function):
    """Writes itself down with the observer; computes only where tensors have data."""

    @staticmethod
    def forward(
        ctx: Any, observer: Any, plain: Callable, options: dict, *given: Tensor | None
    ) -> Tensor:
        query, key, value, bias = given
        assert query is not None and key is not None and value is not None
        ctx.save_for_backward(*given)
        ctx.known = observer, plain, options, observer.here
        with unseen():
            if observer.fake is None:
                out = plain(query, key, value, bias, **options)
            else:
                with observer.fake:
                    *batch, heads, length = query.shape[:-1]
                    out = torch.empty(
                        (*batch, length, heads, value.shape[-1]), dtype=query.dtype,
                        device=query.device,
                    ).transpose(-3, -2)  # fmt: skip
        moved = [t for t in given if t is not None]
        _write(observer, "forward", ctx.known[3], options, given, moved, [out])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyrefly: ignore
        given = ctx.saved_tensors
        observer, plain, options, here = ctx.known
        with unseen():
            if observer.fake is None:
                with torch.enable_grad():
                    again = [t.detach().requires_grad_(t.is_floating_point())
                             if t is not None else None for t in given]  # fmt: skip
                    out = plain(*again, **options)
                    asked = [t for t in again if t is not None and t.requires_grad]
                    found = iter(torch.autograd.grad(out, asked, grad))
                grads = [next(found) if t is not None and t.requires_grad else None for t in again]
            else:
                with observer.fake:
                    grads = [
                        torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device)
                        if t is not None and ctx.needs_input_grad[3 + i] else None
                        for i, t in enumerate(given)
                    ]  # fmt: skip
        read = [t for t in (*given, grad) if t is not None]
        written = [g for g in grads if g is not None]
        # The result of the forward pass is read too; it is as large as its gradient.
        _write(observer, "grad_input", here, options, given, [*read, grad], written)
        wanted = ctx.needs_input_grad[3:]
        return (None, None, None, *(g if w else None for g, w in zip(grads, wanted, strict=True)))


def _write(
    observer: Any, phase: str, here: str, options: dict, given: tuple, read: list[Tensor],
    written: list[Tensor],
) -> None:  # fmt: skip
    query, key, value, _ = given
    if 0 in query.shape or 0 in key.shape:
        return
    count = prod(query.shape[:-2])
    queries, keys = query.shape[-2], key.shape[-2]
    looked_at = options.get("pairs") or pairs_of(queries, keys, options["is_causal"])
    pairs = int(2 * count * looked_at)
    d_score, d_value = query.shape[-1], value.shape[-1]
    each = d_score + d_value if phase == "forward" else 3 * d_score + 2 * d_value
    op = Op(
        "attention", phase, here, queries, keys, d_score, count, dtype_name(query.dtype),
        dense_flops=pairs * each,
        activation_bytes=sum(map(stored_bytes, (*read, *written))),
        fused=True,
    )  # fmt: skip
    observer.write(op, read, written)
