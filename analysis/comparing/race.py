"""Algorithms × densities × seeds on one task, each at its best learning rate.

    table = compare(Plan(TrainConfig(task="mlm", preset="mini"), seeds=(0, 1, 2)), folder)

Every run lies in a folder of its own below `folder`: what was killed goes on, what is complete is
only read. All contenders of one seed see the same batches, so that differences are taken by seed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.comparing.plan import (
    CHECKPOINT_INTERVAL,
    TUNING_SEED,
    Choice,
    ComparisonPlan,
    Entry,
    Job,
    Progress,
)
from analysis.comparing.variants import Variant
from hwsim import units

if TYPE_CHECKING:
    from analysis.comparing.table import Row, Table
    from sparse_train.runs.config import TrainConfig


def compare(
    plan: ComparisonPlan,
    folder: str | Path,
    *,
    devices: Sequence[str] = ("ideal", "wafer"),
    processes: int | None = None,
    progress: Progress | None = None,
    on: str = "local",
) -> Table:
    """Trains what is not trained yet, and measures all runs.

    Args:
        plan: what is compared.
        folder: of all runs; made, or gone on with.
        devices: names or .toml files, for net times.
        processes: of one thread each; by default two, or one on one core.
        on: "local", processes of this machine; or "ray", of a cluster, see `on_ray`.
        progress: told ("choosing learning rates", with the number of the round where grids were
            widened, or "training"; steps done, of how many, a name).

    Raises:
        InputError: settings that do not go together, a folder of another plan's runs.
    """
    from analysis.comparing.table import Table
    from sparse_train.tasks import make_task

    names = device_names(devices)
    check(plan)
    task = make_task(plan.base.task, plan.base.task_options).prepare()
    rows = race(
        plan, entries(plan, task), Path(folder), digest=task.digest, devices=devices,
        lower=task.lower_is_better, processes=processes, progress=progress, on=on,
    )  # fmt: skip
    return Table(
        plan=plan, metric=task.metric, lower_is_better=task.lower_is_better,
        devices=names, rows=tuple(rows), task=task.describe(), trivial=task.trivial("test"),
    )  # fmt: skip


def device_names(devices: Sequence[str]) -> tuple[str, ...]:
    """What devices given by name or file are called."""
    from hwsim import load_device

    return tuple(load_device(name).name for name in devices)


def race(
    plan: ComparisonPlan,
    made: Sequence[Entry],
    folder: Path,
    *,
    digest: str,
    devices: Sequence[str],
    lower: bool,
    processes: int | None = None,
    progress: Progress | None = None,
    on: str = "local",
    adapt: Callable[[Job], Job] = lambda job: job,
) -> list[Row]:
    """Chooses each contender's learning rate, then trains and measures it with all seeds.

    Args:
        made: the contenders, one row each.
        adapt: what a run needs beyond its settings, see `Job.prepared`.
        digest, devices, lower: of the data; of `compare`; whether a lower metric is better.
        on: see `compare`.
    """
    from analysis.comparing.runs import measure, tuned
    from analysis.comparing.table import Row

    for entry in made:
        run_config(
            plan, entry, plan.rates[0], 0, entry.length * plan.base.steps
        )  # Bad input first.
    workers = min(processes or 2, os.cpu_count() or 1)
    run_all = _runner(on)

    def go(what: str, work: Any, jobs: Sequence[Job]) -> list[Any]:
        total = sum(job.config.steps for job in jobs)

        def update(done: dict[int, int], note: str) -> None:
            if progress is not None:
                progress(what, sum(done.values()), total, note)

        return run_all(work, jobs, workers, update) if jobs else []

    def tune(number: int, wanted: Mapping[str, Sequence[float]]) -> dict[str, dict]:
        jobs = [adapt(job) for job in tuning_jobs(plan, made, folder, digest, wanted)]
        what = "choosing learning rates" + (f", round {number + 1}" if number else "")
        found: dict[str, dict[float, float | None]] = {}
        for job, metric in zip(jobs, go(what, tuned, jobs), strict=True):
            found.setdefault(job.entry.key, {})[job.config.learning_rate] = metric
        return found

    choices = tune_all(plan, made, tune, lower=lower)
    final = [adapt(j) for j in final_jobs(plan, made, choices, folder, digest, tuple(devices))]
    figures = go("training", measure, final)
    rows = []
    for number, entry in enumerate(made):
        own = slice(number, None, len(made))
        runs = dict(zip(plan.seeds, figures[own], strict=True))
        folders = {seed: job.folder for seed, job in zip(plan.seeds, final[own], strict=True)}
        rows.append(Row(entry, choices[entry.key], runs, folders))
    return rows


def _runner(on: str) -> Callable[..., list[Any]]:
    from hwsim.errors import InputError, unknown

    if on == "ray":
        try:
            from analysis.comparing.on_ray import run_all_on_ray
        except ImportError:
            raise InputError(
                "--on: ray is not installed; allowed after pip install 'nettime[ray]'"
            ) from None
        return run_all_on_ray
    if on != "local":
        raise InputError(unknown("place to run", on, ("local", "ray")))
    from analysis.comparing.workers import run_all

    return run_all


def entries(plan: ComparisonPlan, task: Any) -> list[Entry]:
    """All contenders: dense, narrower dense, then the variants, each at every density."""
    made = [Entry("dense", "dense", "dense", 1.0, "dense", {})] if plan.dense else []
    if plan.narrower:
        for densities, options in narrower_widths(plan, task):
            density = densities[0]
            entry = Entry(
                f"narrower {units.percent(density)}", "narrower dense", "narrower dense",
                density, f"narrower-{density:g}", {"model_options": options},
                beside=tuple(densities[1:]),
            )  # fmt: skip
            made += [longer(entry, length) for length in plan.narrower_lengths]
    return made + variant_entries(plan)


def variant_entries(plan: ComparisonPlan) -> list[Entry]:
    """The sparse contenders, which no data is needed for."""
    return [
        longer(_entry(plan, one, density), length)
        for one in plan.variants
        for density in _densities(plan, one)
        for length in plan.lengths
    ]


def _densities(plan: ComparisonPlan, one: Variant) -> tuple[float, ...]:
    own = one.settings.get("density")
    return plan.densities if own is None else (own,)


def check(plan: ComparisonPlan) -> None:
    """An InputError for what no run could be made of, before any data is read."""
    from sparse_train.masking.build import make_algorithm, make_pattern

    for entry in variant_entries(plan):
        config = run_config(plan, entry, plan.rates[0], 0, entry.length * plan.base.steps)
        if config.algorithm != "dense":
            make_pattern(config.pattern, make_algorithm(config.algorithm, config.algorithm_options))


def narrower_widths(plan: ComparisonPlan, task: Any) -> list[tuple[list[float], dict[str, Any]]]:
    """(densities, model options): each width once, with all densities whose cost it matches."""
    from sparse_train.narrower import narrower

    found: list[tuple[list[float], dict[str, Any]]] = []
    for density in plan.widths:
        options = narrower(plan.base, task, density)
        known = next((densities for densities, one in found if one == options), None)
        if known is None:
            found.append(([density], options))
        else:
            known.append(density)
    return found


def longer(entry: Entry, length: int) -> Entry:
    """The contender with `length` times the steps; it says so in its names."""
    if length == 1:
        return entry
    return dataclasses.replace(
        entry, name=f"{entry.name} ×{length}", variant=f"{entry.variant} ×{length}",
        key=f"{entry.key}-x{length}", length=length,
    )  # fmt: skip


def _entry(plan: ComparisonPlan, one: Variant, density: float) -> Entry:
    from analysis.reporting.contenders import FAMILIES
    from sparse_train.algorithms import ALGORITHMS

    settings: dict[str, Any] = {
        "algorithm": one.algorithm, "density": density, "algorithm_options": dict(one.options),
        **one.settings,
    }  # fmt: skip
    # Algorithms that act in every step, or never, keep their interval.
    if plan.update_interval is not None and ALGORITHMS.get(one.algorithm).update_interval > 1:
        settings.setdefault("update_interval", plan.update_interval)
    family = one.algorithm if one.algorithm in FAMILIES else "other"
    name = f"{one.name} {units.percent(density)}"
    return Entry(name, family, one.name, density, f"{one.key}-{density:g}", settings)


def run_config(
    plan: ComparisonPlan, entry: Entry, rate: float, seed: int, steps: int
) -> TrainConfig:
    """The settings of one run of a contender."""
    from sparse_train.runs.config import TrainConfig

    final = seed != TUNING_SEED
    content = {f.name: getattr(plan.base, f.name) for f in dataclasses.fields(plan.base)}
    content |= {"algorithm": "dense", "algorithm_options": {}, "density": 1.0, **entry.settings}
    content |= {
        "learning_rate": rate, "seed": seed, "steps": steps, "threads": 1, "test": final,
        "warmup_steps": round(plan.warmup_share * steps),
        "eval_interval": max(1, plan.base.steps // plan.evaluations) if final else steps,
        "checkpoint_interval": CHECKPOINT_INTERVAL,
    }  # fmt: skip
    if entry.length > 1:
        content["task_options"] = _lengthened(plan, entry.length)
    return TrainConfig.from_json(content)


def _lengthened(plan: ComparisonPlan, times: int) -> dict[str, Any]:
    """The task's options in runs of `times` as many steps."""
    from sparse_train.tasks import make_task

    task = make_task(plan.base.task, plan.base.task_options)
    longer: Any = task.lengthened(times)
    changed = {
        field.name: getattr(longer, field.name)
        for field in dataclasses.fields(longer)
        if getattr(longer, field.name) != getattr(task, field.name)
    }
    return {**plan.base.task_options, **changed}


