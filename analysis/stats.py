"""Summaries of few runs that do not claim more than the runs can carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwsim import InputError


@dataclass(frozen=True)
class Interval:
    """A point with the ends of its interval; `n` runs went into it."""

    point: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student-t interval of independent runs (seeds).

    One value has no interval: its ends are infinite, which is what one seed tells.

    >>> mean_interval([1.0, 2.0, 3.0]).point
    2.0
    """
    from scipy import stats

    data = _numbers("values", values)
    mean = float(data.mean())
    if len(data) == 1:
        return Interval(mean, -np.inf, np.inf, 1)
    half = float(stats.sem(data) * stats.t.ppf(0.5 + level / 2, len(data) - 1))
    return Interval(mean, mean - half, mean + half, len(data))


def paired_difference(
    a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95
) -> Interval:
    """Mean of a − b over the seeds that both have, with its Student-t interval.

    Contenders that share seed and data order share most of their noise; pairing removes it.

    Raises:
        InputError: no seed in common.
    """
    common = sorted(set(a) & set(b))
    if not common:
        raise InputError(f"seeds: {sorted(a)} and {sorted(b)} have none in common")
    return mean_interval([a[s] - b[s] for s in common], level)


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the middle half.

    Source: Agarwal et al. (2021), "Deep RL at the edge of the statistical precipice", section 4.2.

    >>> interquartile_mean([0.0, 1.0, 2.0, 100.0])
    1.5
    """
    from scipy import stats

    return float(stats.trim_mean(_numbers("values", values), 0.25))


def stratified_bootstrap(
    strata: Sequence[Sequence[float]],
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    *,
    rng: np.random.Generator,
    samples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic over all runs, resampled within each stratum (task).

    Source: Agarwal et al. (2021), section 4.1.
    """
    groups = [_numbers("strata", s) for s in strata]
    if not groups:
        raise InputError("strata: none given; allowed is at least one")
    draws = np.empty(samples)
    for i in range(samples):
        draws[i] = statistic(np.concatenate([rng.choice(g, len(g)) for g in groups]))
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    everything = np.concatenate(groups)
    return Interval(float(statistic(everything)), float(low), float(high), len(everything))


def probability_of_improvement(a: Sequence[float], b: Sequence[float]) -> float:
    """How often a run of `a` is above a run of `b`; ties count half.

    Source: Agarwal et al. (2021), section 4.3 (the Mann–Whitney U statistic over its maximum).

    >>> probability_of_improvement([2, 3], [1, 3])
    0.625
    """
    x, y = _numbers("a", a)[:, None], _numbers("b", b)[None, :]
    return float(((x > y) + 0.5 * (x == y)).mean())


def _numbers(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    data = np.asarray(list(values), dtype=np.float64)
    if data.ndim != 1 or not len(data) or np.isnan(data).any():
        raise InputError(f"{name}: got {values!r}; allowed is at least one number, no NaN")
    return data
