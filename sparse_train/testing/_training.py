"""Laws of a model that trains under masks, step by step, saved, loaded and copied."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sparse_train.algorithms import Algorithm
from sparse_train.masking.kinds import weights_of
from sparse_train.masking.optimizer_state import fresh_values, own
from sparse_train.naming import layer_name
from sparse_train.patterns import Projection
from sparse_train.sparsify import Sparsifier, sparsify
from sparse_train.testing._pure import pattern_of, same

Maker = Callable[[nn.Module, torch.optim.Optimizer], Sparsifier]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def small_model(seed: int = 0, width: int = 10) -> nn.Module:
    """Convolution, norm and linear layers, of shapes that no block divides."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(30, width), nn.LayerNorm(width),
        nn.ReLU(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 2),
    )  # fmt: skip


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, sparsifier: Sparsifier, seed: int
) -> bool:
    """One step on random data, of two backward passes; whether masks changed."""
    torch.manual_seed(seed)
    optimizer.zero_grad()
    for _ in range(2):
        (model(torch.randn(4, 3, 7)).square().mean() / 2).backward()
    optimizer.step()
    return sparsifier.step()


def check_invariants(sparsifier: Sparsifier, optimizer: torch.optim.Optimizer) -> None:
    """Masks are boolean buffers in the pattern; weights and moments are zero where not trained."""
    counted = {id(parameter) for parameter in sparsifier.model.parameters()}
    for name, layer in sparsifier.layers.items():
        assert layer.parameter.ndim >= 2, f"layer {name!r}: a weight of rank 1 is masked"
        assert id(layer.mask) not in counted, f"mask of {name!r} is counted as a parameter"
        assert layer.mask.dtype == torch.bool, f"mask of {name!r} is {layer.mask.dtype}"
    masks = sparsifier.masks()
    for name, layer in sparsifier.layers.items():
        for part in layer.parts:
            fits = masks[part].satisfies(sparsifier.pattern.definition)
            assert fits, f"layer {part!r} leaves the pattern"
        stray = layer.parameter.detach()[~layer.mask]
        assert not stray.any(), f"layer {name!r}: an inactive weight is {stray[stray != 0][0]}"
        trained = sparsifier.trained_mask(name)
        check_state(optimizer, layer.parameter, ~trained, name, "lives on where nothing is trained")
    _check_coverage(sparsifier)


def check_state(
    optimizer: torch.optim.Optimizer,
    parameter: nn.Parameter,
    off: torch.Tensor,
    name: str,
    what: str = "is not a new parameter's",
) -> None:
    """What an optimizer keeps where `off` is that of a new parameter."""
    new = fresh_values(optimizer, parameter)
    for path, value in own(optimizer, parameter):
        at_start = new.get(path, 0.0)
        found = value[..., off]
        if at_start is None:
            start = parameter.detach()[off].expand_as(found).to(found.dtype)
        else:
            start = torch.full_like(found, at_start)
        same = torch.allclose(found, start, atol=0.0)
        assert same, f"layer {name!r}: {path} of {type(optimizer).__name__} {what}"


def _check_coverage(sparsifier: Sparsifier) -> None:
    """Every weight that can be masked is, or there is a reason: attention's in_proj too."""
    for weight in weights_of(sparsifier.model):
        name = layer_name(weight.name)
        left_out = weight.layout is not None and name not in sparsifier.layers
        assert not left_out or name in sparsifier.skipped, f"weight {name!r} is not masked"


def check_gradients(make: Maker, *, steps: int = 6) -> None:
    """Growth sees the gradient of every weight, active or not, as a model without masks has it.

    Holds for algorithms that ask for gradients on update steps; others pass without a look.
    """
    model = small_model()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier = make(model, optimizer)
    if sparsifier.algorithm.gradient != "update":
        return
    seen = _Watched(sparsifier.algorithm)
    sparsifier.algorithm = seen  # type: ignore[assignment]
    for step in range(steps):
        weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        seen.gradients = None
        train_step(model, optimizer, sparsifier, step)
        if seen.gradients is None:
            continue
        expected = _dense_gradients(weights, step)
        for name, layer in sparsifier.layers.items():
            dense = layer.array(expected[id_of(model, layer.parameter)])
            if name not in seen.gradients:
                assert not dense.any(), f"layer {name!r}: rests though it has a gradient"
                continue
            assert np.allclose(seen.gradients[name], dense, rtol=1e-3, atol=1e-6), (
                f"layer {name!r}: growth sees another gradient than that of every weight"
            )


