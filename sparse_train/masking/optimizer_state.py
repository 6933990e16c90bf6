"""The optimizer's memory of a masked weight follows the mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from hwsim.errors import InputError
from sparse_train.masking._trial import Nature, coded_as, entries, nature, placed, trial_shape
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
    """Every state tensor with a place per weight: SGD's momentum, Adam's averages, and so on."""
    for optimizer in optimizers:
        for _, value in own(optimizer, parameter):
            yield value


def check(optimizers: Sequence[Optimizer], parameter: nn.Parameter) -> None:
    """An InputError if a weight's memory cannot follow a mask."""
    for optimizer in optimizers:
        _nature(optimizer, parameter)
        for _ in own(optimizer, parameter):
            pass


def is_unsteady(optimizers: Sequence[Optimizer], parameter: nn.Parameter) -> bool:
    """Whether weights that get no gradient get a state all the same (Muon's kin, AdaI)."""
    return any(_nature(optimizer, parameter).unsteady for optimizer in optimizers)


def zero_moments(
    optimizers: Sequence[Optimizer],
    parameter: nn.Parameter,
    keep: Tensor,
    weights: Tensor | None = None,
) -> None:
    """Forget everything about the weights where `keep` is False.

    Their state is then that of a parameter that is new. Mostly that is 0; Rprop's step size is its
    learning rate, Adagrad's sum its first value, an average of weights the weight itself: as in
    `weights`, or else as the parameter is now. LBFGS, whose memory is of all weights together,
    forgets all of it.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, LBFGS):
            if any(p is parameter for p in optimizer.param_groups[0]["params"]):
                optimizer.state.clear()
            continue
        found = list(own(optimizer, parameter))
        new = fresh_values(optimizer, parameter) if found else {}
        for path, value in found:
            start = new.get(path, 0.0)
            if start is None:
                now = (parameter if weights is None else weights).detach().to(value.dtype)
                value.copy_(torch.where(keep, value, now))
            elif start or value.shape != keep.shape:
                value.masked_fill_(~keep, start)
            else:
                zero_where_not_(value, keep)


def fresh_values(optimizer: Optimizer, parameter: nn.Parameter) -> Mapping[str, float | None]:
    """Path of a state tensor → what each entry of it is in a new parameter.

    None stands for the parameter's own value. A path that is not there is taken for 0.
    """
    return _nature(optimizer, parameter).fresh


# Of torch's own, those with no state but one per weight that begins at 0 and stays there without a
# gradient: they need no trial.
_ALL_ZERO = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam,
    torch.optim.RMSprop, torch.optim.Adadelta,
)  # fmt: skip
_NATURES: WeakKeyDictionary[Optimizer, dict[Any, tuple[str, Nature]]] = WeakKeyDictionary()
_KNOWN = Nature()


def _nature(optimizer: Optimizer, parameter: nn.Parameter) -> Nature:
    """What is known of an optimizer's state of a parameter; tried once for all of its kind.

    Raises:
        InputError: it cannot follow a mask.
    """
    while _is_wrapper(optimizer):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    if type(optimizer) in _ALL_ZERO or isinstance(optimizer, LBFGS):
        return _KNOWN
    groups = enumerate(optimizer.param_groups)
    held_in = ((i, g) for i, g in groups if any(p is parameter for p in g["params"]))
    i, group = next(held_in, (-1, None))
    if group is None:
        return _KNOWN
    known = _NATURES.setdefault(optimizer, {})
    key = i, trial_shape(parameter.shape), parameter.dtype
    settings = repr({k: v for k, v in group.items() if k != "params"})
    if key not in known or (known[key][0] != settings and any(known[key][1].fresh.values())):
        known[key] = settings, nature(optimizer, group, parameter.shape, parameter.dtype)
    found = known[key][1]
    if found.refused:
        raise InputError(_refusal(optimizer, found.refused))
    return found


def _is_wrapper(optimizer: Optimizer) -> bool:
    """Whether it hands its steps to another (accelerate's, Lookahead's, schedule-free's)."""
    return isinstance(getattr(optimizer, "optimizer", None), Optimizer)


def own(optimizer: Optimizer, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
    """Path and state tensor, of those with a place for each weight, as (..., *weight's shape).

    Raises:
        InputError: one holds integers (an optimizer of 8 bits): a code has no place for one weight.
    """
    state = optimizer.state.get(parameter)
    if not state:
        return
    known = _nature(optimizer, parameter)
    for path, value in entries(state):
        if path in known.others:
            continue  # a side's factor may be as large as the weight, where that is square
        view = placed(value, parameter.shape)
        if view is None:
            continue
        unseen = known.tried and path not in known.fresh and not _is_wrapper(optimizer)
        if unseen and len(set(parameter.shape)) < parameter.ndim:
            raise InputError(_refusal(optimizer, f"keeps {path!r}, whose meaning is not known"))
        if value.dtype == torch.bool:
            raise InputError(_refusal(optimizer, f"chooses weights itself ({path!r})"))
        if coded := coded_as(value):
            raise InputError(_refusal(optimizer, f"holds {path!r} as {coded}"))
        yield path, view


def _refusal(optimizer: Optimizer, why: str) -> str:
    return (
        f"optimizer: {type(optimizer).__name__} {why}; allowed for masked weights is one that "
        "keeps a floating-point state of each weight, or none (of 8-bit ones the 32-bit form)"
    )


def learning_rate(optimizers: Sequence[Optimizer], parameter: nn.Parameter) -> float:
    """The present learning rate of a parameter's group; 0 if it has none, or no optimizer."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return float(group.get("lr", 0.0))
    return 0.0
