"""Handcrafted schedules and learnt ones, at equal target density, on an image task.

Methods × schedules × target densities: RP-RR (random pruning, random regrowth) and MP-RR
(magnitude pruning, random regrowth) come down from dense to the target along a curve, or stay at
it. Under "learned" a frozen agent decides at each mask update, and is cut to the target at the
last one, where curves end. Every run is a run folder.

Source: Tessera et al. (2022), "Just-in-time sparsity: learning dynamic sparsity schedules", whose
table has these rows and columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.compare import (
    TUNING_SEED,
    Entry,
    Job,
    Plan,
    Progress,
    device_names,
    entries,
    race,
)
from analysis.compare_table import Row
from analysis.variants import Variant
from hwsim import InputError

if TYPE_CHECKING:
    from analysis.agent_schedules_table import ScheduleTable
    from rl.guide import Guide
    from rl.worlds import World
    from sparse_train.config import TrainConfig
    from sparse_train.tasks import Prepared

METHODS = {"RP-RR": "random_random", "MP-RR": "magnitude_random"}
CURVES = ("linear", "quadratic", "cubic", "cosine", "constant")
LEARNED = "learned"
SCHEDULES = (*CURVES, LEARNED)
# Of the agents' episodes: no run of the table has one of these.
AGENT_SEEDS = (1000, 1016)
NETWORKS = ("mlp-1x16", "mlp-2x16")
# Share of a run after which masks stay, as `sparsify` has it; curves have reached the target then.
_LAST_UPDATE = 0.75


@dataclass(frozen=True)
class Learning:
    """Where the learnt schedules come from.

    Attributes:
        agent: a checkpoint that decides in all cells; None trains an agent for each cell.
        episodes: of each agent; a batch of `slots` is the least.
        networks: that they learn on, as `rl.problems` names them; the table's network is another.
        reward: a name in `rl.rewards`; the paper's is the accuracy.
        min_density: no layer is ever sparser.
        slots: episodes side by side.
        seed: decides everything random of an agent's training.
    """

    agent: Path | None = None
    episodes: int = 640
    networks: tuple[str, ...] = NETWORKS
    reward: str = "accuracy"
    min_density: float = 1 / 32
    slots: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("episodes", "slots"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: value is {getattr(self, name)}; allowed is at least 1")


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        base: a dense run's settings.
        densities: targets; at 1 every curve is the dense run, and only the agent has a choice.
        seeds, rates, tune_steps, update_interval, evaluations: see `analysis.compare.Plan`.
        devices: for net times; the agent is told the first.
    """

    base: TrainConfig
    densities: tuple[float, ...] = (0.1, 0.5, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    tune_steps: int = 80
    update_interval: int = 20
    evaluations: int = 20
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
    def plan(self) -> Plan:
        """The dense run and all handcrafted contenders."""
        moving = tuple(density for density in self.densities if density < 1)
        variants = tuple(
            Variant(algorithm, {"schedule": curve}, label=f"{method} {curve}")
            for method, algorithm in METHODS.items()
            for curve in CURVES
        )
        return Plan(
            self.base, variants=variants if moving else (), densities=moving or (0.5,),
            seeds=self.seeds, rates=self.rates, tune_steps=self.tune_steps, dense=True,
            narrower=False, update_interval=self.update_interval, evaluations=self.evaluations,
        )  # fmt: skip

    def learned_entries(self) -> list[Entry]:
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
            problems=tuple((network, "images") for network in learning.networks),
            targets=(1.0, 1.0), seeds=AGENT_SEEDS, reward=learning.reward,
            min_density=learning.min_density, max_density=density, capped_from=_LAST_UPDATE,
            budget=1.0,
            drop="random" if algorithm == "random_random" else "magnitude", grow="random",
            drop_fraction=self.base.drop_fraction, stop_at_target=False,
        )  # fmt: skip


