"""Net time to the same loss: of courses averaged over seeds, or of times taken seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from analysis.stats import Ratio, paired_ratio, resampled, resampled_ratio
from hwsim.net_time import times_to_targets

_SURELY = 0.99
_NEVER = 1e300  # stands for a loss that is no number, so that means are none either


@dataclass(frozen=True)
class Course:
    """One run: net seconds and loss at each of its validations, (evaluations,)."""

    seconds: Sequence[float]
    losses: Sequence[float]


@dataclass(frozen=True)
class Contender:
    """What is compared: a kind (see `conclusion`) and seed → course.

    Attributes:
        learnt: whether it is better than a predictor that looks at no input; None: not known.
        tuned: whether its rate was chosen as the protocol asks.
        known: whether it is what new ideas are held against: RigL as it was published.
    """

    name: str
    kind: str
    courses: Mapping[int, Course]
    learnt: bool | None = None
    tuned: bool = True
    known: bool = False


@dataclass(frozen=True)
class Clocked(Contender):
    """One whose times were taken to one target, so that no course is needed.

    Attributes:
        seconds: seed → net seconds to its target; where that was not reached within the budget,
            what was left is charged in some way, and the seed stands in `late`.
    """

    seconds: Mapping[int, float] = field(default_factory=dict)
    late: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Beside:
    """One contender beside another.

    Attributes:
        seeds: how many, or how many groups of them that depend on each other.
        reached: share of the seeds in which the one reached the loss by itself.
        speed_up: time of the other over that of the one; None where the one does not reach it.
        at_least: whether the other does not reach it: its whole run stands for its time.
    """

    seeds: int
    reached: float
    speed_up: Ratio | None
    at_least: bool = False


class Clock(Protocol):
    """How net times to a loss are taken, and what resampling the seeds says of their ratios."""

    def time(self, one: Contender) -> float:
        """Net seconds to the loss; NaN if it is not reached."""
        ...

    def surely(self, one: Contender) -> bool:
        """Whether it gets to the loss, however the seeds fall: in 99 % of resamplings."""
        ...

    def beside(self, one: Contender, other: Contender) -> Beside:
        """What the seeds that both have say."""
        ...


@dataclass(frozen=True)
class SeedClock:
    """Times seed by seed, their geometric mean; for `Clocked` contenders.

    Attributes:
        groups: seed → its group, where seeds share their tuning or their agent: each group counts
            once, by its geometric mean.
    """

    groups: Mapping[int, int] | None = None

    def time(self, one: Contender) -> float:
        """See `Clock`."""
        assert isinstance(one, Clocked)
        logs = [math.log(seconds) for seconds in one.seconds.values()]
        return math.exp(float(np.mean(logs))) if logs else math.nan

    def surely(self, one: Contender) -> bool:
        """See `Clock`: a time that was charged is one."""
        return True

    def beside(self, one: Contender, other: Contender) -> Beside:
        """See `Clock`."""
        assert isinstance(one, Clocked) and isinstance(other, Clocked)
        common = sorted(set(one.seconds) & set(other.seconds))
        if not common:
            return Beside(0, 0.0, None)
        ratio = paired_ratio(self._grouped(other, common), self._grouped(one, common))
        late = len(one.late & set(common))
        return Beside(ratio.interval.n, 1 - late / len(common), ratio)

    def _grouped(self, one: Clocked, seeds: Sequence[int]) -> dict[int, float]:
        found: dict[int, list[float]] = {}
        for seed in seeds:
            group = seed if self.groups is None else self.groups[seed]
            found.setdefault(group, []).append(math.log(one.seconds[seed]))
        return {group: math.exp(sum(logs) / len(logs)) for group, logs in found.items()}


@dataclass(frozen=True)
class MeanClock:
    """Times in which the course averaged over seeds reaches dense's at a share of its run.

    A metric that scatters between validations reaches, in one run, what it never holds, and misses
    it in the next; averages do neither. The loss to be reached is the lowest of dense's averaged
    course within that share of its net time. Whole courses are resampled, by seed, the same seeds
    for all contenders, and the loss is found anew each time.
    """

    dense: Contender
    share: float = 0.9
    _taken: dict[tuple[str, tuple[int, ...]], np.ndarray] = field(default_factory=dict, init=False)
    _asked: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict, init=False)

    def time(self, one: Contender) -> float:
        """See `Clock`."""
        seeds = _common(one, self.dense)
        if not seeds:
            return math.nan
        found = self._times(one, seeds)[0]
        return float(found) if math.isfinite(found) else math.nan

    def surely(self, one: Contender) -> bool:
        """See `Clock`."""
        seeds = _common(one, self.dense)
        return bool(seeds) and float(np.isfinite(self._times(one, seeds)).mean()) >= _SURELY

    def beside(self, one: Contender, other: Contender) -> Beside:
        """See `Clock`."""
        seeds = _common(one, other, self.dense)
        if not seeds:
            return Beside(0, 0.0, None)
        mine, theirs = self._times(one, seeds), self._times(other, seeds)
        reached = self._reached(one, seeds)
        if not 0 < mine[0] < np.inf:
            return Beside(len(seeds), reached, None)
        ends = resampled(len(seeds)) @ _arrays(other, seeds)[0][:, -1]
        missed = ~np.isfinite(theirs)
        with np.errstate(divide="ignore"):
            least = np.log(np.where(missed, ends, theirs)) - np.log(mine)
        ratio = resampled_ratio(least, len(seeds), most=np.where(missed, np.inf, least))
        return Beside(len(seeds), reached, ratio, bool(missed[0]))

    def _times(self, one: Contender, seeds: Sequence[int]) -> np.ndarray:
        """Of all seeds, then of each resampling; infinite where the loss is not reached."""
        key = one.name, tuple(seeds)
        if key not in self._taken:
            self._taken[key] = times_to_targets(*_means(one, seeds), self._targets(seeds))
        return self._taken[key]

    def _targets(self, seeds: Sequence[int]) -> np.ndarray:
        """The loss to be reached, of all seeds, then of each resampling."""
        key = tuple(seeds)
        if key not in self._asked:
            seconds, losses = _means(self.dense, seeds)
            within = seconds <= self.share * seconds[:, -1:] * (1 + 1e-9)
            self._asked[key] = np.where(within, losses, np.inf).min(1)
        return self._asked[key]

    def _reached(self, one: Contender, seeds: Sequence[int]) -> float:
        """Share of seeds whose own course gets to the loss of all seeds."""
        target = np.full(len(seeds), self._targets(seeds)[0])
        return float(np.isfinite(times_to_targets(*_arrays(one, seeds), target)).mean())


def _common(*contenders: Contender) -> list[int]:
    return sorted(set.intersection(*(set(c.courses) for c in contenders)))


def _means(one: Contender, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and losses of all seeds, then of each resampling, (1 + samples, evaluations)."""
    seconds, losses = _arrays(one, seeds)
    weights = resampled(len(seeds))
    return weights @ seconds, weights @ losses


def _arrays(one: Contender, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and losses, (seeds, evaluations) each; a run that ended early has no loss later."""
    courses = [one.courses[seed] for seed in seeds]
    length = max(len(course.seconds) for course in courses)
    seconds, losses = np.empty((len(seeds), length)), np.full((len(seeds), length), _NEVER)
    for row, course in enumerate(courses):
        count = len(course.seconds)
        seconds[row, :count], seconds[row, count:] = course.seconds, course.seconds[-1]
        losses[row, :count] = course.losses
    return seconds, np.where(np.isfinite(losses), losses, _NEVER)
