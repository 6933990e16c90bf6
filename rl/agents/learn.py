"""Training an agent so that it can be killed at any time and taken up again."""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim import InputError
from hwsim.files import replacing
from rl.agents import checkpoint
from rl.algorithms import Agent, make_agent
from rl.rollouts import make_rollouts
from rl.worlds import World

CHECKPOINT, CURVE = "agent.pt", "curve.csv"


def train(
    out: Path, world: World, algorithm: str = "ppo", settings: dict[str, Any] | None = None, *,
    every: int = 1, tensorboard: bool = False, rollouts: str = "local", processes: int = 1,
    report: Callable[[dict[str, float]], None] = lambda _: None,
) -> checkpoint.Saved:  # fmt: skip
    """Trains an agent in `out`, or goes on with the one that is there.

    Writes `agent.pt` after every `every` iterations and `curve.csv` with it.

    Args:
        settings: fields of the algorithm's configuration.
        rollouts, processes: a name in `rl.rollouts`, and how many workers collect episodes. They
            change nothing of the result.
        report: called with each iteration's row.

    Raises:
        InputError: `out` holds an agent of another world, algorithm or setting; or an iteration
            failed: the checkpoint is then that of the iteration before.
    """
    path = out / CHECKPOINT
    given, own = settings or {}, acting(world)
    for name, value in own.items():
        if given.get(name, value) != value:
            raise InputError(f"{name}: value is {given[name]!r}; allowed is the world's, {value!r}")
    agent = make_agent(algorithm, **{**given, **own})
    saved = None
    if path.exists():
        saved = checkpoint.load(path)
        _check_same(path, saved, agent, world)
    env = make_rollouts(rollouts, world, agent.config.seed, processes)
    curve: list[dict[str, float]] = []
    spent, collected = 0.0, 0.0
    if saved is not None:
        agent.load_state_dict(saved.agent)
        env.load_state_dict(saved.env)
        curve, spent, collected = list(saved.curve), saved.cost, saved.collected
        _write_curve(out / CURVE, curve)  # a kill may have come between the two files
    began = time.process_time() - spent
    writer = _writer(out, curve) if tensorboard else None

    def told(row: dict[str, float]) -> None:
        curve.append(row)
        if agent.iteration % every == 0 or agent.iteration == agent.config.iterations:
            cost = time.process_time() - began + env.elsewhere_s
            checkpoint.save(path, agent, world, env, curve, cost, collected + env.collected_s)
            _write_curve(out / CURVE, curve)
        if writer is not None:
            _add(writer, row)
        report(row)

    try:
        # The stream of an iteration is kept by the agent only once its report has returned, so
        # the file is written by the loop itself, between two iterations.
        while agent.iteration < agent.config.iterations:
            rows: list[dict[str, float]] = []
            agent.train(env, report=rows.append, stop_after=agent.iteration + 1)
            told(rows[0])
    finally:
        env.close()
        if writer is not None:
            writer.close()
    return checkpoint.load(path)


def acting(world: World) -> dict[str, Any]:
    """Settings of an agent that are the world's to say."""
    return {"mode": world.mode, "min_density": world.min_density}


def _check_same(path: Path, saved: checkpoint.Saved, agent: Agent[Any], world: World) -> None:
    asked = {"algorithm": agent.name, **dataclasses.asdict(agent.config)}
    # A setting that the agent is older than has its default, as when the agent is restored.
    own = make_agent(saved.algorithm, **saved.settings).config
    there = {"algorithm": saved.algorithm, **dataclasses.asdict(own)}
    asked |= dataclasses.asdict(world)
    there |= dataclasses.asdict(saved.world)
    for name, value in asked.items():
        if there.get(name) != value:
            raise InputError(
                f"{path}: {name} of the agent there is {there.get(name)!r}, asked is {value!r}; "
                "allowed is the same, or another folder"
            )


def _write_curve(path: Path, curve: list[dict[str, float]]) -> None:
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, list(curve[0]))
        rows.writeheader()
        rows.writerows(curve)


def _writer(out: Path, curve: list[dict[str, float]]) -> Any:
    """A TensorBoard writer that goes on after `curve`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard: it is not installed; allowed after pip install 'nettime[tensorboard]'"
        ) from None
    return SummaryWriter(str(out / "tensorboard"), purge_step=len(curve) + 1)


def _add(writer: Any, row: dict[str, float]) -> None:
    for name, value in row.items():
        if name != "iteration":
            writer.add_scalar(name, value, int(row["iteration"]))
