"""A torch model and a batch → the Workload of one training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._pytree import tree_flatten, tree_map

from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.registry import unknown
from hwsim.workload import Op, Workload
from sparse_train._recorder import Recorder, dtype_name
from sparse_train.naming import layer_name, mask_shape

# Name → (times that a weight-sized array is moved, FLOPs a weight). AdamW reads weight, gradient
# and two moments and writes weight and moments. FLOPs are counted off the update's formula
# (torch's documentation of each optimizer), one per operation.
OPTIMIZERS = {"sgd": (3, 2), "sgd_momentum": (5, 4), "adam": (7, 12), "adamw": (7, 13)}


def workload(
    model: nn.Module,
    batch: Any,
    masks: Mapping[str, Mask] | None = None,
    *,
    optimizer: str | None = "adamw",
    loss: Callable[[Any], Tensor] | None = None,
    train: bool = True,
) -> Workload:
    """The training step of any torch model: forward, backward, optimizer.

    The model is run once on tensors without content, and every operation that reaches torch's
    dispatcher is noted with the layer it belongs to. What the model does is seen, not guessed, so
    reused modules, functional calls, tied weights and recomputation under checkpointing count as
    often as they happen. A model whose shapes depend on its values is run on real tensors.

    Args:
        model: not changed: its gradients, buffers, mode and random streams are as before.
        batch: a tensor, a tuple (the positional arguments) or a dict (the named ones).
        masks: layer → Mask; see `hwsim.Workload.with_masks`.
        optimizer: "adamw", "adam", "sgd", "sgd_momentum", or None for no update.
        loss: what the model returns → scalar. None takes the output itself if it is a scalar, its
            `loss`, or else the sum of its floating-point tensors.
        train: False gives the forward pass alone.

    Raises:
        InputError: unknown optimizer, no loss with a gradient, masks that do not fit.
    """
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise InputError(unknown("optimizer", optimizer, tuple(OPTIMIZERS)))
    if not isinstance(model, nn.Module):
        raise InputError(f"model: type is {type(model).__name__}; allowed is torch.nn.Module")
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            ops = _observe(model, batch, loss, train, _hollow)
    except (
        DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException
    ):  # fmt: skip
        ops = _observe(model, batch, loss, train, lambda t: t.detach().clone())
    if train and optimizer is not None:
        ops += _updates(model, optimizer)
    step = Workload(tuple(ops), type(model).__name__)
    return step.with_masks(masks) if masks else step


def _observe(
    model: nn.Module,
    batch: Any,
    loss: Callable[[Any], Tensor] | None,
    train: bool,
    copy: Callable[[Tensor], Tensor],
) -> list[Op]:
    """Runs the step on copies of parameters, buffers and batch, and returns what was seen."""
    names: dict[str, str] = {}
    copies: dict[str, Tensor] = {}
    known: dict[int, Tensor] = {}  # tied tensors stay tied
    recorder = Recorder(model)
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        if id(tensor) not in known:
            made = copy(tensor)
            if isinstance(tensor, nn.Parameter):
                made.requires_grad_(tensor.requires_grad and train)
                recorder.parameter(layer_name(name), made)
            known[id(tensor)] = made
            names[name] = name
        copies[name] = known[id(tensor)]
    inputs = tree_map(lambda x: copy(x) if isinstance(x, Tensor) else x, batch)
    args, kwargs = ((), inputs) if isinstance(inputs, Mapping) else (_as_tuple(inputs), {})
    with _untouched(model, train), torch.set_grad_enabled(train), recorder:
        output = torch.func.functional_call(model, copies, args, dict(kwargs), tie_weights=True)
        if train:
            scalar = _loss(output, loss)
            recorder.begin_backward()
            scalar.backward()
    return recorder.ops


def _hollow(tensor: Tensor) -> Tensor:
    """A tensor of the same shape on the CPU: without memory, under a FakeTensorMode."""
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")


@contextlib.contextmanager
def _untouched(model: nn.Module, train: bool) -> Iterator[None]:
    """The model in the wanted mode; its modes and the random streams as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(devices=[]):
        try:
            for module, _ in modes:
                module.training = train
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def _as_tuple(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def _loss(output: Any, loss: Callable[[Any], Tensor] | None) -> Tensor:
    if loss is not None:
        scalar = loss(output)
    elif isinstance(output, Tensor):
        scalar = output if output.ndim == 0 else output.sum()
    elif isinstance(getattr(output, "loss", None), Tensor):
        scalar = output.loss
    else:
        values = output.values() if isinstance(output, Mapping) else output
        tensors = [t for t in tree_flatten(values)[0] if isinstance(t, Tensor)]
        floating = [t.sum() for t in tensors if t.is_floating_point() and t.requires_grad]
        if not floating:
            raise InputError("loss: the model's output has no tensor with a gradient; give loss=")
        scalar = torch.stack(floating).sum()
    if not isinstance(scalar, Tensor) or scalar.ndim or not scalar.requires_grad:
        raise InputError(
            f"loss: {scalar!r:.60}; allowed is a scalar tensor that depends on a parameter"
        )
    return scalar


def _updates(model: nn.Module, optimizer: str) -> list[Op]:
    """One optimizer op per parameter that is trained."""
    passes, flops = OPTIMIZERS[optimizer]
    return [
        Op(
            "optimizer", "update", layer_name(name), dtype=dtype_name(p),
            dense_flops=flops * p.numel(),
            weight_bytes=passes * p.numel() * p.element_size(),
            weight_shape=mask_shape(tuple(p.shape)) if p.ndim >= 2 else (1, max(1, p.numel())),
        )
        for name, p in model.named_parameters()
        if p.requires_grad and p.numel()
    ]  # fmt: skip
