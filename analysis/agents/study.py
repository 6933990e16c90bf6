"""The whole comparison: agents of several seeds, opponents with the same budget, one table."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.agents.dense_rate import tuned_dense
from analysis.agents.judge import (
    AGENT,
    BLIND_AGENT,
    BLINDED,
    UNTUNED,
    Contender,
    Outcome,
    Test,
)
from analysis.agents.store import kept
from hwsim import InputError
from rl.agents.checkpoint import Saved
from rl.agents.learn import train
from rl.algorithms import Agent
from rl.baselines import OPPONENTS, Budget, Opponent, Setup, make_opponent
from rl.evaluate import play
from rl.worlds import World

Tell = Callable[[str, int, int], None]
TUNING_SEED = 1000  # of the environment that opponents are tuned in
JUDGED = "judged"  # folder of what was judged already


@dataclass(frozen=True)
class Study:
    """One comparison.

    Attributes:
        learn: what agents learn in.
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

    @property
    def tune(self) -> World:
        """What opponents are tuned in: as agents learn, but on the devices that are judged on.

        An agent may learn on several devices and tell them apart; a schedule cannot.
        """
        devices = self.learn.devices if self.learn.kind == "whitebox" else self.test.world.devices
        return dataclasses.replace(self.learn, mode="density", devices=devices)


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
    hidden = (*study.settings.get("hide", ()), *study.learn.blind, *hide)
    for seed in range(study.seeds):
        settings = {**study.settings, "seed": seed, "hide": tuple(dict.fromkeys(hidden))}
        name = f"{what.replace(' ', '-')}-{seed}"
        found.append(train(out / name, study.learn, study.algorithm, settings))
        tell(f"learning: {what}", seed + 1, study.seeds)
    return found


def run(study: Study, out: Path, tell: Tell = lambda *_: None) -> Outcome:
    """Trains, tunes and judges all contenders; goes on with what `out` holds."""
    learnt = agents(study, out, (), tell, AGENT)
    first = _judged(study, learnt, out, tell, AGENT)
    switching = first.runs[0].episodes.switching
    setup = Setup(density=study.density, switching=switching)
    contenders, left_out = [first], {}
    names = study.opponents or OPPONENTS.names()
    for i, name in enumerate(names):
        try:
            contenders.append(_opponent(study, name, setup, episodes_of(learnt[0]), out))
        except InputError as error:
            left_out[name] = str(error)
        tell("opponents", i + 1, len(names))
    if study.blind:
        blind = agents(study, out, BLINDED, tell, BLIND_AGENT)
        contenders.append(_judged(study, blind, out, tell, BLIND_AGENT))
    beside = tuned_dense(contenders[0], study.test)
    tell("dense at its own rate", 1, 1)
    return Outcome(tuple(contenders), left_out, UNTUNED if beside is None else beside.line)


def _judged(study: Study, learnt: list[Saved], out: Path, tell: Tell, name: str) -> Contender:
    """Frozen agents of all seeds on the test's episodes."""
    played = []
    for i, one in enumerate(learnt):
        agent = one.restore()

        def make(seed: int = i, agent: Agent[Any] = agent) -> Contender:
            run = study.test.run(lambda _, seen: agent.act(seen), study.learn.mode)
            return Contender(f"{name} {seed}", (run,))

        key = {**_facts(study), "name": f"{name} {i}", "algorithm": one.algorithm,
               "settings": one.settings}  # fmt: skip
        played.append(kept(out / JUDGED, key, make).runs[0])
        tell(f"judging: {name}", i + 1, len(learnt))
    cost = sum(one.cost for one in learnt) / len(learnt)
    return Contender(name, tuple(played), "", cost, episodes_of(learnt[0]))


def _facts(study: Study) -> dict[str, Any]:
    """What every judged contender depends on, as JSON takes it."""
    test = dataclasses.asdict(study.test)
    return {"learn": dataclasses.asdict(study.learn), "test": test}


def _opponent(study: Study, name: str, setup: Setup, episodes: int, out: Path) -> Contender:
    opponent = make_opponent(name, setup)
    # What an opponent makes nothing of must not make it another one.
    heard: dict[str, Any] = {**dataclasses.asdict(setup), "episodes": episodes}
    if name != "random_switching":
        del heard["switching"]
    if not opponent.tuned:
        del heard["episodes"]
    key = {**_facts(study), "name": name, **heard}
    return kept(out / JUDGED, key, lambda: _tuned(study, name, opponent, episodes))


def _tuned(study: Study, name: str, opponent: Opponent, episodes: int) -> Contender:
    began, spent = time.process_time(), 0
    if opponent.tuned:
        env = study.tune.make(TUNING_SEED)
        budget = Budget(lambda choose: play(env, choose).speed_up.log(), study.tune.slots, episodes)
        opponent.fit(budget)
        spent = episodes - budget.left
    cost = time.process_time() - began
    played = study.test.run(opponent.choose, "density", opponent)
    return Contender(name, (played,), opponent.description, cost, spent)
