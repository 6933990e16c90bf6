"""Options that the commands of `nettime agent` share, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.commands import options
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.agents.judge import Test
    from rl.worlds import World

agent_app = typer.Typer(
    name="agent",
    help="Learns when to sparsify which layer, and judges what was learnt on unseen networks.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Kind = Annotated[
    str, typer.Option("--env", help="training (real networks), surrogate or whitebox.")
]
Network = Annotated[
    list[str] | None,
    typer.Option("--network", help="To learn from, as FAMILY-LAYERSxWIDTH; repeatable."),
]
Task = Annotated[str, typer.Option(help="What networks are trained on; a wrong name lists all.")]
Device = Annotated[
    list[str] | None,
    typer.Option("--device", "-d", help="That prices the steps; repeatable. Default: wafer."),
]
Slots = Annotated[int, typer.Option(help="Episodes side by side.")]
Algorithm = Annotated[str, typer.Option(help="ppo or dqn.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the algorithm, as name=value; repeatable."),
]
Action = Annotated[
    str, typer.Option(help="density (names each layer's), or step: up, down or as it is.")
]
Reward = Annotated[str, typer.Option(help="log_ratio, time_cost, flops, accuracy, dsrl, …")]
Recorded = Annotated[
    Path, typer.Option(help="Folder of the surrogate's recorded runs; made if missing.")
]
Runs = Annotated[int, typer.Option(help="To record of each network for the surrogate.")]
Episodes = Annotated[int, typer.Option(help="To judge on, of each network and device.")]
TestNetwork = Annotated[
    list[str] | None,
    typer.Option("--test-network", help="Unseen, to judge on; repeatable."),
]
TestSeed = Annotated[int, typer.Option(help="First seed to judge on; none that was learnt from.")]
Target = Annotated[float, typer.Option(help="Share of the dense run whose loss is to be reached.")]
Hold = Annotated[
    float,
    typer.Option(help="With --action density: moves within this share of a density are not made."),
]
Moves = Annotated[
    str,
    typer.Option(
        help="free: moves are made as asked. pays: a layer is left alone where a move cannot save "
        "or gain, in the rest of the run, what the update of its mask costs."
    ),
]
Densify = Annotated[
    str, typer.Option(help="Weights that come back start at zero, or restore what they were.")
]
Density = Annotated[
    tuple[float, float], typer.Option("--density", help="Least and most density of a layer.")
]


def world(
    kind: str, network: list[str] | None, task: str, device: list[str] | None, slots: int,
    reward: str, recorded: Path, min_density: float, action: str, hold: float = 0.0,
    densify: str = "zero", moves: str = "free",
) -> World:  # fmt: skip
    """What is learnt in, checked before anything runs."""
    from hwsim import load_device
    from rl.envs.moves import MOVES
    from rl.rewards import make_reward
    from rl.runs.problems import Problem, setting
    from rl.worlds import World

    options.at_least("--slots", slots)
    options.chosen("--densify", densify, ("zero", "restore"))
    options.chosen("--moves", moves, MOVES)
    make_reward(reward)
    made = World(
        kind=kind, slots=slots, devices=tuple(device or ("wafer",)), reward=reward,
        problems=tuple((name, task) for name in network or setting(task).small),
        recording=str(recorded) if kind == "surrogate" else "", min_density=min_density,
        mode=action, hold=hold, restore=densify == "restore", moves=moves,
        budget=3.0 if kind == "whitebox" else 2.5,
    )  # fmt: skip
    if kind != "whitebox":
        for name in made.devices:
            load_device(name)
        for pair in made.problems:
            Problem(*pair)
    made.training() if kind == "training" else made.formula()
    return made


def test_of(
    kind: str, learn: World, network: list[str] | None, device: list[str] | None, episodes: int,
    first: int, target: float, replicates: int = 1,
) -> Test:  # fmt: skip
    """What is judged on: an unseen larger network, unseen seeds, `episodes` for each replicate."""
    import dataclasses

    from analysis.agents.judge import Test
    from rl.runs.problems import Problem, setting

    options.at_least("--episodes", episodes)
    task = learn.problems[0][1]
    problems = tuple((name, task) for name in network or setting(task).unseen)
    if kind != "whitebox":
        for pair in problems:
            Problem(*pair)
    judged = dataclasses.replace(
        learn, kind="whitebox" if kind == "whitebox" else "training", problems=problems,
        devices=tuple(device or learn.devices), recording="",
        seeds=(first, first + episodes * replicates),
        layers=(10, 14) if kind == "whitebox" else learn.layers, slots=episodes,
    )  # fmt: skip
    return Test(judged, episodes, target)


def pairs(given: list[str] | None) -> dict[str, Any]:
    """name=value, each value as JSON where it is some."""
    import json

    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set: value is {text!r}; allowed is name=value")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        found[name] = tuple(read) if isinstance(read, list) else read
    return found


def prepare(made: World, runs: int, slots: int) -> None:
    """What a surrogate needs before anything is made of it; quiet libraries, one thread."""
    import logging

    import torch

    from analysis.display.console import stderr

    logging.getLogger("torchrl").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    if made.kind == "surrogate":
        from rl.surrogate.recorded import recordings

        options.at_least("--runs", runs, 4)
        recordings(
            made.problems, Path(made.recording), runs, slots,
            lambda what: stderr().print(f"recording {what}"),
        )  # fmt: skip
