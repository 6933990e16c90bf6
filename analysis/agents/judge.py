"""Agents and opponents on the same unseen episodes: what is judged, and what was played."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim import InputError
from rl.baselines import Opponent
from rl.envs.interface import Context
from rl.envs.observe import HARDWARE_GLOBAL_FEATURES, HARDWARE_LAYER_FEATURES
from rl.envs.training import SparseTrainingEnv
from rl.evaluate import Choose, Episodes, play
from rl.runs.problems import at_rate
from rl.worlds import World

BLINDED = tuple(dict.fromkeys(HARDWARE_LAYER_FEATURES + HARDWARE_GLOBAL_FEATURES))
WHITE_BOX = "white box"  # stands for a device where nothing is priced


@dataclass(frozen=True)
class Place:
    """Where and at which rates a contender plays.

    Attributes:
        device: on which seconds are counted.
        seeds: of weights and data, in order.
        factor: its networks train at so many times the task's learning rate.
        dense: and the dense runs that set target and time at so many times.
    """

    device: str
    seeds: tuple[int, ...]
    factor: float = 1.0
    dense: float = 1.0


@dataclass(frozen=True)
class Test:
    """What frozen agents and opponents are judged on.

    Each replicate (an agent, or a tuning of an opponent) has seeds of its own, so that replicates
    do not depend on each other.

    Attributes:
        world: an environment; its seeds and networks should be none that were learnt from.
        episodes: of each replicate, on each network and device, the same for all contenders.
        targets: for real training, share of the dense run whose loss is to be reached.
    """

    world: World
    episodes: int = 4
    target: float = 0.9

    @property
    def devices(self) -> tuple[str, ...]:
        """That it is judged on; the white box prices nothing and stands for one."""
        return self.world.devices if self.world.kind == "training" else (WHITE_BOX,)

    def place(self, device: str, replicate: int, factor: float, dense: float) -> Place:
        """The judged seeds of a replicate."""
        first, end = self.world.seeds
        begin = first + replicate * self.episodes
        if begin + self.episodes > end:
            raise InputError(
                f"episodes: value is {self.episodes}; allowed is what the seeds from {first} to "
                f"{end - 1} have for replicate {replicate}"
            )
        return Place(device, tuple(range(begin, begin + self.episodes)), factor, dense)

    def contexts(self, at: Place) -> list[Context]:
        """One per slot: seeds in order, networks in turn."""
        return [
            Context(
                at_rate(network, at.factor), task, at.device, self.target, seed,
                at_rate(network, at.dense),
            )
            for seed in at.seeds
            for network, task in self.world.problems
        ]  # fmt: skip

    def run(self, choose: Choose, mode: str, at: Place, opponent: Opponent | None = None) -> Played:
        """Every episode once, under the frozen choice."""
        began = time.process_time()
        if self.world.kind != "training":
            world = dataclasses.replace(self.world, slots=len(at.seeds), mode=mode)
            found = play(world.make(at.seeds[0]), choose)
            return Played(found, (WHITE_BOX,) * len(at.seeds), time.process_time() - began)
        contexts = self.contexts(at)
        problems = tuple(
            (at_rate(network, at.factor), task) for network, task in self.world.problems
        )
        config = self.world.training(mode=mode, problems=problems)
        groups = tuple(f"{network} on {at.device}" for network, _ in self.world.problems)
        if opponent is not None:
            config, contexts = opponent.setting(config, contexts)
        env = SparseTrainingEnv(config, len(contexts), reward=self.world.reward)
        found = play(env, choose, contexts)
        dense_s = tuple(env.state["dense_s"].tolist())
        return Played(found, groups * len(at.seeds), time.process_time() - began, dense_s)


@dataclass(frozen=True)
class JudgedFigures:
    """What tables say of the episodes of a replicate.

    Attributes:
        speed_ups: (episodes,) float64, over dense; what is left at the end of a budget charged as
            dense.
        reached: (episodes,) bool, whether the target was reached within the budget.
        mean_density: over layers, decisions and episodes.
        groups: the stratum (network and device) of each episode.
        cost: processor seconds.
        dense_s: net time of each episode's dense run to the target; empty in the white box.
    """

    speed_ups: np.ndarray
    reached: np.ndarray
    mean_density: float
    groups: tuple[str, ...]
    cost: float
    dense_s: tuple[float, ...] = ()

    @property
    def seconds(self) -> np.ndarray:
        """(episodes,) to the target."""
        dense = np.array(self.dense_s) if self.dense_s else np.ones(len(self.groups))
        return dense / self.speed_ups


@dataclass(frozen=True)
class Played:
    """Episodes with the stratum (network and device) of each, and processor seconds.

    Attributes:
        dense_s: net time of each episode's dense run to the target; empty in the white box.
    """

    episodes: Episodes
    groups: tuple[str, ...]
    cost: float
    dense_s: tuple[float, ...] = ()

    @cached_property
    def figures(self) -> JudgedFigures:
        """What tables say of it."""
        return JudgedFigures(
            self.episodes.speed_up.double().numpy(), self.episodes.reached.numpy(),
            self.episodes.mean_density, self.groups, self.cost, self.dense_s,
        )  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """One way of choosing on one device, over its replicates.

    Attributes:
        runs: what was played, or what is known of it, one per replicate.
        note: what tuning found, of each replicate in turn where it differs.
        cost: processor seconds of learning or tuning, the mean over replicates.
        learnt_from: episodes that it learnt from or was tuned on, each time.
        rates: base learning rate of each replicate, in units of the task's own.
        at_an_end: whether the rate of a replicate lay at the end of those tried.
    """

    name: str
    runs: tuple[Played | JudgedFigures, ...]
    note: str = ""
    cost: float = 0.0
    learnt_from: int = 0
    rates: tuple[float, ...] = ()
    at_an_end: bool = False

    @property
    def figures(self) -> tuple[JudgedFigures, ...]:
        """Of each replicate."""
        return tuple(run.figures if isinstance(run, Played) else run for run in self.runs)

    @property
    def played(self) -> tuple[Played, ...]:
        """Whole episodes of each replicate.

        Raises:
            InputError: only figures of them are known, as of a stored table.
        """
        runs = tuple(run for run in self.runs if isinstance(run, Played))
        if len(runs) < len(self.runs):
            raise InputError(f"contender {self.name}: its episodes were not stored; allowed is one "
                             "that was played")  # fmt: skip
        return runs

    @property
    def speed_ups(self) -> np.ndarray:
        """(episodes,) over dense, of all replicates in order."""
        return np.concatenate([run.speed_ups for run in self.figures])

    def strata(self) -> list[np.ndarray]:
        """Speed-ups by network and device; over all replicates."""
        names = np.concatenate([run.groups for run in self.figures])
        return [self.speed_ups[names == name] for name in dict.fromkeys(names.tolist())]

    def reached(self) -> float:
        """Share of all episodes that reached their target."""
        return float(np.mean([run.reached.mean() for run in self.figures]))

    def density(self) -> float:
        """Mean density over layers, decisions and episodes."""
        return float(np.mean([run.mean_density for run in self.figures]))


def joined(parts: Sequence[Judged]) -> Judged:
    """One contender of its replicates, in order."""
    first, n = parts[0], len(parts)
    notes = list(dict.fromkeys(one.note for one in parts if one.note))
    return Judged(
        first.name, tuple(run for one in parts for run in one.runs), "; ".join(notes),
        sum(one.cost for one in parts) / n, round(sum(one.learnt_from for one in parts) / n),
        tuple(rate for one in parts for rate in one.rates), any(one.at_an_end for one in parts),
    )  # fmt: skip
