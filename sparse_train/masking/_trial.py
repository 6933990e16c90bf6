"""What an optimizer keeps of a weight, told by trying it on a small parameter.

Names and classes say nothing of a stranger's optimizer. Twelve steps of one of its kind and
settings show which of its tensors have a place for each weight, what a new parameter has there,
whether places of weights that are not trained stay so, and whether each is one weight's at all.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_train.private_torch import TorchDispatchMode

_STEPS = 12
_SIDE = 64  # at least 4,096 weights of a large one, from where on states of 8 bits are used


@dataclass(frozen=True)
class Nature:
    """How an optimizer of one kind keeps the state of one kind of parameter.

    Attributes:
        fresh: path of each state tensor with a place per weight → what a new parameter has there;
            None where that is the parameter's own value (averages of weights, starting points).
        others: paths of the tensors that belong to several weights: norms, sums of rows and
            columns, factors.
        unsteady: whether weights without a gradient get a state all the same.
        tried: whether it could be; if not, a tensor's shape tells, and 0 is fresh in every step.
        refused: why its state cannot follow a mask; empty if it can.
    """

    fresh: Mapping[str, float | None] = field(default_factory=dict)
    others: frozenset[str] = frozenset()
    unsteady: bool = False
    tried: bool = False
    refused: str = ""


def entries(state: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a state by its path, within dictionaries, sequences and objects too."""
    if isinstance(state, Tensor):
        yield path, state
    elif depth > 6 or isinstance(state, nn.Module | Optimizer | str | bytes | type):
        return
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from entries(value, f"{path}.{key}" if path else str(key), depth + 1)
    elif hasattr(state, "__iter__") and hasattr(state, "__len__"):
        for i, value in enumerate(state):
            yield from entries(value, f"{path}[{i}]", depth + 1)
    elif hasattr(state, "__dict__"):
        yield from entries(vars(state), path, depth + 1)


def placed(value: Tensor, shape: torch.Size) -> Tensor | None:
    """A view (..., *shape) of a state tensor with a place for each weight; None of any other.

    It may be flat, and may hold several for each weight along a first side.
    """
    if value.shape == shape:
        return value
    n = math.prod(shape)
    if value.ndim == 0 or n == 0 or value.numel() % n or not value.is_contiguous():
        return None
    if hasattr(value, "placements"):
        return None  # sharded: views of it are another matter
    squeezed = [side for side in value.shape if side != 1]
    wanted = [side for side in shape if side != 1]
    if value.shape[-len(shape) :] == shape or squeezed == wanted or value.shape == (n,):
        return value.view(-1, *shape)
    return None


def _turned(values: Tensor, sides: int | None = None) -> Tensor:
    """The last `sides` sides (all by default) in reverse."""
    return values.flip(tuple(range(-(sides or values.ndim), 0)))


def coded_as(value: Tensor) -> str:
    """How a tensor holds codes that stand for floats (8-bit states); empty if it holds floats."""
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        inner = [getattr(value, name) for name in names]
        coded = [coded_as(one) for one in inner if isinstance(one, Tensor)]
        return type(value).__name__ if any(coded) else ""
    floats = value.dtype.is_floating_point and value.element_size() > 1
    return "" if floats or value.dtype == torch.bool else str(value.dtype)


def nature(optimizer: Optimizer, group: Mapping[str, Any], shape: torch.Size, dtype: Any) -> Nature:
    """The nature of an optimizer's state of parameters of a shape, with a group's settings."""
    sides = trial_shape(shape)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for make in (_made_anew, _emptied, _made_by_defaults):
            try:
                return _tried(lambda p, make=make: make(optimizer, {**group, "params": [p]}),
                              sides, dtype)  # fmt: skip
            except Exception:  # a stranger's optimizer may need anything
                continue
    return Nature(unsteady=True)


def trial_shape(shape: torch.Size) -> tuple[int, ...]:
    """Small sides, no two of them equal, so that a tensor's shape tells what it is of."""
    sides: list[int] = []
    for side in shape:
        side = side if math.prod(shape) <= 16 * _SIDE**2 else min(side, _SIDE)
        while side in sides and side > 1:
            side *= 2
        sides.append(side)
    return tuple(sides)


