"""What is compared: a plan, its contenders, and the runs that each needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.comparing.variants import Variant
from hwsim import InputError

if TYPE_CHECKING:
    from sparse_train.runs.config import TrainConfig
    from sparse_train.tasks import Prepared

Progress = Callable[[str, int, int, str], None]  # what is done, units done, of how many, a note


# Settings of a run that a comparison decides itself.
DECIDED = (
    "algorithm", "algorithm_options", "density", "seed", "learning_rate", "warmup_steps", "test",
    "eval_interval", "checkpoint_interval",
)  # fmt: skip


# Of the short runs that choose a learning rate: a seed of their own, so that none is favoured.
TUNING_SEED = 1_000_003


CHECKPOINT_INTERVAL = 100


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        base: a dense run's settings: task, model, steps, batch size and all that contenders share.
            Those in DECIDED are not looked at.
        variants: the sparse contenders.
        densities: each variant runs at each.
        seeds: of the final runs; intervals are over them.
        rates: learning rates; each contender has one short run at each and takes the best by the
            task's metric on validation. One rate needs no short runs.
        tune_steps: of a short run.
        dense: whether the dense model takes part.
        narrower: whether at each density the dense model that costs as much does.
        warmup_share: of a run's steps.
        update_interval: steps between mask updates, where the algorithm has them apart; None for
            each algorithm's own.
        evaluations: on validation, in a final run.
    """

    base: TrainConfig
    variants: tuple[Variant, ...] = (Variant("static"), Variant("set"), Variant("rigl"))
    densities: tuple[float, ...] = (0.2, 0.1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    tune_steps: int = 100
    dense: bool = True
    narrower: bool = True
    warmup_share: float = 0.06
    update_interval: int | None = None
    evaluations: int = 10

    def __post_init__(self) -> None:
        for name in ("densities", "seeds", "rates"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(
                    f"{name}: value is {values}; allowed is one or more, all different"
                )
        for name, low, high in (("densities", 0, 1), ("rates", 0, float("inf"))):
            if not all(low < value < high for value in getattr(self, name)):
                raise InputError(f"{name}: value is {getattr(self, name)}; allowed {low} to {high}")
        if not 0 <= self.warmup_share < 1:
            raise InputError(f"warmup_share: value is {self.warmup_share}; allowed is in [0, 1)")
        for name in ("tune_steps", "evaluations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: value is {getattr(self, name)}; allowed is at least 1")
        if TUNING_SEED in self.seeds or min(self.seeds) < 0:
            raise InputError(f"seeds: value is {self.seeds}; allowed is from 0, not {TUNING_SEED}")
        keys = [one.key for one in self.variants]
        for one in self.variants:
            if keys.count(one.key) > 1:
                raise InputError(f"variants: {one.name} is given twice")
        if not (self.variants or self.dense or self.narrower):
            raise InputError("variants: none is given, nor a dense model; allowed is at least one")


@dataclass(frozen=True)
class Entry:
    """A contender.

    Attributes:
        name: its label, `variant` and density.
        family: one of contenders.FAMILIES: its colour.
        variant: "dense", "narrower dense", or the variant's name.
        density: of the masked weights; of a narrower model, that of the sparse one it matches.
        key: for its folder.
        settings: what it changes in the base's settings.
    """

    name: str
    family: str
    variant: str
    density: float
    key: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One run; what a worker needs to know. `devices` are names or files, `digest` the data's."""

    entry: Entry
    config: TrainConfig
    folder: Path
    digest: str
    devices: tuple[str, ...] = ()

    def prepared(self) -> Prepared | None:
        """The task with its data; None for what the settings name."""
        return None


@dataclass(frozen=True)
class Choice:
    """A learning rate and why: rate → validation metric of its short run, None if it diverged."""

    rate: float
    tried: dict[float, float | None]

    @property
    def at_an_end(self) -> bool:
        """Whether a better rate may lie beyond those tried."""
        return len(self.tried) > 1 and self.rate in (min(self.tried), max(self.tried))
