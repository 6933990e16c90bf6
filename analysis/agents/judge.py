"""Agents against opponents: trained alike, judged on the same unseen episodes, summed up."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.comparing.conclusion import Verdict
from analysis.stats import Interval, probability_of_improvement, stratified_bootstrap
from hwsim import InputError
from rl.baselines import Opponent
from rl.envs.interface import Context
from rl.envs.observe import HARDWARE_GLOBAL_FEATURES, HARDWARE_LAYER_FEATURES
from rl.envs.training import SparseTrainingEnv
from rl.evaluate import Choose, Episodes, play
from rl.worlds import World

BLINDED = tuple(dict.fromkeys(HARDWARE_LAYER_FEATURES + HARDWARE_GLOBAL_FEATURES))
AGENT, BLIND_AGENT = "agent", "agent without hardware"
UNTUNED = f"Against dense at the fixed learning rate: {Verdict.UNTUNED}."
# What the goal is held against: the handcrafted schedules, tuned or not.
HANDCRAFTED = ("best_constant", "best_schedule", "linear", "quadratic", "cubic", "cosine")


@dataclass(frozen=True)
class Test:
    """What frozen agents and opponents are judged on.

    Attributes:
        world: an environment; its seeds and networks should be none that were learnt from.
        episodes: of each contender and training seed, the same for all.
        targets: for real training, share of the dense run whose loss is to be reached.
    """

    world: World
    episodes: int = 10
    target: float = 0.9

    def contexts(self) -> list[Context] | None:
        """One per slot, for real training: seeds in order, devices and networks in turn."""
        w = self.world
        if w.kind != "training":
            return None
        first, end = w.seeds
        if end - first < self.episodes:
            raise InputError(
                f"episodes: value is {self.episodes}; allowed is at most {end - first}, the seeds "
                f"from {first} to {end - 1}"
            )
        made = []
        for i in range(self.episodes * len(w.devices) * len(w.problems)):
            network, task = w.problems[i % len(w.problems)]
            seed, device = divmod(i // len(w.problems), len(w.devices))
            made.append(Context(network, task, w.devices[device], self.target, first + seed))
        return made

    def run(self, choose: Choose, mode: str, opponent: Opponent | None = None) -> Played:
        """Every episode once, under the frozen choice."""
        began = time.process_time()
        contexts = self.contexts()
        if contexts is None:
            world = dataclasses.replace(self.world, slots=self.episodes, mode=mode)
            env = world.make(world.seeds[0])
            found = play(env, choose)
            groups, dense_s = ("",) * self.episodes, ()
        else:
            config = self.world.training(mode=mode)
            groups = tuple(f"{c.network} on {c.device}" for c in contexts)
            if opponent is not None:
                config, contexts = opponent.setting(config, contexts)
            env = SparseTrainingEnv(config, len(contexts), reward=self.world.reward)
            found = play(env, choose, contexts)
            dense_s = tuple(env.state["dense_s"].tolist())
        return Played(found, groups, time.process_time() - began, dense_s)


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

    @property
    def speed_ups(self) -> np.ndarray:
        return self.episodes.speed_up.double().numpy()


@dataclass(frozen=True)
class Contender:
    """One way of choosing, over all its training seeds.

    Attributes:
        runs: what was played, one per training seed; an opponent has one.
        note: what tuning found.
        cost: processor seconds of learning or tuning, the mean over seeds.
        learnt_from: episodes that it learnt from or was tuned on.
    """

    name: str
    runs: tuple[Played, ...]
    note: str = ""
    cost: float = 0.0
    learnt_from: int = 0

    @property
    def speed_ups(self) -> np.ndarray:
        return np.concatenate([run.speed_ups for run in self.runs])

    def strata(self) -> list[np.ndarray]:
        """Speed-ups by network and device; over all seeds."""
        names = np.concatenate([run.groups for run in self.runs])
        return [self.speed_ups[names == name] for name in dict.fromkeys(names.tolist())]

    def reached(self) -> float:
        """Share of all episodes that reached their target."""
        return float(np.mean([run.episodes.reached.double().mean().item() for run in self.runs]))

    def density(self) -> float:
        """Mean density over layers, decisions and episodes."""
        return float(np.mean([run.episodes.mean_density for run in self.runs]))


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        slowest: the least speed-up.
        reached: share of the episodes that reached their target.
        against: probability that the agent is faster than this.
        ratio: the agent's speed-up over this one's, paired by episode.
    """

    name: str
    speed_up: Interval
    slowest: float
    reached: float
    density: float
    against: float
    ratio: Interval
    note: str
    cost: float
    learnt_from: int


@dataclass(frozen=True)
class Outcome:
    """All contenders, the agent first, and what could not take part with its reason.

    Attributes:
        about_dense: what may be said of the agent beside dense training at its own rate.
    """

    contenders: tuple[Contender, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    about_dense: str = UNTUNED

    @property
    def agent(self) -> Contender:
        return self.contenders[0]

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The table, fastest first."""
        agent, seed = self.agent, 0
        made = []
        for c in self.contenders:
            speed = stratified_bootstrap(
                [s.tolist() for s in c.strata()], _iqm, rng=np.random.default_rng(seed)
            )
            made.append(
                Row(
                    c.name, speed, float(c.speed_ups.min()), c.reached(), c.density(),
                    probability_of_improvement(agent.speed_ups.tolist(), c.speed_ups.tolist()),
                    paired_ratio(agent, c, seed), c.note, c.cost, c.learnt_from,
                )
            )  # fmt: skip
        return sorted(made, key=lambda row: -row.speed_up.point)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "speed_ups": {c.name: [r.speed_ups for r in c.runs] for c in self.contenders},
            "left_out": dict(self.left_out),
            "about_dense": self.about_dense,
        }


def paired_ratio(a: Contender, b: Contender | np.ndarray, seed: int = 0) -> Interval:
    """IQM of speed-up of `a` over that of `b`, episode by episode, with a bootstrap interval.

    Both trained the same networks from the same weights on the same data. Episodes and training
    seeds of `a` are resampled; the log ratio of an episode is the mean over `b`'s seeds. `b` may
    be speed-ups, (episodes,).
    """
    ours = np.log([run.speed_ups for run in a.runs])  # (seeds, episodes)
    single = [b] if isinstance(b, np.ndarray) else [run.speed_ups for run in b.runs]
    theirs = np.log(single).mean(0)
    ratios = ours - theirs
    rng = np.random.default_rng(seed)
    draws = np.empty(2000)
    for i in range(len(draws)):
        rows = rng.integers(len(ratios), size=len(ratios))
        columns = rng.integers(ratios.shape[1], size=ratios.shape[1])
        draws[i] = _iqm(ratios[np.ix_(rows, columns)])
    low, high = np.quantile(draws, [0.025, 0.975])
    point, low, high = np.exp([_iqm(ratios), low, high])
    return Interval(float(point), float(low), float(high), ratios.size)


def _iqm(values: np.ndarray) -> float:
    """Mean of the middle half, as `stats.interquartile_mean`, without its checks: drawn often.

    >>> _iqm(np.array([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    ordered = np.sort(values, axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
