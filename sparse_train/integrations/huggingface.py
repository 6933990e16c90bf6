"""Sparse training in transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hwsim.errors import InputError
from hwsim.files import replacing
from sparse_train import tensor_files
from sparse_train.integrations.follower import Follower

FILE = "sparse_training.pt"


class SparseCallback(TrainerCallback, ExportableState):
    """Give it to the Trainer: `callbacks=[SparseCallback(algorithm="rigl", density=0.1)]`.

    Masks are saved within each checkpoint, and a run that is resumed goes on to the bit. Figures go
    into the Trainer's log; `add_to(trainer)` puts the callback before TensorBoard, Weights & Biases
    and MLflow, so that they get them too.

    Args:
        resume_from: the checkpoint's folder, where it was moved since it was written.
        settings: of `sparsify` and `Follower` (devices, batch). total_steps is the Trainer's.
    """

    def __init__(self, *, resume_from: str | Path | None = None, **settings: Any) -> None:
        self.follower = Follower(**settings)
        self._resume_from = resume_from
        self._output = ""

    def add_to(self, trainer: Any) -> SparseCallback:
        """Put the callback before all others of a Trainer."""
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._output = str(args.output_dir)
        if state.global_step > 0:
            self.follower.load_state_dict(self._saved(args, state))
        self.follower.begin(kwargs["model"], kwargs["optimizer"], state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.follower.step()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs is None or self.follower.sparsifier is None:
            return
        figures = self.follower.figures()
        logs.update(figures)
        if state.log_history:
            state.log_history[-1].update(figures)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            with replacing(folder / FILE) as part:
                tensor_files.write(self.follower.state_dict(), part)

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into its own state: where to look for ours."""
        return {"args": {}, "attributes": {"_output": str(Path(self._output).absolute())}}

    def _saved(self, args: Any, state: Any) -> dict[str, Any]:
        """The state in the checkpoint that the Trainer resumes from."""
        name = f"checkpoint-{state.global_step}"
        mine = (state.stateful_callbacks or {}).get(type(self).__name__) or {}
        mine = mine[0] if isinstance(mine, list) else mine
        before = mine.get("attributes", {}).get("_output", "")
        given = (self._resume_from, args.resume_from_checkpoint)
        folders = [Path(one) for one in given if isinstance(one, (str, Path))]
        folders += [Path(before) / name, Path(args.output_dir) / name]
        for folder in folders:
            if (folder / FILE).is_file():
                return tensor_files.read(folder / FILE, str(folder / FILE))
        raise InputError(
            f"resume_from: the Trainer goes on from step {state.global_step}, but there is no "
            f"{FILE} in {', '.join(str(f) for f in folders)}; give the checkpoint's folder"
        )
