"""Laws of a sparsifier in the loops that people write, beyond the plain one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.errors import InputError
from sparse_train.export import strip
from sparse_train.sparsify import Sparsifier
from sparse_train.testing._optimizers import check_optimizers
from sparse_train.testing._surroundings import SURROUNDINGS
from sparse_train.testing._training import (
    Maker,
    check_invariants,
    copied,
    load,
    saved,
    small_model,
)

SEVERAL = Callable[[nn.Module, Any], Sparsifier]


def check_loops(make: Maker, *, steps: int = 10) -> None:
    """All laws of loops, of a sparsifier that updates masks every third step or so.

    Beside those of the loops themselves: of odd layers, averages, budgets, prices, two processes,
    and masks that are chosen on a device.

    Args:
        make: model, optimizer (or a list of them) → Sparsifier (or your own with its methods).
        steps: of each run.
    """
    check_closure(make, steps)
    check_scaler(make, steps)
    check_several_optimizers(make, steps)
    check_another_optimizer(make, steps)
    check_thrown_away(make, steps)
    check_frozen(make, steps)
    check_foreign_gradients(make, steps)
    check_states(make, steps)
    check_copies(make, steps)
    for law in SURROUNDINGS:
        law(make)


def check_closure(make: Maker, steps: int = 10) -> None:
    """A backward pass inside `optimizer.step(closure)` is one before it."""
    one, other = _start(make), _start(make)
    for step in range(steps):
        _step(*one, step)
        model, optimizer, sparsifier = other

        def closure(step: int = step, model: nn.Module = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = _loss(model, step)
            loss.backward()
            return loss

        optimizer.step(closure)
        sparsifier.step()
    _same(one, other, "in a closure")


def check_scaler(make: Maker, steps: int = 10) -> None:
    """A step that a GradScaler skips does not count, be the optimizer fused or not."""
    for fused in (True, False):
        one, other = _start(make, fused=fused), _start(make, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=10_000)
        for step in range(steps):
            if step != 2:
                _step(*one, step)
            model, optimizer, sparsifier = other
            optimizer.zero_grad()
            loss = _loss(model, step) * (float("inf") if step == 2 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            sparsifier.step()
            check_invariants(sparsifier, optimizer)
        counted = other[2].steps
        assert counted == steps - 1, f"{counted} steps are counted of {steps - 1}; 1 was skipped"
        _same(one, other, f"under a scaler (fused={fused})", exact=False)


def check_several_optimizers(make: SEVERAL, steps: int = 10) -> None:
    """Two optimizers, each of half the weights, are one."""
    one = _start(make)
    model = small_model()
    parameters = list(model.parameters())
    optimizers = [_sgd(parameters[:4]), _sgd(parameters[4:])]
    sparsifier = make(model, optimizers)
    for step in range(steps):
        _step(*one, step)
        model.zero_grad()
        _loss(model, step).backward()
        for optimizer in optimizers:
            optimizer.step()
        sparsifier.step()
    _same(one, (model, optimizers, sparsifier), "by two optimizers")


def check_another_optimizer(make: Maker, steps: int = 10) -> None:
    """An optimizer that is made anew for the second phase, or lies in a wrapper, counts as well."""
    one, other = _start(make), _start(make)
    model, optimizer, sparsifier = other
    for step in range(steps):
        _step(*one, step)
        if step == steps // 2:
            moments = optimizer.state_dict()
            optimizer = _Wrapper(_sgd(model.parameters()))
            optimizer.inner.load_state_dict(moments)
        _step(model, optimizer, sparsifier, step)
    assert sparsifier.steps == steps, f"{sparsifier.steps} steps are counted of {steps}"
    _same(one, other, "by an optimizer that was made later")


class _Wrapper:
    """Holds an optimizer and is none, as some schedulers and frameworks do."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def step(self) -> None:
        self.inner.step()


def check_thrown_away(make: Maker, steps: int = 10) -> None:
    """A gradient that is emptied before the step does not count, NaN or not."""
    for to_none in (True, False):
        for bad in (1.0, float("nan")):
            one, other = _start(make), _start(make)
            for step in range(steps):
                _step(*one, step)
                model, optimizer, _ = other
                (_loss(model, step + 50) * bad).backward()
                optimizer.zero_grad(set_to_none=to_none)
                _loss(model, step).backward()
                optimizer.step()
                other[2].step()
            _same(one, other, f"with gradients that were thrown away ({bad})")


