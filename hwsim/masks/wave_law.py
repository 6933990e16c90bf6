"""How much a wave of random lines has to do, and the most that one of its columns has.

A wave's load lies on groups of columns whose loads are alike and independent of each other, but for
their sum. Given the sum, the largest has an exact law: the chance that all are at most m and add up
to t is the t-th coefficient of the truncated law to the power of the number of groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.masks.statistics import sum_of

_EXACT = 1 << 14  # sums up to which laws are worked out in full
_LIKELY, _ROUNDING = 1e-9, 1e-13


@dataclass(frozen=True)
class WaveLaw:
    """Of a wave.

    Attributes:
        load: probability of each load of a group, in steps of `same`.
        groups: whose loads are independent; each stands for `columns` / `groups` columns.
        rows: lines of the wave.
        mean: active weights of the wave, expected.
        fixed: whether every wave has as many.
    """

    load: np.ndarray
    groups: int
    same: int
    columns: int
    rows: int
    mean: float
    fixed: bool

    @cached_property
    def _step(self) -> int:
        return int(np.gcd.reduce(np.flatnonzero(self.load > 0))) or 1

    @cached_property
    def _steps(self) -> np.ndarray:
        """The law of a group's load in steps, as far as it is likely at all."""
        law = self.load[:: self._step]
        far = np.flatnonzero(np.cumsum(law[::-1])[::-1] > _LIKELY)
        return law[: int(far[-1]) + 1] if len(far) else law[:1]

    @cached_property
    def _sums(self) -> np.ndarray | None:
        """The law of all groups' sum in steps; None where it is too long to be told apart."""
        if (len(self._steps) - 1) * self.groups > _EXACT:
            return None
        return sum_of(self._steps, self.groups)

    @property
    def _unit(self) -> float:
        """Active weights of a step of the sum."""
        return self._step * self.same * self.columns / self.groups

    def totals(self, places: np.ndarray, waves: int) -> np.ndarray:
        """Active weights of some waves of as many, at places in (0, 1) of their law.

        All waves together have what the mask has: what one has more, others have less.
        """
        if self.fixed or self._sums is None or waves == 1:
            return np.full(len(places), self.mean)
        if len(places) == waves and (len(self._sums) - 1) * waves <= _EXACT:
            return self._in_turn(places) * self._unit
        law = self._given_whole(waves)
        found = np.searchsorted(np.minimum(np.cumsum(law), 1.0), places).astype(np.int64)
        if len(found) == waves:
            _settle(found, round(self.mean * waves / self._unit), len(law) - 1)
        return found * self._unit

    def _in_turn(self, places: np.ndarray) -> np.ndarray:
        """Sums of waves one after the other, each by its law given what is left for the rest."""
        assert self._sums is not None
        found = np.zeros(len(places), np.int64)
        left = round(self.mean * len(places) / self._unit)
        for i, place in enumerate(places):
            others = self._rest(len(places) - 1 - i)
            steps = left - np.arange(len(self._sums))
            inside = (steps >= 0) & (steps < len(others))
            law = np.where(inside, self._sums * others[np.clip(steps, 0, len(others) - 1)], 0.0)
            below = np.cumsum(law)
            if below[-1] > 0.0:
                found[i] = min(np.searchsorted(below, place * below[-1]), len(law) - 1)
            left -= int(found[i])
        return found

    def _rest(self, waves: int) -> np.ndarray:
        """The law of the sum of so many waves."""
        if waves not in self._rests:
            self._rests[waves] = sum_of(self._steps, self.groups * waves)
        return self._rests[waves]

    @cached_property
    def _rests(self) -> dict[int, np.ndarray]:
        return {}

    def _given_whole(self, waves: int) -> np.ndarray:
        """The law of a wave's sum, given that of all waves."""
        assert self._sums is not None
        steps, whole = np.arange(len(self._sums)), self.mean * waves / self._unit
        mean = float(steps @ self._sums)
        spread = float(steps**2 @ self._sums) - mean**2
        if not spread:
            return self._sums
        # The others' sum is that of many: near a normal law's.
        others = np.exp(-((whole - steps - mean * (waves - 1)) ** 2) / (2 * spread * (waves - 1)))
        law = self._sums * others
        return law / law.sum() if law.sum() > 0 else self._sums

    def slowest(self, totals: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Of the fullest column of waves that have so many active weights, at places in (0, 1)."""
        if self.groups == 1:
            return totals / self.columns
        below = self._below
        sums = np.rint(totals / self._unit).astype(np.int64)
        found = np.empty(len(totals))
        for i, place in enumerate(places):
            law = below if below.ndim == 1 else below[:, min(sums[i], below.shape[1] - 1)]
            if law[-1] <= 0:
                found[i] = totals[i] / self.columns
                continue
            at = min(int(np.searchsorted(law, place * law[-1])), len(law) - 1)
            found[i] = _within(law, at, place * law[-1]) if below.ndim == 1 else at
            found[i] *= self._step * self.same
        return np.maximum(found, totals / self.columns)

    @cached_property
    def _below(self) -> np.ndarray:
        """Chance that no group has more than m: by m; or with sum t, by m and t."""
        law = self._steps
        if self._sums is None:
            return np.minimum(np.cumsum(law), 1.0) ** self.groups
        size = len(self._sums)
        turned = np.array([
            np.fft.rfft(np.where(np.arange(len(law)) <= m, law, 0.0), _length(size))
            for m in range(len(law))
        ])  # fmt: skip
        found = np.fft.irfft(turned**self.groups, axis=1)[:, :size]
        return np.maximum.accumulate(np.where(found > _ROUNDING, found, 0.0), axis=0)


@dataclass(frozen=True)
class LineLaw:
    """Of the lines of a wave: how many have any active weight.

    Attributes:
        counts: probability of each number of active weights of a line.
        groups: of lines whose counts are independent.
        share: lines of a group, which are alike.
    """

    counts: np.ndarray
    groups: int
    share: int

    @cached_property
    def _step(self) -> int:
        return int(np.gcd.reduce(np.flatnonzero(self.counts > 0))) or 1

    @cached_property
    def _below(self) -> np.ndarray | None:
        """Chance of at most j groups with any, by j and the sum of all, each sum's up to 1."""
        law = self.counts[:: self._step]
        far = np.flatnonzero(np.cumsum(law[::-1])[::-1] > _LIKELY)
        law = law[: int(far[-1]) + 1] if len(far) else law[:1]
        size = (len(law) - 1) * self.groups + 1
        if size > _EXACT or law[0] < _LIKELY:
            return None
        some = np.fft.rfft(np.where(np.arange(len(law)) > 0, law, 0.0), _length(size))
        found = np.empty((self.groups + 1, size))
        for j in range(self.groups + 1):
            ways = math.comb(self.groups, j) * law[0] ** (self.groups - j)
            found[j] = np.fft.irfft(some**j, _length(size))[:size] * ways
        found = np.cumsum(np.where(found > _ROUNDING, found, 0.0), axis=0)
        return found / np.maximum(found[-1], _ROUNDING)

    @property
    def exact(self) -> bool:
        """Whether the law is worked out for each sum; otherwise only its mean is known."""
        return self._below is not None

    def used(self, totals: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Lines with any, of waves that have so many active weights, at places of their law."""
        below = self._below
        if below is None:
            chance = 1.0 - float(self.counts[0])
            return np.full(len(totals), self.groups * self.share * chance)
        sums = np.rint(totals / (self._step * self.share)).astype(np.int64)
        sums = np.clip(sums, 0, below.shape[1] - 1)
        found = [int(np.searchsorted(below[:, t], p)) for t, p in zip(sums, places, strict=True)]
        return np.minimum(found, self.groups) * float(self.share)


def _length(size: int) -> int:
    return 1 << max(size, 2).bit_length()


def _within(law: np.ndarray, at: int, place: float) -> float:
    """Where between two loads a place lies: loads of many small steps are nearly continuous."""
    before = law[at - 1] if at else 0.0
    share = (place - before) / (law[at] - before) if law[at] > before else 0.5
    return at - 0.5 + min(max(share, 0.0), 1.0)


def _settle(found: np.ndarray, whole: int, most: int) -> None:
    """Moves counts by one until they add up, those that are furthest off first."""
    for _ in range(16):
        short = whole - int(found.sum())
        if not short:
            return
        order = np.argsort(found if short > 0 else -found, kind="stable")
        some = order[: min(abs(short), len(found))]
        found[some] = np.clip(found[some] + int(math.copysign(1, short)), 0, most)
