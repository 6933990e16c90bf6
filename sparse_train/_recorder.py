"""Sees the operations of a training step as torch dispatches them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from hwsim.workload import DTYPE_BYTES, Op
from sparse_train.naming import mask_shape

# Torch's name of a dtype where ours differs or where there is no arithmetic of its own.
_DTYPES = {"float8_e4m3fn": "float8", "float8_e5m2": "float8", "uint8": "int8"}
_NO_WORK = {
    "_unsafe_view", "_reshape_alias", "lift_fresh", "empty", "empty_like", "empty_strided",
    "new_empty", "new_empty_strided", "set_", "resize_", "sym_size", "is_same_size", "arange",
    "scalar_tensor", "_local_scalar_dense", "record_stream", "rand_like_state",
}  # fmt: skip
_MOVES = {
    "clone", "copy_", "_to_copy", "cat", "stack", "fill_", "zero_", "zeros", "zeros_like", "ones",
    "ones_like", "full", "full_like", "new_zeros", "new_full", "gather", "scatter", "index",
    "index_select", "index_put_", "select_backward", "slice_backward", "constant_pad_nd",
    "embedding", "masked_fill", "roll", "flip",
}  # fmt: skip
# Substring of an operation's name → (kind, FLOPs per element): arithmetic of the formula, each
# exp, tanh, erf or root counted as one. Assumed: no hardware counts them alike.
_KINDS = (
    ("embedding", "embedding", 0),
    ("layer_norm", "norm", 8),
    ("batch_norm", "norm", 8),
    ("group_norm", "norm", 8),
    ("rms_norm", "norm", 5),
    ("softmax", "softmax", 5),
    ("nll_loss", "loss", 1),
    ("mse_loss", "loss", 3),
    ("cross_entropy", "loss", 5),
    ("smooth_l1_loss", "loss", 4),
    ("gelu", "elementwise", 8),
    ("silu", "elementwise", 5),
    ("dropout", "elementwise", 2),
    ("addcmul", "elementwise", 3),
)


@dataclass(frozen=True)
class _Seen:
    """A forward operation, found again by its autograd node when the node runs backward."""

    module: str
    layer: str | None = None
    m: int = 0
    n: int = 0
    k: int = 0
    count: int = 1
    weight_shape: tuple[int, int] | None = None


class Recorder(TorchDispatchMode):
    """Collects `ops` while it is active.

    A product belongs to the layer whose parameter is its operand. In the backward pass the running
    autograd node tells which forward operation is being differentiated: autograd numbers its nodes
    as it creates them, just before the forward operation is dispatched. A product in it that has
    the parameter as operand is grad_input; the other one is grad_weight.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self._paths = {id(module): name for name, module in model.named_modules()}
        self._stack: list[str] = [""]
        self._parameters: dict[int, tuple[str, Tensor]] = {}  # storage → layer, and kept alive
        self._seen: dict[int, _Seen] = {}
        self._backward = False
        self._handles: list[Any] = []

    def parameter(self, layer: str, tensor: Tensor) -> None:
        """What is computed with this tensor belongs to `layer`."""
        self._parameters[_storage(tensor)] = (layer, tensor)

    def begin_backward(self) -> None:
        self._backward = True

    def __enter__(self) -> Recorder:
        hooks = nn.modules.module
        self._handles = [
            hooks.register_module_forward_pre_hook(self._enter_module),
            hooks.register_module_forward_hook(self._leave_module, always_call=True),
        ]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*error)

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        self._stack.append(self._paths.get(id(module), self._stack[-1]))

    def _leave_module(self, module: nn.Module, *_: Any) -> None:
        if len(self._stack) > 1:
            self._stack.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "aten":
            self._note(func, args, out)
        return out

    def _note(self, func: Any, args: tuple, out: Any) -> None:
        name = func._schema.name.removeprefix("aten::")
        if func.is_view or name in _NO_WORK:
            return
        # Recomputation under checkpointing runs with gradients enabled: it is a forward pass.
        if self._backward and not torch.is_grad_enabled():
            node = torch._C._current_autograd_node()
            seen = self._seen.get(node._sequence_nr()) if node is not None else None
            self.ops += self._differentiated(name, args, out, seen)
            return
        seen = _Seen(self._stack[-1])
        if name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv"):
            op, seen = self._product(name, args, out, "forward")
            self.ops.append(op)
        elif name in ("convolution", "_convolution"):
            seen = self._convolution_seen(args, out)
            self.ops.append(self._convolution(seen, "forward", args[0], args[1], (out,)))
        elif "_scaled_dot_product" in name:
            self.ops.append(_attention(self._stack[-1], "forward", args, out, products=2))
        else:
            if name == "_to_copy" and _storage(args[0]) in self._parameters:
                self.parameter(self._parameters[_storage(args[0])][0], out)  # a cast weight
            self.ops.append(_other(name, self._stack[-1], "forward", args, out))
        if torch.is_grad_enabled():
            self._seen[torch.autograd._get_sequence_nr() - 1] = seen

    def _differentiated(self, name: str, args: tuple, out: Any, seen: _Seen | None) -> Iterator[Op]:
        where = seen.module if seen else ""
        if name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv"):
            yield self._product(name, args, out, "grad_input", seen)[0]
        elif name == "convolution_backward":
            seen = self._convolution_seen((args[1], args[2], *args[3:-1]), args[0])
            into_input, into_weight = args[-1][:2]
            if into_input:
                yield self._convolution(seen, "grad_input", args[0], args[2], (out[0],))
            if into_weight:
                yield self._convolution(seen, "grad_weight", args[0], args[2], (args[1],))
        elif "_scaled_dot_product" in name:
            # The scores are computed again, then one product for each of dV, dP, dQ and dK.
            yield _attention(where, "grad_input", args[1:], out, products=5)
        else:
            yield _other(name, where, "grad_input", args, out)

    def _product(
        self, name: str, args: tuple, out: Tensor, phase: str, seen: _Seen | None = None
    ) -> tuple[Op, _Seen]:
        """A matrix product A·B: with a parameter it is a layer's, without it is attention's."""
        a, b = args[1:3] if name.startswith(("add", "badd")) else args[:2]
        of_a, of_b = (self._parameters.get(_storage(t)) for t in (a, b))
        count = a.shape[0] if a.ndim == 3 else 1
        p, q = a.shape[-2:]
        r = b.shape[-1] if b.ndim > 1 else 1
        flops = 2 * count * p * q * r
        size = out.element_size()
        owner = of_b or of_a
        if seen is not None and seen.layer is not None:
            # Differentiating a layer's product: the weight is an operand, or it is the result.
            phase = "grad_input" if owner is not None else "grad_weight"
            weight = seen.weight_shape
            m, n, k, count = seen.m, seen.n, seen.k, seen.count
            layer: str | None = seen.layer
        elif owner is not None:
            layer, parameter = owner
            weight = mask_shape(tuple(parameter.shape)) if parameter.ndim >= 2 else None
            m, n, k = (p, r, q) if of_b is not None else (r, p, q)
        else:
            layer, weight, (m, n, k) = None, None, (p, r, q)
        if layer is None:
            module = seen.module if seen else self._stack[-1]
            activations = (a.numel() + b.numel() + out.numel()) * size
            op = Op(
                "attention", phase, module, m, n, k, count, dtype_name(out),
                dense_flops=flops, activation_bytes=activations,
            )  # fmt: skip
            return op, _Seen(module)
        moved = (a.numel() + b.numel() + out.numel()) * size
        weight_bytes = count * n * k * size
        op = Op(
            "gemm", phase, layer, m, n, k, count, dtype_name(out),
            dense_flops=flops,
            activation_bytes=moved - weight_bytes,
            weight_bytes=weight_bytes,
            weight_shape=weight,
        )  # fmt: skip
        return op, _Seen(self._stack[-1], layer, m, n, k, count, weight)

    def _convolution_seen(self, args: tuple, out: Tensor) -> _Seen:
        """Sizes of a convolution as a product: every output position meets every weight once."""
        x, weight, transposed, groups = args[0], args[1], args[6], args[8]
        owner = self._parameters.get(_storage(weight))
        positions = x if transposed else out
        m = x.shape[0] * math.prod(positions.shape[2:])
        rows, columns = mask_shape(tuple(weight.shape))
        return _Seen(
            self._stack[-1], owner[0] if owner else self._stack[-1], m, rows // groups, columns,
            groups, (rows, columns) if owner else None,
        )  # fmt: skip

    def _convolution(
        self, seen: _Seen, phase: str, first: Tensor, weight: Tensor, others: tuple[Tensor, ...]
    ) -> Op:
        size = weight.element_size()
        moved = first.numel() + sum(t.numel() for t in others)
        return Op(
            "conv", phase, seen.layer or "", seen.m, seen.n, seen.k, seen.count,
            dtype_name(weight),
            dense_flops=2 * seen.m * weight.numel(),
            activation_bytes=moved * size,
            weight_bytes=weight.numel() * size,
            weight_shape=seen.weight_shape,
        )  # fmt: skip


