"""What every task gives: batches, a loss, an evaluation, and the model that fits its data."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from hwsim.errors import InputError, unknown
from sparse_train.registries import TASKS

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from sparse_train.masking.sparsifier import Sparsifier
    from sparse_train.runs.config import TrainConfig

Batch = dict[str, Tensor]
EVALUATION_SPLITS = ("validation", "test")


class Prepared(ABC):
    """A task with its data at hand.

    Most tasks keep no position: what a step trains on depends on its arguments alone. So a
    resumed run goes on exactly, and all runs with one seed see the same batches. A task whose data
    come of training itself (an agent's experience) keeps all that it needs to go on in
    `state_dict`, and begins anew in `build_for`, so that a shallow copy can serve another run.

    Attributes:
        metric: the entry of `evaluate` that decides which of two models is better.
        lower_is_better: its direction.
    """

    metric: ClassVar[str] = "loss"
    lower_is_better: ClassVar[bool] = True

    @property
    @abstractmethod
    def digest(self) -> str:
        """Of everything that decides the batches; equal digests give equal batches."""

    @abstractmethod
    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        """A new model for this data; initial weights from torch's present random state."""

    def build_for(self, config: TrainConfig) -> nn.Module:
        """The model of a run; where sparse weights are stored in another way than dense, so."""
        return self.build_model(config.model, config.preset, config.model_options)

    def priced_model(self, model: nn.Module) -> nn.Module:
        """What stands for a run's model when its step is priced: the same layers, dense.

        It may lie on the meta device: only shapes count.
        """
        return model

    @abstractmethod
    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """The training batch of step number `step`, counted from 1: a pure function.

        Its tensors have the same shapes in every step, so that one step stands for all when it is
        priced. It is given to the model as keyword arguments.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """What training minimises, a scalar with gradient."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """Metrics on the fixed batches of "validation" or "test", the same for all models.

        One of them is "loss", which training means to lower.

        The model is in evaluation mode meanwhile, no random number is drawn, and its mode is as
        before afterwards. Test data is read only when "test" is asked for.
        """

    def progress_loss(self, found: Mapping[str, float]) -> float:
        """Of what `evaluate` found: how much is still to be learnt, whatever the step.

        It falls from the first step to the last, so that a run can be asked when it has come as
        far as another. The loss, where that means the same in all steps.
        """
        return found["loss"]

    def evaluation_batches(self, split: str = "validation") -> list[Batch]:
        """The fixed batches of `evaluate`, for those who train many models at once.

        Raises:
            InputError: the task has none, or another split than "validation" or "test".
        """
        raise InputError(
            f"task {type(self).__name__}: it has no fixed evaluation batches; allowed is a task "
            "that has them, so that many networks can be evaluated at once"
        )

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The metrics of one batch as scalar tensors, without a look at values: it can be vmapped.

        "loss", and what else the task can tell of a batch by itself.
        """
        return {"loss": self.loss(model, batch)}

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """Rule → metrics on a split, of predictors that train nothing.

        Who is not better has learnt nothing: every comparison shows them. Each rule gives at least
        the task's `metric`.
        """
        return {}

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Sizes and digests for the record, as JSON has them."""

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """Options of the same model at about `share` of its hidden width, for `build_model`.

        What comparisons take the narrower dense model from; asked for where `widths` is above 0.
        """
        raise TypeError(f"{type(self).__name__} has widths and must define narrowed")

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        """How many widths `narrowed` tells apart, the model's own among them; 0: it has none."""
        return 0

    def make_sparsifier(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer
    ) -> Sparsifier | None:
        """What keeps the model sparse; None for a dense run."""
        if config.algorithm == "dense":
            return None
        from sparse_train.sparsify import sparsify

        return sparsify(
            model,
            optimizer,
            config.algorithm,
            density=config.density,
            pattern=config.pattern,
            distribution=config.distribution,
            schedule=config.schedule,
            initial_density=config.initial_density,
            update_interval=config.interval,
            drop_fraction=config.drop_fraction,
            drop_schedule=config.drop_schedule,
            initial_masks=config.initial_masks,
            replace_step=config.replace_step,
            regulariser=config.regulariser,
            end_step=config.end_step,
            total_steps=config.steps,
            layers=config.layers,
            seed=config.seed,
            **config.algorithm_options,
        )

    def before_step(self, step: int, model: nn.Module, sparsifier: Sparsifier | None) -> bool:
        """Called before the batch of step number `step` is asked for.

        Returns:
            whether it changed the masks; a new version is then recorded, which serves this step.
        """
        return False

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings that the task needs to go on; part of each checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`.

        Raises:
            InputError: a state that is not this task's.
        """
        if state:
            raise InputError(f"task state: has {', '.join(state)}; this task has none")


class Task(ABC):
    """The settings of a task: a frozen dataclass of numbers and strings, checked when made.

    Attributes:
        default_model, default_preset: what is trained on it where nothing else is asked for.
        default_layers: what masks act on where nothing else is asked for; None for what
            `sparsify` takes then.
    """

    default_model: ClassVar[str]
    default_preset: ClassVar[str]
    default_layers: ClassVar[tuple[str, ...] | None] = None

    @abstractmethod
    def prepare(self) -> Prepared:
        """Reads (and keeps, in the cache folder) the data.

        Raises:
            InputError: the data is not there or not usable.
        """

    def lengthened(self, times: int) -> Self:
        """The settings of a run of `times` the steps, where parts of it have steps of their own.

        Comparisons use it: a stream of tasks gives each task twice the steps in a run of twice the
        length, where the last task alone would get all of them.
        """
        return self


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """A task by name with its options.

    Raises:
        InputError: an unknown name or option (the valid ones are listed), or a wrong value.
    """
    kind = TASKS.get(name)
    valid = tuple(field.name for field in dataclasses.fields(kind))
    for option in options:
        if option not in valid:
            raise InputError(unknown(f"option of task {name}", option, valid))
    return kind(**options)


def stream(*key: int) -> np.random.Generator:
    """A random stream that depends on `key` alone, for example (seed, purpose, step)."""
    return np.random.default_rng(np.random.SeedSequence(key))


def check_split(split: str) -> int:
    """The split's place in EVALUATION_SPLITS; an InputError unless it is one of them."""
    if split not in EVALUATION_SPLITS:
        raise InputError(f"split: value is {split!r}; allowed: {', '.join(EVALUATION_SPLITS)}")
    return EVALUATION_SPLITS.index(split)
