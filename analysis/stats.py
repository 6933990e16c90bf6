"""Summaries of few runs that do not claim more than the runs can carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

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


def power(interval: Interval, level: float = 0.95) -> tuple[float, float]:
    """Of a Student-t interval: p of a mean of 0, and the mean that would have shown.

    The latter is that which so many runs, so much scattered, find at this level with four chances
    in five; infinite for one run.
    """
    from scipy import stats

    if interval.n < 2:
        return 1.0, np.inf
    t = stats.t.ppf(0.5 + level / 2, interval.n - 1)
    error = (interval.high - interval.low) / 2 / t
    if error <= 1e-12 * abs(interval.point):
        return float(interval.point == 0), 0.0
    p = float(2 * stats.t.sf(abs(interval.point) / error, interval.n - 1))
    return p, float(error * (t + stats.t.ppf(0.8, interval.n - 1)))


@dataclass(frozen=True)
class Ratio:
    """How many times larger one quantity is than another, by seed.

    Attributes:
        interval: of the geometric mean of the ratios.
        p: two-sided, of the hypothesis that the mean of the log ratios is 0 (paired t test).
        error: standard error of the mean log ratio; infinite with one seed, or where it is not
            what decides, see `resampled_ratio`.
    """

    interval: Interval
    p: float
    error: float

    def detectable(self, questions: int = 1) -> float:
        """The ratio above 1 that so many seeds, so much scattered, would have shown.

        At the 5 % level, with four chances in five, after Bonferroni's correction (Holm's first
        step) for so many questions; infinite where that is not known.
        """
        from scipy import stats

        if not np.isfinite(self.error):
            return np.inf
        freedom = self.interval.n - 1
        seen = stats.t.ppf(1 - 0.025 / questions, freedom) + stats.t.ppf(0.8, freedom)
        return float(np.exp(self.error * seen))


_SAMPLES = 10_000


def paired_ratio(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Ratio:
    """a over b, both above 0, over the seeds that both have.

    The interval is a bootstrap over seeds of the mean log ratio, its percentiles widened for few
    seeds, see `resampled_ratio`.

    Raises:
        InputError: no seed in common, or a value that is not above 0.
    """
    common = sorted(set(a) & set(b))
    if not common:
        raise InputError(f"seeds: {sorted(a)} and {sorted(b)} have none in common")
    pairs = np.array([(a[seed], b[seed]) for seed in common], dtype=np.float64)
    if not (pairs > 0).all() or not np.isfinite(pairs).all():
        raise InputError("ratio: a value is not above 0 and finite; allowed are such values")
    logs = np.log(pairs[:, 0] / pairs[:, 1])
    n = len(logs)
    error = float(logs.std(ddof=1)) / np.sqrt(n) if n > 1 else np.inf
    return resampled_ratio(resampled(n) @ logs, n, error=error, level=level)


@lru_cache(maxsize=8)
def resampled(n: int) -> np.ndarray:
    """Weights of n seeds, (1 + samples, n): all alike, then drawn with replacement, always so."""
    drawn = np.random.default_rng(0).integers(n, size=(_SAMPLES, n))
    counts = np.zeros((_SAMPLES, n))
    np.add.at(counts, (np.arange(_SAMPLES)[:, None], drawn), 1.0)
    weights = np.vstack([np.ones((1, n)), counts]) / n
    weights.setflags(write=False)  # kept, and given to all
    return weights


def resampled_ratio(
    logs: np.ndarray, n: int, *, most: np.ndarray | None = None, error: float | None = None,
    level: float = 0.95,
) -> Ratio:  # fmt: skip
    """A ratio by its value on all n seeds and on resampled ones.

    Percentiles are widened for few seeds: at α' with Φ⁻¹(α'/2) = √(n/(n−1)) · t(α/2, n−1), without
    which the interval is too narrow. p is the larger of the t test's and of the level at which
    such an interval would just reach 1; where the latter decides, no error is told.

    Args:
        logs: of the ratio, (1 + samples,), the first of all seeds; −∞ for a ratio of 0.
        most: the same where `logs` are only what it is at least.
        error: standard error of the first; by default that of the finite samples, times √(n/(n−1)).

    Source: Hesterberg (2015), "What teachers should know about the bootstrap", section 3.3
    (expanded percentiles).
    """
    from scipy import stats

    most = logs if most is None else most
    mean = float(logs[0])
    point = float(np.exp(mean))
    if n == 1:
        return Ratio(Interval(point, 0.0, np.inf, 1), 1.0, np.inf)
    tail = 0.5 - level / 2
    widening = np.sqrt(n / (n - 1))
    wide = stats.norm.cdf(widening * stats.t.ppf(tail, n - 1))
    low = np.quantile(logs[1:], wide, method="inverted_cdf")
    high = np.quantile(most[1:], 1 - wide, method="inverted_cdf")
    finite = logs[1:][np.isfinite(logs[1:])]
    if error is None:
        error = float(finite.std()) * widening if len(finite) > 1 else np.inf
    if error > 1e-12 * max(abs(mean), 1e-300):
        p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    else:
        p = float(mean == 0)
    # Resamplings on the other side, or on none.
    beyond = float(np.mean(logs[1:] <= 0) if mean > 0 else np.mean(most[1:] >= 0))
    if beyond > 0:
        reach = 2 * float(stats.t.cdf(stats.norm.ppf(min(beyond, 0.5)) / widening, n - 1))
        if reach > p and len(finite) < len(logs) - 1:
            error = np.inf
        p = max(p, reach)
    return Ratio(Interval(point, float(np.exp(low)), float(np.exp(high)), n), p, float(error))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values for that many questions asked at once, in their order, none above 1.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [1.0] * len(p_values)
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the middle half.

    Source: Agarwal et al. (2021), "Deep RL at the edge of the statistical precipice", section 4.2.

    >>> interquartile_mean([0.0, 1.0, 2.0, 100.0])
    1.5
    """
    return float(_middle(_numbers("values", values)))


def _middle(values: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    from scipy import stats

    return stats.trim_mean(values, 0.25, axis=-1)


def stratified_bootstrap(
    strata: Sequence[Sequence[float]],
    statistic: Callable[[np.ndarray], np.ndarray] = _middle,
    *,
    rng: np.random.Generator,
    samples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic over all runs, resampled within each stratum (task).

    Args:
        statistic: (…, runs) → (…); by default the interquartile mean.

    Source: Agarwal et al. (2021), section 4.1.
    """
    groups = [_numbers("strata", s) for s in strata]
    if not groups:
        raise InputError("strata: none given; allowed is at least one")
    draws = statistic(
        np.array([np.concatenate([rng.choice(g, len(g)) for g in groups]) for _ in range(samples)])
    )
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
