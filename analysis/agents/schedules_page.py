"""The table of schedules for people: on a terminal, as Markdown, as a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.agents.schedules_study import LEARNED, METHODS, SCHEDULES
from analysis.agents.schedules_table import ScheduleTable, Spread
from analysis.comparing.out import pipes
from analysis.comparing.page import plus_minus as interval_text
from analysis.comparing.page import time_columns, time_rows, tuning
from analysis.comparing.table import Row
from analysis.display import tables
from analysis.reporting import plots
from hwsim import units

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

# So many columns fit 80 characters; more stand in a table for each method.
_MOST_COLUMNS = 4
_CURVE_DASH = (0, (2, 2))
_CURVES_LABEL = "handcrafted"


def plus_minus(spread: Spread, decimals: int) -> str:
    """Mean ± standard deviation.

    >>> plus_minus(Spread(95.31, 0.42, 5), 1)
    '95.3 ± 0.4'
    """
    if spread.n == 0:
        return "diverged"
    if math.isnan(spread.deviation):
        return f"{spread.mean:.{decimals}f}"
    return f"{spread.mean:.{decimals}f} ± {spread.deviation:.{decimals}f}"


def headline(table: ScheduleTable) -> str:
    """What was trained, how long, with how many seeds."""
    base, seeds = table.study.base, len(table.study.seeds)
    many = "one seed" if seeds == 1 else f"mean ± standard deviation of {seeds} seeds"
    return f"{base.task}, {base.model}-{base.preset}, {base.steps} steps: {many}"


def accuracy_cells(
    table: ScheduleTable, columns: Sequence[tuple[str, float]], bold: Callable[[str], Any]
) -> list[list[Any]]:
    """A line per schedule; the best of each column made `bold`."""
    lines = []
    for schedule in SCHEDULES:
        line = [schedule]
        for method, density in columns:
            found = table.accuracy(table.row(method, schedule, density))
            scale, decimals = (100, 1) if _in_percent(table) else (1, 3)
            text = plus_minus(
                Spread(scale * found.mean, scale * found.deviation, found.n), decimals
            )
            best = schedule == table.best(method, density)
            line.append(bold(text) if best else text)
        lines.append(line)
    return lines


def _in_percent(table: ScheduleTable) -> bool:
    return "accuracy" in table.metric


def _metric(table: ScheduleTable) -> str:
    return f"{table.metric}, %" if _in_percent(table) else table.metric


def time_cells(
    table: ScheduleTable, columns: Sequence[tuple[str, float]], device: str
) -> list[list[str]]:
    """The same of net times over the dense run's."""
    return [
        [
            schedule,
            *(
                plus_minus(table.net_time(table.row(method, schedule, density), device), 2)
                for method, density in columns
            ),
        ]
        for schedule in SCHEDULES
    ]


def _names(columns: Sequence[tuple[str, float]]) -> list[str]:
    return ["", *(f"{method} {units.percent(d)}" for method, d in columns)]


def _chunks(table: ScheduleTable) -> list[list[tuple[str, float]]]:
    if len(table.columns) <= _MOST_COLUMNS:
        return [table.columns]
    return [[c for c in table.columns if c[0] == method] for method in METHODS]


def show(console: Console, table: ScheduleTable) -> None:
    """Tables and sentences on a terminal of 80 columns."""
    from rich.text import Text

    console.print(headline(table), style="bold")
    title = f"test {_metric(table)}"
    for columns in _chunks(table):
        cells = accuracy_cells(table, columns, lambda text: Text(text, style="bold"))
        console.print(tables.table(title, _names(columns), cells))
    for device in table.devices:
        for columns in _chunks(table):
            cells = time_cells(table, columns, device)
            console.print(tables.table(_time_title(table, device), _names(columns), cells))
    if not all(map(table.verified, table.devices)):
        console.print(tables.UNVERIFIED_NOTE)
    for line in (*verdict(table), *(c.sentence for c in table.compared.conclusions)):
        console.print(line, style="bold")
    for note in notes(table):
        console.print(note)


