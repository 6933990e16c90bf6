"""The optimizer's memory of a masked weight follows the mask."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from hwsim.errors import InputError
from sparse_train.masking.bits import zero_where_not_


def as_optimizers(given: Optimizer | Sequence[Optimizer] | None) -> tuple[Optimizer, ...]:
    """The optimizers as a tuple; an InputError if a parameter is held twice."""
    optimizers = () if given is None else given if isinstance(given, Sequence) else (given,)
    seen: set[int] = set()
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise InputError(
                f"optimizer: type is {type(optimizer).__name__}; allowed is torch.optim.Optimizer, "
                "a sequence of them, or None"
            )
        if isinstance(optimizer, SparseAdam):
            raise InputError(
                "optimizer: type is SparseAdam, which takes sparse gradients only; masked weights "
                "have dense ones, so give them to another, such as Adam"
            )
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in seen:
                    raise InputError(
                        f"optimizer: a parameter of shape {tuple(parameter.shape)} is in it "
                        "twice; allowed is once"
                    )
                seen.add(id(parameter))
    return tuple(optimizers)


def held(optimizers: Sequence[Optimizer]) -> set[int] | None:
    """Ids of all parameters that are optimized; None without an optimizer."""
    if not optimizers:
        return None
    return {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}


def moments(optimizers: Sequence[Optimizer], parameter: nn.Parameter) -> Iterator[Tensor]:
    """Every state tensor of the weight's shape: SGD's momentum, Adam's averages, and so on."""
    for optimizer in optimizers:
        for _, value in _own(optimizer, parameter):
            yield value


def check(optimizers: Sequence[Optimizer], parameter: nn.Parameter) -> None:
    """An InputError if a weight's memory cannot follow a mask."""
    for optimizer in optimizers:
        for _ in _own(optimizer, parameter):
            pass


def zero_moments(optimizers: Sequence[Optimizer], parameter: nn.Parameter, keep: Tensor) -> None:
    """Forget everything about the weights where `keep` is False.

    Their state is then that of a parameter that is new. Mostly that is 0; Rprop's step size is its
    learning rate, Adagrad's sum its first value. LBFGS, whose memory is of all weights together,
    forgets all of it.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, LBFGS):
            if any(p is parameter for p in optimizer.param_groups[0]["params"]):
                optimizer.state.clear()
            continue
        found = list(_own(optimizer, parameter))
        new = fresh_values(optimizer, parameter) if found else {}
        for key, value in found:
            if start := new.get(key, 0.0):
                value.masked_fill_(~keep, start)
            else:
                zero_where_not_(value, keep)


def fresh_values(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, float]:
    """Key of a state tensor → what each entry of it is in a new parameter.

    Told by trying: an optimizer of the same kind and settings makes one step with a gradient of 0.
    Where that cannot be done, a key is missing, which is taken for 0.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner  # accelerate's and others' wrappers
    group = next(
        (g for g in optimizer.param_groups if any(p is parameter for p in g["params"])), None
    )
    if group is None or type(optimizer) in _ALL_ZERO:
        return {}
    tiny = nn.Parameter(torch.zeros((2,) * parameter.ndim, dtype=parameter.dtype))
    tiny.grad = torch.zeros_like(tiny)
    for make in (_made_anew, _emptied):
        try:
            trial = make(optimizer, {**group, "params": [tiny]})
            with torch.no_grad():
                trial.step()
            state = trial.state[tiny]
        except Exception:  # a stranger's optimizer may need anything
            continue
        return {
            key: float(value.reshape(-1)[0])
            for key, value in state.items()
            if isinstance(value, Tensor) and value.shape == tiny.shape
        }
    return {}


# Of torch's own, those whose every state tensor starts at 0: not to be tried in each update.
_ALL_ZERO = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam,
    torch.optim.RMSprop, torch.optim.Adadelta,
)  # fmt: skip


def _made_anew(optimizer: Optimizer, group: dict[str, Any]) -> Optimizer:
    settings = {key: group[key] for key in optimizer.defaults if key in group}
    return type(optimizer)(group["params"], **settings)


def _emptied(optimizer: Optimizer, group: dict[str, Any]) -> Optimizer:
    if any(isinstance(value, Optimizer) for value in vars(optimizer).values()):
        raise TypeError("an optimizer within an optimizer would make a real step")
    trial = copy.copy(optimizer)
    trial.__dict__ = {**optimizer.__dict__, "state": defaultdict(dict), "param_groups": [group]}
    if trial.state is optimizer.state or trial.param_groups is optimizer.param_groups:
        raise TypeError("its state lies elsewhere")
    return trial


def _own(optimizer: Optimizer, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
    """Key and state tensor, of those with the weight's shape.

    Raises:
        InputError: one holds integers (an optimizer of 8 bits): a code has no place for one weight.
    """
    for key, value in optimizer.state.get(parameter, {}).items():
        if not isinstance(value, Tensor) or value.shape != parameter.shape or value.ndim == 0:
            continue
        if value.is_floating_point():
            yield key, value
        elif value.dtype != torch.bool:
            raise InputError(
                f"optimizer: {type(optimizer).__name__} holds {key!r} as {value.dtype}; allowed "
                "for masked weights are floating-point states (its 32-bit form)"
            )


def learning_rate(optimizers: Sequence[Optimizer], parameter: nn.Parameter) -> float:
    """The present learning rate of a parameter's group; 0 if no optimizer holds it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return float(group["lr"])
    return 0.0