class _Watched:
    """An algorithm that notes the gradients that its updates see."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.gradients: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["algorithm"], name)

    def update(self, view: Any, state: Any) -> Any:
        self.gradients = view.gradients
        return self.algorithm.update(view, state)


def _dense_gradients(weights: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Parameter → gradient of the step of that seed, of a model of these weights without masks."""
    model = small_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    torch.manual_seed(seed)
    for _ in range(2):
        (model(torch.randn(4, 3, 7)).square().mean() / 2).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def id_of(model: nn.Module, parameter: torch.Tensor) -> str:
    """The name of a model's parameter."""
    return next(name for name, one in model.named_parameters() if one is parameter)


def check_training(make: Maker, *, steps: int = 8, optimizers: tuple[str, ...] = ()) -> None:
    """The invariants after every step, of each optimizer; and resumed equals never interrupted.

    Args:
        make: model, optimizer → Sparsifier (or your own with its methods).
        steps: of training; a save and load falls in their middle and before the last one.
        optimizers: names in OPTIMIZERS; all of them by default.
    """
    check_gradients(make)
    for name in optimizers or tuple(OPTIMIZERS):
        model = small_model()
        optimizer = OPTIMIZERS[name](model.parameters())
        sparsifier = make(model, optimizer)
        starts = sorted({steps // 2, steps - 1})
        kept = {}
        for step in range(steps):
            if step in starts:
                kept[step] = saved(model, optimizer, sparsifier)
            checked_step(model, optimizer, sparsifier, step)
        for start in starts:
            other = small_model(seed=9)
            other_optimizer = OPTIMIZERS[name](other.parameters())
            resumed = make(other, other_optimizer)
            load(kept[start], other, other_optimizer, resumed)
            for step in range(start, steps):
                train_step(other, other_optimizer, resumed, step)
            assert resumed.masks() == sparsifier.masks(), f"resumed after {start}: other masks"
            for one, two in zip(model.parameters(), other.parameters(), strict=True):
                assert torch.equal(one, two), f"resumed after {start}: other weights"


def checked_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, sparsifier: Sparsifier, step: int
) -> None:
    """A step, and all that must hold after it."""
    before = {name: mask.array for name, mask in sparsifier.masks().items()}
    changed = train_step(model, optimizer, sparsifier, step)
    check_invariants(sparsifier, optimizer)
    after = {name: mask.array for name, mask in sparsifier.masks().items()}
    assert changed == (not same(before, after)), "step() does not say whether masks changed"
    if sparsifier.algorithm.dense_weights:
        return
    for name, layer in sparsifier.layers.items():
        grown = torch.from_numpy(after[name] & ~before[name]).view(layer.weight_shape)
        check_state(optimizer, layer.parameter, grown, name, "lives on in a grown weight")
        if sparsifier.algorithm.first_mask != "dense":
            stale = layer.parameter.detach()[grown]
            assert not stale.any(), f"layer {name!r}: a grown weight starts at {stale}"


def maker(algorithm: Algorithm, pattern: str | Projection | None = None) -> Maker:
    """model, optimizer → Sparsifier with updates every third step, at a density that fits."""
    return _Made(algorithm, pattern_of(algorithm, pattern))


@dataclass(frozen=True)
class _Made:
    """A function that can be sent to another process."""

    algorithm: Algorithm
    pattern: Projection

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sparsifier:
        fixed = self.pattern.only_density is not None
        density = 0.3 if self.pattern.only_density is None else self.pattern.only_density
        return sparsify(
            model, optimizer, self.algorithm, density, self.pattern,
            distribution="uniform" if fixed else "erk",
            schedule="constant" if fixed else None,
            update_interval=min(3, self.algorithm.update_interval), total_steps=16,
        )  # fmt: skip


def saved(model: nn.Module, optimizer: torch.optim.Optimizer, sparsifier: Sparsifier) -> io.BytesIO:
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), sparsifier.state_dict()], file)
    return file


def load(file: io.BytesIO, *parts: Any) -> None:
    file.seek(0)
    for part, state in zip(parts, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)


def copied(*parts: Any) -> tuple[Any, ...]:
    """Model, optimizer and sparsifier, copied together."""
    return copy.deepcopy(parts)
