"""Training with the sparse CPU kernels: masked linear layers that skip what is not there."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError
from hwsim.kernels.cpu.tiled import PackedActivations, TiledMatrix
from sparse_train.masking.layers import MaskedLayer
from sparse_train.private_torch import current_dispatch_mode
from sparse_train.sparsify import Sparsifier

COMPUTE = ("dense", "sparse")
DENSEST = 0.4


class SparseCompute:
    """Lets the masked `nn.Linear` layers of a sparsified model compute with sparse kernels.

        compute = SparseCompute(sparsifier)
        ...                        # train as before; losses agree within rounding
        compute.remove()

    Forward and grad_input walk the active weights only. grad_weight is sampled at the active
    weights, except in steps in which the algorithm asks for dense gradients. Packed weights are
    renewed when the weight or its mask has changed. The parameters stay dense tensors: optimizer,
    state_dict and Sparsifier see no difference.

    A layer computes as before while its density is above `densest`, and for inputs that are not
    float32 on the CPU, or under autocast.

    Args:
        sparsifier: of a model on the CPU. Make the copies of a model before, not after.
        threads: of the kernels; None takes torch's number.
        densest: above this density dense BLAS is faster. Measured break-even at batches of 64 and
            more lies near 0.4.

    Attributes:
        layers: names of the layers that now use the kernels.
        skipped: masked layers that do not → why.

    Raises:
        InputError: values out of range, or layers that use the kernels already.
    """

    def __init__(
        self, sparsifier: Sparsifier, threads: int | None = None, densest: float = DENSEST
    ) -> None:
        if not isinstance(sparsifier, Sparsifier):
            kind = type(sparsifier).__name__
            raise InputError(f"sparsifier: type is {kind}; allowed is Sparsifier")
        check_number("densest", densest, above=0, most=1)
        threads = torch.get_num_threads() if threads is None else threads
        check_integer("threads", threads, 1)
        self._sparsifier = sparsifier
        self.skipped: dict[str, str] = {}
        self._engines: dict[str, _Engine] = {}
        self._shared: tuple[weakref.ref[Tensor], int, PackedActivations] | None = None
        for name, layer in sparsifier.layers.items():
            if reason := _unfit(layer):
                self.skipped[name] = reason
            elif "forward" in vars(layer.module):
                raise InputError(f"layer {name!r}: its forward is replaced already")
            else:
                self._engines[name] = _Engine(layer, self, threads, densest)
        for engine in self._engines.values():
            engine.layer.module.forward = engine

    @property
    def layers(self) -> tuple[str, ...]:
        """Those that sparse kernels compute."""
        return tuple(self._engines)

    def dense_layers(self) -> dict[str, str]:
        """Masked layers that compute dense under the present masks → why."""
        dense = dict(self.skipped)
        for name, engine in self._engines.items():
            density = float(engine.layer.mask_array().mean())
            if density > engine.densest:
                dense[name] = f"density {density:.2f} is above {engine.densest:g}"
        return dense

    def remove(self) -> None:
        """Give the layers their own forward back."""
        for engine in self._engines.values():
            del engine.layer.module.forward
        self._engines = {}

    def packed(self, x: Tensor, threads: int) -> PackedActivations:
        """An input (…, n_in) for the kernels; the last one is kept for as long as it lives."""
        if x.is_inference():  # counts no versions, so whether it has changed is unknown
            return _packed_rows(x, threads)
        if self._shared is not None:
            known, version, packed = self._shared
            if known() is x and version == x._version:
                return packed
        packed = _packed_rows(x, threads)
        self._shared = weakref.ref(x, self._forget), x._version, packed
        return packed

    def _forget(self, gone: weakref.ref[Tensor]) -> None:
        if self._shared is not None and self._shared[0] is gone:
            self._shared = None

    def dense_gradient_wanted(self) -> bool:
        """Whether the step now under way needs the gradient of inactive weights."""
        wanted = self._sparsifier.algorithm.gradient
        return wanted == "always" or (wanted == "update" and self._sparsifier.is_update_step())


@contextmanager
def sparse_compute(sparsifier: Sparsifier, **options: Any) -> Iterator[SparseCompute]:
    """`SparseCompute` for the length of a with-block."""
    compute = SparseCompute(sparsifier, **options)
    try:
        yield compute
    finally:
        compute.remove()


def _packed_rows(x: Tensor, threads: int) -> PackedActivations:
    rows = x.detach().reshape(-1, x.shape[-1])
    return PackedActivations.of(rows.contiguous().numpy(), threads)


def _observed() -> bool:
    """Whether a dispatch mode looks on: it must see the product that the kernels stand for.

    A workload is recorded that way; without this it would miss every layer that computes here.
    """
    return current_dispatch_mode() is not None


def _unfit(layer: MaskedLayer) -> str:
    """Why a layer cannot use the kernels; empty if it can."""
    module = layer.module
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return f"{type(module).__name__} is no plain Linear"
    if type(module) is not nn.Linear:
        # MultiheadAttention's out_proj is such a subclass: its weight is read, it is not called.
        return f"{type(module).__name__} is a subclass of Linear, which may be bypassed"
    parameter = layer.parameter
    if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
        return f"weight is {parameter.dtype} on {parameter.device}; allowed is float32 on the CPU"
    return ""


class _Engine:
    """The packed weight of one layer, renewed on demand; callable as the layer's forward."""

    def __init__(
        self, layer: MaskedLayer, compute: SparseCompute, threads: int, densest: float
    ) -> None:
        self.layer = layer
        self.compute = compute
        self.threads = threads
        self.densest = densest
        self._mask_stamp: tuple[int, int] | None = None
        self._sparse_enough = False

    def __call__(self, x: Tensor) -> Tensor:
        module: Any = self.layer.module
        weight, bias = module.weight, module.bias
        fits = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
        if not fits or torch.is_autocast_enabled("cpu") or _observed() or not self._renew():
            return functional.linear(x, weight, bias)
        flat = x.reshape(-1, x.shape[-1])
        packed = self.compute.packed(x, self.threads)
        y = _SparseLinear.apply(flat, weight, bias, self, packed)
        return y.view(*x.shape[:-1], -1)

    def _renew(self) -> bool:
        """Packs values and, if the mask has changed, structure; False if it is too dense for it.

        Values are packed every time: fused optimizers change them without a new version.
        """
        mask, weight = self.layer.mask, self.layer.parameter
        stamp = (id(mask), mask._version)
        if stamp != self._mask_stamp:
            array = self.layer.mask_array()
            self._sparse_enough = array.mean() <= self.densest
            if self._sparse_enough:
                self.matrix = TiledMatrix(array, False, self.threads)
                self.transposed = TiledMatrix(array, True, self.threads)
                self.order = self.transposed.order_in(self.matrix)
            self._mask_stamp = stamp
        if self._sparse_enough:
            self.matrix.repack(weight.detach().contiguous().numpy())
        return self._sparse_enough


