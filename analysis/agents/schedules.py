"""Handcrafted schedules and learnt ones, at equal target density, on an image task.

Methods × schedules × target densities: RP-RR (random pruning, random regrowth) and MP-RR
(magnitude pruning, random regrowth) come down from dense to the target along a curve, or stay at
it. Under "learned" a frozen agent decides at each mask update, and is cut to the target at the
last one, where curves end. Every run is a run folder.

Source: Tessera et al. (2022), "Just-in-time sparsity: learning dynamic sparsity schedules", whose
table has these rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.agents.schedules_study import METHODS, Agents, ScheduleStudy
from analysis.comparing.plan import TUNING_SEED, Job, Progress
from analysis.comparing.race import device_names, entries, race
from analysis.comparing.table import Row

if TYPE_CHECKING:
    from analysis.agents.schedules_table import ScheduleTable
    from rl.agents.guide import Guide
    from rl.worlds import World
    from sparse_train.tasks import Prepared


@dataclass(frozen=True)
class AgentJob:
    """One agent to be trained in `folder`."""

    folder: Path
    world: World
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class GuidedJob(Job):
    """A run whose densities an agent decides."""

    guide: Guide | None = None

    def prepared(self) -> Prepared | None:
        from rl.agents.guide import Guided
        from sparse_train.tasks import make_task

        assert self.guide is not None
        task = make_task(self.config.task, self.config.task_options).prepare()
        return Guided(task, self.guide)


def learn_agent(job: AgentJob, tell: Callable[[int, str], None]) -> tuple[float, list[float]]:
    """Trains an agent, or goes on with it: processor seconds, and its return by iteration."""
    import logging

    from rl.agents.learn import train

    logging.getLogger("torchrl").setLevel(logging.WARNING)
    saved = train(
        job.folder, job.world, "ppo", dict(job.settings),
        report=lambda row: tell(int(row["iteration"]), job.folder.name),
    )  # fmt: skip
    return saved.cost, [row["return"] for row in saved.curve]


def agent_jobs(study: ScheduleStudy, folder: Path) -> dict[tuple[str, float], AgentJob]:
    """(algorithm, density) → the agent of those cells."""
    from rl.runs.problems import setting

    learning = study.learning
    settings = {
        "iterations": math.ceil(learning.episodes / learning.slots), "seed": learning.seed,
        "steps": setting(study.base.task).dense_rounds,
    }  # fmt: skip

    def own(density: float) -> dict[str, Any]:
        start = {"start": learning.start(density)} if learning.mode == "density" else {}
        return {**settings, **start}

    return {
        (algorithm, density): AgentJob(
            folder / "agents" / f"{algorithm}-{density:g}", study.world(algorithm, density),
            own(density),
        )
        for algorithm in METHODS.values()
        for density in study.densities
    }  # fmt: skip


def agents(
    study: ScheduleStudy, jobs: Mapping[tuple[str, float], AgentJob], processes: int,
    progress: Progress | None,
) -> Agents:  # fmt: skip
    """The agents of all cells: the one that is given, or each trained."""
    from analysis.comparing.workers import run_all
    from rl.agents.learn import CHECKPOINT

    given = study.learning.agent
    if given is not None:
        return Agents(dict.fromkeys(jobs, given))
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
    study: ScheduleStudy, folder: Path, *, processes: int = 2, progress: Progress | None = None
) -> ScheduleTable:
    """Trains what is not trained yet: curves, then agents, then the runs that agents decide.

    Raises:
        InputError: settings that do not go together, a folder of another study's runs, an agent
            that cannot be read.
    """
    from analysis.agents.schedules_table import ScheduleTable
    from rl.agents import checkpoint
    from sparse_train.tasks import make_task

    jobs = agent_jobs(study, folder)
    # Bad input before any work.
    if study.learning.agent is not None:
        checkpoint.load(study.learning.agent)
    else:
        for job in jobs.values():
            job.world.training()
    task = make_task(study.base.task, study.base.task_options).prepare()
    names = device_names(study.devices)
    plan, learned = study.plan, study.learned_entries()
    options = {
        "devices": study.devices, "lower": task.lower_is_better, "processes": processes,
        "progress": progress, "digest": task.digest,
    }  # fmt: skip
    rows = race(plan, entries(plan, task), folder, **options)
    dense = next(row for row in rows if row.entry.family == "dense")
    made = agents(study, jobs, processes, progress)

    def guided(job: Job) -> Job:
        return _guided(job, dense, folder, made.paths, study.devices[0])

    rows += race(plan, learned, folder, adapt=guided, **options)
    return ScheduleTable(
        study, task.metric, names, tuple(rows), made, task.describe(), task.trivial("test"),
        task.lower_is_better,
    )  # fmt: skip


def _guided(
    job: Job, dense: Row, folder: Path, paths: Mapping[tuple[str, float], Path], device: str
) -> GuidedJob:
    """The job with its agent, which is told how far the dense run of the same seed was."""
    from rl.agents.guide import Guide

    if job.config.seed == TUNING_SEED:
        reference = folder / "tune" / dense.entry.key / f"{dense.choice.rate:g}"
    else:
        reference = dense.folders[job.config.seed]
    agent = paths[job.config.algorithm, job.entry.density]
    guide = Guide(agent, reference, device)
    return GuidedJob(
        job.entry, job.config, job.folder, guide.digest(job.digest), job.devices, guide
    )
