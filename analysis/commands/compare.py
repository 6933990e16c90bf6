"""`nettime compare`: algorithms × densities × seeds on one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.comparing.plan import ComparisonPlan
    from analysis.comparing.table import Table
    from analysis.comparing.variants import Variant

DEFAULT_OUT = Path("runs/compare")


def register(app: typer.Typer) -> None:
    """Adds `nettime compare`."""
    app.command(
        "compare",
        short_help="Algorithms × densities × seeds on a task: means with intervals.",
        epilog=options.examples(
            "nettime compare --quick --out runs/quick",
            "nettime compare -a static -a set -a rigl --density 0.2 --density 0.1",
            "nettime compare -a rigl --distribution uniform --distribution erk",
            "nettime compare -a srigl --ablation",
            "nettime compare -a set -a set,pattern=fan_in -a rigl,drop_fraction=0.5 --seeds 3",
            "RAY_ADDRESS=auto nettime compare --on ray --processes 32 --out /shared/runs",
            "nettime compare --preset mini --steps 2000 --write results.md --plot results.svg",
        ),
    )(compare)


def compare(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all runs.")] = DEFAULT_OUT,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            "--algorithm",
            "-a",
            help="A name, or name,option=value,…; repeatable. Default: static, set, rigl.",
        ),
    ] = None,
    distribution: Annotated[
        list[str] | None,
        typer.Option(help="uniform, er, erk; several: each algorithm with each of them."),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Each SRigL also without neuron ablation.")
    ] = False,
    density: Annotated[
        list[float] | None, typer.Option(help="Repeatable; default 0.2 and 0.1.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many final runs of each contender.")] = 5,
    dense: Annotated[
        bool, typer.Option("--dense/--no-dense", help="Whether the dense model takes part.")
    ] = True,
    narrower: Annotated[
        bool,
        typer.Option("--narrower/--no-narrower", help="And the dense model of the same cost."),
    ] = True,
    task: Annotated[str, typer.Option(help="What is learnt; a wrong name lists all.")] = "mlm",
    model: Annotated[str, typer.Option(help="Kind of network; default: the task's own.")] = "",
    preset: Annotated[str, typer.Option(help="Size of the model; default: the task's own.")] = "",
    steps: Annotated[int, typer.Option(help="Of each final run.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Windows, images, … of a step.")] = 16,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            "--rate",
            help="A learning rate of the grid; repeatable. Default 0.001, 0.002, 0.004. Where the "
            "best is at an end, the grid is widened.",
        ),
    ] = None,
    tune_steps: Annotated[
        int | None,
        typer.Option(
            help="Of a tuning run; default its full length. Nothing is claimed with less."
        ),
    ] = None,
    narrower_length: Annotated[
        list[int] | None,
        typer.Option(help="Times the steps, of narrower dense models; repeatable. Default 1, 2."),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(help="Times the steps, of sparse contenders; repeatable. Default 1."),
    ] = None,
    update_interval: Annotated[
        int | None, typer.Option(help="Steps between mask updates; default each one's own.")
    ] = None,
    evaluations: Annotated[int, typer.Option(help="On validation, in each final run.")] = 10,
    task_option: Annotated[
        list[str] | None, typer.Option(help="Of the task, as name=value; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting of a run, as name=value; repeatable."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two seeds, 20 steps: numbers without meaning.")
    ] = False,
    processes: Annotated[int, typer.Option(help="Runs at once, of one thread each.")] = 2,
    on: Annotated[
        str,
        typer.Option("--on", help="local, or ray: a cluster's machines, which share --out."),
    ] = "local",
    device: options.Devices = None,
    measured: Annotated[
        bool,
        typer.Option("--measured", help="Also time real steps here, all contenders in turn."),
    ] = False,
    write: Annotated[Path | None, typer.Option(help="A Markdown page to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A figure to write: .svg, .png, .pdf.")] = None,
    report: Annotated[Path | None, typer.Option(help="An HTML report to write.")] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Comparison",
    remark: Annotated[
        list[str] | None, typer.Option(help="A paragraph of the page, yours; repeatable.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Trains all contenders on a task and prints test metric, FLOPs, memory and net time.

    Means and 95 % intervals are over seeds. The learning rate of each contender is chosen on one
    grid, by runs of full length, on validation. Interrupted, the same command goes on; so does one
    with more seeds, densities or algorithms.
    """
    from analysis.comparing.plan import ComparisonPlan
    from analysis.comparing.variants import variant
    from sparse_train.registries import TASKS
    from sparse_train.runs.config import TrainConfig

    options.at_least("--seeds", seeds)
    options.at_least("--processes", processes)
    options.at_least("--steps", steps)
    options.chosen("--on", on, ("local", "ray"))
    options.figure("--plot", plot)
    options.written("--report", report, ".html")
    content: dict[str, Any] = {
        "task": task, "model": model, "preset": preset, "steps": steps, "batch_size": batch_size,
        "task_options": pairs("--task-option", task_option or [], TASKS.get(task)),
        **own_settings(settings or []),
    }  # fmt: skip
    spreads = distribution or []
    if len(spreads) == 1:
        content["distribution"] = spreads[0]
    variants = _variants([variant(a) for a in algorithm or ("static", "set", "rigl")],
                         spreads, ablation)  # fmt: skip
    plan = ComparisonPlan(
        base=TrainConfig.from_json(content), variants=variants,
        densities=tuple(density or (0.2, 0.1)), seeds=tuple(range(seeds)),
        rates=tuple(rate or (1e-3, 2e-3, 4e-3)), tune_steps=tune_steps,
        dense=dense, narrower=narrower, update_interval=update_interval,
        evaluations=evaluations, narrower_lengths=tuple(narrower_length or (1, 2)),
        lengths=tuple(length or (1,)),
    )  # fmt: skip
    if quick:
        plan = replace(
            plan, base=replace(plan.base, steps=20, warmup_steps=None), seeds=(0, 1),
            tune_steps=5, evaluations=2, most_rates=len(plan.rates),
        )  # fmt: skip
    names = tuple(device or options.DEFAULT_DEVICES)
    with options.claimed(out, "folder"):
        table = run(plan, out / "quick" if quick else out, names, processes, on)
    if measured:
        table = timed(table)
    written = _write(
        table,
        names,
        write=write,
        plot=plot,
        report=report,
        title=title,
        remarks=tuple(remark or ()),
    )
    _tell(table, written, as_json)