def _time_title(table: ScheduleTable, device: str) -> str:
    mark = "" if table.verified(device) else tables.UNVERIFIED
    return f"net training time on {device}{mark}, over the dense run's"


def verdict(table: ScheduleTable) -> list[str]:
    """What the table says of learnt schedules: of each cell, against its best curve."""
    return [
        f"{duel.method} {units.percent(duel.density)}: learned against {duel.curve}, test "
        f"{table.metric} {interval_text(duel.interval, sign=True)}: {duel.verdict}."
        for duel in table.duels
    ]


def _short(table: ScheduleTable) -> str:
    words = [duel.verdict.partition(" (")[0] for duel in table.duels]
    counted = ", ".join(f"{word} in {words.count(word)}" for word in dict.fromkeys(words))
    return f"Learned schedules against the best curve of each of {len(words)} cells: {counted}."


def notes(table: ScheduleTable) -> list[str]:
    """What a reader must know beside the numbers."""
    study, made = table.study, table.agents
    plan, learning = study.plan, study.learning
    lines = [
        "Curves come down from dense to the target at the last mask update, after 75 % of the "
        "steps; constant is there from the start. Learned starts dense too and is free until the "
        "last update, which cuts it to the target. At 100 % all curves are the dense run.",
        "Piecewise: lines from dense to the root of the target after a quarter of the updates, to "
        "the target after half of them.",
        "Learned against the best curve of its cell, by seed: mean difference with its 95 % "
        "interval, + where learned is better; verdicts after Holm's correction over the cells. "
        "The curve is chosen on the same seeds, which favours it.",
    ]
    if learning.agent is not None:
        lines.append("Learned: the agent that was given, frozen; it was not trained for this.")
    else:
        names = ", ".join(study.networks)
        acts = "each layer up, down or as it is"
        if learning.mode == "density":
            acts = "each layer's density named"
            if learning.hold:
                acts += f", moves within {units.percent(learning.hold)} of it not made"
        lines.append(
            f"Learned: an agent for each cell, trained on {made.episodes} episodes of {names} "
            f"(reward {learning.reward}, no density below {learning.min_density:g}, {acts}), "
            f"{made.cost_s:.0f} s of one processor each; then frozen. It never saw this network, "
            "these seeds, or test data."
        )
    lines.append(tuning(plan, table.metric, table.rows))
    gone = [row.name for row in table.rows if row.diverged]
    if gone:
        lines.append(f"Runs that diverged are in no mean: {', '.join(gone)}.")
    return lines


def markdown(table: ScheduleTable, title: str, command: str, figures: Sequence[str] = ()) -> str:
    """The page: how it was made, the tables, what they say, what to know."""
    study = table.study
    base = study.base
    settings = {
        "task": base.task, **base.task_options, "model": f"{base.model}-{base.preset}",
        **base.model_options, "steps": base.steps, "batch size": base.batch_size,
        "optimizer": base.optimizer, "update interval": study.update_interval,
        "drop fraction": base.drop_fraction, "distribution": base.distribution,
        "seeds": len(study.seeds), "digest of the data": table.task.get("digest", "–"),
    }  # fmt: skip
    parts = [
        f"# {title}",
        "\n".join([_short(table), *(c.sentence for c in table.compared.conclusions)]),
        f"Written by this command; it goes on with, or reads, the runs that are there:\n\n"
        f"    {command}",
        "RP-RR: random pruning, random regrowth. MP-RR: magnitude pruning, random regrowth. "
        "Rows and columns are those of Tessera et al. (2022).",
        "; ".join(f"{name} {value}" for name, value in settings.items()) + ".",
        f"## Test {_metric(table)}: {headline(table)}",
        pipes(_names(table.columns), accuracy_cells(table, table.columns, "**{}**".format)),
        "\n".join(f"- {line}" for line in verdict(table)),
    ]
    for device in table.devices:
        parts += [
            f"## N{_time_title(table, device)[1:].replace('*', chr(92) + '*')}",
            pipes(_names(table.columns), time_cells(table, table.columns, device)),
        ]
    if not all(map(table.verified, table.devices)):
        parts.append(tables.UNVERIFIED_NOTE.replace("*", "\\*", 1))
    for conclusion in table.compared.conclusions:
        parts += [
            f"## {conclusion.device}: net time to {conclusion.target}",
            pipes(time_columns(), time_rows(table.compared, conclusion)),
        ]
    parts += [
        f"## Density of the masked weights at the end, % (schedule: {LEARNED})",
        pipes(_names(table.columns), [_final(table)]),
        *(f"![{name}]({name})" for name in figures),
        "## To know",
        "\n".join(f"- {note}" for note in notes(table)),
    ]
    return "\n\n".join(parts) + "\n"


