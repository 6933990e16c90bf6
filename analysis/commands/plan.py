"""`nettime plan`: size, sparsity and length for a net time, before anyone trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.planning.law import Law
    from analysis.planning.prices import SizedModel
    from analysis.planning.stored import PlanPage

DEFAULT_LAW = "vit-jft"


def register(app: typer.Typer) -> None:
    """Adds `nettime plan`."""
    app.command(
        "plan",
        short_help="Which size, sparsity and number of steps is best within a net time.",
        epilog=options.examples(
            "nettime plan --hours 1000 -d h200 -d wafer",
            "nettime plan --loss 6.0 -d ideal --density 0.5 --density 0.1",
            "nettime plan --runs runs/compare --hours 0.01 -d zen3 --form average",
            "nettime plan --hours 1000 -d ideal --plot plan.svg --write plan.md",
        ),
    )(plan)


def plan(
    hours: Annotated[float | None, typer.Option(help="Net training time that there is.")] = None,
    loss: Annotated[float | None, typer.Option(help="Or: a final loss to be reached.")] = None,
    law: Annotated[
        str, typer.Option(help="A published one: vit-jft, vision transformers on JFT.")
    ] = DEFAULT_LAW,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Folders of runs, to which a law is fitted instead; repeatable."),
    ] = None,
    form: Annotated[
        str, typer.Option(help="Of the law fitted to runs: frantar or average (density).")
    ] = "frantar",
    density: Annotated[
        list[float] | None, typer.Option(help="Repeatable; default 0.5, 0.25, 0.125, 0.0625.")
    ] = None,
    width: Annotated[
        list[int] | None,
        typer.Option(help="Of the vision transformers; repeatable. Default 128 to 768."),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="gradual: pruned from dense; constant: sparse from the start.")
    ] = "gradual",
    pattern: Annotated[str, typer.Option(help="What masks look like.")] = "unstructured",
    batch_size: Annotated[int, typer.Option(help="Images of a step.")] = 256,
    device: options.Devices = None,
    write: Annotated[Path | None, typer.Option(help="A Markdown page to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A figure to write: .svg, .png, .pdf.")] = None,
    as_json: options.Json = False,
) -> None:
    """Net time from the device, loss from a scaling law of sparse training; nothing is trained.

    Names the best choice per device, and dense where dense wins. The law says what it was fitted
    to; what lies beyond that is marked.
    """
    if (hours is None) == (loss is None):
        raise InputError("--hours, --loss: give one of the two")
    options.at_least("--batch-size", batch_size)
    options.figure("--plot", plot)
    devices = options.load_devices(device)
    from analysis.display.console import progress_bar
    from analysis.planning.plan import DENSITIES, candidates
    from analysis.planning.prices import SCHEDULES
    from analysis.planning.stored import PlanPage

    budget_s = None if hours is None else 3600 * options.above_zero("--hours", hours)
    options.chosen("--schedule", schedule, SCHEDULES)
    wanted = tuple(options.share("--density", d) for d in density or DENSITIES)
    if not all(wanted):
        raise InputError("--density: value is 0; allowed is above 0, at most 1")
    found, models = _law(law, runs, form, width, batch_size)
    priced = []
    with progress_bar("pricing", len(devices)) as update:
        for done, one in enumerate(devices, start=1):
            priced.append(tuple(candidates(models, one, wanted, schedule, pattern)))
            update(done, one.name)
    made = PlanPage(
        found, tuple(priced), options.command_line(),
        budget_s, loss, None if plot is None else plot.name,
    )  # fmt: skip
    _tell(made, write, plot, as_json)


def _law(
    law: str, runs: list[Path] | None, form: str, width: list[int] | None, batch_size: int
) -> tuple[Law, list[SizedModel]]:
    from analysis.planning import sizes
    from analysis.planning.law import FORMS, PUBLISHED, fit

    if not runs:
        options.chosen("--law", law, tuple(PUBLISHED))
        return PUBLISHED[law], sizes.vits(tuple(width or sizes.VIT_WIDTHS), batch_size)
    if width:
        raise InputError("--width: goes with a published law; with --runs sizes are the runs' own")
    options.chosen("--form", form, tuple(FORMS))
    read = sizes.points(runs)
    source = f"fitted to {len(read.points)} runs below {', '.join(map(str, runs))}"
    how = {"n_unit": 1e6, "d_unit": 1e6, "draws": 100}
    fitted = fit(read.points, form, **how, source=source, noise=read.noise)
    return fitted, sizes.of_runs(read.config, sizes.SHARES)


def _tell(made: PlanPage, write: Path | None, plot: Path | None, as_json: bool) -> None:
    from analysis import results
    from analysis.display import tables
    from analysis.display.console import print_json, stdout
    from analysis.planning import page
    from analysis.reporting import plots

    answers, fronts, written = made.answers, made.fronts, []
    if plot is not None:
        with plots.styled():
            plots.save(page.figure(fronts), plot)
        written.append(plot.absolute())
    if write is not None:
        written += results.write(made, write)
    if as_json:
        shown = page.to_json(made.law, answers, fronts)
        print_json({"command": "plan", **shown, "written": written})
        return
    console = stdout()
    for best in answers:
        console.print(tables.table(best.device, list(page.COLUMNS), page.rows(made.law, best)))
    for best in answers:
        console.print(best.sentence, style="bold")
        if best.forecast is not None:
            console.print(best.forecast.sentence)
        console.print("Lowest loss " + "; ".join(page.pareto_lines(fronts[best.device])) + ".")
    for note in page.notes(made.law, answers[0].candidates):
        console.print(note)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)
