"""A comparison for people: on a terminal, as Markdown, as a figure, as an HTML report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analysis.comparing.claims import claims
from analysis.comparing.conclusion import CLAIM_SEEDS, LEAST_SEEDS, Conclusion, Finding, Verdict
from analysis.comparing.table import Difference, Row, Table
from analysis.display import tables
from analysis.stats import Interval
from hwsim import units

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.comparing.plan import ComparisonPlan


# More columns do not fit 80 characters; further ones stand in a table below.
_DEVICES_A_TABLE = 3
_DENSITIES_A_TABLE = 2


def plus_minus(interval: Interval, *, sign: bool = False) -> str:
    """Mean ± half the interval, as many decimals as the half has meaning.

    >>> plus_minus(Interval(3.41234, 3.39, 3.43468, 5))
    '3.412 ± 0.022'
    """
    half = (interval.high - interval.low) / 2
    head = "+" if sign and interval.point > 0 else ""
    if interval.n == 0:
        return "diverged"
    if not math.isfinite(half):
        return f"{head}{units.digits(interval.point, 4) if interval.point else 0} (one run)"
    decimals = 3 if half == 0 else min(max(1 - math.floor(math.log10(half)), 0), 4)
    return f"{head}{interval.point:.{decimals}f} ± {half:.{decimals}f}"


def headline(table: Table) -> str:
    """What is in the main table."""
    base, seeds = table.plan.base, len(table.plan.seeds)
    many = "one seed: no interval" if seeds == 1 else f"mean ± 95 % interval of {seeds} seeds"
    return f"{base.task}, {base.model}-{base.preset}, {base.steps} steps: {many}"


def main_columns(table: Table, devices: Sequence[str]) -> list[str]:
    """Heads of the main table; `*` marks devices with unverified prices."""
    arrow = "↓" if table.lower_is_better else "↑"
    marked = [d + ("" if table.verified(d) else tables.UNVERIFIED) for d in devices]
    return ["", f"test {table.metric} {arrow}", "FLOPs", "bytes", *marked]


def main_cells(table: Table, row: Row, devices: Sequence[str]) -> list[str]:
    """Name, metric, then what it costs: over dense where a dense model takes part."""
    name = row.name + (f" ({row.diverged} diverged)" if row.diverged else "")
    head = [name, plus_minus(table.metrics[row.name])]
    if table.dense is None:
        return [
            *head,
            units.quantity(row.mean(lambda r: r.flops).point),
            units.quantity(row.mean(lambda r: r.bytes).point),
            *(units.seconds(table.seconds(row, d)[0]) for d in devices),
        ]
    return [
        *head,
        _share(table.relative(row, lambda r: r.flops)),
        _share(table.relative(row, lambda r: r.bytes)),
        *(_share(table.seconds(row, d)[0] / table.seconds(table.dense, d)[0]) for d in devices),
    ]


def trivial_rows(table: Table, columns: int) -> list[list[str]]:
    """The predictors that train nothing, as rows of the main table."""
    return [
        [f"trivial: {rule}", units.digits(found[table.metric], 4), *["–"] * (columns - 2)]
        for rule, found in table.trivial.items()
        if table.metric in found
    ]


def unlearnt(table: Table) -> list[str]:
    """A sentence on those that are no better than a trivial predictor, if there are any."""
    names = [row.name for row in table.rows if table.learnt(row) is False]
    if not names:
        return []
    return [
        f"Nothing was learnt by {', '.join(names)}: not better than the best predictor that trains "
        "nothing. No conclusion is drawn from them."
    ]


def _short(finding: Finding) -> str:
    """✓ shown faster, ✗ shown slower, ≈ not told apart, ? where nothing may be said."""
    marks = {Verdict.FASTER: "✓", Verdict.SEEN: "✓?", Verdict.SLOWER: "✗", Verdict.ALIKE: "≈"}
    return marks.get(finding.verdict, "?")


def time_columns() -> list[str]:
    """Heads of a table of net times."""
    return [
        "",
        "mask updates",
        "reached",
        "over dense",
        "over the best narrower",
        "over RigL",
        "verdict",
    ]


def time_rows(table: Table, conclusion: Conclusion) -> list[list[str]]:
    """Speed-ups to the dense run's loss on one device, with 95 % intervals."""
    made = []
    for row in table.rows:
        one = conclusion.over_dense.get(row.name)
        if one is None:
            continue
        two = conclusion.over_narrower.get(row.name)
        new = conclusion.over_known.get(row.name)
        last = two if two is not None and two.verdict != Verdict.NOT_REACHED else one
        against = "" if last.verdict in (Verdict.FEW, Verdict.NOT_REACHED) else f" ({last.other})"
        made.append([
            row.name, f"{row.mean(lambda run: run.updates).point:.0f}",
            units.percent(one.reached),
            "–" if one.speed_up is None else one.text,
            "–" if two is None or two.speed_up is None else two.text,
            "–" if new is None or new.speed_up is None else f"{new.text} {_short(new)}",
            f"{last.verdict}{against}",
        ])  # fmt: skip
    return made


