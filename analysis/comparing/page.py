"""A comparison for people: on a terminal, as Markdown, as a figure, as an HTML report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analysis.comparing.claims import claims
from analysis.comparing.table import Difference, Row, Table
from analysis.display import tables
from analysis.stats import Interval
from hwsim import units

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.comparing.plan import Plan

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


def tuning(plan: Plan, metric: str) -> str:
    """How each contender came by its learning rate."""
    if len(plan.rates) == 1:
        return f"Learning rate: {plan.rates[0]:g} for all; it was not tuned."
    rates = ", ".join(f"{rate:g}" for rate in plan.rates)
    return (
        f"Learning rate: each contender had {len(plan.rates)} short runs of {plan.tune_steps} "
        f"steps ({rates}) on a seed of their own; the best validation {metric} chose."
    )


def notes(table: Table) -> list[str]:
    """What a reader must know beside the numbers."""
    plan = table.plan
    lines = [tuning(plan, table.metric)]
    ends = [row.name for row in table.rows if row.choice.at_an_end]
    if ends:
        lines.append(
            "At the end of the rates tried, so that a better one may lie beyond: "
            f"{', '.join(ends)}."
        )
    if table.dense is not None:
        lines.append("FLOPs, bytes and net time are over the dense run's.")
    lines.append(
        "FLOPs: of the whole run. Bytes: weights, indices and moments of the whole model, masked "
        "layers packed, at the end. Net time: of the whole run, mask updates included."
    )
    if any(row.diverged for row in table.rows):
        lines.append("Runs that diverged are in no mean.")
    return lines


def show(console: Console, table: Table) -> None:
    """Tables and sentences on a terminal of 80 columns."""
    for devices in _chunks(table.devices, _DEVICES_A_TABLE):
        rows = [main_cells(table, row, devices) for row in table.rows]
        console.print(tables.table(headline(table), main_columns(table, devices), rows))
    if not all(table.verified(d) for d in table.devices):
        console.print(tables.UNVERIFIED_NOTE)
    if table.differences:
        for densities in _chunks(table.plan.densities, _DENSITIES_A_TABLE):
            columns = ["", *(f"at {units.percent(d)}" for d in densities)]
            title = f"differences of test {table.metric} by seed, + where the first is better"
            console.print(tables.table(title, columns, difference_rows(table, densities)))
        console.print(MARKS)
    for claim in claims(table):
        console.print(claim.line, style="bold")
    for note in notes(table):
        console.print(note)