def _final(table: ScheduleTable) -> list[str]:
    found = [
        table.spread(table.row(m, LEARNED, d), lambda run: 100 * run.density)
        for m, d in table.columns
    ]
    return [LEARNED, *(plus_minus(one, 1) for one in found)]


def figure(table: ScheduleTable) -> Figure:
    """Density over training, a panel for each cell: learnt ones by layer, curves in grey."""
    import matplotlib.pyplot as plt

    densities = table.study.densities
    drawn, axes = plt.subplots(
        len(METHODS), len(densities), figsize=(plots.WIDTH_IN, 2.3 * len(METHODS) + 0.6),
        sharex=True, sharey=True, squeeze=False, num=None,
    )  # fmt: skip
    last = table.study.base.steps
    for i, method in enumerate(METHODS):
        for j, density in enumerate(densities):
            panel = axes[i][j]
            panel.set_title(f"{method} {units.percent(density)}")
            for schedule in SCHEDULES[:-1]:
                for steps, values in _lines(table.row(method, schedule, density), last)[:1]:
                    panel.step(
                        steps, values, where="post", color=plots.light("grid"),
                        linestyle=_CURVE_DASH, linewidth=1.0, label=_CURVES_LABEL,
                    )  # fmt: skip
            for layer, (steps, values) in enumerate(_lines(table.row(method, LEARNED, density),
                                                           last)):  # fmt: skip
                panel.step(
                    steps, values, where="post", label=f"{LEARNED}, layer {layer + 1}",
                    color=plots.light(plots.DEVICE_COLOURS[layer % len(plots.DEVICE_COLOURS)]),
                    linestyle=plots.DASHES[layer // len(plots.DEVICE_COLOURS) % len(plots.DASHES)],
                )  # fmt: skip
            panel.set_yscale("log")
    for panel in axes[-1]:
        panel.set_xlabel("training step")
    for line in axes:
        line[0].set_ylabel("density")
    named: dict[str, Any] = {}
    for panel in axes.flat:
        handles, labels = panel.get_legend_handles_labels()
        named.update(zip(labels, handles, strict=True))
    if named:
        shown = sorted(named, key=_CURVES_LABEL.__eq__)  # last
        drawn.legend([named[label] for label in shown], shown, loc="outside right upper")
    plt.close(drawn)
    return drawn


def _lines(row: Row, last: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per layer (steps, density), the mean over seeds; empty for a dense run."""
    from sparse_train.record import TrainingRecord

    steps = np.arange(1, last + 1)
    layers: dict[str, list[np.ndarray]] = {}
    for seed, run in row.runs.items():
        if not run.test:
            continue
        record = TrainingRecord.load(row.folders[seed])
        for key, rows in record.densities.group_by("layer", maintain_order=True):
            ordered = rows.sort("version")
            place = np.searchsorted(ordered["first_step"].to_numpy(), steps, side="right") - 1
            layers.setdefault(str(key[0]), []).append(ordered["density"].to_numpy()[place])
    return [(steps, np.mean(found, axis=0)) for found in layers.values()]