def _share(value: float) -> str:
    return units.digits(value, 2) if math.isfinite(value) else "–"


def _chunks(values: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, max(len(values), 1), size):
        yield values[start : start + size]


def difference_rows(table: Table, densities: Sequence[float]) -> list[list[str]]:
    """ "one − other", then at each density by how much one is better."""
    pairs = dict.fromkeys((d.one, d.other) for d in table.differences)
    found = {(d.density, d.one, d.other): d for d in table.differences}
    rows = []
    for one, other in pairs:
        row = [f"{one} against {other}"]
        for density in densities:
            d = found.get((density, one, other))
            row.append("–" if d is None else f"{plus_minus(d.interval, sign=True)} {_mark(d)}")
        rows.append(row)
    return rows


def _mark(difference: Difference) -> str:
    return {"better": "✓", "worse": "✗", "not told apart": "≈"}[difference.verdict]


MARKS = "✓ better, ✗ worse, ≈ not told apart: the 95 % interval of the difference holds 0"


def tuning(plan: ComparisonPlan, metric: str, rows: Sequence[Row]) -> str:
    """How each contender came by its learning rate, and how many runs it got for that."""
    if len(plan.rates) == 1:
        return f"Learning rate: {plan.rates[0]:g} for all; it was not tuned, so nothing is claimed."
    rates = ", ".join(f"{rate:g}" for rate in plan.rates)
    length = "full length" if plan.tune_steps is None else f"{plan.tune_steps} steps"
    counts = [f"{row.name} {len(row.choice.tried)}" for row in rows]
    line = (
        f"Learning rate: all on one grid ({rates}), widened by factors of 2 until the best lies "
        f"inside, by runs of {length} on a seed of their own; the best validation {metric} "
        f"chose. Tuning runs: {', '.join(counts)}."
    )
    if plan.tune_steps is not None:
        line += " Runs shorter than the final ones rank rates by another criterion: nothing is "
        line += "claimed."
    return line


def rate_notes(table: Table) -> list[str]:
    """How learning rates were chosen, and whose best may lie beyond those tried."""
    lines = [tuning(table.plan, table.metric, table.rows)]
    ends = [row.name for row in table.rows if row.choice.at_an_end]
    if ends:
        lines.append(
            "At the end of the rates tried, so that a better one may lie beyond: "
            f"{', '.join(ends)}."
        )
    return lines


