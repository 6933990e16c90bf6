"""The training step of any torch model as a Workload."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from hwsim.errors import InputError, unknown
from hwsim.mask import Mask
from hwsim.workload import Op, Workload
from sparse_train.masking.kinds import Layout, weights_of
from sparse_train.naming import layer_name, mask_shape
from sparse_train.observing.attention import attention_in_one
from sparse_train.observing.attention_found import attention_found
from sparse_train.observing.dispatch import Observer
from sparse_train.observing.dropout import DropoutInOne
from sparse_train.observing.flex import flex_in_one
from sparse_train.observing.fusion import fused, laid_out
from sparse_train.observing.masks import by_layer, rows_of
from sparse_train.observing.operators import dtype_name, tensors_in
from sparse_train.observing.optimizers import OPTIMIZERS, Optimizer, update_ops
from sparse_train.observing.precision import autocast_as_on_cuda
from sparse_train.observing.recurrent import RecurrentInOne
from sparse_train.observing.refusals import observable
from sparse_train.observing.repeats import NotRepeated, counted
from sparse_train.observing.rms_norm import RmsNormInOne
from sparse_train.observing.values import arguments, map_tensors, scalar_of
from sparse_train.observing.weights import Weights
from sparse_train.private_torch import FakeTensorMode, fused_libraries

MACHINES = ("gpu", "cpu")
AMP = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}
_KEPT_INTEGERS = 1 << 20  # integer buffers up to this size keep their values when observed


@dataclass(frozen=True)
class Memory:
    """What training a model keeps, apart from activations."""

    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int


def workload(
    model: nn.Module,
    batch: Any,
    masks: Mapping[str, Mask] | None = None,
    optimizer: str | None = "adamw",
    loss: Callable[[Any], Tensor] | None = None,
    dtype: torch.dtype | str | None = None,
    train: bool = True,
    *,
    real: bool = False,
    compiled: bool = False,
    machine: str = "gpu",
) -> Workload:
    """One training step of `model` on `batch`: forward, backward and the optimizer's update.

    The step is run once under a dispatch mode on tensors without data (a model of any size, also
    on the "meta" device, takes no memory); if the model looks at values of floating tensors, it
    is run on real ones. The model, its gradients, buffers, training flags and the random streams
    are left as they were.

    Products have the FLOPs that torch counts; attention's fused backward pass counts the scores
    that it computes again. Other operators count a constant per element and the traffic of each
    operator run by itself. A layer is called by its parameter (`sparse_train.naming`); a product
    with a block of rows of a parameter is layer `name[start:stop]`. In every phase (n, k) is the
    parameter as it is stored, so that masks fit, also for transposed convolutions.

    Args:
        model: any module.
        batch: a tensor, a tuple of positional arguments, a dict of keyword arguments, (tuple,
            dict) for both, or any object that holds tensors, as the one argument.
        masks: layer → Mask; layers that are not named are dense. A mask of a whole parameter is
            cut up where the model uses blocks of its rows. Layers that the step does not reach
            cost nothing, and are listed as `unmasked`.
        optimizer: "sgd", "sgd_momentum", "adam", "adamw", in one fused kernel; "adamw-foreach" and
            its like are torch's default on CUDA, "adamw-unfused" a kernel for each operation and
            parameter; None for no update.
        loss: from the model's output to a scalar. Without it: `output.loss`, `output["loss"]`, a
            scalar output, else the sum of all outputs.
        dtype: observe the model and its floating inputs in this type (torch.dtype or its name).
            "amp-bf16" and "amp-fp16" are mixed precision as CUDA's autocast does it: weights,
            gradients and moments stay as they are, products run in 16 bit, casts are ops.
            "tfloat32" is float32 whose products run on tensor cores.
        train: False for the forward pass alone, in evaluation mode.
        real: True runs on real tensors at once.
        compiled: fuse elementwise operators, norms and softmaxes with their neighbours in the
            graph, as a compiler does; else every operator is a kernel of its own.
        machine: "gpu" has attention and dropout in one kernel each, whatever runs this; "cpu" has
            them as torch's CPU build runs them.

    Raises:
        InputError: a model, batch, mask, optimizer, dtype or loss that cannot be used.
    """
    _check(model, optimizer)
    if machine not in MACHINES:
        raise InputError(unknown("machine", machine, MACHINES))
    model = observable(model)
    as_tf32 = dtype == "tfloat32"
    kind, amp = (None, AMP[dtype]) if dtype in AMP else (_torch_dtype(dtype), None)
    on_meta = any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    if real and on_meta:
        raise InputError("real: value is True, model is on 'meta'; allowed is a model with values")
    see = partial(_observe, model, batch, loss, kind, amp, train, machine)
    try:
        try:
            counting = not real and not compiled
            seen = see(fake=not real, count=counting)
        except NotRepeated:
            seen = see(fake=True)
    except InputError:
        raise
    except Exception as error:
        if real:
            raise
        if on_meta:
            line = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"model: {type(model).__name__} on 'meta' cannot be observed ({line[0]}); "
                "allowed is a model with values"
            ) from error
        seen = see(fake=False)
        real = True
    ops = laid_out(fused(*attention_found(seen.ops, seen.passed))) if compiled else seen.ops
    if as_tf32:
        ops = [_in_tf32(op) for op in ops]
    if train and optimizer is not None:
        ops = ops + _updates(model, OPTIMIZERS[optimizer], kind, ops)
    states = training_memory(model, optimizer).optimizer_bytes if train else 0
    step = Workload(
        tuple(ops), type(model).__name__, unknown=seen.unknown,
        peak_bytes=seen.living.peak_bytes + states, on_values=real,
    )  # fmt: skip
    if masks is None:
        return step
    found, unmasked = by_layer(masks, step, model)
    return replace(step.with_masks(found), unmasked=unmasked)


def _in_tf32(op: Op) -> Op:
    """A float32 product on tensor cores."""
    products = op.kind in ("gemm", "conv", "attention") and op.dtype == "float32"
    return replace(op, dtype="tfloat32") if products else op


def training_memory(model: nn.Module, optimizer: str | None = "adamw") -> Memory:
    """Bytes of parameters, of the gradients of those trained, and of the optimizer's state."""
    _check(model, optimizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    rule = OPTIMIZERS[optimizer] if optimizer is not None else Optimizer(0, 0, ())
    return Memory(
        sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients,
        sum(p.numel() * rule.held_bytes(p.element_size()) for p in trained)
        + rule.scalar_bytes * len(trained),
    )


def _observe(
    model: nn.Module, batch: Any, loss: Any, dtype: torch.dtype | None,
    amp: torch.dtype | None, train: bool, machine: str, *, fake: bool, count: bool = False,
) -> Observer:  # fmt: skip
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else None
    weights = Weights()
    layouts = {weight.name: weight.layout for weight in weights_of(model)}
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise InputError(f"model: {name} has no shape yet; run one batch through it first")
        stand_in = _stand_in(parameter, mode, dtype)
        state[name] = stand_in
        weights.add(name, stand_in, layouts.get(name))
        if not parameter.is_meta and fake:
            # Modules that keep their weights elsewhere too (nn.LSTM) may use the original.
            weights.add(name, parameter, layouts.get(name))
    for name, buffer in model.named_buffers():
        state[name] = _stand_in(buffer, mode, dtype, buffer=True)
    args, kwargs = arguments(map_tensors(lambda t: _stand_in(t, mode, dtype), batch))
    observer = Observer(weights, mode)
    observer.living.add([*state.values(), *tensors_in((args, kwargs))])
    with _left_as_it_was(model), _paths(model, observer), _not_on_meta(), _eager():
        model.train(train)
        repeats = (
            counted(model, observer) if mode is not None and count else contextlib.nullcontext()
        )
        gpu = machine == "gpu"
        attention = _attention(observer) if gpu else contextlib.nullcontext()
        dropout = DropoutInOne() if gpu else contextlib.nullcontext()
        norms = RmsNormInOne(observer) if gpu else contextlib.nullcontext()
        recurrent = RecurrentInOne(observer) if gpu else contextlib.nullcontext()
        with torch.set_grad_enabled(train), observer, attention, repeats:
            with autocast_as_on_cuda(amp), dropout, norms, recurrent:
                output = functional_call(model, state, args, kwargs)
                scalar = scalar_of(output, loss) if train else None
            if scalar is not None:
                if not scalar.requires_grad:
                    raise InputError(
                        "loss: depends on no parameter that is trained; allowed is one that does"
                    )
                scalar.backward()
    return observer


def _stand_in(
    tensor: Tensor, mode: FakeTensorMode | None, dtype: torch.dtype | None, buffer: bool = False
) -> Tensor:
    """A leaf of the same shape: without data, or with it for integers and real observation."""
    floating = tensor.is_floating_point() or tensor.is_complex()
    kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    small = not tensor.is_meta and (not buffer or tensor.numel() <= _KEPT_INTEGERS)
    if mode is None or (not floating and small):
        held = tensor.detach().to(kind)
        held = held.clone() if buffer or not floating else held
    else:
        device = "cpu" if tensor.is_meta else tensor.device
        with mode:
            held = torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device=device)
    return held.requires_grad_(tensor.requires_grad) if floating else held