def check_frozen(make: Maker, steps: int = 10) -> None:
    """A layer that has no gradient keeps its mask and its weights."""
    model, optimizer, sparsifier = _start(make)
    name, layer = list(sparsifier.layers.items())[1]
    layer.parameter.requires_grad_(False)
    before = sparsifier.masks()[name], layer.parameter.detach().clone()
    for step in range(steps):
        _step(model, optimizer, sparsifier, step)
    assert sparsifier.masks()[name] == before[0], f"layer {name!r} is frozen; its mask changed"
    assert torch.equal(layer.parameter, before[1]), f"layer {name!r} is frozen; it changed"


def check_foreign_gradients(make: Maker, steps: int = 10) -> None:
    """Gradients that are set, or changed late, leave no moment behind where nothing is trained."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparsifier = make(model, optimizer)
    parameters = list(model.parameters())
    for step in range(steps):
        found = torch.autograd.grad(_loss(model, step), parameters)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient + 1e-3
        optimizer.step()
        sparsifier.step()
        check_invariants(sparsifier, optimizer)


def check_states(make: Maker, steps: int = 10, kinds: Sequence[Any] = ()) -> None:
    """The state of weights that are not trained is that of a new parameter.

    Args:
        kinds: optimizer classes; by default some of torch whose states do not all begin at 0.
            `check_optimizers` takes all that there are, and says of each how it went.
    """
    for kind in kinds or (torch.optim.Rprop, torch.optim.Adagrad, torch.optim.Adamax):
        check_optimizers(make, {kind.__name__: kind}, steps=steps)


def check_copies(make: Maker, steps: int = 10) -> None:
    """Saved and loaded, copied, loaded from a dense model, stripped: sparse, and to the bit."""
    one = _start(make)
    for step in range(steps):
        _step(*one, step)
    other = _start(make, seed=7)
    load(saved(*one), *other)
    twin: Any = copied(*one)
    runs: tuple[Any, ...] = (one, other, twin)
    for step in range(steps, steps + 4):
        for run in runs:
            _step(run[0], run[1], run[2], step)
    _same(one, other, "saved and loaded")
    _same(one, twin, "copied")
    model, optimizer, sparsifier = other
    model.load_state_dict(small_model(seed=5).state_dict(), strict=False)
    check_invariants(sparsifier, optimizer)
    plain = strip(copied(one[0])[0])
    assert set(plain.state_dict()) == set(small_model().state_dict()), "stripping leaves masks"
    _check_own_saving(make)
    _check_foreign_state(make)


class _SavesItself(nn.Linear):
    """A module whose state has a form of its own, as quantised ones have."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight.detach()
        destination[f"{prefix}bias"] = self.bias.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any, **__: Any) -> None:
        self.weight.data.copy_(state_dict[f"{prefix}weight"])
        self.bias.data.copy_(state_dict[f"{prefix}bias"])


def _check_own_saving(make: Maker) -> None:
    states, found = [], []
    for seed in (0, 5):
        torch.manual_seed(seed)
        model = nn.Sequential(_SavesItself(12, 10), nn.ReLU(), nn.Linear(10, 8))
        found.append(make(model, _sgd(model.parameters())).masks())
        states.append((model, model.state_dict()))
    other = states[1][0]
    other.load_state_dict(states[0][1])
    saved_mask = states[0][0][0].state_dict().get("weight_mask")
    assert saved_mask is not None, "a module that saves itself loses its mask"
    off = ~saved_mask
    assert not other[0].weight.detach()[off].any(), "a module that loads itself loses its mask"


def _check_foreign_state(make: Maker) -> None:
    one, other = _start(make), small_model(width=12)
    foreign = make(other, _sgd(other.parameters())).state_dict()
    before = one[2].masks()
    try:
        one[2].load_state_dict(foreign)
    except InputError:
        assert one[2].masks() == before, "a foreign state is refused, but masks have changed"
    else:
        raise AssertionError("the state of another model's sparsifier is taken without a word")


def _sgd(parameters: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01, **options)


def _start(make: Maker, seed: int = 0, **options: Any) -> tuple[nn.Module, Any, Sparsifier]:
    model = small_model(seed)
    optimizer = _sgd(model.parameters(), **options)
    return model, optimizer, make(model, optimizer)


def _loss(model: nn.Module, step: int) -> Tensor:
    random = torch.Generator().manual_seed(step)
    return (model(torch.randn(4, 3, 7, generator=random)) - 1).square().mean()


def _step(model: nn.Module, optimizer: Any, sparsifier: Sparsifier, step: int) -> None:
    optimizer.zero_grad()
    _loss(model, step).backward()
    optimizer.step()
    sparsifier.step()


def _same(one: Any, other: Any, where: str, *, exact: bool = True) -> None:
    assert one[2].masks() == other[2].masks(), f"{where}: other masks"
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        close = torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-3, atol=1e-5)
        assert close, f"{where}: other weights"
