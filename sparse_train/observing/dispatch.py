"""A dispatch mode that writes down what a training step computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from hwsim.workload import PRODUCTS, Op
from sparse_train.observing.living import Living
from sparse_train.observing.operators import (
    ATTENTION,
    ATTENTION_BACKWARD,
    CONVOLUTIONS,
    FREE,
    MATMULS,
    ROWS,
    WEIGHT_COPIES,
    attention_flops,
    convolution_sizes,
    dtype_name,
    element_flops,
    formula_of,
    kind_of,
    matrix_sizes,
    operator_name,
    rows_of,
    serial_of,
    statistics_bytes,
    storage_of,
    stored_bytes,
    tensors_in,
    traffic_bytes,
    understood,
)
from sparse_train.observing.passed import Passed
from sparse_train.observing.products import ForwardProduct, differentiated, grouped
from sparse_train.observing.weights import Weights, WeightUse
from sparse_train.private_torch import (
    FakeTensor,
    FakeTensorMode,
    TorchDispatchMode,
    current_autograd_node,
    last_node_number,
    number_of,
)

_LAST: Mapping[int, torch.memory_format] = {
    4: torch.channels_last, 5: torch.channels_last_3d,
}  # fmt: skip
OUTSIDE = "loss"  # the name of what is computed outside the model
_PRODUCTS = {*MATMULS, *CONVOLUTIONS, *ATTENTION}
GRADIENTS = "gradients"  # of the backward pass: adding up what several uses of a tensor give


class MixedWrite(RuntimeError):
    """A real tensor would be written from one without data: the step needs real tensors."""


class Observer(TorchDispatchMode):
    """Collects an Op for every operator of a step.

    A backward operator is tied to its forward operator by the autograd node it runs in: nodes are
    numbered, and the number is known while the forward operator is dispatched.

    Args:
        weights: the parameters, to tell operands that are weights.
        fake: the mode that computes shapes without data; None for real tensors. It is not
            entered: integers (token ids, labels, positions) stay real, so that shapes which
            depend on them are known; floating tensors are made by it.
    """

    def __init__(self, weights: Weights, fake: FakeTensorMode | None) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.passed: list[Passed] = []
        self.unknown: dict[str, int] = {}
        self.fake = fake
        self.living = Living()
        self._values: dict[int, int] = {}
        self._next = 0
        self._call: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.path: list[str] = []
        self._weights = weights
        self._fake = fake
        self._products: dict[int, ForwardProduct] = {}
        self._unclaimed: list[ForwardProduct] = []
        self._names: dict[int, str] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing in here is compiled, and to say so the whole compiler would be imported."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = self._run(func, args, kwargs)
        name = operator_name(func)
        read, written = tensors_in((args, kwargs)), tensors_in(out)
        node = current_autograd_node()
        # A checkpoint computes the forward pass again inside a node, with gradients enabled.
        backward = node is not None and not torch.is_grad_enabled()
        number = None if backward or func.namespace == "prim" else self._number_of(read)
        self.living.add(written)
        if name in FREE or func.is_view or not written:
            return out
        before = len(self.ops)
        self._func = func
        if name in WEIGHT_COPIES and read:
            self._weights.add_copy(read[0], written[0])
        if not backward and kind_of(name) in ("elementwise", "norm") and name not in _PRODUCTS:
            self._weights.add_images(read, written)
        if backward:
            self._backward(name, args, read, written, number_of(node))
        else:
            self._forward(name, args, read, written, number)
        self._pass_on(before, read, written, understood(func, name, kind_of(name)), args, kwargs)
        return out

    @property
    def here(self) -> str:
        """The module that is being computed."""
        return self._here()

    def weight_of(self, tensor: Tensor) -> WeightUse | None:
        """The parameter that a tensor is."""
        return self._weights.whole(tensor)

    def write(self, op: Op, read: list[Tensor], written: list[Tensor]) -> None:
        """An op that was found by other means than an operator being dispatched."""
        before = len(self.ops)
        self.ops.append(op)
        self.living.add(written)
        self._pass_on(before, read, written, True, (), {})

    def _pass_on(
        self, before: int, read: list[Tensor], written: list[Tensor], known: bool,
        args: tuple, kwargs: dict,
    ) -> None:  # fmt: skip
        """Notes what the ops since `before` read and wrote, and what was not understood."""
        new = len(self.ops) - before
        if not new:
            # What is not priced still hands its values on under the names of its results.
            self._rename(written)
            return
        values = {}
        for t in read:
            at = storage_of(t)
            if at not in self._values:
                self._values[at] = self._fresh()
            values[self._values[at]] = max(values.get(self._values[at], 0), stored_bytes(t))
        results = self._rename(written)
        fusable = known
        product = self.ops[before].kind in PRODUCTS
        if not known and not product:
            self._not_understood(before, args, kwargs, written)
        name = operator_name(self._func) if args else ""
        extra = statistics_bytes(name, args, read) if args else 0
        for i in range(new):
            last = i == new - 1
            if i and self.ops[before + i].kind == "elementwise":
                # A pass over the result of what came before it: a convolution's bias.
                self.passed.append(Passed(dict(results), dict(results), True))
            else:
                self.passed.append(Passed(dict(values), dict(results) if last or product else {},
                                          fusable and not product, extra, name))  # fmt: skip

    def _rename(self, written: list[Tensor]) -> dict[int, int]:
        found = {}
        for t in written:
            value = self._values[storage_of(t)] = self._fresh()
            found[value] = stored_bytes(t)
        return found

    def _fresh(self) -> int:
        self._next += 1
        return self._next

    def _not_understood(self, at: int, args: tuple, kwargs: dict, written: list[Tensor]) -> None:
        """By a registered formula if there is one; else one operation an element, and said so."""
        func, op = self._func, self.ops[at]
        formula = formula_of(func)
        if formula is None:
            name = func._schema.name
            self.unknown[name] = self.unknown.get(name, 0) + op.activation_bytes
            return
        out = written[0] if len(written) == 1 else tuple(written)
        self.ops[at] = replace(op, dense_flops=int(formula(args, kwargs, out)))

    def _number_of(self, read: list[Tensor]) -> int | None:
        """The autograd node of the forward operator being dispatched, if it has one."""
        if not torch.is_grad_enabled() or not any(t.requires_grad for t in read):
            return None
        number = last_node_number()
        self._names[number] = self._here()
        return number

    def _run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if self._fake is None:
            return func(*args, **kwargs)
        given = tensors_in((args, kwargs))
        fakes = any(isinstance(t, FakeTensor) for t in given)
        if not given:
            out = func(*args, **kwargs) if func._schema.name == "aten::arange" else None
            if out is None or out.is_floating_point():
                with self._fake:
                    out = func(*args, **kwargs)
            return out
        if not fakes:
            return func(*args, **kwargs)
        if func._schema.is_mutable:
            for position, argument in enumerate(func._schema.arguments):
                value = args[position] if position < len(args) else kwargs.get(argument.name)
                if argument.is_write and any(
                    not isinstance(t, FakeTensor) for t in tensors_in(value)
                ):
                    raise MixedWrite(f"{func._schema.name} writes to a tensor with data")
        if operator_name(func) in ("index", "index_put", "index_put_", "_unsafe_index"):
            args = (args[0], _as_positions(args[1]), *args[2:])
        return func(*args, **kwargs)

    # Names: what belongs to no weight is called by the module it is computed in.

    def _here(self) -> str:
        return self.path[-1] if self.path else OUTSIDE

    def _forward(
        self, name: str, args: tuple, read: list[Tensor], written: list[Tensor], number: int | None
    ) -> None:
        if name in MATMULS:
            left, right = (args[i] for i in MATMULS[name])
            product = self._matmul(name, left, right, written[0])
            if product is None:
                return
            self.ops.append(product.op)
            self._unclaimed.append(product)
            if number is not None:
                self._products[number] = product
        elif name in CONVOLUTIONS:
            convolution = self._convolution(
                "forward", args[0], args[1], written[0], args[6], args[8]
            )
            self.ops += convolution
            if convolution and args[2] is not None:
                self.ops.append(self._bias(written[0]))
        elif name in ATTENTION:
            self._attention("forward", self._here(), args[:3], read, written)
        else:
            self._other(name, "forward", self._here(), args, read, written)

    def _backward(
        self, name: str, args: tuple, read: list[Tensor], written: list[Tensor], number: int
    ) -> None:
        here = self._names.get(number, GRADIENTS)
        if name in MATMULS:
            left, right = (args[i] for i in MATMULS[name])
            self._matmul_backward(name, here, left, right, written[0], number)
        elif name == "convolution_backward":
            grad, x, weight, transposed, groups, wanted = *args[:3], args[7], args[9], args[10]
            for phase, asked in zip(("grad_input", "grad_weight"), wanted, strict=False):
                if asked:
                    self.ops += self._convolution(phase, x, weight, grad, transposed, groups, here)
        elif name in ATTENTION_BACKWARD:
            self._attention("grad_input", here, args[1:4], read, written)
        else:
            # Sums in the backward pass are gradients of what was broadcast: biases.
            of_weight = name in ("sum", "embedding_dense_backward", "_embedding_bag_dense_backward")
            phase = "grad_weight" if of_weight else "grad_input"
            self._other(name, phase, here, args, read, written)

    def _matmul(self, name: str, left: Tensor, right: Tensor, out: Tensor) -> ForwardProduct | None:
        batch, rows, inner, columns = sizes = matrix_sizes(left, right)
        if 0 in sizes:
            return None
        if name == "_grouped_mm" and (experts := self._weights.experts(right)) is not None:
            op = grouped(experts.layer, experts.shape, right.shape[0], rows, out)
            return ForwardProduct(op, storage_of(left), storage_of(right), sizes, "right")
        use, side = self._weights.find(right), "right"
        if use is None:
            use, side = self._weights.find(left), "left"
        dtype, bytes_each = dtype_name(out.dtype), out.element_size()
        common = {"dtype": dtype, "dense_flops": 2 * batch * rows * inner * columns}
        if use is None or use.shape is None:
            weight = 0 if use is None else stored_bytes(right if side == "right" else left)
            path = self._here()
            op = Op(
                "attention" if batch > 1 and use is None else "gemm", "forward",
                use.layer if use else f"{path}:{name}", rows, columns, inner, batch, **common,
                activation_bytes=stored_bytes(left) + stored_bytes(right) + stored_bytes(out)
                - weight,
                weight_bytes=weight,
            )  # fmt: skip
            side = "" if use is None else side
        else:
            # One weight for the whole batch is one product with more rows.
            m = batch * (rows if side == "right" else columns)
            n, k = use.shape
            op = Op(
                "gemm", "forward", use.layer, m, n, k, 1, **common,
                activation_bytes=m * (n + k) * bytes_each,
                weight_bytes=n * k * bytes_each,
                weight_shape=use.shape,
            )  # fmt: skip
        return ForwardProduct(op, storage_of(left), storage_of(right), sizes, side)

    def _matmul_backward(
        self, name: str, here: str, left: Tensor, right: Tensor, out: Tensor, number: int
    ) -> None:
        product = self._products.get(number) or self._orphan(left, right, out)
        if product is None:
            forward = self._matmul(name, left, right, out)
            if forward is not None:
                label = forward.op.name if forward.weight else f"{here}:{name}"
                self.ops.append(replace(forward.op, phase="grad_input", name=label))
            return
        operand = differentiated(product, left, right, out)
        phase = "grad_weight" if product.weight and operand == product.weight else "grad_input"
        self.ops.append(replace(product.op, phase=phase))

    def _orphan(self, left: Tensor, right: Tensor, out: Tensor) -> ForwardProduct | None:
        """The forward product of a backward product inside a user's autograd.Function."""
        sizes = sorted(matrix_sizes(left, right))
        touched = {storage_of(left), storage_of(right)}
        same = [p for p in reversed(self._unclaimed) if p.weight and sorted(p.sizes) == sizes]
        return next((p for p in same if touched & {p.left, p.right}), None)

    def _convolution(
        self, phase: str, x: Tensor, weight: Tensor, y: Tensor, transposed: bool, groups: int,
        here: str = "",
    ) -> list[Op]:  # fmt: skip
        if 0 in (x.numel(), y.numel(), weight.numel()):
            return []
        m, n, k = convolution_sizes(x, weight, y, transposed, groups)
        use = self._weights.whole(weight) or WeightUse(here or self._here(), 0, 0, None)
        weight_bytes = stored_bytes(weight)
        last = x.ndim > 3 and x.is_contiguous(memory_format=_LAST[x.ndim])
        last = (last and not x.is_contiguous()) or (last and y.is_contiguous(
            memory_format=_LAST[x.ndim]
        ) and not y.is_contiguous())  # fmt: skip
        return [
            Op(
                "conv", phase, use.layer, m, n, k, groups, dtype_name(y.dtype),
                dense_flops=2 * m * n * k * groups,
                activation_bytes=stored_bytes(x) + stored_bytes(y),
                weight_bytes=weight_bytes,
                weight_shape=use.shape,
                window=prod(weight.shape[2:]),
                layout="channels_last" if last else "contiguous",
            )
        ]  # fmt: skip

    def _bias(self, y: Tensor) -> Op:
        """A library's convolution adds no bias: that is a pass of its own over the result."""
        moved = 2 * stored_bytes(y)
        return Op("elementwise", "forward", self._here(), dtype=dtype_name(y.dtype),
                  dense_flops=y.numel(), activation_bytes=moved)  # fmt: skip

    def _attention(
        self, phase: str, name: str, qkv: tuple, read: list[Tensor], written: list[Tensor]
    ) -> None:
        query, key, value = qkv
        count = query.shape[0] * query.shape[1]
        if 0 in query.shape or 0 in key.shape:
            return
        self.ops.append(
            Op(
                "attention", phase, name, query.shape[-2], key.shape[-2], query.shape[-1], count,
                dtype_name(query.dtype),
                dense_flops=attention_flops(query, key, value, backward=phase != "forward"),
                activation_bytes=traffic_bytes("attention", read, written),
                fused=True,
            )
        )  # fmt: skip

    def _other(
        self, name: str, phase: str, here: str, args: tuple, read: list[Tensor],
        written: list[Tensor],
    ) -> None:  # fmt: skip
        kind = kind_of(name)
        if here == OUTSIDE and kind == "elementwise":
            kind = "loss"
        traffic = traffic_bytes(name, read, written)
        again = statistics_bytes(name, args, read)
        if traffic:
            sized = rows_of(name, args, read) if kind in ROWS else serial_of(name, written)
            self.ops.append(
                Op(
                    kind, phase, here, *sized, dtype=dtype_name(written[0].dtype),
                    dense_flops=element_flops(name, kind, read, written),
                    activation_bytes=traffic + again,
                )
            )  # fmt: skip


def _as_positions(indices: Any) -> list[Any]:
    """Boolean indices with data as positions: then the shape of the result is known."""
    found: list[Any] = []
    for index in indices:
        known = isinstance(index, Tensor) and not isinstance(index, FakeTensor)
        if known and index.dtype in (torch.bool, torch.uint8):
            found += list(index.nonzero(as_tuple=True))
        else:
            found.append(index)
    return found