def _tried(make: Callable[[nn.Parameter], Optimizer], sides: tuple[int, ...], dtype: Any) -> Nature:
    random = torch.Generator().manual_seed(0)
    mask = torch.rand(sides, generator=random) < 0.4
    mask.view(-1)[0], mask.view(-1)[-1] = True, False
    start = torch.randn(sides, generator=random).to(dtype) * mask
    pushes = [torch.randn(sides, generator=random).to(dtype) * mask for _ in range(_STEPS)]
    born, _, final = _run(make, start, pushes, mask)
    fresh: dict[str, float | None] = {}
    others, unsteady = set(), False
    zeros = [torch.zeros_like(push) for push in pushes[:1]]
    born_at_0, first_at_0, _ = _run(make, torch.zeros_like(start), zeros, mask)
    for path, value in final.items():
        view = placed(value, start.shape)
        if view is None:
            others.add(path)
            continue
        if value.dtype == torch.bool:
            return Nature(tried=True, refused=f"chooses weights itself ({path!r})")
        if coded := coded_as(value):
            return Nature(tried=True, refused=f"holds {path!r} as {coded}")
        if _is_copy(born.get(path), start):
            fresh[path] = None
        else:
            at_0 = born_at_0.get(path, first_at_0.get(path, torch.zeros(1))).reshape(-1)
            if not bool((at_0 == at_0[0]).all()):
                return Nature(tried=True, refused=f"begins {path!r} with values of its own")
            fresh[path] = float(at_0[0])
        value_there = fresh[path] or 0.0
        off = view[..., ~mask]
        unsteady |= not torch.allclose(off, torch.full_like(off, value_there), atol=0.0)
    if unsteady and (path := _mixed(make, start, pushes, mask, {k: final[k] for k in fresh})):
        return Nature(
            tried=True,
            refused=f"keeps {path!r} mixed over the whole weight, or at random, so that no entry "
            "is one weight's own",
        )
    return Nature(fresh, frozenset(others), unsteady, tried=True)


def _mixed(
    make: Callable[[nn.Parameter], Optimizer],
    start: Tensor,
    pushes: list[Tensor],
    mask: Tensor,
    final: Mapping[str, Tensor],
) -> str:
    """The first path that does not follow when the weights change places; empty if all do."""
    with _TurnedDraws(start.shape):
        _, _, again = _run(make, _turned(start), [_turned(push) for push in pushes], _turned(mask))
    for path, one in final.items():
        view = placed(one, start.shape)
        other = placed(again[path], start.shape) if path in again else None
        if view is None or other is None:
            return path
        away = (view - _turned(other, start.ndim)).norm()
        if not away <= 0.05 * view.norm() + 1e-12:
            return path
    return ""


def _is_copy(made: Tensor | None, start: Tensor) -> bool:
    """Whether a state was made as the parameter itself."""
    return (
        made is not None and made.shape == start.shape and torch.equal(made.to(start.dtype), start)
    )


