"""`nettime crosscheck`: a device's estimates beside measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.checks import check_number
from hwsim.errors import InputError

if TYPE_CHECKING:
    from hwsim.measured.crosscheck import CrossCheck


def register(app: typer.Typer) -> None:
    """Adds `nettime crosscheck`."""
    app.command(
        "crosscheck",
        short_help="Hold a device's estimates against measurements: time, speed-up, rank.",
        epilog=options.examples(
            "nettime crosscheck --device h100 --records mine.jsonl",
            "nettime crosscheck --device mine.toml --records mine.jsonl --worst 5",
            "nettime crosscheck --device zen3",
            "nettime crosscheck --device h100 --records mine.jsonl --json",
            "nettime crosscheck steps mine.jsonl --device rtx4090 --worst 5",
        ),
    )(crosscheck)


def crosscheck(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="'steps FILE': whole steps of a file, in place of single kernels."),
    ] = None,
    *,
    device: Annotated[str, typer.Option("--device", "-d", help="By name, or a .toml file.")],
    records: Annotated[
        Path | None,
        typer.Option("--records", help="Measurements, JSON Lines; a cpu: timed now without."),
    ] = None,
    card: Annotated[
        str | None, typer.Option("--card", help="Of 'steps': only those measured on this card.")
    ] = None,
    worst: Annotated[int, typer.Option("--worst", help="Show the largest errors.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Says how far estimates are from records, and whether they pick the fastest kernel."""
    from hwsim import load_device
    from hwsim.measured.crosscheck import crosscheck as checked
    from hwsim.measured.record import read_measurements

    check_number("--worst", worst, least=0)
    known = load_device(device)
    if what:
        if len(what) != 2 or what[0] != "steps":
            raise InputError(f"crosscheck: {' '.join(what)!r} given; allowed is 'steps FILE'")
        return _steps(known, Path(what[1]), card, worst, as_json)
    if records is not None:
        timed = read_measurements(records)
    elif known.model == "cpu":
        timed = _timed_now(known)
    else:
        raise InputError(f"--records: none given; allowed without it is a cpu, not {known.model}")
    found = checked(known, timed)
    if as_json:
        from analysis.display.console import print_json

        return print_json({
            "command": "crosscheck", "device": found.device, "kernels": found.rows(),
            "time_mape": found.time_mape(),
            "fastest_within_5_percent": found.fastest_hit_rate(0.05),
            "sizes": found.size_rows(), "skipped": found.skipped,
            "worst": [_pair(p) for p in found.worst(worst)],
        })  # fmt: skip
    _print(found, worst)
    return None


def _steps(device: Any, file: Path, card: str | None, worst: int, as_json: bool) -> None:
    """Whole steps of a file beside their prices."""
    from analysis.display.console import print_json, progress_bar
    from analysis.steps.check import check_steps, row_of
    from analysis.steps.reading import read_steps

    steps = read_steps(file)
    cards = sorted({s.device for s in steps})
    if card is not None:
        from hwsim.errors import unknown

        if card not in cards:
            raise InputError(unknown("card", card, cards))
        steps = [s for s in steps if s.device == card]
    with progress_bar(f"pricing {len(steps)} steps", 1):
        found = check_steps(device, steps)
    if not as_json:
        return _print_steps(found, cards if card is None else [card], worst)
    return print_json({
        "command": "crosscheck", "device": found.device, "cards": cards, "all": found.summary(),
        "groups": found.groups(), "kinds": found.kinds(), "skipped": found.skipped,
        "steps": [row_of(r) for r in found.rows],
        "worst": [row_of(r) for r in found.worst(worst)],
    })  # fmt: skip


def _print_steps(found: Any, cards: list[str], worst: int) -> None:
    from analysis.display.console import stdout
    from analysis.display.tables import table
    from hwsim.units import seconds

    out = stdout()
    columns = ("steps", "rows", "error", "bias", "spread", "τ", "inside", "half-width")
    rows = [
        [name, str(g["steps"]), _percent(g["error"]), _signed(g["bias"]), _number(g["spread"]),
         _number(g["tau"]), _percent(g["inside"]), _percent(g["half_width"])]
        for name, g in {"all": found.summary(), **found.groups()}.items()
    ]  # fmt: skip
    title = f"{found.device} beside steps measured on {', '.join(cards)}"
    out.print(table(title, columns, rows, text=("steps",)))
    kinds = ", ".join(f"{kind} {_percent(share)}" for kind, share in found.kinds().items())
    out.print(f"estimated time by kind: {kinds}")
    if worst:
        shown = [
            [r.step.model, r.step.device, str(r.step.batch), seconds(r.step.seconds),
             seconds(r.estimate.seconds), f"{r.ratio:.2f}"]
            for r in found.worst(worst)
        ]  # fmt: skip
        out.print(table("Worst", ("model", "on", "batch", "measured", "estimated", "ratio"), shown))
    for why, count in found.skipped.items():
        out.print(f"skipped: {count} steps: {why}")


def _signed(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _timed_now(device: Any) -> list[Any]:
    """This machine's kernels at sizes that a calibration has not seen, each at its fastest."""
    import dataclasses

    import numpy as np

    from analysis.display.console import progress_bar
    from hwsim.calibration.measure_cpu import measure_cpu
    from hwsim.measured.cpu_cases import UNSEEN

    with progress_bar("timing this machine", 1):
        timed = measure_cpu(UNSEEN, threads=device.threads, rng=np.random.default_rng(0))
    # A median also measures what else the machine was doing; constants are fitted to the fastest.
    return [
        dataclasses.replace(r, median_s=r.min_s, low_quartile_s=r.min_s, high_quartile_s=r.min_s)
        for r in timed
    ]


def print_errors(found: CrossCheck, title: str) -> None:
    """Errors of time and speed-up by dtype and kernel, then of time by size."""
    from analysis.display.console import stdout
    from analysis.display.tables import table

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
    from analysis.display.console import stdout
    from analysis.display.tables import table
    from hwsim.units import seconds

    out = stdout()
    print_errors(found, f"{found.device}: mean error of time and of speed-up over dense")
    out.print(
        f"all: time {_percent(found.time_mape())}; the kernel chosen is the fastest or within 5 % "
        f"of it in {_percent(found.fastest_hit_rate(0.05))} of cases"
    )
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
