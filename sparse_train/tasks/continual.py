"""Continual learning: one task after the other, each in a sparse sub-network of its own."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from hwsim.checks import check_integer
from hwsim.errors import InputError
from sparse_train.data.image_files import DIGITS, ImageSet, load_images
from sparse_train.data.text import SPLITS
from sparse_train.tasks._base import Batch, Prepared, Task, check_split, stream
from sparse_train.tasks._subnetworks import CyclicPlan, Taken, begin, isolated, keep_frozen
from sparse_train.tasks.images import split_of

if TYPE_CHECKING:
    from sparse_train.masking.sparsifier import Sparsifier
    from sparse_train.models.multi_head import MultiHeadConfig
    from sparse_train.runs.config import TrainConfig

# First numbers of the keys of random streams.
_TRAINING, _PERMUTATION, _SUBNETWORK = 1, 3, 4
SCENARIOS = ("permuted", "split")
PER_TASK, REUSE, SHARED = "per_task", "reuse", "shared"
Snapshot = dict[str, Tensor]


@dataclass(frozen=True)
class Continual(Task):
    """Settings of the continual-learning task.

    Attributes:
        scenario: "permuted" (each task shuffles the pixels in its own way) or "split" (each task
            has some of the classes).
        tasks: how many; of "split" a divisor of 10.
        steps_per_task: training steps of each; the last one goes on to the end of the run.
        subnetworks: "per_task": each task has density / tasks of the weights, which no other task
            uses, and its own biases and outputs; finished ones stay as they are. "reuse": a task
            also computes with the weights of those before it, which are frozen. "shared": all
            tasks train the same weights. A dense run has one network in any case.
        data: as in task images, of one channel: "digits", "mnist", "fashion_mnist".
        path: of the data's files, as there.
        evaluation_examples: at most so many of each task in a validation or test; None: all.

    Source: Yildirim et al. 2023, "Continual Learning with Dynamic Sparse Training", section 3, for
    frozen weights that later tasks reuse.

    Which task an example belongs to is known, in training and in evaluation.
    """

    default_model: ClassVar[str] = "multi_head"
    default_preset: ClassVar[str] = "small"

    scenario: str = "permuted"
    tasks: int = 5
    steps_per_task: int = 200
    subnetworks: str = PER_TASK
    data: str = DIGITS
    path: str | None = None
    evaluation_examples: int | None = None

    def __post_init__(self) -> None:
        kinds = (PER_TASK, REUSE, SHARED)
        for name, allowed in (("scenario", SCENARIOS), ("subnetworks", kinds)):
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise InputError(f"{name}: value is {value!r}; allowed: {', '.join(allowed)}")
        check_integer("tasks", self.tasks, 1)
        check_integer("steps_per_task", self.steps_per_task, 1)
        if self.evaluation_examples is not None:
            check_integer("evaluation_examples", self.evaluation_examples, 1)
        if self.scenario == "split" and 10 % self.tasks:
            raise InputError(
                f"tasks: value is {self.tasks}; allowed in scenario 'split' is a divisor of 10"
            )

    def prepare(self) -> PreparedContinual:
        data = load_images(self.data, self.path)
        channels = data.images.shape[1]
        if channels != 1:
            raise InputError(
                f"data: {self.data!r} has {channels} channels; allowed are images of one: digits, "
                "mnist, fashion_mnist"
            )
        return PreparedContinual(self, data)

    def lengthened(self, times: int) -> Continual:
        return replace(self, steps_per_task=times * self.steps_per_task)


class PreparedContinual(Prepared):
    """A stream of tasks on small images.

    What was learnt is kept task by task: the parameters at the end of each. One run at a time: the
    next model that is built begins with the first task.
    """

    metric: ClassVar[str] = "accuracy"
    lower_is_better: ClassVar[bool] = False

    def __init__(self, settings: Continual, data: ImageSet) -> None:
        self.settings, self.data = settings, data
        self._classes = 10 // settings.tasks if settings.scenario == "split" else 10
        self._parts = split_of(data)
        self._rows = {
            (split, task): self._rows_of(split, task)
            for split in SPLITS
            for task in range(settings.tasks)
        }
        self._forget_all()

    def _forget_all(self) -> None:
        self._seed = 0
        self._task = 0
        self._snapshots: list[Snapshot] = []
        self._taken: Taken = {}

    @cached_property
    def digest(self) -> str:
        # A path may differ between machines; what lies there is in the data's digest.
        settings = {name: v for name, v in asdict(self.settings).items() if name != "path"}
        text = json.dumps([settings, self.data.digest])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "digest": self.digest, "data": self.data.name, "tasks": self.settings.tasks,
            "examples": {name: len(self._rows[name, 0]) for name in SPLITS},
        }  # fmt: skip

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        from sparse_train.models.multi_head import MultiHead

        return MultiHead(self._sizes(model, preset, options))

    def build_for(self, config: TrainConfig) -> nn.Module:
        self._forget_all()
        self._seed = config.seed
        return super().build_for(config)

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        return self._sizes(model, preset, options).width

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """At least one hidden neuron in each layer."""
        width = self._sizes(model, preset, options).width
        return {**options, "width": min(width, max(1, round(share * width)))}

    def make_sparsifier(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer
    ) -> Sparsifier | None:
        if config.algorithm == "dense" or self.settings.subnetworks == SHARED:
            return super().make_sparsifier(config, model, optimizer)
        from sparse_train.distributions import distribution
        from sparse_train.masking.build import make_algorithm
        from sparse_train.masking.layers import select_layers
        from sparse_train.sparsify import sparsify

        if config.schedule not in (None, "constant"):
            raise InputError(
                f"schedule: value is {config.schedule!r}; allowed with subnetworks 'per_task' is "
                "'constant'"
            )
        n_tasks = self.settings.tasks
        layers = select_layers(model, config.layers, None).layers
        shapes = {layer.name: layer.weight_shape for layer in layers}
        whole = distribution(config.distribution)(shapes, config.density)
        for layer in layers:
            self._taken[layer.name] = np.zeros(layer.shape, dtype=bool)
        reuse = self.settings.subnetworks == REUSE
        made_of = make_algorithm(config.algorithm, config.algorithm_options)
        rule = isolated(made_of, self._taken, reuse)
        made = sparsify(
            model,
            optimizer,
            rule,
            density=config.density / n_tasks,
            pattern=config.pattern,
            distribution={name: density / n_tasks for name, density in whole.items()},
            update_interval=config.update_interval,
            drop_fraction=config.drop_fraction,
            end_step=config.end_step,
            total_steps=self.settings.steps_per_task,
            layers=config.layers,
            seed=config.seed,
        )
        allowed = ("unstructured",) if reuse else ("unstructured", "fan_in")
        if made.pattern.name not in allowed:
            raise InputError(
                f"pattern: {made.pattern.name} cannot be kept to a sub-network; allowed with "
                f"subnetworks {self.settings.subnetworks!r}: {', '.join(allowed)}"
            )
        plan = {f.name: getattr(made.plan, f.name) for f in fields(made.plan)}
        made.plan = CyclicPlan(
            **plan, period=self.settings.steps_per_task, tasks=n_tasks, adds_up=reuse
        )
        if reuse:
            keep_frozen(made, self._taken)
        begin(made, self._taken, stream(_SUBNETWORK, config.seed, 0), reuse)
        return made

    def before_step(self, step: int, model: nn.Module, sparsifier: Sparsifier | None) -> bool:
        """Where a task begins, keeps what the one before it learnt, and makes room."""
        if self._task_of(step) == self._task:
            return False
        self._snapshots.append(_parameters(model))
        self._task += 1
        if sparsifier is None or not self._taken:
            return False
        for name, mask in sparsifier.masks().items():
            self._taken[name] |= mask.array
        reuse = self.settings.subnetworks == REUSE
        begin(sparsifier, self._taken, stream(_SUBNETWORK, self._seed, self._task), reuse)
        sparsifier.version += 1
        return True

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """inputs (batch, pixels), labels (batch,) within the task, and the task's number."""
        task = self._task_of(step)
        rows = self._rows["train", task]
        chosen = stream(_TRAINING, seed, step).integers(0, len(rows), batch_size)
        return self._of("train", rows[chosen], task)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """Means over the tasks seen so far.

        "accuracy" and "loss" of now; "forgetting" is how far accuracy has fallen since the best of
        the times at which the task or a later one ended, mean over all tasks but the present one.

        Source: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning", section 3.
        """
        check_split(split)
        was_training = model.training
        model.eval()
        try:
            now = _parameters(model)
            found = [self._measured(model, self._own(task, now), task, split)
                     for task in range(self._task + 1)]  # fmt: skip
            fallen = []
            for task in range(self._task):
                kept = self._snapshots[task : self._task]
                at_ends = [
                    self._measured(model, self._own(task, one), task, split)[1] for one in kept
                ]
                fallen.append(max(at_ends) - found[task][1])
        finally:
            model.train(was_training)
        losses, accuracies = zip(*found, strict=True)
        return {
            "loss": float(np.mean(losses)),
            "accuracy": float(np.mean(accuracies)),
            "forgetting": float(np.mean(fallen)) if fallen else 0.0,
        }

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """A class drawn evenly."""
        check_split(split)
        guess = {"loss": math.log(self._classes), "accuracy": 1 / self._classes, "forgetting": 0.0}
        return {"random class": guess}

    def progress_loss(self, found: Mapping[str, float]) -> float:
        """The mean loss over all tasks; those to come count as guessing, ln(classes)."""
        seen = (self._task + 1) / self.settings.tasks
        return seen * found["loss"] + (1 - seen) * math.log(self._classes)

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "task": self._task,
            "snapshots": list(self._snapshots),
            "taken": {name: torch.from_numpy(mask.copy()) for name, mask in self._taken.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "snapshots" not in state or set(state["taken"]) != set(self._taken):
            raise InputError("task state: is not of this run of task continual")
        self._seed, self._task = int(state["seed"]), int(state["task"])
        self._snapshots = list(state["snapshots"])
        for name, mask in state["taken"].items():
            self._taken[name][:] = mask.numpy()

    def _own(self, task: int, parameters: Snapshot) -> Snapshot:
        """What task's network is: with sub-networks the one it had at its end, else the given."""
        finished = bool(self._taken) and task < len(self._snapshots)
        return self._snapshots[task] if finished else parameters

    def _measured(
        self, model: nn.Module, parameters: Snapshot, task: int, split: str
    ) -> tuple[float, float]:
        """(loss, accuracy) of one task with some parameters."""
        batch = self._of(split, self._rows[split, task], task)
        outcome = functional_call(model, parameters, (), batch)
        right = (outcome.logits.argmax(-1) == batch["labels"]).float().mean()
        return float(outcome.loss), float(right)

    def _task_of(self, step: int) -> int:
        return min((step - 1) // self.settings.steps_per_task, self.settings.tasks - 1)

    def _rows_of(self, split: str, task: int) -> np.ndarray:
        rows = np.sort(self._parts[split])
        if self.settings.scenario == "split":
            rows = rows[self.data.of(split)[1][rows] // self._classes == task]
        few = self.settings.evaluation_examples
        if split == "train" or few is None or len(rows) <= few:
            return rows
        return rows[:: len(rows) // few][:few]

    def _of(self, split: str, rows: np.ndarray, task: int) -> Batch:
        images, labels = self.data.of(split)
        pixels = images[rows].reshape(len(rows), -1).astype(np.float32) / 255
        if self.settings.scenario == "permuted" and task:
            pixels = pixels[:, stream(_PERMUTATION, task).permutation(pixels.shape[1])]
        return {
            "inputs": torch.from_numpy(np.ascontiguousarray(pixels)),
            "labels": torch.from_numpy(labels[rows] % self._classes),
            "task": torch.tensor(task),
        }

    def _sizes(self, model: str, preset: str, options: Mapping[str, Any]) -> MultiHeadConfig:
        from sparse_train.models.multi_head import MultiHeadConfig

        if model != "multi_head":
            raise InputError(f"model: value is {model!r}; allowed for task continual: 'multi_head'")
        sizes = {
            "inputs": self.data.images[0].size,
            "classes": self._classes,
            "tasks": self.settings.tasks,
        }
        for name, size in sizes.items():
            if name in options:
                raise InputError(
                    f"model_options: {name} is {options[name]!r}; task continual sets it, here to "
                    f"{size}"
                )
        return MultiHeadConfig.preset(preset, **sizes, **options)


def _parameters(model: nn.Module) -> Snapshot:
    """Copies of all parameters; masks are no part of them."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


TASK = Continual