class _SparseLinear(torch.autograd.Function):
    """y = x·Wᵀ + b with the kernels of `hwsim.kernels.cpu`; x (batch, n_in), and packed."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        engine: _Engine,
        packed: PackedActivations,
    ):
        y = torch.from_numpy(engine.matrix.multiply(packed).rows(engine.threads))
        if bias is not None:
            y += bias.detach()
        # The packed input is kept instead of the input: grad_weight needs it so.
        ctx.packed, ctx.engine = packed, engine
        ctx.matrix, ctx.transposed, ctx.order = engine.matrix, engine.transposed, engine.order
        ctx.save_for_backward(weight)
        ctx.x_rows = x if engine.compute.dense_gradient_wanted() else None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor):  # pyrefly: ignore[bad-override]
        (weight,) = ctx.saved_tensors
        threads = ctx.engine.threads
        dy = dy.contiguous()
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        dx = dw = db = None
        sampled = needs_weight and ctx.x_rows is None
        packed = PackedActivations.of(dy.numpy(), threads) if needs_x or sampled else None
        if needs_x:
            ctx.transposed.take(ctx.matrix, ctx.order)
            dx = torch.from_numpy(ctx.transposed.multiply(packed).rows(threads))
        if sampled:
            values = ctx.matrix.sampled_product(packed, ctx.packed)
            dw = torch.from_numpy(ctx.matrix.spread(values)).view_as(weight)
        elif needs_weight:
            dw = dy.t() @ ctx.x_rows
        if needs_bias:
            db = dy.sum(0)
        return dx, dw, db, None, None