def notes(table: Table) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = rate_notes(table)
    if table.dense is not None:
        lines.append("FLOPs, bytes and net time are over the dense run's.")
    lines.append(
        "FLOPs: of the whole run. Bytes: weights, indices and moments of the whole model, masked "
        "layers packed, at the end. Net time: of the whole run, mask updates included."
    )
    if table.conclusions:
        lines.append(
            "Time × density: net time of the whole run on the first device times density averaged "
            "over its steps, over dense's."
        )
        lines.append(
            "Speed-up: net time of the other over that of the contender, both to "
            f"{table.conclusions[0].target}, of courses averaged over seeds, since one run's "
            f"{table.metric} scatters between validations; 95 % bootstrap interval, whole courses "
            "resampled by seed, 0 where a resampling does not get there. Reached: share of seeds "
            "that get there by themselves. ✓ faster, ✗ slower, ≈ not told apart, ? too little to "
            "say. The best narrower dense model, and the best RigL, is the fastest of those that "
            "get there in 99 % of resamplings, or else at all. "
            "Verdicts are after Holm's correction over all speed-ups of "
            f"the page; below {LEAST_SEEDS} seeds nothing is said, below {CLAIM_SEEDS} nothing is "
            "claimed."
        )
    if "measured" in table.devices:
        lines.append(
            "measured: steps of one run of each contender on this machine, all in turn in one "
            "process of one thread, after kernels have compiled; masked layers on the sparse CPU "
            "kernels; medians over rounds."
        )
    if any(row.diverged for row in table.rows):
        lines.append("Runs that diverged are in no mean.")
    return lines


def show(console: Console, table: Table) -> None:
    """Tables and sentences on a terminal of 80 columns."""
    for devices in _chunks(table.devices, _DEVICES_A_TABLE):
        columns = main_columns(table, devices)
        rows = [main_cells(table, row, devices) for row in table.rows]
        rows += trivial_rows(table, len(columns))
        console.print(tables.table(headline(table), columns, rows))
    if not all(table.verified(d) for d in table.devices):
        console.print(tables.UNVERIFIED_NOTE)
    if table.differences:
        for densities in _chunks(table.plan.densities, _DENSITIES_A_TABLE):
            columns = ["", *(f"at {units.percent(d)}" for d in densities)]
            title = f"differences of test {table.metric} by seed, + where the first is better"
            console.print(tables.table(title, columns, difference_rows(table, densities)))
        console.print(MARKS)
    for conclusion in table.conclusions:
        title = f"{conclusion.device}: speed-up to {conclusion.target}"
        console.print(tables.table(title, time_columns()[:-1],
                                   [row[:-1] for row in time_rows(table, conclusion)]))  # fmt: skip
    for line in (*unlearnt(table), *(c.sentence for c in table.conclusions)):
        console.print(line, style="bold")
    for claim in claims(table):
        console.print(claim.line, style="bold")
    for note in notes(table):
        console.print(note)


def short_rows(table: Table) -> list[list[str]]:
    """One line a contender: test metric, mask updates, speed-up over dense on each device."""
    made = []
    for row in table.rows:
        found = [c.over_dense.get(row.name) for c in table.conclusions]
        made.append([
            row.name, units.digits(table.metrics[row.name].point, 4), f"{row.choice.rate:g}",
            f"{row.mean(lambda run: run.updates).point:.0f}",
            *(_short_speed_up(one, row.entry.family == "dense") for one in found),
        ])  # fmt: skip
    return made


def _short_speed_up(finding: Finding | None, dense: bool) -> str:
    if finding is None:
        return "1.00" if dense else "–"
    return "never" if finding.speed_up is None else f"{finding.speed_up.interval.point:.2f}"


def show_short(console: Console, table: Table) -> None:
    """One table and a sentence a device: what fits a screen. `show` has the rest.

    With more than three devices rates and mask updates are left to `show`.
    """
    columns = ["", f"test {table.metric}", "rate", "updates"]
    columns += [c.device + ("" if table.verified(c.device) else tables.UNVERIFIED)
                for c in table.conclusions]  # fmt: skip
    rows = short_rows(table)
    rows += [line[:2] + ["–"] * (len(columns) - 2) for line in trivial_rows(table, len(columns))]
    if len(table.conclusions) > 3:
        columns, *rows = [[*line[:2], *line[4:]] for line in (columns, *rows)]
    title = headline(table)
    if table.conclusions:
        title += f"; times as fast as dense to {table.conclusions[0].target}"
    console.print(tables.table(title, columns, rows))
    if not all(table.verified(d) for d in table.devices):
        console.print(tables.UNVERIFIED_NOTE)
    for line in (*unlearnt(table), *(c.line for c in table.conclusions)):
        console.print(line)
    for line in rate_notes(table):
        console.print(line)
