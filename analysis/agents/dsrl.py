"""DSRL as it was proposed: an agent of three moves on transformers for text, in one table.

State: loss, gradient norms, activation mean and variance, epoch. Moves: sparser by some points of
density, as it is, denser. Reward: α · accuracy change − β · FLOPs. Every run has as many steps as
the dense one, so accuracy, FLOPs, memory and net time are those of equally long training.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rl.agents import checkpoint, learn
from rl.algorithms import make_agent
from rl.baselines import Setup, make_opponent
from rl.envs.interface import Context
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES
from rl.envs.training import SparseTrainingEnv
from rl.evaluate import Choose, play
from rl.worlds import World

SEEN = (
    "loss_gap", "log_gradient", "log_gradient_to_mean", "activation_mean",
    "log_activation_variance", "elapsed",
)  # fmt: skip
FEATURES = tuple(dict.fromkeys(LAYER_FEATURES + GLOBAL_FEATURES))
AGENT, WITHOUT_STATE, DENSE = "DSRL agent", "agent without state", "dense"
OPPONENTS = {
    DENSE: "dense", "static, uniform": "static_uniform", "static, ERK": "static_erk",
    "dynamic, SET": "set", "dynamic, RigL": "rigl",
}  # fmt: skip
# Of a float32 weight in training with Adam: value, gradient and two moments, 4 bytes each.
_WEIGHT_BYTES, _INDEX_BYTES, _GRADIENT_BYTES = 16, 4, 4
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DsrlStudy:
    """What is learnt and judged.

    Attributes:
        world: of the agents; three-way steps, runs of full length.
        judged: networks, each on the world's task.
        settings: of the agents' algorithm.
        seeds: how many agents.
        episodes: to judge on, of each network and device; their seeds follow those learnt from.
        density: of static and dynamic opponents; None for the agents' mean.
    """

    world: World
    judged: tuple[str, ...]
    algorithm: str
    settings: dict
    seeds: int
    episodes: int
    density: float | None = None

    def contexts(self, device: str) -> list[Context]:
        """What is judged on a device: every network, with seeds that were not learnt from."""
        first, task = self.world.seeds[1], self.world.problems[0][1]
        return [
            Context(network, task, device, 1.0, first + i)
            for i in range(self.episodes)
            for network in self.judged
        ]


@dataclass(frozen=True)
class Runs:
    """Equally long runs of one contender: arrays (episodes,), over networks and test seeds.

    Attributes:
        metric, score: on test data; the accuracy where the task tells one, else the loss.
        flops, seconds: of the whole run; seconds by device.
        peak_bytes, mean_bytes: of values, gradients, moments and indices over the run. Activations
            are left out: they are the same for all.
        density: mean over layers and decisions.
    """

    metric: str
    score: np.ndarray
    flops: np.ndarray
    seconds: dict[str, np.ndarray]
    peak_bytes: np.ndarray
    mean_bytes: np.ndarray
    density: np.ndarray


@dataclass(frozen=True)
class DsrlRow:
    """A line of the table: means with their deviation over agents, or over episodes of an opponent.

    Everything but score and density is relative to the dense run of the same weights and data.
    """

    name: str
    score: tuple[float, float]
    density: tuple[float, float]
    flops: tuple[float, float]
    peak_bytes: tuple[float, float]
    mean_bytes: tuple[float, float]
    seconds: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class DsrlTable:
    """The table: its metric, its rows, and the density that opponents keep."""

    metric: str
    rows: tuple[DsrlRow, ...]
    opponents_density: float


def run(study: DsrlStudy, out: Path, tell: Tell = lambda *_: None) -> DsrlTable:
    """Trains agents with and without state in `out`, or goes on; judges all on the same runs."""
    kinds = {AGENT: SEEN, WITHOUT_STATE: ()}
    played: dict[str, list[Runs]] = {}
    for name, seen in kinds.items():
        played[name] = []
        for seed in range(study.seeds):
            folder = out / f"{'agent' if seen else 'blind'}-{seed}"
            hide = tuple(f for f in FEATURES if f not in seen)
            given = {**study.settings, "seed": seed, "hide": hide}

            total = make_agent(study.algorithm, **given).config.iterations
            learn.train(
                folder, study.world, study.algorithm, given,
                report=functools.partial(_told, tell, f"{name} {seed + 1}", total),
            )  # fmt: skip
            policy = checkpoint.load(folder / learn.CHECKPOINT).restore()
            played[name].append(_runs(study, "step", lambda _, now, p=policy: p.act(now)))
    density = study.density or float(np.mean([one.density.mean() for one in played[AGENT]]))
    for done, (name, opponent) in enumerate(OPPONENTS.items(), 1):
        tell("opponents", done, len(OPPONENTS))
        one = make_opponent(opponent, Setup(density=density))
        played[name] = [_runs(study, "density", one.choose, one)]
    dense = played[DENSE][0]
    rows = tuple(_row(name, runs, dense) for name, runs in played.items())
    return DsrlTable(dense.metric, rows, density)


def _told(tell: Tell, what: str, total: int, row: dict[str, float]) -> None:
    tell(what, int(row["iteration"]), total)


def _environment(study: DsrlStudy, contexts: list[Context], mode: str, opponent=None):
    problems = tuple(dict.fromkeys((c.network, c.task) for c in contexts))
    config = study.world.training(mode=mode, problems=problems)
    if opponent is not None:
        config, _ = opponent.setting(config, contexts)
    return SparseTrainingEnv(config, len(contexts), reward=study.world.reward)


def _runs(study: DsrlStudy, mode: str, choose: Choose, opponent=None) -> Runs:
    seconds, made = {}, None
    for device in study.world.devices:
        contexts = study.contexts(device)
        env = _environment(study, contexts, mode, opponent)
        found = play(env, choose, contexts)
        seconds[device] = env.state["spent_s"].numpy().copy()
        metrics = env.evaluate("test")
        name = next((n for n in ("accuracy", "token_accuracy") if n in metrics), "loss")
        grown = env.config.topology.drop_fraction > 0 and env.config.topology.grow == "gradient"
        memory = _bytes(env, found.density, grown)
        live = found.live[None].expand_as(found.density)
        density = (found.density * live).sum((0, 2)) / live.sum((0, 2))
        made = made or Runs(
            name, metrics[name].double().numpy(), env.state["spent_flops"].numpy().copy(), seconds,
            memory.amax(0).numpy(), memory.mean(0).numpy(), density.double().numpy(),
        )  # fmt: skip
    assert made is not None
    return made


def _bytes(env: SparseTrainingEnv, density: Tensor, dense_gradient: bool) -> Tensor:
    """Bytes that weights take in training after each decision, (decisions, batch), float64.

    Args:
        density: (decisions, batch, width).
        dense_gradient: whether growth looks at the gradient of all weights of a layer.
    """
    live = env.live
    active = (density.double() * env.sizes * live).round()
    sparse = active < env.sizes * live
    taken = active * _WEIGHT_BYTES + torch.where(sparse, active * _INDEX_BYTES, 0.0)
    if dense_gradient:
        taken += torch.where(sparse, (env.sizes * live - active) * _GRADIENT_BYTES, 0.0)
    rest = torch.zeros(env.batch_size[0], dtype=torch.float64)
    for group in env.groups:
        weights = sum(p.numel() for p in group.problem.build().parameters())
        rest[group.places] = float(weights - int(group.networks.sizes.sum()))
    return taken.sum(2) + rest.clamp(min=0) * _WEIGHT_BYTES


def _row(name: str, runs: list[Runs], dense: Runs) -> DsrlRow:
    def summed(values: list[np.ndarray]) -> tuple[float, float]:
        parts = np.array([v.mean() for v in values]) if len(values) > 1 else values[0]
        return float(parts.mean()), float(parts.std(ddof=1)) if len(parts) > 1 else 0.0

    return DsrlRow(
        name,
        summed([r.score for r in runs]),
        summed([r.density for r in runs]),
        summed([r.flops / dense.flops for r in runs]),
        summed([r.peak_bytes / dense.peak_bytes for r in runs]),
        summed([r.mean_bytes / dense.mean_bytes for r in runs]),
        {d: summed([r.seconds[d] / dense.seconds[d] for r in runs]) for d in dense.seconds},
    )


def markdown(study: DsrlStudy, outcome: DsrlTable, command: str) -> str:
    """A page with the table, and what stands behind it."""
    w = study.world
    devices = list(outcome.rows[0].seconds)
    head = ["", f"{outcome.metric} (test)", "density", "FLOPs", "peak bytes", "mean bytes",
            *(f"net time, {d}" for d in devices)]  # fmt: skip
    lines = [
        "# DSRL as proposed", "", f"    {command}", "",
        f"{study.seeds} agents learnt on {', '.join(n for n, _ in w.problems)} and are judged on "
        f"{', '.join(study.judged)}, {w.problems[0][1]}, {study.episodes} seeds each; reward "
        f"`{w.reward}`, moves of {100 * w.points:g} points. All runs have as many steps as dense. "
        f"Static and dynamic opponents keep a density of {100 * outcome.opponents_density:.3g} %. "
        "± is the deviation over agents, for opponents over episodes. All but accuracy and density "
        "is relative to the dense run at its fixed learning rate.",
        "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head),
    ]  # fmt: skip
    lines += ["| " + " | ".join(cells(row)) + " |" for row in outcome.rows]
    return "\n".join(lines) + "\n"


def cells(row: DsrlRow) -> list[str]:
    """A row as text."""
    parts = [row.score, row.density, row.flops, row.peak_bytes, row.mean_bytes]
    parts += list(row.seconds.values())
    return [row.name, *(f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in parts)]


def narrow_cells(row: DsrlRow) -> list[str]:
    """A row for a terminal of 80 columns: the deviation of the score alone."""
    first, *rest = cells(row)[1:]
    return [row.name, first, *(text.split(" ")[0] for text in rest)]
