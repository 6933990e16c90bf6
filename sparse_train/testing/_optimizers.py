"""Laws of what optimizers remember of weights that are not trained, for every known one."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from sparse_train.testing._training import Maker, check_state, small_model

OTHERS = "pytorch_optimizer"


def known_optimizers(others: bool = True) -> dict[str, Callable[..., Any]]:
    """Name → class, of torch's optimizers, and of pytorch_optimizer's where that is installed.

    The latter's names are written `pytorch_optimizer.soap`.
    """
    found: dict[str, Callable[..., Any]] = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    if others and importlib.util.find_spec(OTHERS) is not None:
        listed = importlib.import_module(f"{OTHERS}.optimizer").OPTIMIZERS
        found |= {f"{OTHERS}.{name}": kind for name, kind in sorted(listed.items())}
    return found


def check_optimizers(
    make: Maker, kinds: Mapping[str, Callable[..., Any]] | None = None, *, steps: int = 10
) -> dict[str, str]:
    """The state of inactive and of grown weights is a new parameter's, optimizer by optimizer.

    Args:
        make: model, optimizers → Sparsifier.
        kinds: name → class; all of `known_optimizers` by default.

    Returns:
        Name → "clean", the line by which it is refused, or "not run: " and why it cannot be.

    Raises:
        AssertionError: a weight that is not trained has another state.
    """
    kinds = known_optimizers() if kinds is None else kinds
    return {name: _verdict(make, kind, steps) for name, kind in kinds.items()}


def _verdict(make: Maker, kind: Callable[..., Any], steps: int) -> str:
    errors: list[Exception] = []
    for build in (_of_all, _of_matrices, _by_groups, _of_model):
        for call in (_plain, _closure, _with_graph):
            try:
                _train(make, build(kind), call, steps)
            except InputError as error:
                return str(error)
            except AssertionError as error:
                if type(error) is not AssertionError or not str(error).startswith("layer "):
                    errors.append(error)  # of the optimizer's own
                    continue
                raise
            except Exception as error:  # it wants to be made or called otherwise
                errors.append(error)
                continue
            return "clean"
    return f"not run: {type(errors[0]).__name__}: {errors[0]}"


def _train(make: Maker, made: tuple[nn.Module, list[Optimizer]], call: Any, steps: int) -> None:
    model, optimizers = made
    sparsifier = make(model, optimizers)  # type: ignore[arg-type]
    for step in range(steps):
        before = {name: layer.mask.clone() for name, layer in sparsifier.layers.items()}
        call(model, optimizers, step)
        sparsifier.step()
        for name, layer in sparsifier.layers.items():
            trained = sparsifier.trained_mask(name)
            stray = layer.parameter.detach()[~layer.mask]
            assert not stray.any(), f"layer {name!r}: an inactive weight is {stray[stray != 0][0]}"
            grown = layer.mask & ~before[name] & trained
            off = ~trained if sparsifier.algorithm.dense_weights else ~trained | grown
            for optimizer in optimizers:
                if layer.parameter in optimizer.state:
                    check_state(optimizer, layer.parameter, off, name)


# How an optimizer is made: of all parameters, of matrices alone, of groups of both, of the model.


def _of_all(kind: Callable[..., Any]) -> tuple[nn.Module, list[Optimizer]]:
    model = small_model()
    return model, [kind(model.parameters())]


def _of_matrices(kind: Callable[..., Any]) -> tuple[nn.Module, list[Optimizer]]:
    model = small_model()
    matrices, others = _apart(model.parameters())
    return model, [kind(matrices), torch.optim.SGD(others, lr=0.01)]


def _by_groups(kind: Callable[..., Any]) -> tuple[nn.Module, list[Optimizer]]:
    model = small_model()
    matrices, others = _apart(model.parameters())
    groups = [{"params": matrices, "use_muon": True}, {"params": others, "use_muon": False}]
    return model, [kind(groups)]


def _of_model(kind: Callable[..., Any]) -> tuple[nn.Module, list[Optimizer]]:
    model = small_model()
    return model, [kind(model)]


def _apart(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    known = list(parameters)
    return [p for p in known if p.ndim == 2], [p for p in known if p.ndim != 2]


# How a step is made: after the backward pass, around it, and with second derivatives.


def _loss(model: nn.Module, step: int) -> Tensor:
    x = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(step))
    return (model(x) - 1).square().mean()


def _plain(model: nn.Module, optimizers: list[Optimizer], step: int) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    _loss(model, step).backward()
    for optimizer in optimizers:
        optimizer.step()


def _closure(model: nn.Module, optimizers: list[Optimizer], step: int) -> None:
    @torch.enable_grad()
    def closure() -> Any:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = _loss(model, step)
        loss.backward()
        return loss

    for optimizer in optimizers:
        optimizer.step(closure)


def _with_graph(model: nn.Module, optimizers: list[Optimizer], step: int) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    _loss(model, step).backward(create_graph=True)
    for optimizer in optimizers:
        optimizer.step()