@dataclass(frozen=True)
class AgentJob:
    """One agent to be trained in `folder`."""

    folder: Path
    world: World
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Agents:
    """What learning took: per agent episodes, processor seconds, and return by iteration."""

    paths: Mapping[tuple[str, float], Path]
    episodes: int = 0
    cost_s: float = 0.0
    curves: Mapping[tuple[str, float], tuple[float, ...]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class GuidedJob(Job):
    """A run whose densities an agent decides."""

    guide: Guide | None = None

    def prepared(self) -> Prepared | None:
        from rl.guide import Guided
        from sparse_train.tasks import make_task

        assert self.guide is not None
        task = make_task(self.config.task, self.config.task_options).prepare()
        return Guided(task, self.guide)


def learn_agent(job: AgentJob, tell: Callable[[int, str], None]) -> tuple[float, list[float]]:
    """Trains an agent, or goes on with it: processor seconds, and its return by iteration."""
    import logging

    from rl.learn import train

    logging.getLogger("torchrl").setLevel(logging.WARNING)
    saved = train(
        job.folder, job.world, "ppo", dict(job.settings),
        report=lambda row: tell(int(row["iteration"]), job.folder.name),
    )  # fmt: skip
    return saved.cost, [row["return"] for row in saved.curve]


def agent_jobs(study: Study, folder: Path) -> dict[tuple[str, float], AgentJob]:
    """(algorithm, density) → the agent of those cells."""
    from rl.problems import SETTINGS

    learning = study.learning
    settings = {
        "iterations": math.ceil(learning.episodes / learning.slots), "seed": learning.seed,
        "steps": SETTINGS["images"].dense_rounds,
    }  # fmt: skip
    return {
        (algorithm, density): AgentJob(
            folder / "agents" / f"{algorithm}-{density:g}", study.world(algorithm, density),
            settings,
        )
        for algorithm in METHODS.values()
        for density in study.densities
    }  # fmt: skip


def agents(study: Study, folder: Path, processes: int, progress: Progress | None) -> Agents:
    """The agents of all cells: the one that is given, or each trained."""
    from analysis.workers import run_all
    from rl.learn import CHECKPOINT

    jobs = agent_jobs(study, folder)
    given = study.learning.agent
    if given is not None:
        return Agents(dict.fromkeys(jobs, given))
    for job in jobs.values():
        job.world.training()  # Bad input before any work.
    order = list(jobs.values())
    total = sum(job.settings["iterations"] for job in order)

    def update(done: dict[int, int], note: str) -> None:
        if progress is not None:
            progress("training agents", sum(done.values()), total, note)

    found = run_all(learn_agent, order, processes, update)
    iterations = order[0].settings["iterations"]
    return Agents(
        {key: job.folder / CHECKPOINT for key, job in jobs.items()},
        iterations * study.learning.slots,
        sum(cost for cost, _ in found) / len(found),
        {key: tuple(curve) for key, (_, curve) in zip(jobs, found, strict=True)},
    )


def run(
    study: Study, folder: Path, *, processes: int = 2, progress: Progress | None = None
) -> ScheduleTable:
    """Trains what is not trained yet: curves, then agents, then the runs that agents decide.

    Raises:
        InputError: settings that do not go together, a folder of another study's runs, an agent
            that cannot be read.
    """
    from analysis.agent_schedules_table import ScheduleTable
    from rl import checkpoint
    from sparse_train.tasks import make_task

    if study.learning.agent is not None:
        checkpoint.load(study.learning.agent)
    task = make_task(study.base.task, study.base.task_options).prepare()
    names = device_names(study.devices)
    plan, learned = study.plan, study.learned_entries()
    options = {
        "devices": study.devices, "lower": task.lower_is_better, "processes": processes,
        "progress": progress, "digest": task.digest,
    }  # fmt: skip
    rows = race(plan, entries(plan, task), folder, **options)
    dense = next(row for row in rows if row.entry.family == "dense")
    made = agents(study, folder, processes, progress)

    def guided(job: Job) -> Job:
        return _guided(job, dense, folder, made.paths, study.devices[0])

    rows += race(plan, learned, folder, adapt=guided, **options)
    return ScheduleTable(study, task.metric, names, tuple(rows), made, task.describe())


def _guided(
    job: Job, dense: Row, folder: Path, paths: Mapping[tuple[str, float], Path], device: str
) -> GuidedJob:
    """The job with its agent, which is told how far the dense run of the same seed was."""
    from rl.guide import Guide

    if job.config.seed == TUNING_SEED:
        reference = folder / "tune" / dense.entry.key / f"{dense.choice.rate:g}"
    else:
        reference = dense.folders[job.config.seed]
    agent = paths[job.config.algorithm, job.entry.density]
    guide = Guide(agent, reference, device)
    return GuidedJob(
        job.entry, job.config, job.folder, guide.digest(job.digest), job.devices, guide
    )
