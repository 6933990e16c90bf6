"""`nettime agent compare`: agents of several seeds and all opponents on unseen networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands import agent_options as shared
from analysis.commands import options

if TYPE_CHECKING:
    from analysis.agents.study import AgentStudy


@shared.agent_app.command(
    "compare",
    short_help="Agents against all opponents, with intervals.",
    epilog=options.examples(
        "nettime agent compare --env whitebox --seeds 2 --out runs/white",
        "nettime agent compare --env surrogate --network bert-1x16 -d wafer --out runs/agent_mlm",
        "nettime agent compare --env surrogate --opponent best_schedule --opponent rigl --seeds 3",
        "nettime agent compare -d zen4 --write docs/results/agent_mlm.md",
    ),
)
def compare(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all agents.")] = Path(
        "runs/agent"
    ),
    env: shared.Kind = "training",
    network: shared.Network = None,
    task: shared.Task = "mlm",
    device: shared.Device = None,
    slots: shared.Slots = 32,
    algorithm: shared.Algorithm = "ppo",
    settings: shared.Set = None,
    action: shared.Action = "step",
    hold: shared.Hold = 0.0,
    densify: shared.Densify = "zero",
    moves: shared.Moves = "free",
    reward: shared.Reward = "log_ratio",
    recorded: shared.Recorded = Path("runs/recorded"),
    runs: shared.Runs = 64,
    seeds: Annotated[int, typer.Option(help="How many agents, and tunings of each opponent.")] = 10,
    opponent: Annotated[
        list[str] | None, typer.Option(help="Repeatable; a wrong name lists all. Default: all.")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind/--no-blind", help="Agents without hardware features too.")
    ] = True,
    density: Annotated[
        list[float] | None,
        typer.Option(
            help="Of narrower models, and what fixed schedules choose from; repeatable. Default "
            "0.5, 0.25, 0.1."
        ),
    ] = None,
    tune_episodes: Annotated[
        int | None,
        typer.Option(help="Of each tuning of an opponent; default as many as an agent has."),
    ] = None,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt/--no-adapt",
            help="The agent once more, after learning on what is judged with a tenth of that.",
        ),
    ] = True,
    test_network: shared.TestNetwork = None,
    test_device: Annotated[
        list[str] | None,
        typer.Option(help="To tune opponents and judge on; repeatable. Default: --device."),
    ] = None,
    episodes: Annotated[
        int, typer.Option(help="To judge on, of each agent, network and device.")
    ] = 4,
    test_seed: shared.TestSeed = 16,
    target: shared.Target = 0.9,
    write: Annotated[Path | None, typer.Option(help="A Markdown page, figures beside it.")] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Agent against opponents",
    remark: Annotated[
        list[str] | None, typer.Option(help="A sentence for the page; repeatable.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Trains agents, tunes opponents anew for each, judges all on the same unseen runs.

    The protocol of `nettime compare`: everybody's base learning rate on one grid, narrower dense
    models, speed-ups with paired intervals and Holm's correction; the agent's cost and when it
    has paid.
    """
    from contextlib import ExitStack

    from analysis.agents import page as pages
    from analysis.agents import study as studies
    from analysis.agents.outcome import speed_up
    from analysis.display.console import print_json, progress_bar, resumable, stdout
    from rl.agents import checkpoint

    made = shared.world(env, network, task, device, slots, reward, recorded, 1 / 32, action,
                        hold, densify, moves)  # fmt: skip
    test = shared.test_of(
        env, made, test_network, test_device, episodes, test_seed, target, max(seeds, 1)
    )
    study = studies.AgentStudy(
        made, test, algorithm, shared.pairs(settings), seeds, tuple(opponent or ()), blind,
        tuple(density or (0.5, 0.25, 0.1)), tune_episodes, adapt=adapt,
    )  # fmt: skip
    shared.prepare(made, runs, slots)
    study = dataclasses.replace(study, learn=studies.rated(made, target))
    with resumable(f"the same command goes on, in {out}"), ExitStack() as stack:
        bars: dict = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in bars:
                stack.close()
                bars[what] = stack.enter_context(progress_bar(what, total))
            bars[what](done)

        outcome = studies.run(study, out, tell)
    first = checkpoint.load(out / "agent-0" / "agent.pt")
    real = runs * len(made.problems) if env == "surrogate" else 0
    gained = speed_up(outcome, test.devices[0]).point
    cost = studies.learning_cost(first, real)
    written = _write(study, outcome, out, write, title, cost, real, remark or []) if write else []
    if as_json:
        print_json(
            {
                "command": "agent compare", **outcome.to_json(), "learning_dense_runs": cost,
                "payback_runs": studies.payback(cost, gained), "written": written,
            }
        )  # fmt: skip
        return
    console = stdout()
    pages.show(console, outcome, cost, real)
    for path in written:
        console.print(f"written: {path}", soft_wrap=True)


def _write(
    study: AgentStudy, outcome, out: Path, page: Path, title: str, cost: float, real: int,
    remarks: list[str],
) -> list[Path]:  # fmt: skip
    """The page, its table beside it, its figures."""
    from analysis import results
    from analysis.agents import page as pages
    from analysis.agents import plots
    from analysis.agents.stored import AgentPage
    from rl.agents import checkpoint

    curves = [
        checkpoint.load(out / f"agent-{seed}" / "agent.pt").curve for seed in range(study.seeds)
    ]
    figures = plots.write_all(outcome, curves, page.parent, page.stem)
    notes = []
    if study.learn.kind == "surrogate":
        from rl.surrogate.recorded import fitted_error

        notes = fitted_error(study.learn.problems, Path(study.learn.recording))
    stored = AgentPage(
        outcome, title, options.command_line(),
        tuple(pages.about(study, outcome)), cost, real,
        tuple(path.name for path in figures), tuple(notes), tuple(remarks),
    )  # fmt: skip
    return [*results.write(stored, page), *figures]