def _attention(module: str, phase: str, args: tuple, out: Any, products: int) -> Op:
    """Fused attention over q (…, queries, d) and k, v (…, keys, d)."""
    q, k, v = args[:3]
    count = math.prod(q.shape[:-2])
    queries, depth = q.shape[-2:]
    keys, value_depth = k.shape[-2], v.shape[-1]
    over_depth = products // 2 + products % 2  # products with the scores' depth; the rest: v's
    flops = 2 * count * queries * keys * (
        over_depth * depth + (products - over_depth) * value_depth
    )  # fmt: skip
    return Op(
        "attention", phase, module, queries, keys, depth, count, dtype_name(q),
        dense_flops=flops,
        activation_bytes=_moved(args) + _moved(out),
    )  # fmt: skip


def _other(name: str, module: str, phase: str, args: tuple, out: Any) -> Op:
    """Everything that is no product: priced by its bytes, mostly."""
    kind, per_element = next(
        ((kind, flops) for part, kind, flops in _KINDS if part in name), ("elementwise", 1)
    )
    if name in _MOVES:
        per_element = 0
    tensors = [t for t in tree_flatten((args, out))[0] if isinstance(t, Tensor)]
    elements = max((t.numel() for t in tensors), default=0)
    return Op(
        kind, phase, f"{module}:{name}" if module else name,
        dtype=next((dtype_name(t) for t in tensors if t.is_floating_point()), "float32"),
        dense_flops=per_element * elements,
        activation_bytes=_moved(args) + _moved(out),
    )  # fmt: skip


def _moved(values: Any) -> int:
    """Bytes of all tensors; of an expanded one only what is stored."""
    return sum(
        min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
        for t in tree_flatten(values)[0]
        if isinstance(t, Tensor)
    )


def _storage(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata if isinstance(tensor, Tensor) else 0


def dtype_name(tensor: Tensor) -> str:
    """The tensor's dtype as hwsim calls it."""
    name = str(tensor.dtype).removeprefix("torch.")
    name = _DTYPES.get(name, name)
    return name if name in DTYPE_BYTES else "float32"
