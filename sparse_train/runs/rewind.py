"""Lottery tickets: at each pruning the whole run goes back to an early step, not masks alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_train.masking.sparsifier import Sparsifier

if TYPE_CHECKING:
    from sparse_train.runs.config import TrainConfig


class Rewind:
    """Puts back what the algorithm does not: parameters without masks, moments, learning rate.

    Each round, from one pruning to the next, is a training of its own: the rate warms up and
    decays within it. Batches go on: a round sees others than the one before.

    Source: Frankle & Carbin 2019, section 1; Frankle et al. 2020, section 3 (late rewinding).

    Args:
        to: the step whose state is gone back to, 0 for the initial one.
    """

    def __init__(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer, sparsifier: Sparsifier,
        to: int,
    ) -> None:  # fmt: skip
        self._config, self._model, self._optimizer = config, model, optimizer
        self._sparsifier, self._to = sparsifier, to
        self._began = 0  # The step after which the present round began.
        self._early: dict[str, Tensor] = self._state() if to == 0 else {}

    def learning_rate_at(self, step: int) -> float:
        """As in a run as long as the round that step number `step` is in."""
        back = self._to if self._began else 0
        length = max(self._next() - self._began + back, 1)
        warm_up = min(self._config.warmup_steps or 0, length)
        # A dense run's settings: the round is no run of its own, and its masks are not checked.
        round_ = dataclasses.replace(
            self._config, steps=length, warmup_steps=warm_up, algorithm="dense", density=1.0,
            algorithm_options={},
        )  # fmt: skip
        return round_.learning_rate_at(step - self._began + back)

    def after(self, step: int, pruned: bool) -> None:
        """After the sparsifier's part of a step."""
        if step == self._to:
            self._early = self._state()
        elif pruned:
            with torch.no_grad():
                state = self._model.state_dict()
                for name, early in self._early.items():
                    state[name].copy_(early)
            for parameter in self._model.parameters():
                for slot in self._optimizer.state.get(parameter, {}).values():
                    if isinstance(slot, Tensor):
                        slot.zero_()
            self._began = step

    def _next(self) -> int:
        """The step of the next pruning, or the run's last one."""
        for step in range(self._began + 1, self._config.steps):
            if self._sparsifier.is_update_step(step) and step != self._to:
                return step
        return self._config.steps

    def _state(self) -> dict[str, Tensor]:
        """All that no mask acts on, and no mask."""
        layers = self._sparsifier.layers.values()
        masked = {layer.parameter.data_ptr() for layer in layers}
        masked |= {layer.mask.data_ptr() for layer in layers}
        state = self._model.state_dict()
        return {n: t.detach().clone() for n, t in state.items() if t.data_ptr() not in masked}

    def state_dict(self) -> dict[str, Any]:
        """When training began anew, and the early state that it goes back to."""
        return {"began": self._began, "early": dict(self._early)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._began, self._early = int(state["began"]), dict(state["early"])
