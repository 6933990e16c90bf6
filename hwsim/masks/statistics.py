"""How many weights of a line of a random mask are active: distributions, and their largest values.

A line is a row or a column. Its count over some crossing lines is a sum of independent cells;
neighbouring lines may have their cells in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_RARE = 1e-9
_STEPS = 1 << 13  # of a sum of scores


@dataclass(frozen=True)
class Cells:
    """What the lines of one direction are made of.

    Attributes:
        size: crossing lines of a cell; 0 for all of them, which are active together or not.
        share: neighbouring lines whose cells are the same.
        counts: probability of each number of active weights in a cell, from 0 on.
        fixed: whether every line has the same number in all, though cells differ.
        like: neighbouring lines whose cells have as many active weights, though in other places.
        edge: where cells take what is worth more than a threshold: how likely the first, second, …
            place of a cell is worth just that, relative to each other.
    """

    size: int
    share: int
    counts: tuple[float, ...]
    fixed: bool = False
    like: int = 1
    edge: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Active weights of a cell."""
        return float(np.dot(np.arange(len(self.counts)), self.counts))


def of_each(size: int, share: int, number: int, probability: float) -> Cells:
    """Cells that are empty, or have `number` active weights."""
    counts = np.zeros(number + 1)
    counts[0] += 1.0 - probability
    counts[number] += probability
    return Cells(size, share, tuple(counts.tolist()))


def always(size: int, share: int, number: int) -> Cells:
    """Cells that have the same number each."""
    return of_each(size, share, number, 1.0)


def shared_out(size: int, mean: float, of: int) -> Cells:
    """Cells of `of` neighbouring lines alike, which take the places worth most.

    A cell's n-th place is worth the sum of these lines' n-th best of `size` uniform scores; taken
    is what is worth more than some threshold, at which a cell has `mean` active weights. Lines are
    long: the threshold does not depend on one cell.

    >>> [round(chance, 3) for chance in shared_out(8, 0.8, 8).counts[:4]]
    [0.223, 0.753, 0.023, 0.0]
    """
    above = _worth_more(size, of)  # (n - 1, threshold)
    low, high = 0, above.shape[1] - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if above[:, middle].sum() > mean else (low, middle)
    more, less = above[:, low].sum(), above[:, high].sum()
    share = (mean - less) / (more - less) if more > less else 0.0
    at_least = np.concatenate(
        [[1.0], share * above[:, low] + (1.0 - share) * above[:, high], [0.0]]
    )
    counts = np.clip(-np.diff(at_least), 0.0, None)
    counts[counts < _RARE] = 0.0
    edge = np.clip(above[:, low] - above[:, high], 0.0, None)
    edge[edge < _RARE] = 0.0
    return Cells(
        size, 1, tuple((counts / counts.sum()).tolist()), fixed=True, like=of,
        edge=tuple(edge.tolist()),
    )  # fmt: skip


def add_up(each: np.ndarray, total: int, cells: Cells, rng: np.random.Generator) -> None:
    """Moves counts of cells that `shared_out` made until they add up, as their threshold would.

    A lower one lets those in whose next place it meets first, a higher one those out whose last.
    """
    chances, edge = np.array(cells.counts), np.array(cells.edge)
    while short := total - int(each.sum()):
        way = 1 if short > 0 else -1
        meets = np.append(edge, 0.0) if way > 0 else np.append(0.0, edge)
        rates = np.divide(meets, chances, out=np.zeros_like(meets), where=chances > 0.0)[each]
        free = np.flatnonzero((each + way >= 0) & (each + way <= cells.size))
        may = free[rates[free] > 0.0]
        if may.size < abs(short):  # further than any threshold would go: whatever there is
            each[rng.permutation(free)[: abs(short)]] += way
            continue
        weights = rates[may] / rates[may].sum()
        each[rng.choice(may, abs(short), replace=False, p=weights)] += way


