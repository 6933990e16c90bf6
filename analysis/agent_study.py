"""The whole comparison: agents of several seeds, opponents with the same budget, one table."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.agent import AGENT, BLIND_AGENT, BLINDED, Contender, Outcome, Test
from hwsim import InputError
from rl.baselines import OPPONENTS, make_opponent
from rl.baselines._base import Budget, Setup
from rl.checkpoint import Saved
from rl.evaluate import play
from rl.learn import train
from rl.worlds import World

Tell = Callable[[str, int, int], None]
TUNING_SEED = 1000  # of the environment that opponents are tuned in


@dataclass(frozen=True)
class Study:
    """One comparison.

    Attributes:
        learn: what agents learn in and opponents are tuned in.
        test: what all are judged on.
        seeds: how many agents.
        opponents: names in `rl.baselines`; all of them by default.
        blind: whether agents without hardware features take part.
        density: of schedules without tuning, see `Setup`.
        settings: of the algorithm.
    """

    learn: World
    test: Test
    algorithm: str = "ppo"
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: int = 10
    opponents: tuple[str, ...] = ()
    blind: bool = True
    density: float = 0.25

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"seeds: value is {self.seeds}; allowed is at least 1")
        for name in self.opponents:
            OPPONENTS.get(name)
        Setup(density=self.density)
        _check_unseen(self.learn, self.test.world)


def _check_unseen(learn: World, test: World) -> None:
    if learn.kind == "whitebox" or test.kind != "training":
        return
    low, high = max(learn.seeds[0], test.seeds[0]), min(learn.seeds[1], test.seeds[1])
    if low < high:
        raise InputError(
            f"test seeds: {test.seeds[0]} to {test.seeds[1] - 1} overlap with those learnt from, "
            f"{learn.seeds[0]} to {learn.seeds[1] - 1}; allowed are others"
        )


def episodes_of(saved: Saved) -> int:
    """Episodes that an agent has begun in its training."""
    ended = sum(row["episodes"] for row in saved.curve)
    return round(ended) + saved.world.slots * len(saved.curve)


def learning_cost(saved: Saved, recorded: int = 0) -> float:
    """Net time of the real runs that it took to learn, in dense runs.

    Args:
        recorded: runs that a surrogate was fitted to; they are all its real runs, counted as
            dense ones.
    """
    if saved.world.kind != "training":
        return float(recorded)
    times = [row["final_time"] for row in saved.curve if math.isfinite(row["final_time"])]
    return episodes_of(saved) * (sum(times) / len(times) if times else 1.0)


def payback(cost: float, speed_up: float) -> float:
    """Runs after which learning has paid: its cost over what a run saves; infinite if none does.

    >>> payback(60.0, 2.0)
    120.0
    """
    return cost / (1 - 1 / speed_up) if speed_up > 1 else math.inf


def agents(study: Study, out: Path, hide: tuple[str, ...], tell: Tell, what: str) -> list[Saved]:
    """Agents of all seeds, trained in `out` or read from there."""
    found = []
    for seed in range(study.seeds):
        settings = {**study.settings, "seed": seed, "hide": (*study.learn.blind, *hide)}
        name = f"{what.replace(' ', '-')}-{seed}"
        found.append(train(out / name, study.learn, study.algorithm, settings))
        tell(f"learning: {what}", seed + 1, study.seeds)
    return found


def run(study: Study, out: Path, tell: Tell = lambda *_: None) -> Outcome:
    """Trains, tunes and judges all contenders; goes on with what `out` holds."""
    groups = {AGENT: ()} | ({BLIND_AGENT: BLINDED} if study.blind else {})
    contenders: list[Contender] = []
    saved: list[Saved] = []
    for name, hide in groups.items():
        learnt = agents(study, out, hide, tell, name)
        saved = saved or learnt
        played = []
        for i, one in enumerate(learnt):
            agent = one.restore()
            played.append(study.test.run(lambda _, seen, a=agent: a.act(seen), study.learn.mode))
            tell(f"judging: {name}", i + 1, len(learnt))
        cost = sum(one.cost for one in learnt) / len(learnt)
        contenders.append(Contender(name, tuple(played), "", cost, episodes_of(learnt[0])))
    switching = contenders[0].runs[0].episodes.switching
    setup = Setup(density=study.density, switching=switching)
    left_out: dict[str, str] = {}
    names = study.opponents or OPPONENTS.names()
    for i, name in enumerate(names):
        try:
            contenders.append(_opponent(study, name, setup, episodes_of(saved[0])))
        except InputError as error:
            left_out[name] = str(error)
        tell("opponents", i + 1, len(names))
    return Outcome(tuple(contenders), left_out)


def _opponent(study: Study, name: str, setup: Setup, episodes: int) -> Contender:
    opponent = make_opponent(name, setup)
    began, spent = time.process_time(), 0
    if opponent.tuned:
        env = dataclasses.replace(study.learn, mode="density").make(TUNING_SEED)
        budget = Budget(
            lambda choose: play(env, choose).speed_up.log(), study.learn.slots, episodes
        )
        opponent.fit(budget)
        spent = episodes - budget.left
    cost = time.process_time() - began
    played = study.test.run(opponent.choose, "density", opponent)
    return Contender(name, (played,), opponent.description, cost, spent)
