"""What is compared: a plan, its contenders, and the runs that each needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.comparing.variants import Variant
from hwsim import InputError
from hwsim.checks import check_number

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


# Of narrower dense models: one width is a guess, three show how time goes with width.
WIDTHS = 3


@dataclass(frozen=True)
class ComparisonPlan:
    """What is compared.

    Attributes:
        base: a dense run's settings: task, model, steps, batch size and all that contenders share.
            Those in DECIDED are not looked at.
        variants: the sparse contenders.
        densities: each variant runs at each.
        seeds: of the final runs; intervals are over them.
        rates: the grid of learning rates that each contender is tuned on, by the task's metric on
            validation. Where the best is at its end, it is widened by factors of 2 for that
            contender until the best lies inside. One rate needs no tuning.
        most_rates: a grid is not widened beyond so many.
        tune_steps: of a tuning run; None for as many as the contender's final runs have. Shorter
            ones rank rates by another criterion, so nothing is claimed after them.
        dense: whether the dense model takes part.
        narrower: whether narrower dense models do: at each density the one that costs as much, and
            further widths until there are WIDTHS of them.
        narrower_lengths, lengths: each narrower dense model, and each sparse contender, runs for
            so many times the base's steps. Dense runs once.
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
    most_rates: int = 10
    tune_steps: int | None = None
    dense: bool = True
    narrower: bool = True
    narrower_lengths: tuple[int, ...] = (1, 2)
    lengths: tuple[int, ...] = (1,)
    warmup_share: float = 0.06
    update_interval: int | None = None
    evaluations: int = 10

    def __post_init__(self) -> None:
        for name in ("densities", "seeds", "rates", "narrower_lengths", "lengths"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(
                    f"{name}: value is {values}; allowed is one or more, all different"
                )
        for density in self.densities:
            check_number("densities", density, above=0, below=1)
        for rate in self.rates:
            check_number("rates", rate, above=0)
        check_number("warmup_share", self.warmup_share, least=0, below=1)
        for name in ("narrower_lengths", "lengths"):
            for length in getattr(self, name):
                check_number(name, length, least=1)
        for name in ("tune_steps", "evaluations", "most_rates"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, least=1)
        if TUNING_SEED in self.seeds or min(self.seeds) < 0:
            raise InputError(f"seeds: value is {self.seeds}; allowed is from 0, not {TUNING_SEED}")
        keys = [one.key for one in self.variants]
        for one in self.variants:
            if keys.count(one.key) > 1:
                raise InputError(f"variants: {one.name} is given twice")
        if not (self.variants or self.dense or self.narrower):
            raise InputError("variants: none is given, nor a dense model; allowed is at least one")

    @property
    def tuned(self) -> bool:
        """Whether rates were chosen as the protocol asks: several, at full length."""
        return len(self.rates) > 1 and self.tune_steps is None

    @property
    def widths(self) -> tuple[float, ...]:
        """Densities that narrower dense models match in cost: those of the plan, and more."""
        found = list(self.densities)
        for density in (0.5, 0.25, 0.1, 0.05, 0.75):
            if len(found) >= WIDTHS:
                break
            if all(abs(density - one) > 0.3 * one for one in found):
                found.append(density)
        return tuple(sorted(found, reverse=True))


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
        length: its steps are so many times the base's.
        beside: further densities that it stands beside: two may be matched by one width.
    """

    name: str
    family: str
    variant: str
    density: float
    key: str
    settings: Mapping[str, Any]
    length: int = 1
    beside: tuple[float, ...] = ()


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
    """A learning rate and why: rate → validation metric of its tuning run, None if it diverged."""

    rate: float
    tried: dict[float, float | None]

    @property
    def at_an_end(self) -> bool:
        """Whether a better rate may lie beyond those tried."""
        return len(self.tried) > 1 and self.rate in (min(self.tried), max(self.tried))

    @property
    def beyond(self) -> float:
        """The next rate, a factor of 2 past the end of the grid at which the best is."""
        return self.rate * 2 if self.rate == max(self.tried) else self.rate / 2
