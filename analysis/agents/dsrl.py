"""DSRL as it was proposed: an agent of three moves on transformers for text, in one table.

State: loss, gradient norms, activation mean and variance, epoch. Moves: sparser by some points of
density, as it is, denser. Reward: α · accuracy change − β · FLOPs. Every run has as many steps as
the dense one, so accuracy, FLOPs, memory and net time are those of equally long training.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.agents import rates
from analysis.agents.dsrl_table import (
    AGENT,
    DENSE,
    WITHOUT_STATE,
    DsrlTable,
    Runs,
    read_runs,
    write_runs,
)
from analysis.agents.settle import tuning_seeds
from analysis.agents.store import kept_as
from hwsim import InputError
from rl.agents import checkpoint, learn
from rl.algorithms import make_agent
from rl.baselines import Opponent, Setup, make_opponent
from rl.baselines.dense import Dense
from rl.envs.interface import Context
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES
from rl.envs.training import SparseTrainingEnv
from rl.evaluate import Choose, Episodes, play
from rl.runs.problems import at_rate
from rl.worlds import World

SEEN = (
    "loss_gap", "log_gradient", "log_gradient_to_mean", "activation_mean",
    "log_activation_variance", "elapsed",
)  # fmt: skip
FEATURES = tuple(dict.fromkeys(LAYER_FEATURES + GLOBAL_FEATURES))
# Gradual magnitude pruning comes down to the density at which the others stay.
OPPONENTS = {
    DENSE: "dense", "narrower dense": "narrower_dense", "static, uniform": "static_uniform",
    "static, ERK": "static_erk", "GMP": "cubic", "dynamic, SET": "set", "dynamic, RigL": "rigl",
}  # fmt: skip
# Of a float32 weight in training with Adam: value, gradient and two moments, 4 bytes each.
_WEIGHT_BYTES, _INDEX_BYTES, _GRADIENT_BYTES = 16, 4, 4
_TUNING_SEEDS = 4
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
        tune: whether every opponent has a base learning rate of its own, agents dense's; else all
            train at the task's.
    """

    world: World
    judged: tuple[str, ...]
    algorithm: str
    settings: dict
    seeds: int
    episodes: int
    density: float | None = None
    tune: bool = True

    @property
    def task(self) -> str:
        """That all networks are trained on."""
        return self.world.problems[0][1]

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """(network, task) of all that is judged."""
        return tuple((network, self.task) for network in self.judged)

    @functools.cached_property
    def rate(self) -> float:
        """Dense's factor on the judged networks, by its loss at the end; 1 without tuning."""
        return _dense_rate(self.problems) if self.tune else 1.0

    @functools.cached_property
    def learning(self) -> World:
        """The world at dense's factor on the networks that agents learn from."""
        if not self.tune:
            return self.world
        factor = _dense_rate(self.world.problems)
        named = tuple((at_rate(name, factor), task) for name, task in self.world.problems)
        return dataclasses.replace(self.world, problems=named)

    @property
    def seeds_judged(self) -> tuple[int, ...]:
        """Of weights and data that no agent learnt from."""
        first = self.world.seeds[1]
        return tuple(range(first, first + self.episodes))

    def contexts(self, device: str, factor: float, seeds: tuple[int, ...]) -> list[Context]:
        """Every network with every seed, at so many times the task's rate."""
        return [
            Context(at_rate(n, factor), self.task, device, 1.0, seed, at_rate(n, self.rate))
            for seed in seeds
            for n in self.judged
        ]


def run(study: DsrlStudy, out: Path, tell: Tell = lambda *_: None) -> DsrlTable:
    """Trains agents with and without state in `out`, or goes on; judges all on the same runs."""
    played: dict[str, list[Runs]] = {}
    for name, seen in ((AGENT, SEEN), (WITHOUT_STATE, ())):
        played[name] = []
        for seed in range(study.seeds):
            folder = out / f"{'agent' if seen else 'blind'}-{seed}"
            hide = tuple(f for f in FEATURES if f not in seen)
            given = {**study.settings, "seed": seed, "hide": hide}
            total = make_agent(study.algorithm, **given).config.iterations
            learn.train(
                folder, study.learning, study.algorithm, given,
                report=functools.partial(_told, tell, f"{name} {seed + 1}", total),
            )  # fmt: skip
            saved = checkpoint.load(folder / learn.CHECKPOINT)
            # Equal settings give equal agents, so they stand for the agent.
            about = {"world": dataclasses.asdict(study.learning), "settings": saved.settings}
            make = functools.partial(_frozen, study, saved)
            played[name].append(_judged(study, out, f"{name} {seed}", about, make))
    density = study.density or float(np.mean([one.density for one in played[AGENT]]))
    for done, (name, opponent) in enumerate(OPPONENTS.items(), 1):
        one = make_opponent(opponent, Setup(density=density))
        about = {"opponent": opponent, "density": density}
        played[name] = [_judged(study, out, name, about, functools.partial(_tuned, study, one))]
        tell("opponents", done, len(OPPONENTS))
    return DsrlTable({name: tuple(runs) for name, runs in played.items()}, density, _about(study))


