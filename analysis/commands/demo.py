"""`nettime demo`: the whole path on real text, in minutes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options

if TYPE_CHECKING:
    from analysis.demo import Entry, Job
    from analysis.reporting.contenders import Contender
    from hwsim import Device

DEFAULT_OUT = Path("runs/demo")


def register(app: typer.Typer) -> None:
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

    Each contender's learning rate is tuned with the same budget. What counts is net training time
    to the same validation loss, on each device. Interrupted, the same command goes on.
    """
    devices = options.load_devices(device)
    from analysis import demo as plan
    from analysis.display.console import print_json, resumable, stdout
    from analysis.reporting import report, summary, timelines

    budget = plan.QUICK if quick else plan.Budget()
    # Runs of another budget must not be gone on with.
    folder = out / "quick" if quick else out
    with resumable(f"nettime demo goes on where it stopped, in {out}"):
        made = plan.entries(budget)
        tuning = plan.tuning_jobs(budget, made, folder)
        choices = plan.choose(tuning, _train("training at each rate", tuning))
        final = plan.final_jobs(budget, made, choices, folder)
        _train("narrower models, longer", final)
        contenders = plan.keep_best(_price(final, devices), devices[0].name)
        contenders = _in_order(contenders, made)
        notes = plan.notes(budget, choices, quick=quick)
        # One run's timelines are enough: the last that has masks.
        shown = next(job for job in reversed(final) if job.entry.algorithm != "dense")
        drawings = timelines.of_run(shown.entry.name, shown.folder, devices)
        title = "nettime demo: net training time on real text"
        page = report.report(contenders, title, [*notes, *plan.main_study()], drawings)
        path = report.write(page, folder / "report.html")
    if as_json:
        return print_json({
            "command": "demo", "quick": quick, "seed": plan.SEED, "report": path,
            **summary.as_json(contenders),
            "learning_rates": {
                name: {"chosen": choice.rate,
                       "validation_loss": {f"{r:g}": loss for r, loss in choice.losses.items()}}
                for name, choice in choices.items()
            },
            "verdicts": report.verdict_lines(contenders), "notes": notes,
            "main_study": plan.main_study(),
        })  # fmt: skip
    console = stdout()
    summary.show(console, contenders)
    for note in notes:
        console.print(note)
    for line in plan.main_study():
        console.print(line, style="bold")
    console.print(f"report: {path}", soft_wrap=True)
    return None


def _train(what: str, jobs: Sequence[Job]) -> list[float]:
    """Trains all jobs on the cores there are; the best validation loss of each."""
    from analysis.comparing.workers import run_all
    from analysis.demo import PROCESSES, work
    from analysis.display.console import progress_bar

    _prepare(jobs[0])
    total = sum(job.steps for job in jobs)
    with progress_bar(what, total) as update:
        return run_all(
            work, jobs, min(PROCESSES, os.cpu_count() or 1),
            lambda done, note: update(sum(done.values()), note),
        )  # fmt: skip


def _prepare(job: Job) -> None:
    """Makes the run's folder and the tokenized text once, before workers would each do so."""
    from analysis.demo import TASK
    from sparse_train.runs.run_folder import claimed
    from sparse_train.tasks import make_task

    with claimed(job.folder):
        make_task("mlm", TASK).prepare()


def _price(jobs: Sequence[Job], devices: Sequence[Device]) -> list[tuple[Entry, Contender]]:
    from analysis.display.console import progress_bar
    from analysis.reporting.runs import contender

    priced = []
    with progress_bar("pricing runs", len(jobs)) as update:
        for done, job in enumerate(jobs, start=1):
            entry = job.entry
            priced.append(
                (entry, contender(job.folder, devices, entry.name, entry.family, measured=True))
            )
            update(done, entry.name)
    return priced


def _in_order(contenders: Sequence[Contender], made: Sequence[Entry]) -> list[Contender]:
    places = {entry.name: place for place, entry in enumerate(made)}
    return sorted(contenders, key=lambda c: places[c.name])
