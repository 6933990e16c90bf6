"""`nettime report`: one HTML file about training runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options

if TYPE_CHECKING:
    from analysis.estimating.what_if import Grid
    from hwsim import Device

DEFAULT_OUT = Path("report.html")


def register(app: typer.Typer) -> None:
    """Adds `nettime report`."""
    app.command(
        "report",
        short_help="Compare runs in one self-contained HTML file.",
        epilog=options.examples(
            "nettime report runs/rigl",
            "nettime report runs/dense runs/rigl --out report.html --device wafer",
            "nettime report runs/dense runs/rigl --json | jq .targets",
        ),
    )(report)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Run folders of nettime train.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = DEFAULT_OUT,
    title: Annotated[str, typer.Option(help="Its heading.")] = "Net training time",
    device: options.Devices = None,
    what_if: Annotated[
        bool,
        typer.Option(
            "--what-if",
            help="Sliders: a step of the last run's model at other densities, "
            "patterns and batches.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Loss against steps and net time, density by layer, cost by phase, who waits for whom.

    The page needs no network. Scripts let you point at curves, zoom, choose runs and export; all
    numbers are there without them. A run that is not complete is compared as far as it
    went. Runs on other data than the first, or evaluated by other metrics, are left out, and said
    to be.
    """
    devices = options.load_devices(device)
    from analysis.display.console import print_json, progress_bar, stdout
    from analysis.reporting import comparable, provenance, summary, timelines
    from analysis.reporting import report as page
    from analysis.reporting.runs import contender, distinct_names, widest

    contenders = []
    runs, notes = comparable.split(runs)
    width = widest(runs)
    with progress_bar("pricing runs", len(runs)) as update:
        for done, folder in enumerate(runs):
            contenders.append(contender(folder, devices, widest=width))
            update(done + 1, folder.name)
    notes += [
        f"{folder}: its loss never fell below that of its first validation."
        for folder, one in zip(runs, contenders, strict=True) if len(one.losses) > 1
        and not one.improved
    ]  # fmt: skip
    contenders = distinct_names(contenders, runs)
    # One run's timelines are enough: the last with masks.
    shown = max(range(len(runs)), key=lambda i: (contenders[i].density < 1, i))
    drawings = timelines.of_run(contenders[shown].name, runs[shown], devices)
    origin = provenance.lines(runs, [c.name for c in contenders], ["nettime", *sys.argv[1:]])
    grid = _grid(runs[shown], devices) if what_if else None
    path = page.write(page.report(contenders, title, notes, drawings, origin, grid=grid), out)
    if as_json:
        return print_json(
            {"command": "report", "report": path, **summary.as_json(contenders),
             "verdicts": page.verdict_lines(contenders), "notes": notes}
        )  # fmt: skip
    console = stdout()
    summary.show(console, contenders)
    for note in notes:
        console.print(note)
    console.print(f"report: {path}", soft_wrap=True)
    return None


def _grid(folder: Path, devices: list[Device]) -> Grid:
    """Estimates for the model of a run; its batch, optimizer and distribution are the grid's."""
    from dataclasses import replace

    from analysis.display.console import progress_bar
    from analysis.estimating import subject, what_if
    from analysis.estimating.pricing import Setting
    from sparse_train.record import TrainingRecord

    config = TrainingRecord.load(folder).config
    subjects = {
        batch: subject.of_task(replace(config, batch_size=batch), optimizer=config.priced_optimizer)
        for batch in what_if.batches(config.batch_size)
    }
    patterns = dict.fromkeys((*([config.pattern] if config.pattern else ()), *what_if.PATTERNS))
    setting = Setting("unstructured", config.distribution, config.seed, "static", 0)
    with progress_bar("what if", len(patterns) * len(what_if.DENSITIES)) as update:
        return what_if.grid(subjects, devices, setting, patterns=tuple(patterns), done=update)