@lru_cache(maxsize=64)
def within_n_m(size: int, n: int, m: int) -> tuple[float, ...]:
    """Chance that a cell, a whole number of groups of m, has at most n in each, by its count.

    >>> within_n_m(4, 2, 4)
    (1.0, 1.0, 1.0, 0.0, 0.0)
    """
    of_group = [math.comb(m, i) for i in range(min(n, m) + 1)]
    ways = [1]
    for _ in range(size // m):
        longer = [0] * (len(ways) + len(of_group) - 1)
        for i, some in enumerate(ways):
            for j, more in enumerate(of_group):
                longer[i + j] += some * more
        ways = longer
    ways += [0] * (size + 1 - len(ways))
    return tuple(some / math.comb(size, count) for count, some in enumerate(ways))


@lru_cache(maxsize=16)
def _worth_more(size: int, of: int) -> np.ndarray:
    """Chance that a cell's n-th place is worth more than a threshold, by n and threshold.

    The n-th best of `size` uniform scores is below x where fewer than n are above it.
    """
    steps = max(_STEPS // of, 64)
    ends = np.linspace(0.0, 1.0, steps + 1)
    most, found = steps * of, []
    below = np.zeros(steps + 1)
    for n in range(1, size + 1):
        chance = math.comb(size, n - 1)
        below = below + chance * ends ** (size - n + 1) * (1.0 - ends) ** (n - 1)
        law = np.fft.irfft(np.fft.rfft(np.diff(below), 2 * most) ** of)[:most]
        law = np.clip(law, 0.0, None)
        found.append(np.clip(law[::-1].cumsum()[::-1], 0.0, 1.0))
    return np.array(found)


def line_counts(cells: Cells, crossing: int, length: int) -> np.ndarray:
    """Distribution of a line's count over `crossing` of its `length` places, from 0 on."""
    if cells.size == 0:
        found = np.zeros(crossing + 1)
        found[0], found[-1] = cells.counts[0], 1.0 - cells.counts[0]
        return found
    mean = cells.mean * length / cells.size
    if cells.fixed and crossing >= length:
        found = np.zeros(round(mean) + 1)
        found[-1] = 1.0
        return found
    if cells.fixed and cells.size == 1:
        return _hypergeometric(length, round(mean), crossing)
    whole, rest = divmod(crossing, cells.size)
    found = sum_of(np.array(cells.counts), whole)
    if rest:
        part = np.zeros(rest + 1)
        for number, chance in enumerate(cells.counts):
            if chance:
                part += chance * _hypergeometric(cells.size, number, rest)
        found = np.convolve(found, part)
    return found


def sum_of(counts: np.ndarray, many: int) -> np.ndarray:
    """Distribution of the sum of `many` independent counts."""
    if many == 0:
        return np.ones(1)
    size = (len(counts) - 1) * many + 1
    if np.count_nonzero(counts) == 1:
        found = np.zeros(size)
        found[int(np.argmax(counts)) * many] = 1.0
        return found
    turned = np.fft.rfft(counts, 1 << max(size - 1, 1).bit_length())
    found = np.clip(np.fft.irfft(turned**many)[:size], 0.0, None)
    return found / found.sum()


def largest(counts: np.ndarray, many: float) -> tuple[float, float]:
    """Mean and standard deviation of the largest of `many` independent counts.

    >>> largest(np.array([0.5, 0.5]), 2)[0]
    0.75
    """
    below = np.minimum(np.cumsum(counts), 1.0) ** many
    chance = np.diff(below, prepend=0.0)
    values = np.arange(len(counts))
    mean = float(values @ chance)
    return mean, math.sqrt(max(float(values**2 @ chance) - mean**2, 0.0))


def quantiles(counts: np.ndarray, many: int) -> np.ndarray:
    """`many` counts that are spread as the distribution is, ascending, int64."""
    places = (np.arange(many) + 0.5) / many
    return np.searchsorted(np.minimum(np.cumsum(counts), 1.0), places).astype(np.int64)


def sums_kept(
    lines: int, group: int, length: int, each: int, rng: np.random.Generator, uneven: float = 1.0
) -> np.ndarray:
    """Counts of lines of which each place along them has `each` active in every `group`, int64.

    Of a group any one is spread as a binomial law of `length` places is, and all of them add up to
    length · each. With one of each group that is a multinomial law; otherwise binomial counts, less
    what their sum is off, rounded so that it stays.

    Args:
        uneven: share of the variance that is there, where lines were chosen that are alike.
    """
    groups = -(-lines // group)
    if each == 1:
        drawn = rng.multinomial(length, np.full(group, 1.0 / group), groups)
        return drawn.astype(np.int64).reshape(-1)[:lines]
    share = each / group
    found = rng.binomial(length, share, (groups, group)) - length * share
    varies = uneven * length * share * (1.0 - share)
    # Rounding the ends of a count puts in a twelfth each, but for a group's first and last.
    rounding = min((1.0 - 1.0 / group) / 6.0, varies)
    kept = (varies - rounding) / max(length * share * (1.0 - share), _RARE)
    found *= math.sqrt(kept * group / max(group - 1, 1))  # what is taken off again with their mean
    found += length * share - found.mean(axis=1, keepdims=True)
    # Ends of a running sum, rounded, are whole numbers whose differences add up as before.
    ends = np.rint(np.cumsum(found, axis=1))
    ends[:, -1] = length * each
    counts = np.clip(np.diff(ends, axis=1, prepend=0.0), 0, length).astype(np.int64)
    for i in np.flatnonzero(counts.sum(axis=1) != length * each):
        _fill_up(counts[i], length * each, length)
    return counts.reshape(-1)[:lines]


def _fill_up(counts: np.ndarray, total: int, most: int) -> None:
    """Moves counts by one until they add up, those first that have most room."""
    while short := total - int(counts.sum()):
        way = 1 if short > 0 else -1
        order = np.argsort(way * counts, kind="stable")[: abs(short)]
        counts[order] = np.clip(counts[order] + way, 0, most)


def strata(number: int, of: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Places in (0, 1) for one of `of` samples; those of all samples together are spread evenly.

    Along the last axis; the other axes are dealt each on its own.
    """
    many = shape[-1]
    mine = _dealt(of, shape, seed)[..., number * many : (number + 1) * many]
    return (mine + 0.5) / (of * many)


@lru_cache(maxsize=256)
def _dealt(of: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Ranks of all samples, one behind the other along the last axis, int32."""
    many, rng = of * shape[-1], np.random.default_rng((of, seed, *shape))
    found = np.empty((math.prod(shape[:-1]), many), np.int32)
    for row in found:
        row[:] = rng.permutation(many)
    found = found.reshape(*shape[:-1], many)
    found.setflags(write=False)
    return found


def _hypergeometric(places: int, active: int, drawn: int) -> np.ndarray:
    """Active ones among `drawn` of `places`, of which `active` are."""
    found = np.zeros(drawn + 1)
    for i in range(max(0, drawn + active - places), min(drawn, active) + 1):
        found[i] = math.exp(
            _ln_choose(active, i) + _ln_choose(places - active, drawn - i)
            - _ln_choose(places, drawn)
        )  # fmt: skip
    return found / found.sum()


def _ln_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