def _run(
    make: Callable[[nn.Parameter], Optimizer], start: Tensor, pushes: list[Tensor], mask: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Path → state tensor when it was made, after the first step, and after the last."""
    torch.manual_seed(0)
    parameter = nn.Parameter(start.clone())
    optimizer = make(parameter)
    kept = _Born(optimizer.state.get(parameter, {}))
    with_birth: Any = defaultdict(dict, {parameter: kept})
    optimizer.state = with_birth
    first: dict[str, Tensor] = {}
    for push in pushes:
        parameter.grad = push.clone()
        _step(optimizer, parameter, push)
        parameter.data.mul_(mask)
        if not first:
            first = dict(_copies(optimizer.state[parameter]))
    return dict(_copies(kept.born)), first, dict(_copies(optimizer.state[parameter]))


def _step(optimizer: Optimizer, parameter: nn.Parameter, push: Tensor) -> None:
    """A step, in whichever of the three ways the optimizer takes."""

    def closure() -> Any:
        parameter.grad = push.clone()
        return torch.ones(())

    try:
        optimizer.step()
    except Exception:
        try:
            optimizer.step(closure)  # those that ask for the loss
        except Exception:
            with torch.enable_grad():  # those that ask for second derivatives; they are 1 here
                parameter.grad = push + parameter
            optimizer.step()


def _copies(state: Any) -> Iterator[tuple[str, Tensor]]:
    for path, value in entries(state):
        yield path, value if coded_as(value) else value.detach().clone()


class _Born(dict):
    """A parameter's state that remembers what each entry was when it was first written."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__(state)
        self.born: dict[Any, Any] = copy.deepcopy(dict(state))

    def __setitem__(self, key: Any, value: Any) -> None:
        if key not in self.born:
            coded = any(coded_as(tensor) for _, tensor in entries(value))
            self.born[key] = value if coded else copy.deepcopy(value)  # codes need have no copy
        super().__setitem__(key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As a dictionary's, and remembered."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **named: Any) -> None:
        """As a dictionary's, and remembered."""
        for key, value in dict(*args, **named).items():
            self[key] = value


def _made_anew(optimizer: Optimizer, group: dict[str, Any]) -> Optimizer:
    """One of the same class and settings, if those tell all of it."""
    new = _made_by_defaults(optimizer, group)
    for key, value in vars(optimizer).items():
        if key not in ("state", "param_groups", "defaults") and _plain(value) != _plain(
            vars(new).get(key)
        ):
            raise TypeError(f"{key} is not told by the settings")
    return new


def _plain(value: Any) -> Any:
    """The numbers and words of an attribute; nothing of what else it may be."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if hasattr(value, "__dict__") and not isinstance(value, nn.Module | Tensor | type):
        return {k: v for k, v in vars(value).items() if isinstance(v, bool | int | float | str)}
    return None


def _made_by_defaults(optimizer: Optimizer, group: dict[str, Any]) -> Optimizer:
    settings = {key: group[key] for key in optimizer.defaults if key in group}
    return type(optimizer)(group["params"], **settings)


def _emptied(optimizer: Optimizer, group: dict[str, Any]) -> Optimizer:
    """A copy without state, whose steps touch nothing of the one it is copied from."""
    own = {}
    for key, value in vars(optimizer).items():
        if key.startswith("_optimizer_") or callable(getattr(type(optimizer), key, None)):
            continue  # others' hooks, and methods that a scheduler has wrapped
        if key not in ("state", "param_groups", "defaults"):
            if _holds_model(value):
                raise TypeError(f"{key} would make a real step")
            own[key] = copy.deepcopy(value)
    trial = object.__new__(type(optimizer))
    trial.__setstate__(
        {**own, "defaults": dict(optimizer.defaults), "state": defaultdict(dict),
         "param_groups": [group]}
    )  # fmt: skip
    return trial


def _holds_model(value: Any, depth: int = 0) -> bool:
    if isinstance(value, nn.Module | nn.Parameter | Optimizer):
        return True
    if depth > 3:
        return False
    if isinstance(value, Mapping):
        return any(_holds_model(v, depth + 1) for pair in value.items() for v in pair)
    if isinstance(value, list | tuple | set):
        return any(_holds_model(v, depth + 1) for v in value)
    return hasattr(value, "__dict__") and not isinstance(value, Tensor | type) and _holds_model(
        vars(value), depth + 1
    )  # fmt: skip


class _TurnedDraws(TorchDispatchMode):
    """Within it, what is drawn for each weight of a shape is drawn in the weights' reverse order.

    A draw that hangs on values (torch.bernoulli) sees them in the order of before. Draws that have
    no place for each weight are left as they are.
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self._shape = shape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        drawn = func(*map(self._turn, args), **{k: self._turn(v) for k, v in kwargs.items()})
        if not func._schema.is_mutable:
            return tuple(map(self._turn, drawn)) if isinstance(drawn, tuple) else self._turn(drawn)
        target = kwargs.get("out", args[0] if args else None)
        if isinstance(target, Tensor) and isinstance(drawn, Tensor):
            target.copy_(self._turn(drawn))
            return target
        return drawn

    def _turn(self, value: Any) -> Any:
        view = placed(value, self._shape) if isinstance(value, Tensor) else None
        return value if view is None else _turned(view, len(self._shape)).reshape(value.shape)
