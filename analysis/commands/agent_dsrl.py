"""`nettime agent dsrl`: the DSRL proposal's experiment, as printed and corrected."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.commands import agent_options as shared
from analysis.commands import options

TASKS = ("text_classification", "translation")


@shared.agent_app.command(
    "dsrl",
    short_help="DSRL on transformers for text: accuracy, FLOPs, memory and net time.",
    epilog=options.examples(
        "nettime agent dsrl --out runs/dsrl",
        "nettime agent dsrl --task translation --set beta=0.5 --set points=0.2",
        "nettime agent dsrl --literal --set activation=relu --write docs/results/dsrl.md",
    ),
)
def dsrl(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all agents.")] = Path(
        "runs/dsrl"
    ),
    task: Annotated[str, typer.Option(help="text_classification or translation.")] = TASKS[0],
    network: shared.Network = None,
    test_network: shared.TestNetwork = None,
    device: shared.Device = None,
    literal: Annotated[
        bool, typer.Option("--literal", help="The reward as printed; default: corrected.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="alpha, beta, points, or a setting of the algorithm, as name=value."
        ),
    ] = None,
    algorithm: shared.Algorithm = "ppo",
    slots: shared.Slots = 32,
    seeds: Annotated[int, typer.Option(help="How many agents of each kind.")] = 5,
    episodes: shared.Episodes = 5,
    density: Annotated[
        float | None,
        typer.Option(help="Of static and dynamic opponents; default: the agents' mean."),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune/--no-tune",
            help="A base learning rate of its own for every opponent, or the task's for all.",
        ),
    ] = True,
    write: Annotated[
        Path | None, typer.Option(help="A Markdown page, its table beside it as .json.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "DSRL as proposed",
    as_json: options.Json = False,
) -> None:
    """State: loss, gradient norms, activation mean and variance, epoch. Three moves for each layer.

    Reward: α · accuracy change − β · FLOPs, those spent; --literal subtracts the reduction, as it
    was printed, which pays for staying dense. Interrupted, the same command goes on.
    """
    from analysis.agents import dsrl as studies
    from analysis.agents import dsrl_table as pages
    from analysis.display.console import print_json, progress_bar, resumable, stdout
    from analysis.display.tables import table

    study = made(
        task, network, test_network, device, literal, shared.pairs(settings), algorithm, slots,
        seeds, episodes, density, tune,
    )  # fmt: skip
    shared.prepare(study.world, 0, slots)
    with resumable(f"the same command goes on, in {out}"), ExitStack() as stack:
        bars: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in bars:
                stack.close()
                bars[what] = stack.enter_context(progress_bar(what, total))
            bars[what](done)

        outcome = studies.run(study, out, tell)
    written = _write(outcome, write, title) if write else []
    if as_json:
        return print_json({"command": "agent dsrl", **outcome.to_json(), "written": written})
    columns = ("", outcome.metric, "density", "FLOPs", "peak B", "mean B",
               *outcome.rows[0].seconds)  # fmt: skip
    console = stdout()
    console.print(table("", columns, [pages.narrow_cells(row) for row in outcome.rows]))
    console.print(pages.in_short(outcome).replace("**", ""), style="bold")
    for note in pages.notes(outcome):
        console.print(note)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)
    return None


def _write(outcome: Any, page: Path, title: str) -> list[Path]:
    """The page and its table; their paths."""
    from analysis import results
    from analysis.agents.dsrl_table import DsrlPage

    stored = DsrlPage(outcome, title, options.command_line())
    return results.write(stored, page)


def made(
    task: str, network: list[str] | None, test_network: list[str] | None,
    device: list[str] | None, literal: bool, given: dict[str, Any], algorithm: str, slots: int,
    seeds: int, episodes: int, density: float | None, tune: bool = True,
) -> Any:  # fmt: skip
    """The study, checked before anything runs."""
    from analysis.agents.dsrl import DsrlStudy
    from hwsim import load_device
    from rl.algorithms import make_agent
    from rl.rewards import make_reward
    from rl.runs.problems import Problem, setting
    from rl.worlds import World

    options.chosen("task", task, TASKS)
    for name, value in (("--slots", slots), ("--seeds", seeds), ("--episodes", episodes)):
        options.at_least(name, value)
    weights = {name: given.pop(name) for name in ("alpha", "beta") if name in given}
    points = given.pop("points", 0.1)
    reward = "dsrl_literal" if literal else "dsrl"
    if weights:
        reward += "(" + ",".join(f"{name}={value}" for name, value in weights.items()) + ")"
    make_reward(reward)
    make_agent(algorithm, **given)
    world = World(
        slots=slots, devices=tuple(dict.fromkeys(device or ("wafer", "zen4"))), reward=reward,
        problems=tuple((name, task) for name in network or setting(task).small),
        targets=(1.0, 1.0), budget=1.0, points=points, stop_at_target=False,
    )  # fmt: skip
    world.training()
    judged = tuple(test_network or setting(task).unseen)
    for name in judged:
        Problem(name, task)
    for name in world.devices:
        load_device(name)
    if density is not None:
        options.share("--density", density)
    return DsrlStudy(world, judged, algorithm, given, seeds, episodes, density, tune)
