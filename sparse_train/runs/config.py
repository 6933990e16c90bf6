"""Everything that decides a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError, unknown
from hwsim.references import is_reference
from sparse_train import schedules
from sparse_train.distributions import DISTRIBUTIONS, check_distribution
from sparse_train.models import FAMILIES
from sparse_train.registries import ALGORITHMS, PATTERNS, TASKS
from sparse_train.regularisers import REGULARISERS, check_regulariser
from sparse_train.runs.calendar import Calendar

DENSE = "dense"
OPTIMIZERS = ("adamw", "sgd")
DECAYS = ("cosine", "linear", "milestones", "none")
COMPUTE = ("masked", "sparse")
# Tasks with a calendar of mask updates of their own.
_CYCLIC = ("continual",)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run; two runs with equal settings and threads end with equal bits.

    Attributes:
        task, task_options: a name in `sparse_train.tasks` and its settings.
        model, preset, model_options: what is trained; options override the preset. "" stands
            for the task's own model, and for its own preset of that model; it is filled in.
        algorithm, algorithm_options: "dense" for no masks, or a name in
            `sparse_train.algorithms` and its settings.
        density, pattern, distribution, schedule, initial_density, update_interval, drop_fraction,
            drop_schedule, end_step, initial_masks, replace_step, layers: as in `sparsify`; without
            effect where the algorithm is "dense". See `interval` for the default of
            update_interval.
        regulariser: a name in `sparse_train.regularisers`, with its strength as in "l1:1e-4".
        compute: "masked" multiplies by dense weights with zeros in them; "sparse" runs the masked
            linear layers on the sparse CPU kernels, with the same losses within rounding.
        steps, batch_size: how long, and on how many windows (images, …) a step.
        optimizer: "adamw" or "sgd". `beta2` is AdamW's; `beta1` is also SGD's momentum.
        learning_rate: the peak, reached after `warmup_steps`, at most all steps (by default 100 or
            a tenth of the steps, what is less; it is filled in); then falls along `decay` to
            `final_share` of it in the last step, or stays, where that is "none".
        milestones, milestone_factor: with decay "milestones" the rate is multiplied by the factor
            after each of these shares of all steps; `final_share` is the least that it falls to.
            The defaults are those of He et al. (2016), section 4.2, on CIFAR-10.
        rate_power: masked layers train at the learning rate over their present density to this
            power: 1 is the rule lr/d, 0 one rate for all.
        weight_decay: of weights of rank 2 and more; biases and norms have none.
        clip_norm: gradients are scaled down to this norm; None for no limit.
        eval_interval: steps between validations; also before the first and after the last step.
        test: whether the test set is evaluated too, once, after the last step.
        checkpoint_interval: steps between checkpoints: what a kill can cost.
        seed: of initial weights, batches, masks and dropout.
        threads: of torch; None for what torch has. The number used is recorded.
        tensorboard: whether event files are written too.
    """

    task: str = "mlm"
    task_options: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    preset: str = ""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str = DENSE
    algorithm_options: Mapping[str, Any] = field(default_factory=dict)
    density: float = 1.0
    pattern: str | None = None
    distribution: str = "erk"
    schedule: str | None = None
    initial_density: float = 1.0
    update_interval: int | None = None
    drop_fraction: float = 0.3
    drop_schedule: str = "cosine"
    end_step: int | None = None
    initial_masks: str | None = None
    replace_step: bool = False
    regulariser: str | None = None
    layers: str | tuple[str, ...] | None = None
    compute: str = "masked"
    steps: int = 1000
    batch_size: int = 16
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    warmup_steps: int | None = None
    decay: str = "cosine"
    final_share: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    milestone_factor: float = 0.1
    rate_power: float = 0.0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    clip_norm: float | None = 1.0
    eval_interval: int = 100
    test: bool = False
    checkpoint_interval: int = 500
    seed: int = 0
    threads: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_interval", "checkpoint_interval"):
            check_integer(name, getattr(self, name), 1)
        if self.warmup_steps is None:
            object.__setattr__(self, "warmup_steps", min(100, self.steps // 10))
        for name in ("warmup_steps", "seed"):
            check_integer(name, getattr(self, name), 0)
        if self.warmup_steps > self.steps:  # type: ignore[operator]
            raise InputError(
                f"warmup_steps: value is {self.warmup_steps}; allowed is at most the {self.steps} "
                "steps of the run"
            )
        if self.threads is not None:
            check_integer("threads", self.threads, 1)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("rate_power", self.rate_power, least=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("final_share", self.final_share, least=0, most=1)
        check_number("milestone_factor", self.milestone_factor, above=0, below=1)
        check_number("density", self.density, least=0, most=1)
        check_number("beta1", self.beta1, least=0, below=1)
        check_number("beta2", self.beta2, least=0, below=1)
        if self.clip_norm is not None:
            check_number("clip_norm", self.clip_norm, above=0)
        TASKS.check(self.task)
        self._fill_in_the_model()
        if self.algorithm != DENSE:
            ALGORITHMS.check(self.algorithm)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("decay", self.decay, DECAYS)
        _one_of("compute", self.compute, COMPUTE)
        for name in ("test", "tensorboard", "replace_step"):
            if not isinstance(getattr(self, name), bool):
                value = getattr(self, name)
                raise InputError(f"{name}: value is {value!r}; allowed is true or false")
        if self.schedule is not None:
            schedules.check_schedule(self.schedule)
        _one_of("drop_schedule", self.drop_schedule, schedules.DROP_SCHEDULES)
        if self.regulariser is not None:
            check_regulariser(self.regulariser)
        if isinstance(self.distribution, str):
            check_distribution(self.distribution)
        if self.algorithm == DENSE and self.density != 1:
            raise InputError(
                f"density: value is {self.density}; allowed with algorithm 'dense' is 1"
            )
        for name in ("task_options", "model_options", "algorithm_options"):
            _options(name, getattr(self, name))
        for name in ("layers", "milestones"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _rising_shares("milestones", self.milestones)
        if not is_reference(self.algorithm):
            self.check_updates()

    def check_updates(self) -> None:
        """An InputError if masks would never change, or too seldom for the density asked for.

        Of an algorithm given by reference it is asked before training, so that reading a run's
        settings imports nothing of a stranger's.
        """
        if self.algorithm != DENSE and self.task not in _CYCLIC:
            self._calendar.check()

    def _fill_in_the_model(self) -> None:
        for name, value in (("model", self.model), ("preset", self.preset)):
            if not isinstance(value, str):
                raise InputError(f"{name}: value is {value!r}; allowed is a name")
        if self.model and self.preset and self.layers is not None:
            return
        task = TASKS.get(self.task)
        model = self.model or task.default_model
        if not self.preset and model != task.default_model:
            known = FAMILIES.get(model).presets if model in FAMILIES.names() else ()
            sizes = f": {', '.join(known)}" if known else ""
            raise InputError(f"preset: none given; allowed is a size of model {model!r}{sizes}")
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "preset", self.preset or task.default_preset)
        if self.layers is None:
            object.__setattr__(self, "layers", task.default_layers)

    @property
    def interval(self) -> int | None:
        """Steps between mask updates: `update_interval`, or what suits algorithm and length."""
        if self.update_interval is not None or self.algorithm == DENSE:
            return self.update_interval
        return self._calendar.interval

    @property
    def _calendar(self) -> Calendar:
        return Calendar(
            self.algorithm, self.algorithm_options, self.density, self.steps,
            self.update_interval, self.end_step,
        )  # fmt: skip

    def learning_rate_at(self, step: int) -> float:
        """The rate of step number `step`, counted from 1."""
        warm_up = self.warmup_steps or 0
        if step <= warm_up:
            return self.learning_rate * step / warm_up
        if self.decay == "milestones":
            passed = sum(step > round(share * self.steps) for share in self.milestones)
            return self.learning_rate * max(self.milestone_factor**passed, self.final_share)
        left = self.steps - warm_up
        progress = min((step - warm_up) / left, 1.0) if left > 0 else 1.0
        share = 1.0 if self.decay == "none" else schedules.SHAPES[self.decay](progress)
        return self.learning_rate * (self.final_share + (1 - self.final_share) * share)

    def origins(self) -> dict[str, dict[str, str]]:
        """Setting → where the member of the user's or of another package came from."""
        kinds = {
            "task": TASKS, "model": FAMILIES, "algorithm": ALGORITHMS, "pattern": PATTERNS,
            "distribution": DISTRIBUTIONS, "schedule": schedules.SCHEDULES,
            "regulariser": REGULARISERS,
        }  # fmt: skip
        found = {}
        for name, registry in kinds.items():
            value = getattr(self, name)
            if isinstance(value, str) and value != DENSE and (where := registry.origin(value)):
                found[name] = where
        return found

    @property
    def priced_optimizer(self) -> str:
        """What `sparse_train.workload` calls the optimizer."""
        return "sgd_momentum" if self.optimizer == "sgd" and self.beta1 else self.optimizer

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; `from_json` gives an equal config back."""
        content = dataclasses.asdict(self)
        for name in ("layers", "milestones"):
            if isinstance(content[name], tuple):
                content[name] = list(content[name])
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TrainConfig:
        """The config of a dictionary; missing keys have their defaults.

        Raises:
            InputError: a key that is not known, or a value that is not allowed.
        """
        valid = tuple(f.name for f in dataclasses.fields(cls))
        for key in content:
            if key not in valid:
                raise InputError(unknown("key of the configuration", key, valid))
        return cls(**content)

    def first_difference(self, other: TrainConfig) -> str | None:
        """The first key, in order of the fields, in which two configs differ."""
        mine, theirs = self.to_json(), other.to_json()
        return next((key for key in mine if mine[key] != theirs[key]), None)


def _options(name: str, value: object) -> None:
    plain = (str, int, float, bool, type(None))
    good = isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, plain) for key, item in value.items()
    )
    if not good:
        raise InputError(
            f"{name}: value is {value!r}; allowed is names with numbers, strings or None"
        )


def _rising_shares(name: str, value: object) -> None:
    shares = value if isinstance(value, tuple) else ()
    good = isinstance(value, tuple)
    least = 0.0
    for share in shares:
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        good = good and number and least < share < 1
        least = share
    if not good:
        raise InputError(
            f"{name}: value is {value!r}; allowed are rising shares of the steps, above 0 and "
            "below 1"
        )


def _one_of(name: str, value: object, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InputError(unknown(name, value, valid))
