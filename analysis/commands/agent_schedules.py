"""`nettime agent schedules`: handcrafted schedules and learnt ones at equal target density."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import agent_options as shared
from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.agents.schedules_study import ScheduleStudy
    from analysis.agents.schedules_table import ScheduleTable

DEFAULT_OUT = Path("runs/schedules")
_OPTIONS = {"task", "model", "preset", "steps", "batch_size", "drop_fraction", "distribution",
            "update_interval"}  # fmt: skip


@shared.agent_app.command(
    "schedules",
    short_help="RP-RR and MP-RR × schedules × target densities, the learnt one among them.",
    epilog=options.examples(
        "nettime agent schedules --seeds 2 --steps 200 --agent-episodes 64",
        "nettime agent schedules --agent runs/wafer/agent.pt -d wafer -d zen4",
        "nettime agent schedules --density 0.05 --density 0.2 --write table.md --plot table.svg",
        "nettime agent schedules --paper --out runs/jit --write jit.md",
        "nettime agent schedules --resnet --out runs/jit_resnet --write jit_resnet.md",
        "nettime agent schedules --task text_classification --seeds 5",
        "nettime agent schedules --task-option data=cifar10 --model simple_cnn --preset small",
    ),
)
def schedules(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all runs.")] = DEFAULT_OUT,
    density: Annotated[
        list[float] | None,
        typer.Option("--density", help="Target; repeatable. Default 0.1, 0.5 and 1."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many final runs of each cell; default 5.")
    ] = None,
    agent: Annotated[
        Path | None,
        typer.Option(help="An agent.pt that decides under learned. Default: one is trained here."),
    ] = None,
    agent_episodes: Annotated[int, typer.Option(help="Of each agent that is trained here.")] = 640,
    slots: shared.Slots = 32,
    reward: Annotated[
        str, typer.Option(help="Of agents trained here: accuracy, log_ratio, …")
    ] = "accuracy",
    network: Annotated[
        list[str] | None,
        typer.Option("--network", help="That they learn on, small ones by default; repeatable."),
    ] = None,
    min_density: Annotated[float, typer.Option(help="Lower end of what they choose.")] = 1 / 32,
    action: shared.Action = "step",
    hold: shared.Hold = 0.0,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Tessera et al.: the five-layer CNN, 2,000 steps, on Fashion-MNIST where its "
            "files are, else on the digits.",
        ),
    ] = False,
    resnet: Annotated[
        bool,
        typer.Option(
            "--resnet",
            help="Theirs with ResNet-18, smaller: 10 and 50 %, three seeds, images shifted and "
            "mirrored, weights decayed; on CIFAR-10 where its files are, else on the digits.",
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="All parts in a minute: numbers without meaning.")
    ] = False,
    task: Annotated[
        str, typer.Option(help="One with small networks for agents; a wrong name lists all.")
    ] = "images",
    model: Annotated[str, typer.Option(help="Kind of network; default: the task's own.")] = "",
    preset: Annotated[str, typer.Option(help="Size of the model; default: the task's own.")] = "",
    task_option: Annotated[
        list[str] | None,
        typer.Option(help="Of the task, as data=mnist; repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting of a run, as name=value; repeatable."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Of each final run.")] = 400,
    batch_size: Annotated[int, typer.Option(help="Images of a step.")] = 64,
    rate: Annotated[
        list[float] | None,
        typer.Option("--rate", help="To try; repeatable. Default 0.001, 0.002, 0.004, 0.008."),
    ] = None,
    tune_steps: Annotated[
        int | None,
        typer.Option(
            help="Of a tuning run; default its full length. Nothing is claimed with less."
        ),
    ] = None,
    update_interval: Annotated[
        int | None, typer.Option(help="Steps between mask updates; default a 20th of steps.")
    ] = None,
    evaluations: Annotated[int, typer.Option(help="On validation, in each final run.")] = 20,
    drop_fraction: Annotated[float, typer.Option(help="Dropped and regrown by an update.")] = 0.3,
    distribution: Annotated[str, typer.Option(help="Of the density: uniform, er, erk.")] = (
        "uniform"
    ),
    narrower: Annotated[
        bool, typer.Option("--narrower/--no-narrower", help="Narrower dense models too.")
    ] = True,
    processes: Annotated[int, typer.Option(help="Runs at once, of one thread each.")] = 2,
    device: shared.Device = None,
    write: Annotated[Path | None, typer.Option(help="A Markdown page, a figure beside it.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Densities over training: .svg, .png, .pdf.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Schedules, handcrafted and learnt",
    as_json: options.Json = False,
) -> None:
    """Test accuracy and net time of handcrafted and learnt schedules, mean ± deviation over seeds.

    RP-RR and MP-RR (random or magnitude pruning, random regrowth), as Tessera et al. (2022) have
    it. Interrupted, the same command goes on; so does one with more seeds or densities.
    """
    from analysis.agents.schedules_study import Learning, ScheduleStudy
    from analysis.commands.compare import own_settings
    from analysis.commands.compare import pairs as options_of
    from rl.runs.problems import setting
    from sparse_train.registries import TASKS
    from sparse_train.runs.config import TrainConfig

    options.figure("--plot", plot)
    setting(task)  # An unknown one, or one without networks for agents.
    given = options_of("--task-option", task_option or [], TASKS.get(task))
    own = own_settings(settings or ())
    for name in own.keys() & _OPTIONS:
        raise InputError(f"--set: {name} has an option of its own, --{name.replace('_', '-')}")
    if paper and resnet:
        raise InputError("--paper: given with --resnet; allowed is one of them")
    if paper:
        model, preset, steps = "simple_cnn", "small", 2000
        given = {**({} if quick else _found("fashion_mnist")), **given}
    if resnet:
        model, preset, steps, density = "resnet", "18", 2000, density or [0.1, 0.5]
        given = {"augmentation": "crop_flip", **({} if quick else _found("cifar10")), **given}
        # He et al. (2016), section 4.2, decay the weights of residual networks by 1e-4; 5e-4 is
        # usual for these 64 channels (assumed).
        own.setdefault("weight_decay", 5e-4)
    if seeds is None:
        seeds = 2 if quick else 3 if resnet else 5
    for name, value in (("--seeds", seeds), ("--processes", processes), ("--steps", steps),
                        ("--evaluations", evaluations)):  # fmt: skip
        options.at_least(name, value)
    if quick:
        steps, agent_episodes, slots = 20, 4, 4
        density, rate = density or [0.5], rate or [2e-2 if resnet else 4e-3]
        narrower, evaluations = False, 2
    base = TrainConfig(
        task=task, task_options=given, model=model, preset=preset, steps=steps,
        batch_size=batch_size, drop_fraction=drop_fraction, distribution=distribution, **own,
    )  # fmt: skip
    study = ScheduleStudy(
        base, densities=tuple(density or (0.1, 0.5, 1.0)), seeds=tuple(range(seeds)),
        rates=tuple(rate or (1e-3, 2e-3, 4e-3, 8e-3)), tune_steps=tune_steps,
        update_interval=update_interval or max(1, steps // 20),
        devices=tuple(device or ("wafer",)), narrower=narrower, evaluations=evaluations,
        learning=Learning(
            agent, agent_episodes, tuple(network or ()), reward, min_density, slots,
            mode=action, hold=hold,
        ),
    )  # fmt: skip
    table = _run(study, out, processes)
    _tell(table, _write(table, write, plot, title), as_json)


def _found(data: str) -> dict[str, Any]:
    """The option that names a data set, if its files are where they usually are."""
    from sparse_train.data.image_files import load_images

    try:
        load_images(data, None)
    except InputError:
        return {}
    return {"data": data}


def _run(study: ScheduleStudy, out: Path, processes: int) -> ScheduleTable:
    from analysis.agents.schedules import run
    from analysis.display.console import progress_bar, resumable

    with resumable(f"the same command goes on where it stopped, in {out}"), ExitStack() as stack:
        bars: dict[tuple[str, int], Any] = {}

        def progress(what: str, done: int, total: int, note: str) -> None:
            if (what, total) not in bars:
                stack.close()
                bars[what, total] = stack.enter_context(progress_bar(what, total))
            bars[what, total](done, note)

        return run(study, out, processes=processes, progress=progress)


def _write(table: ScheduleTable, page: Path | None, plot: Path | None, title: str) -> list[Path]:
    """Writes the files asked for; their paths."""
    from analysis import results
    from analysis.agents import schedules_page as pages
    from analysis.agents.schedules_stored import SchedulesPage
    from analysis.reporting import plots

    beside = page and page.with_suffix(".svg")
    figures = [path for path in dict.fromkeys((beside, plot)) if path is not None]
    made = []
    for path in figures:
        with plots.styled():
            plots.save(pages.figure(table), path)
        made.append(path.absolute())
    if page is not None:
        command = options.command_line()
        stored = SchedulesPage(table, title, command, (page.with_suffix(".svg").name,))
        made += results.write(stored, page)
    return made


def _tell(table: ScheduleTable, written: list[Path], as_json: bool) -> None:
    from analysis.agents import schedules_page as pages
    from analysis.display.console import print_json, stdout

    if as_json:
        print_json({"command": "agent schedules", **table.to_json(), "written": written})
        return
    console = stdout()
    pages.show(console, table)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)
