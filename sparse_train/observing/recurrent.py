"""Recurrent layers as cuDNN runs them, whatever the machine that traces would make of them.

Source: Appleyard, Kočiský and Blunsom 2016, "Optimizing Performance of Recurrent Neural Networks on
GPUs" (cuDNN 5): one product for the inputs of all steps, then for each step a product with the
state before and one fused kernel for the rest; both gradients of weights are one product each.
That layers overlap is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hwsim.workload import Op
from sparse_train.observing.operators import dtype_name
from sparse_train.private_torch import unseen

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
# Of an element of a gate: an exponential or tanh, and what joins the gates.
_FLOPS_A_GATE = 3


class _Layer(NamedTuple):
    """One layer in one direction."""

    inputs: int
    state: int
    input_weight: Tensor
    state_weight: Tensor


class RecurrentInOne(TorchFunctionMode):
    """`torch.lstm`, `gru`, `rnn_tanh` and `rnn_relu` on padded batches: each a few ops a step.

    Packed sequences and projections are left to the operators they are made of.
    """

    def __init__(self, observer: Any) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name not in _GATES or func is not getattr(torch, name) or kwargs or len(args) != 9:
            return func(*args, **(kwargs or {}))
        x, state, weights, biases, layers, dropout, train, both_ways, batch_first = args
        states = state if isinstance(state, (tuple, list)) else (state,)
        each = 4 if biases else 2
        found = [
            _Layer(weights[i].shape[1], weights[i + 1].shape[1], weights[i], weights[i + 1])
            for i in range(0, len(weights), each)
        ]
        projected = len(found) != layers * (1 + both_ways)
        if projected or x.ndim != 3 or x.numel() == 0:
            return func(*args)
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            x, states = x.to(kind), tuple(s.to(kind) for s in states)
        options = (biases, layers, dropout, train, both_ways, batch_first)
        run = _Run(self._observer, func, name, options, found, len(states))
        return _Recurrent.apply(run, x, *states, *weights)  # pyrefly: ignore


class _Run(NamedTuple):
    """One call: who writes it down, and what it is."""

    observer: Any
    plain: Callable
    name: str
    options: tuple
    layers: list[_Layer]
    states: int

    def of(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The results on tensors with data."""
        x, states, weights = given[0], given[1 : 1 + self.states], given[1 + self.states :]
        state = states if self.name == "lstm" else states[0]
        return self.plain(x, state, list(weights), *self.options)

    def write(
        self, phase: str, given: tuple[Tensor, ...], here: str, written: list[Tensor]
    ) -> None:
        """All ops of a pass; a first state that learns nothing is given no gradient."""
        x = given[0]
        learnt = any(s.requires_grad for s in given[1 : 1 + self.states])
        batch_first, both_ways = self.options[5], self.options[4]
        steps, batch = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
        kind, size = dtype_name(x.dtype), x.element_size()
        ops: list[Op] = []

        def product(of: str, weight: Tensor, rows: int, times: int = 1) -> None:
            n, k = weight.shape
            use = self.observer.weight_of(weight)
            name, shape = (use.layer, use.shape) if use is not None else (here, None)
            ops.extend([Op(
                "gemm", of, name, rows, n, k, 1, kind, 2 * rows * n * k, rows * (n + k) * size,
                n * k * size, shape,
            )] * times)  # fmt: skip

        def joined(of: str, layer: _Layer) -> None:
            gates = batch * layer.state * _GATES[self.name]
            # Both products' results are read, gates kept for the way back; a few states beside.
            moved = (3 * gates + 4 * batch * layer.state) * size
            ops.extend([Op(
                "elementwise", of, here, dtype=kind, dense_flops=_FLOPS_A_GATE * gates,
                activation_bytes=moved, fused=True,
            )] * steps)  # fmt: skip

        rows = steps * batch
        for index, layer in enumerate(self.layers):
            if phase == "forward":
                product("forward", layer.input_weight, rows)
                product("forward", layer.state_weight, batch, steps)
                joined("forward", layer)
                continue
            joined("grad_input", layer)
            product("grad_input", layer.state_weight, batch, steps if learnt else steps - 1)
            if index >= 1 + both_ways or x.requires_grad:
                product("grad_input", layer.input_weight, rows)
            product("grad_weight", layer.input_weight, rows)
            product("grad_weight", layer.state_weight, rows)
        for i, op in enumerate(ops):
            self.observer.write(op, [x], written if i == len(ops) - 1 else [])


class _Recurrent(torch.autograd.Function):
    """Writes itself down with the observer; computes only where tensors have data."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *given: Tensor) -> Any:
        ctx.save_for_backward(*given)
        ctx.known = run, run.observer.here
        x = given[0]
        with unseen():
            if run.observer.fake is None:
                out = run.of(given)
            else:
                wide = sum(w.state for w in run.layers[: 1 + run.options[4]])
                with run.observer.fake:
                    out = (x.new_empty((*x.shape[:2], wide)),
                           *(torch.empty_like(s) for s in given[1 : 1 + run.states]))  # fmt: skip
        run.write("forward", given, run.observer.here, list(out))
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyrefly: ignore
        run, here = ctx.known
        given = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        with unseen():
            if run.observer.fake is None:
                with torch.enable_grad():
                    again = tuple(t.detach().requires_grad_(w)
                                  for t, w in zip(given, wanted, strict=True))  # fmt: skip
                    asked = [t for t, w in zip(again, wanted, strict=True) if w]
                    found = torch.autograd.grad(run.of(again), asked, grads, allow_unused=True)
            else:
                with run.observer.fake:
                    found = [torch.empty(t.shape, dtype=t.dtype, device=t.device)
                             for t, w in zip(given, wanted, strict=True) if w]  # fmt: skip
        run.write("grad_input", given, here, [g for g in found if g is not None])
        left = iter(found)
        return (None, *(next(left) if w else None for w in wanted))
