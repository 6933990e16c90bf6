"""One network of many that are trained one by one: a run whose masks are moved from outside."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from sparse_train.masking import optimizer_state
from sparse_train.masking.bits import zero_where_not_
from sparse_train.masking.layers import MaskedLayer
from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.networks._base import PROGRESS, Recipe
from sparse_train.runs.run import Diverged, Run
from sparse_train.tasks import Prepared


class Network:
    """One run whose masks are moved from outside, and what was seen of it last.

    Attributes:
        seed: of its weights, its batches and its random masks.
        gradients: (parameters of all masked layers,) of the effective weights.
        seen: (layers, 2) mean and variance of each masked layer's output.
        failed: whether a loss was not finite; it then makes no further step.
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        config = dataclasses.replace(recipe.config, seed=seed)
        # A copy begins anew when its model is built; what it has read is shared.
        task: Prepared = copy.copy(recipe.task)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.run = Run(config, task)
            self._random = torch.get_rng_state()
        if not isinstance(self.run.sparsifier, Sparsifier):
            kind = type(self.run.sparsifier).__name__
            raise InputError(
                f"task {config.task}: its masks are kept by {kind}; allowed for networks that are "
                "trained one by one is a task whose masks can be moved from outside"
            )
        self.layers = tuple(self.run.sparsifier.layers.values())
        _apart(self.run.optimizer, self.layers, recipe.optimizer.weight_decay)
        self.gradients = torch.zeros(sum(layer.parameter.numel() for layer in self.layers))
        self.seen = torch.zeros(len(self.layers), 2)
        self.failed = False
        self._ready = False  # Whether the task has prepared the next step already.
        self._watching = False
        self._noted: dict[str, Tensor] = {}
        for layer, place in zip(self.layers, self.gradients.split(self.sizes), strict=True):
            layer.parameter.register_hook(self._noting(place))
            layer.module.register_forward_hook(self._watcher(layer))

    @property
    def sizes(self) -> list[int]:
        """Weights of each masked layer."""
        return [layer.parameter.numel() for layer in self.layers]

    def look(self) -> None:
        """Gradients and activations on the batch of the next step, which is not made."""
        run = self.run
        with self._randomness(), torch.enable_grad(), self._watched():
            self._prepare()
            batch = run.task.batch(run.step + 1, run.config.batch_size, self.seed)
            run.task.loss(run.model, batch).backward()
            run.optimizer.zero_grad(set_to_none=True)

    def train(self, steps: int) -> None:
        """So many steps, the last one watched; none once a loss was not finite."""
        with self._randomness(), torch.enable_grad():  # Those who collect episodes need none.
            for step in range(1, steps + 1):
                if self.failed:
                    break
                watch = self._watched() if step == steps else contextlib.nullcontext()
                self._prepare()
                try:
                    with watch:
                        self.run.advance()
                except Diverged:
                    self.failed = True
                self._ready = False
        self.run.metrics.clear()

    def evaluate(self, split: str) -> dict[str, float]:
        """The task's metrics and PROGRESS; NaN once a loss was not finite."""
        found = self.run.task.evaluate(self.run.model, split)
        found = {**found, PROGRESS: self.run.task.progress_loss(found)}
        return dict.fromkeys(found, float("nan")) if self.failed else found

    def mask(self) -> Tensor:
        """(parameters of all masked layers,) uint8."""
        return torch.cat([layer.mask.flatten() for layer in self.layers]).to(torch.uint8)

    def magnitudes(self) -> Tensor:
        """|weight|, (parameters of all masked layers,)."""
        return torch.cat([layer.parameter.detach().abs().flatten() for layer in self.layers])

    def set_mask(self, mask: Tensor) -> None:
        """Weights that are new start at 0, without moments, and so do those no longer active."""
        sparsifier = self.run.sparsifier
        assert isinstance(sparsifier, Sparsifier)
        shares = self.recipe.optimizer.density_power
        for layer, part in zip(self.layers, mask.bool().split(self.sizes), strict=True):
            new = part.view(layer.mask.shape)
            kept = layer.mask & new
            zero_where_not_(layer.parameter.data, kept)
            optimizer_state.zero_moments(sparsifier.optimizers, layer.parameter, kept)
            layer.mask.copy_(new)
            rate = float(new.numel() / max(1, int(new.sum()))) ** shares
            _set_rate(self.run.optimizer, layer, rate, self.recipe.optimizer.weight_decay)
        sparsifier.version += 1

    def state_dict(self) -> dict[str, Any]:
        """The run, what was watched, and the state of its chance."""
        with self._randomness():
            run = copy.deepcopy(self.run.state_dict())
        return {
            "run": run, "gradients": self.gradients.clone(), "seen": self.seen.clone(),
            "failed": self.failed, "ready": self._ready,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave, chance included."""
        with torch.random.fork_rng(devices=[]):
            self.run.load_state_dict(copy.deepcopy(state["run"]))
            self._random = torch.get_rng_state()
        self.gradients.copy_(state["gradients"])
        self.seen = state["seen"].clone()
        self.failed, self._ready = state["failed"], state["ready"]

    def _prepare(self) -> None:
        if not self._ready:
            self.run.before_step()
            self._ready = True

    @contextlib.contextmanager
    def _randomness(self) -> Iterator[None]:
        """torch's random state as this network left it, for dropout."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            yield
            self._random = torch.get_rng_state()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._watching = True
        self._noted.clear()
        self.gradients.zero_()
        try:
            yield
        finally:
            self._watching = False
            for layer in self.layers:
                # A table that is read without its module's forward is what it gives.
                if layer.name not in self._noted:
                    self._noted[layer.name] = _moments_of(layer.parameter)
            self.seen = torch.stack([self._noted[layer.name] for layer in self.layers])

    def _noting(self, place: Tensor) -> Any:
        def note(gradient: Tensor) -> None:
            if self._watching:
                place.copy_(gradient.detach().flatten())

        return note

    def _watcher(self, layer: MaskedLayer) -> Any:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            if self._watching:
                value = output[0] if isinstance(output, tuple) else output
                self._noted[layer.name] = _moments_of(value)

        return note


def _moments_of(values: Tensor) -> Tensor:
    values = values.detach().float()
    return torch.stack([values.mean(), values.var(correction=0)])


def _apart(optimizer: Optimizer, layers: Sequence[MaskedLayer], decay: float) -> None:
    """Each masked weight in a group of its own, so that it can have its own rate; all decay."""
    masked = {id(layer.parameter) for layer in layers}
    for group in optimizer.param_groups:
        group["weight_decay"] = decay
        group["params"] = [p for p in group["params"] if id(p) not in masked]
    for layer in layers:
        optimizer.add_param_group({"params": [layer.parameter], "weight_decay": decay})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def _set_rate(optimizer: Optimizer, layer: MaskedLayer, rate: float, decay: float) -> None:
    """The factor of a layer's learning rate, which its decay does not follow."""
    for group in optimizer.param_groups:
        if group["params"][0] is layer.parameter:
            group["rate_factor"], group["weight_decay"] = rate, decay / rate