def tuning_jobs(
    plan: ComparisonPlan,
    made: Sequence[Entry],
    folder: Path,
    digest: str,
    wanted: Mapping[str, Sequence[float]] | None = None,
) -> list[Job]:
    """A run for each contender and rate; `wanted`: contender's key → rates, the grid by default."""
    return [
        Job(
            entry, run_config(plan, entry, rate, TUNING_SEED, tuning_steps(plan, entry)),
            folder / "tune" / entry.key / f"{rate:g}", digest,
        )
        for entry in made
        for rate in (plan.rates if wanted is None else wanted.get(entry.key, ()))
    ]  # fmt: skip


def tuning_steps(plan: ComparisonPlan, entry: Entry) -> int:
    """Of a tuning run of the contender."""
    return entry.length * plan.base.steps if plan.tune_steps is None else plan.tune_steps


def final_jobs(
    plan: ComparisonPlan,
    made: Sequence[Entry],
    choices: Mapping[str, Choice],
    folder: Path,
    digest: str,
    devices: tuple[str, ...],
) -> list[Job]:
    """The runs that count, seed by seed: stopped early, it leaves whole comparisons of fewer."""
    return [
        Job(
            entry,
            run_config(
                plan, entry, choices[entry.key].rate, seed, entry.length * plan.base.steps
            ),
            folder / "final" / entry.key / f"seed-{seed}", digest, devices,
        )
        for seed in plan.seeds
        for entry in made
    ]  # fmt: skip


