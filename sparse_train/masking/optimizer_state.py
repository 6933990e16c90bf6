"""The optimizer's memory of a masked weight follows the mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from sparse_train.masking.layers import zero_where_not_


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
        for value in optimizer.state.get(parameter, {}).values():
            same = isinstance(value, Tensor) and value.shape == parameter.shape
            if same and value.is_floating_point():
                yield value


def zero_moments(optimizers: Sequence[Optimizer], parameter: nn.Parameter, keep: Tensor) -> None:
    """Forget everything about the weights where `keep` is False."""
    for value in moments(optimizers, parameter):
        zero_where_not_(value, keep)


def learning_rate(optimizers: Sequence[Optimizer], parameter: nn.Parameter) -> float:
    """The present learning rate of a parameter's group; 0 if no optimizer holds it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return float(group["lr"])
    return 0.0
