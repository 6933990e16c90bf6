"""Seconds of real steps on this machine, of several runs in turn, so that none has a better hour.

A run's own record of how long its steps took depends on what ran beside it. Here the final states
of all runs stand side by side in one process of one thread; each takes a few steps in its turn,
round after round, after a warm-up in which kernels compile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwsim import InputError

if TYPE_CHECKING:
    from analysis.comparing.table import Table
    from sparse_train.record import TrainingRecord
    from sparse_train.runs.run import Run
    from sparse_train.tasks import Prepared

MEASURED = "measured"
ROUNDS = 7


@dataclass(frozen=True)
class StepSeconds:
    """Of one run on this machine: an ordinary step, and a step in which masks change.

    Attributes:
        update: an ordinary one and what an update took beyond it when the run was trained.
        low, high: quartiles of an ordinary step over the rounds.
    """

    ordinary: float
    update: float
    low: float
    high: float

    def up_to(self, record: TrainingRecord) -> np.ndarray:
        """(evaluations,): net seconds up to each validation of a run."""
        changes = record.training["mask_update"].to_numpy()
        each = np.where(changes, self.update, self.ordinary)
        ends = np.concatenate([[0.0], np.cumsum(each)])
        return ends[record.evaluations["step"].to_numpy()]


def with_measured(table: Table, tell: Callable[[int], None] = lambda done: None) -> Table:
    """The table with MEASURED among its devices: one run of each contender stands for all seeds."""
    from sparse_train.record import TrainingRecord

    rows = [row for row in table.rows if any(run.test for run in row.runs.values())]
    shown = [next(row.folders[s] for s, run in row.runs.items() if run.test) for row in rows]
    found = dict(zip([row.name for row in rows], step_seconds(shown, tell=tell), strict=True))
    made = []
    for row in table.rows:
        runs = {}
        for seed, run in row.runs.items():
            if row.name in found and run.test:
                one = found[row.name]
                times = one.up_to(TrainingRecord.load(row.folders[seed]))
                ends = np.array([1, one.low / one.ordinary, one.high / one.ordinary])
                spread = (float(times[-1]) * ends).tolist()
                run = replace(
                    run, seconds={**run.seconds, MEASURED: tuple(spread)},
                    times={**run.times, MEASURED: tuple(times.tolist())},
                    verified={**run.verified, MEASURED: True},
                )  # fmt: skip
            runs[seed] = run
        made.append(replace(row, runs=runs))
    return replace(table, rows=tuple(made), devices=(*table.devices, MEASURED))


def step_seconds(
    folders: Sequence[Path], *, rounds: int = ROUNDS, steps: int = 3,
    tell: Callable[[int], None] = lambda done: None, clock: Callable[[], float] = time.perf_counter,
) -> list[StepSeconds]:  # fmt: skip
    """Each run's seconds of a step under its last masks, on the sparse kernels where it has masks.

    Args:
        folders: of complete runs on one task.
        rounds: in each, every run takes `steps` steps; medians are over rounds.
        tell: told after each round how many are done.

    Raises:
        InputError: a run that is not complete.
    """
    import torch

    from sparse_train.record import TrainingRecord

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        records = [TrainingRecord.load(folder) for folder in folders]
        runs = _restored(records)
        for run in runs:
            _take(run, 1)
        taken = np.empty((rounds, len(runs)))
        for number in range(rounds):
            for i, run in enumerate(runs):
                started = clock()
                _take(run, steps)
                taken[number, i] = (clock() - started) / steps
            tell(number + 1)
    finally:
        torch.set_num_threads(before)
    low, middle, high = np.quantile(taken, [0.25, 0.5, 0.75], axis=0)
    extras = [_extra(record) for record in records]
    return [
        StepSeconds(float(m), float(m) + extra, float(a), float(b))
        for m, extra, a, b in zip(middle, extras, low, high, strict=True)
    ]


def _restored(records: Sequence[TrainingRecord]) -> list[Run]:
    from sparse_train.runs import run_folder
    from sparse_train.runs.run import Run, private_randomness
    from sparse_train.tasks import make_task

    tasks: dict[str, Prepared] = {}
    made = []
    for record in records:
        saved = run_folder.read_checkpoint(record.folder) if record.complete else None
        if saved is None:
            raise InputError(f"run folder {record.folder}: not complete; train it to its end first")
        config = record.config
        if config.algorithm != "dense":
            config = replace(config, compute="sparse")
        key = str(record.task.get("digest"))
        if key not in tasks:
            tasks[key] = make_task(config.task, config.task_options).prepare()
        with private_randomness(config.seed):
            run = Run(config, tasks[key])
            run.load_state_dict(saved)
        made.append(run)
    return made


def _take(run: Run, steps: int) -> None:
    from sparse_train.runs.run import private_randomness

    with private_randomness(run.config.seed):
        for _ in range(steps):
            run.advance()


def _extra(record: TrainingRecord) -> float:
    """Seconds by which a step that changes masks took longer, medians of the run's own record."""
    changes = record.training["mask_update"].to_numpy()
    each = np.diff(record.training["elapsed_s"].to_numpy(), prepend=0.0)
    # The first step of a process has more to do than others.
    each, changes = each[1:], changes[1:]
    if not changes.any() or changes.all():
        return 0.0
    return max(float(np.median(each[changes]) - np.median(each[~changes])), 0.0)
