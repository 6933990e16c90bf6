"""`nettime demo`: the whole path on real text, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options

if TYPE_CHECKING:
    from analysis.comparing.table import Table
    from hwsim import Device

DEFAULT_OUT = Path("runs/demo")
_TITLE = "nettime demo: net training time on real text"


def register(app: typer.Typer) -> None:
    """Adds `nettime demo`."""
    app.command(
        "demo",
        short_help="Dense, narrower dense and sparse on real text, in five minutes.",
        epilog=options.examples(
            "nettime demo",
            "nettime demo --quick --out runs/quick",
            "nettime demo --device ideal --device wafer --json",
        ),
    )(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of runs and report.")] = (
        DEFAULT_OUT
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute: all parts, numbers without meaning.")
    ] = False,
    device: options.Devices = None,
    as_json: options.Json = False,
) -> None:
    """Trains dense, narrower dense, static, SET and RigL models on real text and compares them.

    `nettime compare` with one seed: each contender's learning rate is tuned alike, and what counts
    is net training time to the dense run's loss, on each device and measured here. Interrupted,
    the same command goes on.
    """
    devices = options.load_devices(device)
    from analysis import demo as content
    from analysis.commands.compare import run, timed
    from analysis.comparing import page as pages
    from analysis.display.console import print_json, stdout

    # Runs of another budget must not be gone on with.
    folder = out / "quick" if quick else out
    names = tuple(device or options.DEFAULT_DEVICES)
    with options.claimed(out, "folder"):
        table = timed(run(content.plan(quick=quick), folder, names, content.PROCESSES))
    said = ["Quick: too short for any number here to mean anything."] if quick else []
    said += content.main_study()
    path = _report(table, devices, folder / "report.html", said)
    if as_json:
        return print_json({
            "command": "demo", "quick": quick, "report": path, **table.to_json(),
            "notes": pages.notes(table), "main_study": content.main_study(),
        })  # fmt: skip
    console = stdout()
    pages.show_short(console, table)
    for line in said:
        console.print(line, style="bold")
    console.print(f"report: {path}", soft_wrap=True)
    return None


def _report(table: Table, devices: list[Device], path: Path, said: list[str]) -> Path:
    """The HTML page, with the timelines of the last run that has masks: one is enough."""
    from analysis.comparing.out import write_report
    from analysis.reporting import timelines

    shown = table.rows[-1]
    folder = next(iter(shown.folders.values()))
    drawings = timelines.of_run(shown.name, folder, devices)
    return write_report(table, devices, path, title=_TITLE, said=said, drawings=drawings)
