"""Contenders side by side: the table of the demo and of `nettime report`, and its sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.reporting.contenders import (
    Reached,
    ReportedRun,
    common_loss,
    compare,
    devices_of,
    reference,
)
from hwsim import units

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def target_losses(contenders: Sequence[ReportedRun]) -> list[tuple[float, str]]:
    """The losses to which times are compared, each with what it is.

    The lowest that every contender reaches gives each a time; the dense run's best asks who is
    as good as dense at all.
    """
    losses = [(common_loss(contenders), "the lowest loss that every run reaches")]
    base = reference(contenders)
    if base is not None and base.best_loss < losses[0][0]:
        losses.append((base.best_loss, "the dense run's best loss"))
    return losses


def table(contenders: Sequence[ReportedRun], loss: float, which: str) -> Table:
    """Net time of each contender to `loss` on each device, relative to dense."""
    from analysis.display.tables import UNVERIFIED
    from analysis.display.tables import table as plain

    base = reference(contenders)
    columns = ["", "loss", "steps"]
    for device in devices_of(contenders):
        unsure = any(not c.verified.get(device, True) for c in contenders)
        columns.append(device + (UNVERIFIED if unsure else ""))
        columns.append("interval")
    rows = []
    for c in contenders:
        row = [c.name, f"{c.best_loss:.3f}", str(int(c.steps[-1]))]
        for device in devices_of(contenders):
            cells = _cells(contenders, c, base, device, loss)
            row += cells
        rows.append(row)
    unit = "net time ÷ dense's" if base is not None else "net time"
    return plain(f"{unit} to validation loss {loss:.3f}, {which}", columns, rows)


def _cells(
    contenders: Sequence[ReportedRun],
    c: ReportedRun,
    base: ReportedRun | None,
    device: str,
    loss: float,
) -> list[str]:
    comparison = compare(contenders, device, loss)
    reached = comparison.times[c.name]
    if reached is None:
        return ["never", "–"]
    against = None if base is None else comparison.times[base.name]
    if against is None or against.seconds == 0:
        return [units.seconds(reached.seconds), units.interval(reached.low, reached.high)]
    if c is base:
        return ["1.0", "–"]
    low, high = relative_interval(reached, against)
    return [
        units.digits(reached.seconds / against.seconds, 2),
        f"{units.digits(low, 2)}–{units.digits(high, 2)}",
    ]


def relative_interval(one: Reached, other: Reached) -> tuple[float, float]:
    """Ends of one time over another, as if both errors pointed apart."""
    low = one.low / other.high if other.high else 0.0
    return low, one.high / other.low if other.low else float("inf")


def as_json(contenders: Sequence[ReportedRun]) -> dict[str, Any]:
    """All that the tables say, in seconds."""
    return {
        "devices": list(devices_of(contenders)),
        "contenders": [_contender_json(c) for c in contenders],
        "targets": [
            {
                "loss": loss,
                "what": which,
                "times": {d: _times_json(contenders, d, loss) for d in devices_of(contenders)},
            }
            for loss, which in target_losses(contenders)
        ],
    }


def _contender_json(c: ReportedRun) -> dict[str, Any]:
    return {
        "name": c.name, "family": c.family, "density": c.density, "steps": int(c.steps[-1]),
        "best_validation_loss": c.best_loss, "last_validation_loss": c.last_loss,
        "net_time_s": {
            d: {"expected": t.expected[-1], "low": t.low[-1], "high": t.high[-1],
                "verified": c.verified.get(d, True)}
            for d, t in c.seconds.items()
        },
        "facts": dict(c.facts),
    }  # fmt: skip


def _times_json(contenders: Sequence[ReportedRun], device: str, loss: float) -> dict[str, Any]:
    base = reference(contenders)
    comparison = compare(contenders, device, loss)
    return {
        name: None
        if reached is None
        else {
            "seconds": reached.seconds, "low_s": reached.low, "high_s": reached.high,
            "relative_to_dense": comparison.relative(name, base.name) if base else None,
        }
        for name, reached in comparison.times.items()
    }  # fmt: skip


def show(console: Console, contenders: Sequence[ReportedRun]) -> None:
    """Tables and sentences on a terminal."""
    from analysis.display.tables import UNVERIFIED_NOTE
    from analysis.reporting.contenders import verdicts

    targets = target_losses(contenders)
    for loss, which in targets:
        console.print(table(contenders, loss, which))
    if any(not all(c.verified.values()) for c in contenders):
        console.print(UNVERIFIED_NOTE)
    if len(contenders) > 1:
        for line in verdicts(contenders, targets[-1][0]):
            console.print(line, style="bold")
