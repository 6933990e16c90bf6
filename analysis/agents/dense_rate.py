"""Dense training at its own best learning rate: what every speed-up over dense has to face.

Agents and opponents train at one rate that their environment fixes, dense too. Here dense is tuned
as the protocol of comparisons asks: on a grid of factor 2, widened until the best lies inside, on
seeds of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.agents.judge import Contender, Test, paired_ratio
from analysis.comparing.conclusion import Verdict
from analysis.comparing.plan import Choice
from analysis.comparing.race import best_rate
from analysis.stats import Interval
from hwsim import InputError
from rl.runs.dense import dense_runs
from rl.runs.problems import Problem, Setting

# Seeds that no agent learns from and none is judged on.
TUNING_SEEDS = range(2000, 2008)
_FACTORS = (1.0, 2.0, 4.0)
_MOST_RATES = 10
# A run that does not reach the target is charged with so many times its length.
_NEVER = 2.0


@dataclass(frozen=True)
class AtRate(Problem):
    """A problem whose networks train at `factor` times the setting's learning rate."""

    factor: float = 1.0

    @property
    def setting(self) -> Setting:
        own = super().setting
        rate = own.optimizer.lr * self.factor
        return dataclasses.replace(own, optimizer=dataclasses.replace(own.optimizer, lr=rate))


def speed_ups(problem: Problem, factor: float, seeds: Sequence[int], share: float) -> np.ndarray:
    """(seeds,) rounds to the loss of the dense run after `share` of it, over those at the rate.

    Raises:
        InputError: a run diverges at that rate.
    """
    base = dense_runs(Problem(problem.network, problem.task))
    tuned = dense_runs(AtRate(problem.network, problem.task, factor=factor))
    found = []
    for seed in seeds:
        run, other = base.get(seed), tuned.get(seed)
        target = run.target_loss(share)
        try:
            rounds = other.rounds_to(target)
        except InputError:
            rounds = _NEVER * (len(other.losses) - 1)
        found.append(run.rounds_to(target) / max(rounds, 1e-9))
    return np.array(found)


def tune(score: Callable[[float], float | None]) -> Choice:
    """The factor of the highest score; None is worse than any."""
    tried: dict[float, float | None] = {}
    wanted = list(_FACTORS)
    while wanted:
        tried.update({factor: score(factor) for factor in wanted})
        choice = best_rate(tried, lower=False)
        more = choice.at_an_end and len(tried) < _MOST_RATES
        wanted = [choice.beyond] if more else []
    return best_rate(tried, lower=False)


@dataclass(frozen=True)
class TunedDense:
    """Dense at its own rate beside an agent, by the episodes that both were judged on.

    Attributes:
        rates: learning rate → mean log speed-up over dense at the fixed rate, on tuning seeds.
        rate, fixed: the best one, and the fixed one.
        over_fixed: speed-up over dense at the fixed rate, geometric mean over episodes.
        ratio: of an agent's speed-up over this; interquartile mean, paired by episode.
    """

    rates: dict[float, float | None]
    rate: float
    fixed: float
    over_fixed: float
    ratio: Interval
    at_an_end: bool

    @property
    def verdict(self) -> Verdict:
        if self.at_an_end:
            return Verdict.UNTUNED
        if self.ratio.low > 1:
            return Verdict.FASTER
        return Verdict.SLOWER if self.ratio.high < 1 else Verdict.ALIKE

    @property
    def line(self) -> str:
        r, tried = self.ratio, ", ".join(f"{rate:g}" for rate in sorted(self.rates))
        return (
            f"Against dense at its own learning rate {self.rate:g} (tuned on {tried}; all here ran "
            f"at {self.fixed:g}), which is {self.over_fixed:.2f} times as fast as dense at the "
            f"fixed one: agent / tuned dense {r.point:.3f}, {r.low:.3f}–{r.high:.3f}: "
            f"{self.verdict}."
        )


def tuned_dense(agent: Contender, test: Test) -> TunedDense | None:
    """Tunes dense on the judged networks, and holds an agent against it.

    None in the white box, and in an environment that trains no networks.
    """
    contexts = test.contexts()
    if contexts is None:
        return None
    problems = [Problem(network, task) for network, task in test.world.problems]

    def score(factor: float) -> float | None:
        try:
            found = [speed_ups(p, factor, TUNING_SEEDS, test.target) for p in problems]
        except InputError:
            return None
        return float(np.log(np.concatenate(found)).mean())

    choice = tune(score)
    try:
        own = np.concatenate([
            speed_ups(Problem(c.network, c.task), choice.rate, [c.seed], test.target)
            for c in contexts
        ])  # fmt: skip
    except InputError:
        return None
    fixed = problems[0].setting.optimizer.lr
    return TunedDense(
        {fixed * factor: found for factor, found in choice.tried.items()}, fixed * choice.rate,
        fixed, math.exp(float(np.log(own).mean())), paired_ratio(agent, own), choice.at_an_end,
    )  # fmt: skip