def _updates(
    model: nn.Module, rule: Optimizer, dtype: torch.dtype | None, ops: list[Op]
) -> list[Op]:
    """Of each trained parameter, or of each block of its rows where the model uses blocks."""
    shapes = {op.name: op.weight_shape for op in ops if op.weight_shape is not None}
    found: list[Op] = []
    layouts = {weight.name: weight.layout for weight in weights_of(model)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or parameter.numel() == 0:
            continue
        kind = dtype if dtype is not None and parameter.is_floating_point() else parameter.dtype
        layer = layer_name(name)
        matrices = _matrices(tuple(parameter.shape), layouts.get(name))
        blocks = next((b for m in matrices if (b := _blocks(layer, m, shapes))), [])
        for label, shape in blocks or ((layer, None),):
            numel = shape[0] * shape[1] if shape else parameter.numel()
            found += update_ops(rule, label, numel, shape, dtype_name(kind))
    return found


def _matrices(shape: tuple[int, ...], layout: Layout | None) -> list[tuple[int, int]]:
    """(n_out, n_in) of a parameter: as its products have it, and as it is stored."""
    if len(shape) < 2:
        return []
    if layout is None:
        return [mask_shape(shape)]
    n_out, n_in = layout.matrix(shape)
    return [(layout.groups * n_out, n_in), mask_shape(shape)]


def _blocks(
    layer: str, matrix: tuple[int, int], shapes: Mapping[str, tuple[int, int]]
) -> list[tuple[str, tuple[int, int]]]:
    """The layers that make up a parameter: itself, or disjoint blocks that cover it; else none."""
    if shapes.get(layer) == matrix:
        return [(layer, matrix)]
    parts = sorted((rows_of(name)[1], name) for name in shapes if rows_of(name)[0] == layer)
    ends = [stop for (_, stop), _ in parts]
    starts = [start for (start, _), _ in parts]
    if parts and starts == [0, *ends[:-1]] and ends[-1] == matrix[0]:
        return [(name, shapes[name]) for _, name in parts]
    return []


def _check(model: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model: type is {type(model).__name__}; allowed is torch.nn.Module")
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise InputError(unknown("optimizer", optimizer, tuple(OPTIMIZERS)))


def _torch_dtype(given: torch.dtype | str | None) -> torch.dtype | None:
    names = ("float64", "float32", "bfloat16", "float16")
    if given is None:
        return None
    name = str(given).removeprefix("torch.")
    if name == "tfloat32":
        return torch.float32
    if name not in names:
        raise InputError(unknown("dtype", name, (*names, "tfloat32", *AMP)))
    return getattr(torch, name)


@contextlib.contextmanager
def _attention(observer: Observer) -> Iterator[None]:
    with attention_in_one(observer), flex_in_one(observer):
        yield


def _not_on_meta() -> contextlib.AbstractContextManager:
    """Under `with torch.device("meta")`, tensors that the model makes itself go to the CPU."""
    on_meta = torch.get_default_device().type == "meta"
    return torch.device("cpu") if on_meta else contextlib.nullcontext()


def _eager() -> contextlib.AbstractContextManager:
    """Parts of a model that are compiled run as they were written.

    Where nothing has imported the compiler yet, nothing is compiled: it is kept from being.
    """
    if "torch._dynamo" in sys.modules:
        return torch.compiler.set_stance("force_eager")
    return _uncompiled()


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    kept = torch.compile

    def as_written(model: Any = None, **_: Any) -> Any:
        return model if model is not None else (lambda function: function)

    torch.compile = as_written  # pyrefly: ignore
    try:
        yield
    finally:
        torch.compile = kept


@contextlib.contextmanager
def _paths(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Keeps observer.path at the modules that are being computed, outermost first."""
    names = {id(m): name or type(m).__name__ for name, m in model.named_modules()}

    def enter(module: nn.Module, *_: Any) -> None:
        if id(module) in names:
            observer.path.append(names[id(module)])

    def leave(module: nn.Module, *_: Any) -> None:
        if id(module) in names and observer.path:
            observer.path.pop()

    handles = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Restores gradients, training flags, random streams and torch's switches.

    Fused paths that hide their products (oneDNN and cuDNN recurrent layers, the encoder's fast
    path) are switched off meanwhile.
    """
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters]
    flags = [(m, m.training) for m in model.modules()]
    streams = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    switches = fused_libraries()
    try:
        for parameter in parameters:
            parameter.grad = None
        for switch, _ in switches:
            switch(False)
        yield
    finally:
        for switch, setting in switches:
            switch(setting)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for module, training in flags:
            module.training = training
        random.setstate(streams[0])
        np.random.set_state(streams[1])  # noqa: NPY002
        torch.set_rng_state(streams[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state_all(on_gpu)
