"""`nettime agent train` and `nettime agent eval`: Algorithm 1, its two halves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.commands import agent_options as shared
from analysis.commands import options
from hwsim.errors import InputError


@shared.agent_app.command(
    "train",
    short_help="Learns a schedule; killed, the same command goes on.",
    epilog=options.examples(
        "nettime agent train --env whitebox --out runs/white",
        "nettime agent train --env surrogate --network bert-1x16 -d wafer --out runs/wafer",
        "nettime agent train --network bert-1x16 -d zen4 --set iterations=12 --out runs/zen4",
        "nettime agent train --env whitebox --algorithm dqn --out runs/dqn",
        "nettime agent train --task images --judge-every 4 --out runs/images",
        "nettime agent train --shards 4 --processes 2 --out runs/two",
        "nettime agent train --shards 4 --processes 4 --rollouts ray --out runs/ray",
    ),
)
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the agent.")],
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
    min_density: Annotated[float, typer.Option(help="Lower end of every layer's density.")] = 1
    / 32,
    recorded: shared.Recorded = Path("runs/recorded"),
    runs: shared.Runs = 64,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    shards: Annotated[
        int, typer.Option(help="Parts of the slots with random streams of their own.")
    ] = 1,
    processes: Annotated[
        int, typer.Option(help="That collect episodes, a shard or more each; of one thread.")
    ] = 1,
    rollouts: Annotated[
        str, typer.Option(help="Where they run: local, or ray (a cluster) with the same results.")
    ] = "local",
    judge_every: Annotated[
        int,
        typer.Option(
            help="Iterations after which the agent is judged on unseen networks, frozen; 0: never."
        ),
    ] = 0,
    test_network: shared.TestNetwork = None,
    episodes: shared.Episodes = 4,
    test_seed: shared.TestSeed = 16,
    target: shared.Target = 0.9,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Curves for it too.")] = False,
    as_json: options.Json = False,
) -> None:
    """Trains an agent on small networks. Writes agent.pt and curve.csv after each iteration.

    With --judge-every also judged.csv: what it is worth on networks that it does not learn from.
    Interrupted or killed, the same command goes on, to the bit as if nothing had happened.
    """
    from analysis.agents.during import JUDGED, WhileLearning
    from analysis.display.console import print_json, progress_bar, resumable, stdout
    from rl.agents import learn
    from rl.algorithms import make_agent

    made = shared.world(env, network, task, device, slots, reward, recorded, min_density, action,
                        hold, densify, moves)  # fmt: skip
    if processes > shards:
        raise InputError(
            f"--processes: value is {processes}; allowed is at most the shards, {shards} (--shards)"
        )
    made = dataclasses.replace(made, shards=shards)
    given: dict[str, Any] = {**shared.pairs(settings), "seed": seed}
    if made.kind == "surrogate":
        given["hide"] = (*made.blind, *given.get("hide", ()))
    total = make_agent(algorithm, **given, **learn.acting(made)).config.iterations
    options.at_least("--judge-every", judge_every, 0)
    watch = None
    if judge_every:
        test = shared.test_of(env, made, test_network, device, episodes, test_seed, target)
        watch = WhileLearning(out, test, judge_every, total)
    shared.prepare(made, runs, slots)
    with (
        options.claimed(out, "folder"),
        resumable(f"the same command goes on, in {out}"),
        progress_bar("learning", total) as bar,
    ):

        def report(row: dict[str, float]) -> None:
            bar(int(row["iteration"]), f"return {row['return']:.3f}")
            if watch is not None:
                watch(int(row["iteration"]))

        saved = learn.train(
            out, made, algorithm, given, tensorboard=tensorboard, rollouts=rollouts,
            processes=processes, report=report,
        )  # fmt: skip
    last = saved.curve[-1]
    if as_json:
        found: dict[str, Any] = {
            "command": "agent train", "agent": out / learn.CHECKPOINT, "curve": saved.curve,
            "processor_s": saved.cost, "episodes": saved.episodes,
            "episodes_a_processor_second": saved.pace, "share_in_environment": saved.collecting,
            "algorithm": saved.algorithm, "settings": saved.settings,
            "judged": watch.rows() if watch else [],
        }  # fmt: skip
        print_json(found)
        return
    stdout().print(
        f"{saved.algorithm}: {len(saved.curve)} iterations, {saved.cost:.0f} s of one processor, "
        f"return {last['return']:.3f} per episode\n{saved.episodes} episodes, "
        f"{saved.pace:.3g} a second of processor, {saved.collecting:.0%} of it in the "
        f"environment\nwritten: {out / learn.CHECKPOINT}\n"
        f"written: {out / learn.CURVE}",
        soft_wrap=True,
    )
    for row in watch.rows()[-len(watch.test.devices) :] if watch else []:
        stdout().print(
            f"unseen, {row['device']}: {float(row['speed_up']):.3f} times dense, "
            f"{float(row['reached']):.0%} reached\nwritten: {out / JUDGED}",
            soft_wrap=True,
        )


@shared.agent_app.command(
    "eval",
    short_help="Runs a frozen agent on unseen networks.",
    epilog=options.examples(
        "nettime agent eval runs/wafer/agent.pt --test-network bert-2x24 --episodes 10",
        "nettime agent eval runs/white/agent.pt --json",
    ),
)
def evaluate(
    agent: Annotated[Path, typer.Argument(help="An agent.pt.", show_default=False)],
    test_network: shared.TestNetwork = None,
    device: shared.Device = None,
    episodes: shared.Episodes = 10,
    test_seed: shared.TestSeed = 16,
    target: shared.Target = 0.9,
    plot: Annotated[Path | None, typer.Option(help="Densities by layer: .svg, .png, .pdf.")] = None,
    as_json: options.Json = False,
) -> None:
    """N episodes of the frozen agent: speed-up over dense training, density of each layer."""
    import numpy as np

    from analysis.agents.judge import Judged
    from analysis.display.console import print_json, stdout
    from analysis.stats import stratified_bootstrap
    from rl.agents import checkpoint

    options.figure("--plot", plot)
    saved = checkpoint.load(agent)
    kind = "whitebox" if saved.world.kind == "whitebox" else "training"
    test = shared.test_of(kind, saved.world, test_network, device, episodes, test_seed, target)
    shared.prepare(test.world, 0, episodes)
    policy = saved.restore()
    rate = saved.world.reference or 1.0
    plays = [
        test.run(
            lambda _, seen: policy.act(seen), saved.world.mode, test.place(name, 0, rate, rate)
        )
        for name in test.devices
    ]
    contender = Judged("agent", tuple(plays))
    interval = stratified_bootstrap(
        [s.tolist() for s in contender.strata()], rng=np.random.default_rng(0)
    )
    ends = [densities(played.episodes) for played in plays]
    low = [min(own) for own in zip(*(one[0] for one in ends), strict=True)]
    high = [max(own) for own in zip(*(one[1] for one in ends), strict=True)]
    if plot is not None:
        from analysis.agents.plots import schedules
        from analysis.reporting import plots

        with plots.styled():
            plots.save(schedules(plays[0], "agent"), plot)
    if as_json:
        print_json(
            {
                "command": "agent eval", "speed_up": vars(interval),
                "speed_ups": contender.speed_ups,
                "groups": [group for one in plays for group in one.groups],
                "least_density": low, "most_density": high,
                "switching": plays[0].episodes.switching,
            }
        )  # fmt: skip
        return
    stdout().print(
        f"{len(contender.speed_ups)} episodes: speed-up (IQM) {interval.point:.3f}, 95 % "
        f"{interval.low:.3f}–{interval.high:.3f}\ndensity of layers, least and most: "
        + ", ".join(f"{a:.3g}–{b:.3g}" for a, b in zip(low, high, strict=True)),
        soft_wrap=True,
    )


def densities(episodes: Any) -> tuple[list[float], list[float]]:
    """Least and most density of each layer, over decisions and episodes in which it exists."""
    low, high = [], []
    for layer in range(episodes.live.shape[1]):
        own = episodes.live[:, layer]
        if own.any():
            found = episodes.density[:, own, layer]
            low.append(found.min().item())
            high.append(found.max().item())
    return low, high
