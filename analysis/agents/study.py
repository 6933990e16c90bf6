"""The whole comparison: agents, and opponents tuned anew for each of them, by one protocol.

A replicate is an agent with a seed of its own, every opponent tuned on seeds of its own, and
judged weights and data that no other replicate has: what is luck in tuning, learning and judging
is in the intervals. All contenders choose their base learning rate on one grid (`rates`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.agents import rates
from analysis.agents.candidates import Tunable, candidates
from analysis.agents.judge import BLINDED, Judged, Place, Test, joined
from analysis.agents.outcome import ADAPTED, AGENT, BLIND_AGENT, OWN_RATE, AgentTable
from analysis.agents.settle import Settled, TuneIn, adapted, settled, tuning_seeds
from analysis.agents.store import kept
from analysis.comparing.plan import Choice
from hwsim import InputError, units
from hwsim.checks import check_number
from rl.agents.checkpoint import Saved
from rl.agents.learn import train
from rl.algorithms import Agent
from rl.baselines import OPPONENTS
from rl.worlds import World

Tell = Callable[[str, int, int], None]
JUDGED = "judged"  # folder of what was judged already


@dataclass(frozen=True)
class AgentStudy:
    """One comparison.

    Attributes:
        learn: what agents learn in; real training where `rated` gives it the rates.
        test: what all are judged on.
        seeds: how many replicates: agents, and tunings of each opponent.
        opponents: names in `rl.baselines`; all that the protocol asks for by default.
        blind: whether agents without hardware features take part.
        densities: of narrower models, and what fixed schedules choose from.
        settings: of the algorithm.
        episodes: of a tuned opponent, each time; None for as many as an agent learnt from.
        slots: side by side while opponents are tuned.
        adapt: whether the agent takes part once more after going on to learn on the judged
            networks, with a tenth of an opponent's episodes.
    """

    learn: World
    test: Test
    algorithm: str = "ppo"
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: int = 10
    opponents: tuple[str, ...] = ()
    blind: bool = True
    densities: tuple[float, ...] = (0.5, 0.25, 0.1)
    episodes: int | None = None
    slots: int = 16
    adapt: bool = True

    def __post_init__(self) -> None:
        check_number("seeds", self.seeds, least=1)
        for name in self.opponents:
            OPPONENTS.get(name)
        for density in self.densities:
            check_number("density", density, above=0, most=1)
        _check_unseen(self.learn, self.test.world)

    @property
    def real(self) -> bool:
        """Whether networks are trained where it is judged."""
        return self.test.world.kind == "training"

    def dense(self, replicate: int) -> Choice:
        """Dense's rate on the judged networks, by the loss at the target's share of its run."""
        seeds = tuning_seeds(replicate)
        return rates.dense_rate(self.test.world.problems, seeds, self.test.target)


def rated(learn: World, share: float) -> World:
    """The world at several base rates, dense references at dense's best, on its own networks.

    So an agent has seen the rate that it is judged at, and the half of it.
    """
    if learn.kind != "training" or learn.reference:
        return learn
    best = rates.dense_rate(learn.problems, tuning_seeds(0), share).rate
    problems = tuple(
        (rates.at_rate(network, best * share_of), task)
        for share_of in (1.0, 0.5)
        for network, task in learn.problems
    )
    if learn.slots < len(problems):
        raise InputError(
            f"slots: value is {learn.slots}; allowed is at least {len(problems)}, the networks "
            "at each of two rates"
        )
    return dataclasses.replace(learn, problems=problems, reference=best)


def _check_unseen(learn: World, test: World) -> None:
    if learn.kind == "whitebox" or test.kind != "training":
        return
    low, high = max(learn.seeds[0], test.seeds[0]), min(learn.seeds[1], test.seeds[1])
    if low < high:
        raise InputError(
            f"test seeds: {test.seeds[0]} to {test.seeds[1] - 1} overlap with those learnt from, "
            f"{learn.seeds[0]} to {learn.seeds[1] - 1}; allowed are others"
        )


def learning_cost(saved: Saved, recorded: int = 0) -> float:
    """Net time of the real runs that it took to learn, in dense runs.

    Args:
        recorded: runs that a surrogate was fitted to; they are all its real runs, counted as
            dense ones.
    """
    if saved.world.kind != "training":
        return float(recorded)
    times = [row["final_time"] for row in saved.curve if math.isfinite(row["final_time"])]
    return saved.episodes * (sum(times) / len(times) if times else 1.0)


def payback(cost: float, speed_up: float) -> float:
    """Runs after which learning has paid: its cost over what a run saves; infinite if none does.

    >>> payback(60.0, 2.0)
    120.0
    """
    return cost / (1 - 1 / speed_up) if speed_up > 1 else math.inf


def agents(
    study: AgentStudy, out: Path, hide: tuple[str, ...], tell: Tell, what: str
) -> list[Saved]:
    """Agents of all replicates, trained in `out` or read from there."""
    found = []
    hidden = (*study.settings.get("hide", ()), *study.learn.blind, *hide)
    for seed in range(study.seeds):
        settings = {**study.settings, "seed": seed, "hide": tuple(dict.fromkeys(hidden))}
        name = f"{what.replace(' ', '-')}-{seed}"
        found.append(train(out / name, study.learn, study.algorithm, settings))
        tell(f"learning: {what}", seed + 1, study.seeds)
    return found


def run(study: AgentStudy, out: Path, tell: Tell = lambda *_: None) -> AgentTable:
    """Trains, tunes and judges all contenders; goes on with what `out` holds."""
    learnt = {AGENT: agents(study, out, (), tell, AGENT)}
    if study.blind:
        learnt[BLIND_AGENT] = agents(study, out, BLINDED, tell, BLIND_AGENT)
    opponents = candidates(study.opponents, study.densities, real=study.real)
    left_out: dict[str, str] = {}
    parts: dict[tuple[str, str], list[Judged]] = {}
    devices = study.test.devices
    done, total = 0, study.seeds * len(devices) * len(opponents)
    for replicate in range(study.seeds):
        choice = study.dense(replicate) if study.real else Choice(1.0, {1.0: None})
        for device in devices:
            bench = _Bench(study, out, device, replicate, choice)
            for name, saved in learnt.items():
                for one in bench.agents(name, saved[replicate]):
                    parts.setdefault((device, one.name), []).append(one)
            switching = parts[device, AGENT][-1].played[0].episodes.switching
            for candidate in opponents:
                if candidate.opponent == "random_switching":
                    candidate = dataclasses.replace(candidate, switching=switching)
                try:
                    one = bench.opponent(candidate, learnt[AGENT][replicate].episodes)
                    parts.setdefault((device, candidate.name), []).append(one)
                except InputError as error:
                    left_out[candidate.name] = str(error)
                done += 1
                tell("opponents", done, total)
    found = {
        device: tuple(joined(own) for (where, name), own in parts.items()
                      if where == device and name not in left_out)
        for device in devices
    }  # fmt: skip
    return AgentTable(found, _target(study), left_out, *_floor(study))


@dataclass(frozen=True)
class _Bench:
    """One replicate on one device: where its contenders are tuned and judged."""

    study: AgentStudy
    out: Path
    device: str
    replicate: int
    choice: Choice  # of dense

    def place(self, factor: float) -> Place:
        return self.study.test.place(self.device, self.replicate, factor, self.choice.rate)

    @property
    def tuning(self) -> TuneIn:
        """On the judged networks and device, on seeds that belong to this replicate."""
        study = self.study
        return TuneIn(study.test, self.device, self.replicate, self.choice.rate, study.slots,
                      study.learn if not study.real else None)  # fmt: skip

    def agents(self, name: str, saved: Saved) -> list[Judged]:
        """The frozen agent at dense's rate; and, of the plain one, at a rate of its own."""
        agent = saved.restore()
        about = {
            "agent": name, "algorithm": saved.algorithm, "settings": saved.settings,
            "learn": dataclasses.asdict(self.study.learn),
        }  # fmt: skip
        made = [self._agent(name, agent, saved, about, lambda: self.choice)]
        if name == AGENT and self.study.real:
            made.append(self._agent(OWN_RATE, agent, saved, about, lambda: self._own_rate(agent)))
            if self.study.adapt:
                made.append(self._adapted(saved, about))
        return made

    def _adapted(self, saved: Saved, about: dict[str, Any]) -> Judged:
        """The agent after it went on to learn on the judged networks, at dense's rate."""
        tenth = max(1, (self.study.episodes or saved.episodes) // 10)

        def make() -> Judged:
            began = time.process_time()
            agent, episodes = adapted(saved, self.tuning, self.choice.rate, tenth)
            cost = time.process_time() - began
            played = self.study.test.run(
                lambda _, seen: agent.act(seen), saved.world.mode, self.place(self.choice.rate)
            )
            return Judged(ADAPTED, (played,), "", saved.cost + cost, episodes,
                          (self.choice.rate,))  # fmt: skip

        return kept(self.out / JUDGED, {**self._key(ADAPTED), **about, "adapted": tenth}, make)

    def _own_rate(self, agent: Agent[Any]) -> Choice:
        mode = self.study.learn.mode
        return rates.tune(
            lambda factor: self.tuning.score(lambda _, seen: agent.act(seen), mode, factor)
        )

    def _agent(
        self, name: str, agent: Agent[Any], saved: Saved, about: dict, choose: Callable[[], Choice]
    ) -> Judged:
        def make() -> Judged:
            choice, mode = choose(), self.study.learn.mode
            played = self.study.test.run(
                lambda _, seen: agent.act(seen), mode, self.place(choice.rate)
            )
            known = (choice.rate,) if self.study.real else ()
            end = name == OWN_RATE and choice.at_an_end
            return Judged(name, (played,), "", saved.cost, saved.episodes, known, end)

        return kept(self.out / JUDGED, {**self._key(name), **about}, make)

    def opponent(self, candidate: Tunable, episodes: int) -> Judged:
        """Tuned for this replicate, then judged."""
        budget = self.study.episodes or episodes
        heard: dict[str, Any] = {
            "opponent": candidate.opponent, "densities": candidate.densities,
            "slots": self.study.slots, "budget": budget if candidate.tuned else 0,
        }  # fmt: skip
        if candidate.opponent == "random_switching":
            heard["switching"] = candidate.switching
        if not self.study.real:  # they are tuned in what agents learn in
            heard["learn"] = dataclasses.asdict(self.study.learn)

        def make() -> Judged:
            found = self._settled(candidate, budget)
            played = self.study.test.run(
                found.opponent.choose, "density", self.place(found.choice.rate), found.opponent
            )
            known = (found.choice.rate,) if self.study.real else ()
            return Judged(candidate.name, (played,), found.note, found.cost, found.episodes,
                             known, found.choice.at_an_end)  # fmt: skip

        return kept(self.out / JUDGED, {**self._key(candidate.name), **heard}, make)

    def _settled(self, candidate: Tunable, budget: int) -> Settled:
        if candidate.opponent == "dense":
            return Settled(candidate.make(1.0), self.choice, "", 0, 0.0)
        return settled(candidate, self.tuning, budget)

    def _key(self, name: str) -> dict[str, Any]:
        """What a judged contender depends on, as JSON takes it; not how many replicates."""
        study = self.study
        test = dataclasses.asdict(study.test.world)
        del test["slots"]  # there are as many as seeds, or as `AgentStudy.slots` says
        return {
            "name": f"{name} {self.device} {self.replicate}",
            "judged": {**test, "seeds": test["seeds"][0]},
            "episodes": study.test.episodes, "target": study.test.target,
            "dense": self.choice.rate,
        }  # fmt: skip


def _target(study: AgentStudy) -> str:
    if not study.real:
        return "the target of the white box"
    return f"dense's loss at {units.percent(study.test.target)} of its run"


def _floor(study: AgentStudy) -> tuple[bool | None, float]:
    """Whether dense beats a predictor that trains nothing, and the task's own learning rate."""
    from rl.runs.dense import dense_runs
    from rl.runs.problems import Problem

    if not study.real:
        return None, 0.0
    network, task = study.test.world.problems[0]
    problem = Problem(network, task)
    floor = [found.get("accuracy") for found in problem.data.trivial().values()]
    known = [value for value in floor if value is not None]
    run = dense_runs(Problem(rates.at_rate(network, study.dense(0).rate), task)).get(
        study.test.world.seeds[0]
    )
    best = float(run.accuracies[-1])
    learnt = best > max(known) if known and math.isfinite(best) else None
    return learnt, problem.setting.optimizer.lr
