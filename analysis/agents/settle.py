"""An opponent set up for one replicate: its density, its parameters, its base learning rate."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import torch

from analysis.agents import rates
from analysis.agents.candidates import Tunable
from analysis.agents.judge import Place, Test
from analysis.comparing.plan import Choice
from hwsim import InputError
from rl.agents.checkpoint import Saved
from rl.algorithms import Agent, make_agent
from rl.baselines import Budget, Opponent
from rl.envs.interface import ScheduleEnv
from rl.evaluate import Choose, play
from rl.worlds import World

# Seeds of weights and data that no agent learns from and nobody is judged on; a replicate's own.
_FIRST, EACH = 100_000, 8
_WHITE_BOX_SEED = 1000


def tuning_seeds(replicate: int) -> tuple[int, ...]:
    """Weights and data that a replicate is tuned on, and no other is."""
    return tuple(range(_FIRST + replicate * EACH, _FIRST + (replicate + 1) * EACH))


@dataclass(frozen=True)
class TuneIn:
    """Where opponents of a replicate are tuned: the judged networks and device, other seeds.

    That is more than an agent gets, which sees neither.

    Attributes:
        dense: factor of the dense runs that set target and time.
        learn: the environment in place of it where no networks are trained.
    """

    test: Test
    device: str
    replicate: int
    dense: float
    slots: int
    learn: World | None = None

    def score(
        self, choose: Choose, mode: str, factor: float, opponent: Opponent | None = None
    ) -> float | None:
        """Mean log speed-up on the replicate's tuning seeds; None where dense diverges there."""
        seeds = tuning_seeds(self.replicate)
        try:
            played = self.test.run(
                choose, mode, Place(self.device, seeds, factor, self.dense), opponent
            )
        except InputError:
            if self.learn is not None:
                raise
            return None
        return float(played.episodes.speed_up.double().log().mean())

    def world(self, factor: float, mode: str = "density") -> ScheduleEnv:
        """An environment to spend a budget in."""
        if self.learn is not None:
            world = dataclasses.replace(self.learn, mode=mode)
            return world.make(_WHITE_BOX_SEED + self.replicate)
        seeds = tuning_seeds(self.replicate)
        world = dataclasses.replace(
            self.test.world, mode=mode, devices=(self.device,), slots=self.slots,
            problems=tuple((rates.at_rate(n, factor), t) for n, t in self.test.world.problems),
            targets=(self.test.target, self.test.target), seeds=(seeds[0], seeds[-1] + 1),
            reference=self.dense,
        )  # fmt: skip
        return world.make(self.replicate)

    def budget(self, factor: float, episodes: int) -> Budget:
        """Episodes to tune an opponent with, whose networks train at so many times the rate."""
        env = self.world(factor)
        slots = env.batch_size[0]
        return Budget(lambda choose: play(env, choose).speed_up.log(), slots,
                      max(episodes, slots), seed=self.replicate)  # fmt: skip


def adapted(saved: Saved, where: TuneIn, factor: float, episodes: int) -> tuple[Agent[Any], int]:
    """An agent that went on to learn where opponents are tuned, and the episodes that it had.

    Its networks are those of the saved one, all else begins anew, its learning rate at the half.
    They are whole batches of `where.slots`, one at least.
    """
    settings = dict(saved.settings)
    rounds = max(1, episodes // where.slots)
    settings |= {"iterations": rounds, "lr": settings["lr"] / 2, "seed": where.replicate}
    agent = make_agent(saved.algorithm, **settings)
    agent.take_over(saved.agent)
    world = where.world(factor, saved.world.mode)
    begun = 0.0

    def count(row: dict[str, float]) -> None:
        nonlocal begun
        begun += row["episodes"] + where.slots

    agent.train(world, report=count)
    return agent, round(begun)


@dataclass(frozen=True)
class Settled:
    """An opponent that is ready; `episodes` were spent on it, `cost` processor seconds."""

    opponent: Opponent
    choice: Choice
    note: str
    episodes: int
    cost: float


def settled(candidate: Tunable, where: TuneIn, episodes: int) -> Settled:
    """Tunes an opponent: at each rate of the grid with a third of the episodes, best score wins.

    Rates beyond the first three cost further thirds, so that nobody is worse off for a grid that
    had to be widened.
    """
    began = time.process_time()
    spent = 0
    made: dict[tuple[float, float], tuple[float, Opponent]] = {}

    def attempt(density: float, factor: float) -> float | None:
        nonlocal spent
        opponent = candidate.make(density)
        try:
            if candidate.tuned:
                share = episodes // len(rates.GRID) if where.learn is None else episodes
                budget = where.budget(factor, share)
                begun = budget.left
                opponent.fit(budget)
                spent += begun - budget.left
            found = where.score(opponent.choose, "density", factor, opponent)
        except InputError:
            if where.learn is not None:
                raise
            found = None
        if found is not None:
            spent += 0 if where.learn is not None else EACH * len(where.test.world.problems)
            made[density, factor] = found, opponent
        return found

    choices: dict[float, Choice] = {}
    for density in candidate.densities:
        torch.manual_seed(where.replicate)
        grid = rates.GRID if where.learn is None else (1.0,)
        choices[density] = rates.tune(lambda f, d=density: attempt(d, f), grid)
    if not made:
        raise InputError(f"opponent {candidate.name}: it diverges at every rate tried")
    best = max(
        (d for d in choices if (d, choices[d].rate) in made),
        key=lambda d: made[d, choices[d].rate][0],
    )
    choice = choices[best]
    opponent = made[best, choice.rate][1]
    several = f"density {best:g}" if len(candidate.densities) > 1 else ""
    note = opponent.description or several
    return Settled(opponent, choice, note, spent, time.process_time() - began)
