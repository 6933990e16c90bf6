"""What worker processes of a comparison do: train one run, and take its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.comparing.plan import Job
    from sparse_train.record import TrainingRecord

Tell = Callable[[int, str], None]


@dataclass(frozen=True)
class Figures:
    """Of one run.

    Attributes:
        test: metric → value on the test set after the last step; empty if the run diverged.
        validation: metric → value after the last step.
        flops: of the whole run, every operation of every step.
        published_flops: of the whole run by the papers' formulas, which leave some out.
        bytes: of weights, indices and optimizer moments of the whole model, at the end.
        density: active share of the masked weights at the end; 1 without masks.
        explored: share of the masked weights that was ever active (ITOP's Rs); 1 without masks.
        coverage: share of the weights that is masked; 0 without masks.
        seconds: device → (expected, low, high) net training time of the whole run.
        verified: device → whether all its prices were held against real kernels.
        wall_s: what training took here.
        updates: mask updates that happened.
        mean_density: active share of the masked weights, averaged over steps.
        steps: of each validation, (evaluations,).
        courses: metric → its value at each validation, the loss among them.
        times: device → expected net seconds up to each validation.
    """

    test: dict[str, float]
    validation: dict[str, float]
    flops: float
    bytes: int
    published_flops: float
    density: float = 1.0
    explored: float = 1.0
    coverage: float = 0.0
    seconds: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    verified: dict[str, bool] = field(default_factory=dict)
    wall_s: float = 0.0
    updates: int = 0
    mean_density: float = 1.0
    steps: tuple[int, ...] = ()
    courses: dict[str, tuple[float, ...]] = field(default_factory=dict)
    times: dict[str, tuple[float, ...]] = field(default_factory=dict)


def tuned(job: Job, tell: Tell) -> float | None:
    """Trains a short run; the task's metric on validation, None if it diverged."""
    from sparse_train.tasks import make_task

    record = _trained(job, tell)
    if record is None:
        return None
    task = make_task(job.config.task, job.config.task_options).prepare()
    return _last(record)[task.metric]


def measure(job: Job, tell: Tell) -> Figures:
    """Trains a run, or goes on with it, and takes its figures."""
    from hwsim import load_device
    from sparse_train.record import TrainingRecord

    record = _trained(job, tell)
    if record is None:
        partial = TrainingRecord.load(job.folder)
        gone = float("nan")
        return Figures({}, {}, gone, _bytes(partial), gone, wall_s=partial.wall_s)
    figures = record.figures
    seconds, verified, times = {}, {}, {}
    devices = [load_device(name) for name in job.devices]
    for device, time in zip(devices, record.net_times(devices), strict=True):
        seconds[device.name] = (
            float(time.seconds[-1]), float(time.low_s[-1]), float(time.high_s[-1]),
        )  # fmt: skip
        times[device.name] = tuple(map(float, time.seconds))
        verified[device.name] = device.estimate(record.last_step).verified
    rows = record.evaluations.rows(named=True)
    return Figures(
        test=dict(record.test),
        validation=_last(record),
        flops=float(sum(flops * count for flops, _, count in record.flops)),
        bytes=_bytes(record),
        published_flops=record.published_flops,
        density=float(figures.get("density", 1.0)),
        explored=float(figures.get("explored", 1.0)),
        coverage=float(figures.get("coverage", 0.0)),
        seconds=seconds,
        verified=verified,
        wall_s=record.wall_s,
        updates=int(record.training["mask_update"].sum()),
        mean_density=record.mean_density,
        steps=tuple(int(row["step"]) for row in rows),
        courses={
            name: tuple(float(row[name]) for row in rows) for name in rows[0] if name != "step"
        },
        times=times,
    )


def _trained(job: Job, tell: Tell) -> TrainingRecord | None:
    from sparse_train.runs.run import Diverged
    from sparse_train.trainer import train

    note = job.entry.name
    known = _complete(job)
    if known is not None:
        tell(job.config.steps, note)
        return known
    try:
        record = train(
            job.config, job.folder, progress=lambda p: tell(p.step, note), task=job.prepared()
        )  # fmt: skip
    except Diverged:
        record = None
    tell(job.config.steps, note)
    return record


def _complete(job: Job) -> TrainingRecord | None:
    """The record of a run that has nothing left to do; reading the data again would cost more."""
    from sparse_train.record import TrainingRecord
    from sparse_train.runs import run_folder

    if not (job.folder / run_folder.WEIGHTS).is_file():
        return None
    with run_folder.claimed(job.folder):  # a writer killed at its very end left something
        record = TrainingRecord.load(job.folder)
    same = record.config == job.config and record.task.get("digest") == job.digest
    return record if same and record.steps == job.config.steps else None


def _last(record: TrainingRecord) -> dict[str, float]:
    """Metrics of the last validation."""
    row = record.evaluations.row(-1, named=True)
    return {name: float(value) for name, value in row.items() if name != "step"}


def _bytes(record: TrainingRecord) -> int:
    """Weights, indices and moments: what is masked is packed, the rest is dense."""
    from sparse_train.runs import run_folder
    from sparse_train.workload import OPTIMIZERS

    figures = record.figures
    if figures:
        dense = figures["dense_bytes"]
        others = dense / figures["coverage"] - dense
        return round(others + sum(figures[f"{k}_bytes"] for k in ("weight", "index", "moment")))
    content = run_folder.read_config(record.folder) or {}
    config = record.config
    slots = OPTIMIZERS[config.priced_optimizer].states
    return int(content["model"]["parameters"]) * 4 * (1 + slots)