def tune_all(
    plan: ComparisonPlan,
    made: Sequence[Entry],
    tune: Callable[[int, Mapping[str, Sequence[float]]], Mapping[str, Mapping[float, Any]]],
    *,
    lower: bool,
) -> dict[str, Choice]:
    """Contender's key → its rate: the best metric of its tuning runs, the smaller rate of equals.

    All start on one grid. Where the best is at its end, that contender gets another rate, a factor
    of 2 beyond, until it is not, or there are `plan.most_rates`.

    Args:
        tune: (number of the round, contender's key → rates) → key → rate → metric, None where
            the run diverged, which is worse than any metric.
        lower: whether a lower metric is better.
    """
    if len(plan.rates) == 1:
        return {entry.key: Choice(plan.rates[0], {plan.rates[0]: None}) for entry in made}
    tried: dict[str, dict[float, float | None]] = {entry.key: {} for entry in made}
    wanted: dict[str, list[float]] = {entry.key: sorted(plan.rates) for entry in made}
    choices: dict[str, Choice] = {}
    number = 0
    while wanted:
        for key, found in tune(number, wanted).items():
            tried[key].update(found)
        choices = {key: best_rate(found, lower=lower) for key, found in tried.items()}
        wanted = {key: [c.beyond] for key, c in choices.items()
                  if c.at_an_end and len(c.tried) < plan.most_rates}  # fmt: skip
        number += 1
    return choices


def best_rate(tried: Mapping[float, float | None], *, lower: bool) -> Choice:
    """The rate with the best metric; a run that diverged (None) is worse than any other."""

    def badness(metric: float | None) -> float:
        if metric is None:
            return float("inf")
        return metric if lower else -metric

    return Choice(min(sorted(tried), key=lambda rate: badness(tried[rate])), dict(tried))
