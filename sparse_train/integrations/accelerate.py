"""Sparse training in a loop under accelerate."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from sparse_train.integrations.follower import Follower


class AcceleratedSparsity:
    """A sparse run of what `accelerator.prepare` has given.

        model, optimizer, data = accelerator.prepare(model, optimizer, data)
        sparse = AcceleratedSparsity(accelerator, model, optimizer, algorithm="rigl", density=0.1,
                                     total_steps=10_000)
        for batch in data:
            with accelerator.accumulate(model):
                accelerator.backward(loss(model, batch))
                optimizer.step()
                optimizer.zero_grad()
            sparse.step()

    It is registered with the accelerator, so that save_state and load_state keep it too, and its
    figures go to the accelerator's trackers. A model that was sparsified before `prepare` works as
    well; then call the sparsifier's own step().

    Args:
        log_every: steps between figures.
        settings: of `sparsify` and `Follower` (devices, batch).
    """

    def __init__(
        self, accelerator: Any, model: nn.Module, optimizer: Optimizer, *,
        total_steps: int | None = None, log_every: int = 100, **settings: Any,
    ) -> None:  # fmt: skip
        self._accelerator, self._log_every = accelerator, log_every
        self.follower = Follower(**settings)
        inner = accelerator.unwrap_model(model)
        self.sparsifier = self.follower.begin(inner, optimizer, total_steps)
        accelerator.register_for_checkpointing(self)

    def step(self) -> bool:
        """Call after each batch; accumulated ones count with the last. Whether a mask changed."""
        before = self.sparsifier.steps
        changed = self.follower.step()
        if self.sparsifier.steps > before and self.sparsifier.steps % self._log_every == 0:
            self._accelerator.log(self.follower.figures(), step=self.sparsifier.steps)
        return changed

    def state_dict(self) -> dict[str, Any]:
        """The sparsifier's state and what was logged."""
        return self.follower.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.follower.load_state_dict(state_dict)