def _about(study: DsrlStudy) -> dict[str, Any]:
    """What a page says of the study."""
    w, config = study.world, make_agent(study.algorithm, **study.settings).config
    return {
        "task": study.task, "learnt_on": [name for name, _ in study.learning.problems],
        "judged_on": list(study.judged), "agents": study.seeds, "algorithm": study.algorithm,
        "episodes_learnt": config.iterations * w.slots, "episodes": study.episodes,
        "reward": w.reward, "points": w.points, "tuned": study.tune, "dense_rate": study.rate,
        "steps": _steps(study),
    }  # fmt: skip


def _steps(study: DsrlStudy) -> int:
    from rl.runs.problems import setting

    return setting(study.task).dense_steps


def _told(tell: Tell, what: str, total: int, row: dict[str, float]) -> None:
    tell(what, int(row["iteration"]), total)


def _dense_rate(problems: tuple[tuple[str, str], ...]) -> float:
    return rates.dense_rate(problems, tuning_seeds(0)[:_TUNING_SEEDS], 1.0).rate


def _judged(
    study: DsrlStudy, out: Path, name: str, about: dict[str, Any], make: Callable[[], Runs]
) -> Runs:
    """The runs, made or read from `out`."""
    key = {
        "name": name, **about, "judged": study.judged, "task": study.task, "rate": study.rate,
        "tune": study.tune, "seeds": study.seeds_judged, "devices": study.world.devices,
        "rules": dataclasses.asdict(study.world),
    }  # fmt: skip
    return kept(out / "judged", key, make)


def kept(folder: Path, key: Mapping[str, Any], make: Callable[[], Runs]) -> Runs:
    """The runs made from `key` before, or new ones, which are then kept in `folder`."""
    return kept_as(folder, key, make, ".json", read_runs, write_runs)


def _frozen(study: DsrlStudy, saved: checkpoint.Saved) -> Runs:
    """Runs of a learnt agent at dense's rate."""
    policy = saved.restore()
    return _runs(study, "step", lambda _, seen: policy.act(seen), study.rate)


def _tuned(study: DsrlStudy, opponent: Opponent) -> Runs:
    """Runs of an opponent at the rate of its best metric on validation data."""
    if not study.tune:
        return _runs(study, "density", opponent.choose, study.rate, opponent)
    device, seeds = study.world.devices[0], tuning_seeds(0)[:_TUNING_SEEDS]

    def score(factor: float) -> float | None:
        contexts = study.contexts(device, factor, seeds)
        try:
            env, _ = _played(study, "density", opponent.choose, contexts, opponent)
        except InputError:  # The dense run at this rate diverges.
            return None
        if bool((env.state["failed"] > 0).any()):
            return None
        metrics = env.evaluate("validation")
        name = _metric(metrics)
        return float(metrics[name].double().mean()) * (-1 if name == "loss" else 1)

    factor = study.rate if isinstance(opponent, Dense) else rates.tune(score).rate
    return _runs(study, "density", opponent.choose, factor, opponent)


def _metric(found: Mapping[str, Tensor]) -> str:
    return next((name for name in ("accuracy", "token_accuracy") if name in found), "loss")


def _played(
    study: DsrlStudy, mode: str, choose: Choose, contexts: list[Context],
    opponent: Opponent | None = None,
) -> tuple[SparseTrainingEnv, Episodes]:  # fmt: skip
    """Every context once."""
    problems = tuple(dict.fromkeys((c.network, c.task) for c in contexts))
    config = study.world.training(mode=mode, problems=problems)
    if opponent is not None:
        config, contexts = opponent.setting(config, contexts)
    env = SparseTrainingEnv(config, len(contexts), reward=study.world.reward)
    return env, play(env, choose, contexts)


def _runs(
    study: DsrlStudy, mode: str, choose: Choose, factor: float, opponent: Opponent | None = None
) -> Runs:
    """The judged runs, whose networks train at `factor` times the task's rate."""
    seconds, made = {}, None
    for device in study.world.devices:
        contexts = study.contexts(device, factor, study.seeds_judged)
        env, found = _played(study, mode, choose, contexts, opponent)
        seconds[device] = env.state["spent_s"].tolist()
        metrics = env.evaluate("test")
        name = _metric(metrics)
        grown = env.config.topology.drop_fraction > 0 and env.config.topology.grow == "gradient"
        memory = _bytes(env, found.density, grown)
        live = found.live[None].expand_as(found.density)
        density = (found.density * live).sum((0, 2)) / live.sum((0, 2))
        made = made or Runs(
            name, metrics[name].double().tolist(), env.state["spent_flops"].tolist(), seconds,
            memory.amax(0).tolist(), memory.mean(0).tolist(), density.double().tolist(), factor,
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
