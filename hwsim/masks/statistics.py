"""How many weights of a line of a random mask are active: distributions, and their largest values.

A line is a row or a column. Its count over some crossing lines is a sum of independent cells;
neighbouring lines may have their cells in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Cells:
    """What the lines of one direction are made of.

    Attributes:
        size: crossing lines of a cell; 0 for all of them, which are active together or not.
        share: neighbouring lines whose cells are the same.
        counts: probability of each number of active weights in a cell, from 0 on.
        fixed: whether every line has the same number in all, though cells differ.
    """

    size: int
    share: int
    counts: tuple[float, ...]
    fixed: bool = False

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


def line_counts(cells: Cells, crossing: int, length: int) -> np.ndarray:
    """Distribution of a line's count over `crossing` of its `length` places, from 0 on."""
    if cells.size == 0:
        found = np.zeros(crossing + 1)
        found[0], found[-1] = cells.counts[0], 1.0 - cells.counts[0]
        return found
    mean = cells.mean * length / cells.size
    if cells.fixed:
        step = len(cells.counts) - 1 if cells.size > 1 else 1
        drawn = _hypergeometric(length // step, round(mean / step), crossing // step)
        found = np.zeros((len(drawn) - 1) * step + 1)
        found[::step] = drawn
        return found
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


def strata(number: int, of: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Places in (0, 1) for one of `of` samples; those of all samples together are spread evenly.

    Along the last axis; the other axes are dealt each on its own.
    """
    many = shape[-1]
    return _dealt(of, shape, seed)[..., number * many : (number + 1) * many]


@lru_cache(maxsize=256)
def _dealt(of: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Places of all samples, one behind the other along the last axis."""
    many, rng = of * shape[-1], np.random.default_rng((of, seed, *shape))
    rows = [rng.permutation(many) for _ in range(math.prod(shape[:-1]))]
    found = (np.array(rows, dtype=float).reshape(*shape[:-1], many) + 0.5) / many
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
