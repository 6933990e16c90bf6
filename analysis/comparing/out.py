"""A comparison in files: a Markdown page, a figure, an HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.comparing.claims import claims
from analysis.comparing.conclusion import LEVEL
from analysis.comparing.page import (
    MARKS,
    difference_rows,
    headline,
    main_cells,
    main_columns,
    notes,
    plus_minus,
    time_columns,
    time_rows,
    trivial_rows,
    unlearnt,
)
from analysis.comparing.table import Row, Table
from analysis.reporting import plots, report
from analysis.reporting.contenders import ReportedRun, Seconds
from analysis.stats import mean_interval, stratified_bootstrap
from hwsim import Device, units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.reporting.timelines import Drawing


def markdown(table: Table, title: str, command: str, remarks: Sequence[str] = ()) -> str:
    """The page: how it was made, the tables, the papers' claims, what to know."""
    plan, base = table.plan, table.plan.base
    settings = {
        "task": base.task, **base.task_options, "model": f"{base.model}-{base.preset}",
        **base.model_options, "steps": base.steps, "batch size": base.batch_size,
        "optimizer": base.optimizer, "update interval": plan.update_interval or "each one's own",
        "distribution": base.distribution, "seeds": len(plan.seeds),
        "digest of the data": table.task.get("digest", "–"),
    }  # fmt: skip
    parts = [
        f"# {title}",
        *(["\n".join(found_lines)] if (found_lines := in_short(table)) else []),
        *(
            ["What the papers say:\n\n" + "\n".join(f"- {one.line}" for one in found)]
            if (found := claims(table))
            else []
        ),
        f"Written by this command; it goes on with, or reads, the runs that are there:\n\n"
        f"    {command}",
        "; ".join(f"{name} {value}" for name, value in settings.items()) + ".",
        *remarks,
        f"## {headline(table)}",
        pipes(
            main_columns(table, table.devices),
            [
                *(main_cells(table, row, table.devices) for row in table.rows),
                *trivial_rows(table, len(main_columns(table, table.devices))),
            ],
        ),
        *([] if all(map(table.verified, table.devices)) else [_unverified()]),
    ]
    for conclusion in table.conclusions:
        parts += [
            f"## {conclusion.device}: net time to {conclusion.target}",
            pipes(time_columns(), time_rows(table, conclusion)),
        ]
    if table.differences:
        parts += [
            f"## Differences of test {table.metric}, by seed",
            f"+ where the first is better. {MARKS}.",
            pipes(
                ["", *(f"at {units.percent(d)}" for d in plan.densities)],
                difference_rows(table, plan.densities),
            ),
        ]
    parts += _further_metrics(table)
    parts += ["## Further figures", pipes(_MORE, [_more(table, row) for row in table.rows])]
    parts += ["## To know", "\n".join(f"- {note}" for note in notes(table))]
    return "\n\n".join(parts) + "\n"


def in_short(table: Table) -> list[str]:
    """What the page says, before anything else: one sentence a device."""
    return [*unlearnt(table), *(conclusion.sentence for conclusion in table.conclusions)]


# Fewer validations are no curve.
_LEAST_OF_A_CURVE = 5


def _further_metrics(table: Table) -> list[str]:
    """The task's other metrics on the test set, and the metric's mean over the run."""
    runs = [run for row in table.rows for run in row.runs.values() if run.test]
    others = [name for name in (runs[0].test if runs else ()) if name != table.metric]
    curved = bool(runs) and all(len(run.steps) >= _LEAST_OF_A_CURVE for run in runs)
    if not others and not curved:
        return []
    columns = ["", *(f"test {name}" for name in others)]
    if curved:
        columns += [f"{table.metric} over the run", "middle half of seeds", "against dense"]
    rows = []
    for row in table.rows:
        cells = [
            row.name, *(plus_minus(row.mean(lambda run, n=name: run.test[n])) for name in others)
        ]  # fmt: skip
        rows.append(cells + (_area_cells(table, row) if curved else []))
    parts = ["## Further metrics", pipes(columns, rows)]
    if curved:
        parts.append(
            f"{table.metric} over the run: mean over all validations, which is the area under its "
            "curve; beside it the mean of the middle half of the seeds (interquartile mean), "
            "bootstrap interval; against dense, of runs of its length, paired by seed, + where "
            "better, marks after Holm's correction."
        )
    return parts


def _area_cells(table: Table, row: Row) -> list[str]:
    areas = list(table.areas(row).values())
    if not areas:
        return ["–"] * 3
    rng = np.random.default_rng(0)
    middle = stratified_bootstrap([areas], rng=rng) if len(areas) > 1 else mean_interval(areas)
    against = "–"
    if row.name in table.area_differences:
        interval, p = table.area_differences[row.name]
        mark = "≈" if p >= LEVEL else "✓" if interval.point > 0 else "✗"
        against = f"{plus_minus(interval, sign=True)} {mark}"
    return [plus_minus(mean_interval(areas)), plus_minus(middle), against]


