"""What is compared: methods × schedules × target densities, and what learns the schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.comparing.plan import ComparisonPlan, Entry
from analysis.comparing.variants import Variant
from hwsim import InputError
from hwsim.checks import check_number

if TYPE_CHECKING:
    from rl.worlds import World
    from sparse_train.runs.config import TrainConfig

METHODS = {"RP-RR": "random_random", "MP-RR": "magnitude_random"}


PIECEWISE = "piecewise"
CURVES = ("linear", "quadratic", "cubic", "cosine", "constant", PIECEWISE)


LEARNED = "learned"


SCHEDULES = (*CURVES, LEARNED)


# Of the agents' episodes: no run of the table has one of these.
AGENT_SEEDS = (1000, 1016)


NETWORKS = ("mlp-1x16", "mlp-2x16")
CNNS = ("simple_cnn-4x3", "simple_cnn-4x4")


# Share of a run after which masks stay, as `sparsify` has it; curves have reached the target then.
_LAST_UPDATE = 0.75


@dataclass(frozen=True)
class Learning:
    """Where the learnt schedules come from.

    Attributes:
        agent: a checkpoint that decides in all cells; None trains an agent for each cell.
        episodes: of each agent; a batch of `slots` is the least.
        networks: that they learn on, as `rl.runs.problems` names them; the table's network is
            another. () for those of the task, small ones of the table's kind where there are any.
        reward: a name in `rl.rewards`; the paper's is the accuracy.
        min_density: no layer is ever sparser.
        slots: episodes side by side.
        seed: decides everything random of an agent's training.
        mode: "step" (up, down, as it is), as the paper has it, or "density", which names each
            layer's; see `rl.envs.interface`. A policy that names them starts at the root of the
            target, where it never was taught anything.
        hold: mode "density": moves within this share of a layer's density are not made.
    """

    agent: Path | None = None
    episodes: int = 640
    networks: tuple[str, ...] = ()
    reward: str = "accuracy"
    min_density: float = 1 / 32
    slots: int = 32
    seed: int = 0
    mode: str = "step"
    hold: float = 0.0

    def start(self, density: float) -> float:
        """What an untrained policy of mode "density" names, for a target."""
        return max(density**0.5, self.min_density)

    def __post_init__(self) -> None:
        for name in ("episodes", "slots"):
            check_number(name, getattr(self, name), least=1)


@dataclass(frozen=True)
class ScheduleStudy:
    """What is compared.

    Attributes:
        base: a dense run's settings.
        densities: targets; at 1 every curve is the dense run, and only the agent has a choice.
        seeds, rates, tune_steps, update_interval, evaluations: see `analysis.compare.Plan`.
        narrower: whether narrower dense models take part, as in `nettime compare`.
        devices: for net times; the agent is told the first.
    """

    base: TrainConfig
    densities: tuple[float, ...] = (0.1, 0.5, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    tune_steps: int | None = None
    update_interval: int = 20
    evaluations: int = 20
    narrower: bool = True
    devices: tuple[str, ...] = ("wafer",)
    learning: Learning = Learning()

    def __post_init__(self) -> None:
        least = self.learning.min_density
        if not self.densities or len(set(self.densities)) != len(self.densities):
            raise InputError(
                f"densities: value is {self.densities}; allowed is one or more, all different"
            )
        if not all(least < density <= 1 for density in self.densities):
            raise InputError(
                f"densities: value is {self.densities}; allowed is above {least:g}, the agent's "
                "least density, at most 1"
            )
        if not self.devices:
            raise InputError("devices: none is given; allowed is at least one")

    @cached_property
    def plan(self) -> ComparisonPlan:
        """The dense run and all handcrafted contenders."""
        moving = tuple(density for density in self.densities if density < 1)
        variants = tuple(
            variant
            for method, algorithm in METHODS.items()
            for curve in CURVES
            for variant in _variants(method, algorithm, curve, moving)
        )
        return ComparisonPlan(
            self.base, variants=variants if moving else (), densities=moving or (0.5,),
            seeds=self.seeds, rates=self.rates, tune_steps=self.tune_steps, dense=True,
            narrower=self.narrower, update_interval=self.update_interval,
            evaluations=self.evaluations,
        )  # fmt: skip

    @property
    def networks(self) -> tuple[str, ...]:
        """That agents learn on."""
        from rl.runs.problems import setting

        if self.learning.networks:
            return self.learning.networks
        if self.base.task != "images":
            return setting(self.base.task).small
        return CNNS if self.base.model not in ("", "mlp") else NETWORKS

    def learned_entries(self) -> list[Entry]:
        """A run whose densities an agent chooses, for each method and target."""
        return [
            Entry(
                f"{method} {LEARNED} {density:.0%}", "other", f"{method} {LEARNED}", density,
                f"{algorithm}-{LEARNED}-{density:g}",
                {
                    "algorithm": algorithm, "density": density, "algorithm_options": {},
                    "update_interval": self.update_interval,
                },
            )
            for method, algorithm in METHODS.items()
            for density in self.densities
        ]  # fmt: skip

    def world(self, algorithm: str, density: float) -> World:
        """What an agent learns in: runs as long as the dense one that end at the target."""
        from rl.worlds import World

        learning = self.learning
        return World(
            kind="training", slots=learning.slots, devices=self.devices[:1],
            problems=tuple((network, self.base.task) for network in self.networks),
            targets=(1.0, 1.0), seeds=AGENT_SEEDS, reward=learning.reward,
            min_density=learning.min_density, max_density=density, capped_from=_LAST_UPDATE,
            budget=1.0,
            drop="random" if algorithm == "random_random" else "magnitude", grow="random",
            drop_fraction=self.base.drop_fraction, stop_at_target=False, mode=learning.mode,
            hold=learning.hold,
        )  # fmt: skip


def _variants(
    method: str, algorithm: str, curve: str, densities: tuple[float, ...]
) -> list[Variant]:
    """One for all densities, or one for each where the curve depends on it."""
    name = f"{method} {curve}"
    if curve != PIECEWISE:
        return [Variant(algorithm, {"schedule": curve}, label=name)]
    return [
        Variant(algorithm, {"schedule": through(density), "density": density}, label=name)
        for density in densities
    ]


def through(density: float) -> str:
    """Lines from dense to √density after a quarter of the updates, to density after the half.

    >>> through(0.25)
    '0:1,0.25:0.5,0.5:0.25,1:0.25'
    """
    return f"0:1,0.25:{density**0.5:.4g},0.5:{density:g},1:{density:g}"


@dataclass(frozen=True)
class Agents:
    """What learning took: per agent episodes, processor seconds, and return by iteration."""

    paths: Mapping[tuple[str, float], Path]
    episodes: int = 0
    cost_s: float = 0.0
    curves: Mapping[tuple[str, float], tuple[float, ...]] = dataclasses.field(default_factory=dict)
