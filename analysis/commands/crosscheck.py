"""`nettime crosscheck`: a device's estimates beside measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from hwsim.crosscheck import CrossCheck


def register(app: typer.Typer) -> None:
    app.command(
        "crosscheck",
        short_help="Hold a device's estimates against measurements: time, speed-up, rank.",
        epilog=options.examples(
            "nettime crosscheck --device h100 --records mine.jsonl",
            "nettime crosscheck --device mine.toml --records mine.jsonl --worst 5",
            "nettime crosscheck --device h100 --records mine.jsonl --json",
        ),
    )(crosscheck)


def crosscheck(
    device: Annotated[str, typer.Option("--device", "-d", help="By name, or a .toml file.")],
    records: Annotated[Path, typer.Option("--records", help="Measurements, JSON Lines.")],
    worst: Annotated[int, typer.Option("--worst", help="Show the largest errors.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Says how far estimates are from records, and whether they pick the fastest kernel."""
    from hwsim import load_device
    from hwsim.crosscheck import crosscheck as checked
    from hwsim.measurement import read_measurements

    if worst < 0:
        raise InputError(f"--worst: value is {worst}; allowed is an integer of at least 0")
    found = checked(load_device(device), read_measurements(records))
    if as_json:
        from analysis.console import print_json

        return print_json({
            "command": "crosscheck", "device": found.device, "kernels": found.rows(),
            "sizes": found.size_rows(), "skipped": found.skipped,
            "worst": [_pair(p) for p in found.worst(worst)],
        })  # fmt: skip
    _print(found, worst)
    return None


def print_errors(found: CrossCheck, title: str) -> None:
    """Errors of time and speed-up by dtype and kernel, then of time by size."""
    from analysis.console import stdout
    from analysis.tables import table

    out = stdout()
    columns = ("dtype", "kernel", "records", "time", "inside", "speed-up", "τ", "fastest hit")
    rows = [
        [
            row["dtype"], row["kernel"], str(row["records"]), _percent(row["time_mape"]),
            _percent(row["inside_interval"]), _percent(row.get("speed_up_mape")),
            _number(row.get("speed_up_tau")), _percent(row.get("fastest_hit_rate")),
        ]
        for row in found.rows()
    ]  # fmt: skip
    out.print(table(title, columns, rows))
    sizes = [
        [r["kernel"], r["measured"], str(r["records"]), _percent(r["time_mape"]),
         _percent(r["bias"])]
        for r in found.size_rows()
    ]  # fmt: skip
    out.print(table("By size", ("kernel", "measured", "records", "time", "bias"), sizes))


def _print(found: CrossCheck, worst: int) -> None:
    from analysis.console import stdout
    from analysis.tables import table
    from analysis.units import seconds

    out = stdout()
    print_errors(found, f"{found.device}: mean error of time and of speed-up over dense")
    if worst:
        shown = [
            [p["kernel"], p["dtype"], "×".join(map(str, p["shape"])), seconds(p["measured_s"]),
             seconds(p["estimated_s"])]
            for p in map(_pair, found.worst(worst))
        ]  # fmt: skip
        out.print(
            table("Worst", ("kernel", "dtype", "m×n×k", "measured", "estimated"), shown)
        )  # fmt: skip
    for why, count in found.skipped.items():
        out.print(f"skipped: {count} records: {why}")


def _pair(pair: Any) -> dict[str, Any]:
    return {
        "kernel": pair.record.kernel, "dtype": pair.record.dtype, "shape": pair.record.shape,
        "measured_s": pair.record.median_s, "estimated_s": pair.estimated_s,
    }  # fmt: skip


def _percent(value: float | None) -> str:
    return "–" if value is None or value != value else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.2f}"