_MORE = (
    "", "learning rate", "mask updates", "density", "mean density", "explored", "coverage",
    "validation loss", "time × density", "trained in",
)  # fmt: skip


def _more(table: Table, row: Row) -> list[str]:
    seconds = sum(run.wall_s for run in row.runs.values())
    return [
        row.name, f"{row.choice.rate:g}",
        f"{row.mean(lambda run: run.updates).point:.0f}",
        units.percent(row.mean(lambda run: run.density).point),
        units.percent(row.mean(lambda run: run.mean_density).point),
        units.percent(row.mean(lambda run: run.explored).point),
        units.percent(row.mean(lambda run: run.coverage).point),
        plus_minus(row.mean(lambda run: run.validation["loss"])),
        _time_and_density(table, row),
        units.seconds(seconds),
    ]  # fmt: skip


def _time_and_density(table: Table, row: Row) -> str:
    """Net time of the whole run times mean density, over the dense run's, on the first device."""
    if table.dense is None or not table.devices:
        return "–"
    device = table.devices[0]
    density = row.mean(lambda run: run.mean_density).point
    share = table.seconds(row, device)[0] * density / table.seconds(table.dense, device)[0]
    return units.digits(share, 2) if share == share else "–"


def _unverified() -> str:
    from analysis.display.tables import UNVERIFIED_NOTE

    return UNVERIFIED_NOTE.replace("*", "\\*", 1)


def pipes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    head = [name.replace("*", "\\*") for name in columns]
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def figure(table: Table) -> Figure:
    """Test metric, with its interval, against the net time of the whole run, device by device."""
    import matplotlib.pyplot as plt

    count = len(table.devices)
    drawn, axes = plt.subplots(
        1, count, figsize=(plots.WIDTH_IN, 3.6), sharey=True, squeeze=False, num=None
    )
    seen: dict[str, int] = {}
    marks = "osD^vPX"
    for row in table.rows:
        family = row.entry.family
        place = seen[family] = seen.get(family, -1) + 1
        interval = table.metrics[row.name]
        if interval.n == 0:
            continue
        half = (interval.high - interval.low) / 2
        for axis, device in zip(axes[0], table.devices, strict=True):
            axis.errorbar(
                table.seconds(row, device)[0], interval.point,
                yerr=half if np.isfinite(half) else None, label=row.name, linestyle="none",
                color=plots.light(plots.FAMILY_COLOURS[family]), marker=marks[place % len(marks)],
                markersize=5, capsize=3,
            )  # fmt: skip
    for axis, device in zip(axes[0], table.devices, strict=True):
        axis.set(xscale="log", xlabel="net training time", title=device)
        plots.time_ticks(axis.xaxis)
    axes[0][0].set_ylabel(f"test {table.metric}")
    drawn.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper")
    plt.close(drawn)
    return drawn


def mean_contenders(table: Table, devices: Sequence[Device]) -> list[ReportedRun]:
    """One ReportedRun per row: losses and net times averaged over seeds, the rest of the first."""
    from analysis.reporting.runs import contender

    made = []
    for row in table.rows:
        folders = [row.folders[seed] for seed, run in row.runs.items() if run.test]
        runs = [contender(f, devices, row.name, row.entry.family) for f in folders]
        if runs:
            made.append(_mean(runs))
    return made


def _mean(runs: Sequence[ReportedRun]) -> ReportedRun:
    seconds = {
        device: Seconds(
            *(
                np.mean([getattr(run.seconds[device], part) for run in runs], axis=0)
                for part in ("expected", "low", "high")
            )
        )
        for device in runs[0].seconds
    }
    facts = tuple(fact for fact in runs[0].facts if fact[0] == "learning rate")
    return replace(
        runs[0],
        losses=np.mean([run.losses for run in runs], axis=0),
        train_losses=np.mean([run.train_losses for run in runs], axis=0),
        seconds=seconds,
        facts=(*facts, ("seeds", str(len(runs)))),
    )


def write_report(
    table: Table, devices: Sequence[Device], path: Path, *,
    title: str = "", said: Sequence[str] = (), drawings: Sequence[Drawing] = (),
) -> Path:  # fmt: skip
    """The HTML page of `nettime report`, about the means over seeds; its absolute path.

    Args:
        title: by default what was compared.
        said: sentences before all others.
        drawings: timelines for its end.
    """
    page = report.report(
        mean_contenders(table, devices), title or f"nettime compare: {headline(table)}",
        [*said, *notes(table)], drawings, verdicts=in_short(table),
    )  # fmt: skip
    return report.write(page, path)
