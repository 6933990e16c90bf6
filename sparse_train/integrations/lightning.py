"""Sparse training in Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from sparse_train.integrations.follower import Follower


class SparseCallback(Callback):
    """Give it to the Trainer: `callbacks=[SparseCallback(algorithm="rigl", density=0.1)]`.

    Works with automatic and manual optimization and accumulated batches: a step counts when an
    optimizer has made one. Masks are saved in Lightning's checkpoints beside the module's weights;
    a run that is resumed goes on to the bit. Figures are logged to the Trainer's loggers.

    Args:
        settings: of `sparsify` and `Follower`; `devices` need a `batch` for the module's forward
            where training_step does not call it. total_steps is the Trainer's estimate.
    """

    def __init__(self, **settings: Any) -> None:
        self.follower = Follower(**settings)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        total = trainer.estimated_stepping_batches
        steps = int(total) if total not in (-1, float("inf")) else None
        self.follower.begin(pl_module, trainer.optimizers, steps)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.follower.step()
        if trainer.loggers and trainer.global_step % trainer.log_every_n_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics(self.follower.figures(), trainer.global_step)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        # The module that resumes has no masks yet when its weights are loaded; ours come later.
        if self.follower.sparsifier is not None:
            for key in self.follower.mask_keys(pl_module):
                checkpoint["state_dict"].pop(key, None)

    def state_dict(self) -> dict[str, Any]:
        return self.follower.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.follower.load_state_dict(state_dict)