def _variants(
    named: Sequence[Variant], distributions: Sequence[str], ablation: bool
) -> tuple[Variant, ...]:
    """The algorithms asked for, each with each distribution, SRigL with and without ablation."""
    made = list(named)
    if ablation:
        if not any(one.algorithm == "srigl" for one in made):
            raise InputError("--ablation: no srigl among the algorithms; add -a srigl")
        made = [
            two
            for one in made
            for two in (one, *([_unablated(one)] if one.algorithm == "srigl" else []))
        ]
    if len(distributions) > 1:
        made = [
            replace(one, settings={**one.settings, "distribution": name})
            for one in made
            for name in distributions
        ]
    return tuple(made)


def _unablated(one: Variant) -> Variant:
    return replace(one, options={**one.options, "gamma": None})


def own_settings(given: Sequence[str]) -> dict[str, Any]:
    """name=value of a run; an InputError for what a comparison decides itself."""
    from analysis.comparing.plan import DECIDED
    from sparse_train.runs.config import TrainConfig

    found = pairs("--set", given, TrainConfig)
    for name in found:
        if name in DECIDED or name in ("threads", "task_options"):
            raise InputError(f"--set: {name} is decided by the comparison; see the other options")
    return found


def pairs(option: str, given: Sequence[str], kind: type) -> dict[str, Any]:
    """name=value, each value as the field of the dataclass `kind` takes it."""
    from analysis.comparing.variants import value_of

    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{option}: value is {text!r}; allowed is name=value")
        found[name] = value_of(value, name, kind)
    return found


def run(
    plan: ComparisonPlan, out: Path, devices: tuple[str, ...], processes: int, on: str = "local"
) -> Table:
    """Trains what is missing in `out`, with a progress bar; a second call goes on."""
    from contextlib import ExitStack

    from analysis.comparing.race import compare as go
    from analysis.display.console import progress_bar, resumable

    with resumable(f"the same command goes on where it stopped, in {out}"), ExitStack() as stack:
        bars: dict[str, Any] = {}

        def progress(what: str, done: int, total: int, note: str) -> None:
            if what not in bars:
                stack.close()
                bars[what] = stack.enter_context(progress_bar(what, total))
            bars[what](done, note)

        return go(plan, out, devices=devices, processes=processes, progress=progress, on=on)


def timed(table: Table) -> Table:
    """The table with seconds measured here beside the devices' prices."""
    from analysis.comparing.measured import ROUNDS, with_measured
    from analysis.display.console import progress_bar

    with progress_bar("timing real steps", ROUNDS) as update:
        return with_measured(table, tell=lambda done: update(done, "rounds"))


def _write(
    table: Table, devices: tuple[str, ...], *,
    write: Path | None, plot: Path | None, report: Path | None, title: str,
    remarks: tuple[str, ...],
) -> list[Path]:  # fmt: skip
    """Writes the files asked for, and a page's table beside it; their paths."""
    from analysis import results
    from analysis.comparing import out
    from analysis.comparing.stored import ComparisonPage
    from analysis.reporting import plots
    from hwsim import load_device

    made = []
    if write is not None:
        stored = ComparisonPage(table, title, options.command_line(), remarks)
        made += results.write(stored, write)
    if plot is not None:
        with plots.styled():
            plots.save(out.figure(table), plot)
        made.append(plot.absolute())
    if report is not None:
        loaded = [load_device(name) for name in devices]
        made.append(out.write_report(table, loaded, report))
    return made


def _tell(table: Table, written: Sequence[Path], as_json: bool) -> None:
    from analysis.comparing import page as pages
    from analysis.display.console import print_json, stdout

    if as_json:
        print_json({"command": "compare", **table.to_json(), "written": list(written)})
        return
    console = stdout()
    pages.show(console, table)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)
