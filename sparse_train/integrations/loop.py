"""A context for training loops written by hand: saved as it goes, resumed to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hwsim.checks import check_integer
from hwsim.errors import InputError
from hwsim.files import replacing
from sparse_train.data import tensor_files
from sparse_train.integrations.follower import Follower


class Loop:
    """What `sparse_loop` gives. Call `step()` after `optimizer.step()`.

    Attributes:
        steps: optimizer steps made so far, those before a resumption too.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[Optimizer], follower: Follower,
        total_steps: int | None, checkpoint: Path | None, every: int,
        log: Callable[[dict[str, float], int], None] | None,
    ) -> None:  # fmt: skip
        self._model, self._optimizers, self._follower = model, optimizers, follower
        self._path, self._every, self._log = checkpoint, every, log
        saved = None
        if checkpoint is not None and checkpoint.is_file():
            saved = tensor_files.read(checkpoint, f"checkpoint {checkpoint}")
            weights = {k: v for k, v in saved["model"].items() if k not in saved["masks"]}
            model.load_state_dict(weights)
            for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            follower.load_state_dict(saved["sparse"])
        self.sparsifier = follower.begin(model, optimizers, total_steps)
        if saved is not None:
            torch.set_rng_state(saved["random"])

    @property
    def steps(self) -> int:
        """Optimizer steps that were counted."""
        return self.sparsifier.steps

    def step(self) -> bool:
        """Finish a step: masks, figures, and a checkpoint if it is time; whether masks changed."""
        before = self.steps
        if not self.sparsifier.step_made:
            self.sparsifier.step()  # which says so if none will ever come
            return False
        changed = self._follower.step()
        if self._log is not None and self.steps > before:
            self._log(self.figures(), self.steps)
        if self._path is not None and self.steps % self._every == 0:
            self.save()
        return changed

    def figures(self) -> dict[str, float]:
        """Density, explored share, updates, and net time on the chosen devices."""
        return self._follower.figures()

    def save(self) -> None:
        """Write the checkpoint: the model, optimizers, masks and torch's random state."""
        if self._path is None:
            raise InputError("checkpoint: value is None; allowed to save is a path")
        state = {
            "model": self._model.state_dict(),
            "masks": sorted(self._follower.mask_keys(self._model)),
            "optimizers": [one.state_dict() for one in self._optimizers],
            "sparse": self._follower.state_dict(),
            "random": torch.get_rng_state(),
        }
        with replacing(self._path) as part:
            tensor_files.write(state, part)


@contextmanager
def sparse_loop(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    total_steps: int | None = None,
    checkpoint: str | Path | None = None,
    every: int = 1000,
    log: Callable[[dict[str, float], int], None] | None = None,
    **settings: Any,
) -> Iterator[Loop]:
    """Sparse training of a loop of one's own.

        with sparse_loop(model, optimizer, algorithm="rigl", density=0.1, total_steps=10_000,
                         checkpoint="run.pt", devices=("wse2",)) as sparse:
            for batch in batches[sparse.steps:]:
                optimizer.zero_grad()
                loss(model, batch).backward()
                optimizer.step()
                sparse.step()

    Args:
        checkpoint: a file; if it is there, the run goes on from it, and it is written every
            `every` steps and at the end.
        log: is called with the figures and the step's number.
        settings: of `sparsify` and `Follower` (devices, batch).
    """
    check_integer("every", every, 1)
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    path = None if checkpoint is None else Path(checkpoint)
    loop = Loop(model, optimizers, Follower(**settings), total_steps, path, every, log)
    yield loop
    if path is not None:
        loop.save()
