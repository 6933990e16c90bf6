"""Fits the parameters of `gpu_matmul` to timed products.

All families and kinds of a card are fitted at once. Each parameter is a typical value plus a
deviation of the card, plus one of the kind (dense, 2:4), plus one of the family of operands; all
deviations are held near zero, so that a few measurements move what they know about and no more.
What products miss goes together as `gpu_misses` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hwsim.gpu.clock_ticks import Ticks, find_ticks
from hwsim.gpu.matmul import (
    DENSE,
    FAMILIES,
    MEMBER,
    PARAMETERS,
    TILES,
    UNFITTED_SPREAD,
    ProductCard,
    ProductFit,
    log_seconds,
    typical,
)
from hwsim.gpu.misses import Key, Misses

_PARAMETERS = len(PARAMETERS)
_PRIOR = 0.4  # weight of a deviation of one scale against a miss of one standard deviation
_TILE_SCALE = 0.1
_SCALE = np.concatenate([[p.scale for p in PARAMETERS], np.full(len(TILES), _TILE_SCALE)])
_CARD = np.concatenate([np.ones(_PARAMETERS), np.full(len(TILES), 3.0)])
_KIND = np.concatenate([[p.kind_stiffness for p in PARAMETERS], np.ones(len(TILES))])
_FAMILY = np.concatenate([[p.dtype_stiffness for p in PARAMETERS], np.full(len(TILES), 1.5)])
# Published: a product of no size to speak of takes 4 to 6 µs. Few records reach down there, and
# without this a fit to the others may go on falling.
_SMALLEST = np.full((1, 3), 64.0)
_LOG_FLOOR = math.log(5e-6)
_FLOOR_NOISE = 0.15
_UNKNOWN = 0.1  # blur of products of which none was seen
_MANY = 15  # held-out errors that give an interval by themselves


@dataclass(frozen=True, eq=False)
class TimedProducts:
    """Products of one kind and dtype: shapes (products, 3) as rows, outputs, inputs; ln seconds."""

    kind: str
    dtype: str
    shapes: np.ndarray
    log_s: np.ndarray

    @property
    def key(self) -> Key:
        """(kind of product, family of operand types)."""
        return self.kind, FAMILIES[self.dtype]

    def only(self, keep: set[tuple[int, int, int]]) -> TimedProducts:
        """The records of some shapes (m, n, k)."""
        chosen = np.array([tuple(s) in keep for s in self.shapes], bool)
        return replace(self, shapes=self.shapes[chosen], log_s=self.log_s[chosen])


def fit_products(
    timed: Iterable[TimedProducts],
    card: ProductCard,
    peaks: Mapping[str, float],
    *,
    members: int = 3,
    ticks: Ticks | None = None,
    rng: np.random.Generator,
) -> dict[Key, ProductFit]:
    """(kind, family) → its fit; spreads are those of an unfitted card until `held_out` gives them.

    The first member starts from the typical values, the others from random ones near them. Times
    that a clock of visible `ticks` has rounded count less.
    """
    sets = sorted((t for t in timed if len(t.log_s)), key=lambda t: t.key)
    ticks = ticks or Ticks()
    misses = Misses(
        [t.key for t in sets for _ in t.log_s],
        np.concatenate([t.shapes for t in sets]),
        np.concatenate([ticks.noise(np.exp(t.log_s)) for t in sets]),
    )
    problem = _Problem(sets, card, peaks, misses)
    found = [_fit_member(problem, None)]
    found += [_fit_member(problem, rng) for _ in range(members - 1)]
    fits = {
        key: ProductFit(np.stack([member[key] for member in found]), None, UNFITTED_SPREAD[key[0]])
        for key in problem.keys
    }
    left = [_residual(fits[t.key], t, card, peaks) for t in sets]
    corrections = misses.corrections(np.concatenate(left))
    return {key: replace(fit, correction=corrections[key]) for key, fit in fits.items()}


class Unseen(NamedTuple):
    """A product priced by a fit that has not seen its shape in any dtype or kind.

    Attributes:
        kind, dtype, shape: of the product; shape is rows, outputs, inputs.
        measured_s, estimated_s: the estimate is what the clock of the records would show.
    """

    kind: str
    dtype: str
    shape: tuple[int, int, int]
    measured_s: float
    estimated_s: float

    @property
    def log_error(self) -> float:
        """ln(measured / estimated)."""
        return math.log(self.measured_s / self.estimated_s)


def held_out(
    timed: Iterable[TimedProducts],
    card: ProductCard,
    peaks: Mapping[str, float],
    *,
    folds: int = 2,
    members: int = 3,
    rng: np.random.Generator,
) -> list[Unseen]:
    """Every product, priced by a fit to the other half of the shapes.

    Shapes are cut in two at random; each part is priced by a fit to the other. A shape is on one
    side in every dtype and kind. With one fold only the second part is priced.
    """
    sets = [t for t in timed if len(t.log_s)]
    shapes = sorted({tuple(s) for t in sets for s in t.shapes})
    order = rng.permutation(len(shapes))
    first = {shapes[i] for i in order[: len(shapes) // 2]}
    found = []
    for train in (first, set(shapes) - first)[:folds]:
        seen = [t.only(train) for t in sets]
        ticks = ticks_of(seen)
        fits = fit_products(seen, card, peaks, members=members, ticks=ticks, rng=rng)
        for t in sets:
            unseen = t.only(set(shapes) - train)
            if t.key in fits and len(unseen.log_s):
                blur = _blur(fits[t.key], t.only(train), card, peaks)
                found += _priced(fits[t.key], unseen, card, peaks, ticks, blur)
    return found


def ticks_of(sets: Iterable[TimedProducts]) -> Ticks:
    """The visible step of the clock that timed some products."""
    times = [np.exp(t.log_s) for t in sets]
    return find_ticks(np.concatenate(times)) if times else Ticks()


def _blur(
    fit: ProductFit, t: TimedProducts, card: ProductCard, peaks: Mapping[str, float]
) -> float:
    """How well unseen small products are known, relative: half as much again as the seen ones.

    From the median residual, as for a normal distribution; of the faster half of the products.
    """
    if not len(t.log_s):
        return _UNKNOWN
    small = t.log_s <= np.median(t.log_s)
    left = np.abs(_residual(fit, t, card, peaks))[small]
    return 1.5 * 1.4826 * float(np.median(left))


def _priced(
    fit: ProductFit,
    t: TimedProducts,
    card: ProductCard,
    peaks: Mapping[str, float],
    ticks: Ticks,
    blur: float,
) -> list[Unseen]:
    logs = fit.log_seconds(t.kind, t.shapes, card, peaks[t.dtype], t.dtype)
    shown = ticks.shown(np.exp(logs), blur)
    return [
        Unseen(t.kind, t.dtype, (int(s[0]), int(s[1]), int(s[2])), math.exp(log_s), float(e))
        for s, log_s, e in zip(t.shapes, t.log_s, shown, strict=True)
    ]


class _Problem:
    """The least squares of one fit: products in order of their keys, parameters as deviations.

    A key's parameters are the sum of three deviations: of the card, of its kind, of itself.
    """

    def __init__(
        self,
        sets: list[TimedProducts],
        card: ProductCard,
        peaks: Mapping[str, float],
        misses: Misses,
    ) -> None:
        self.keys = list(dict.fromkeys(t.key for t in sets))
        self._sets, self._card, self._peaks, self._misses = sets, card, peaks, misses
        self._kinds = sorted({kind for kind, _ in self.keys})
        kinds, keys = len(self._kinds), len(self.keys)
        self.size = MEMBER * (1 + kinds + keys)
        self._weight = _PRIOR * np.concatenate([_CARD, *([_KIND] * kinds), *([_FAMILY] * keys)])

    def member(self, x: np.ndarray, i: int) -> np.ndarray:
        """Parameters of key i."""
        return _member(self.keys[i][0], self._deviation(x, i))

    def residuals(self, x: np.ndarray) -> np.ndarray:
        found = [self._missed(self._deviation(x, i), i) for i in range(len(self.keys))]
        return self._weighed([m for m, _ in found], [f for _, f in found], self._weight * x)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        step = 1e-4
        missed, floors = [], []
        for i in range(len(self.keys)):
            z = self._deviation(x, i)
            at = self._missed(z, i)
            moved = [self._missed(z + step * unit, i) for unit in np.eye(MEMBER)]
            for into, part in ((missed, 0), (floors, 1)):
                slope = np.stack([(m[part] - at[part]) / step for m in moved], axis=1)
                block = np.zeros((len(slope), self.size))
                for place in self._places(i):
                    block[:, place : place + MEMBER] = slope
                into.append(block)
        return self._weighed(missed, floors, np.diag(self._weight))

    def _weighed(
        self, missed: list[np.ndarray], floors: list[np.ndarray], prior: np.ndarray
    ) -> np.ndarray:
        whitened = self._misses.whitened(np.concatenate(missed))
        return np.concatenate([whitened, np.concatenate(floors) / _FLOOR_NOISE, prior])

    def _missed(self, z: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Log times over the measured ones of key i, and of its smallest product over the floor."""
        kind, _ = key = self.keys[i]
        member = _member(kind, z)
        mine = [t for t in self._sets if t.key == key]
        parts = [self._log_seconds(member, kind, t.dtype, t.shapes) - t.log_s for t in mine]
        smallest = self._log_seconds(member, kind, mine[0].dtype, _SMALLEST) - _LOG_FLOOR
        return np.concatenate(parts), smallest

    def _log_seconds(
        self, member: np.ndarray, kind: str, dtype: str, shapes: np.ndarray
    ) -> np.ndarray:
        return log_seconds(member, kind, shapes, self._card, self._peaks[dtype], dtype)

    def _deviation(self, x: np.ndarray, i: int) -> np.ndarray:
        return np.sum([x[p : p + MEMBER] for p in self._places(i)], axis=0)

    def _places(self, i: int) -> tuple[int, int, int]:
        """Where key i's three deviations start."""
        kind = self._kinds.index(self.keys[i][0])
        return 0, MEMBER * (1 + kind), MEMBER * (1 + len(self._kinds) + i)


def _fit_member(problem: _Problem, rng: np.random.Generator | None) -> dict[Key, np.ndarray]:
    """One robust least-squares fit of all keys at once: key → member vector."""
    from scipy.optimize import least_squares

    start = np.zeros(problem.size)
    if rng is not None:
        start = rng.normal(size=start.size) * np.where(np.arange(start.size) < MEMBER, 0.5, 0.3)
    # Robust (soft L1): a library's odd choice for one shape shall not bend all others.
    found = least_squares(
        problem.residuals, start, jac=problem.jacobian, loss="soft_l1", max_nfev=30,
        tr_solver="lsmr",
    )  # fmt: skip
    return {key: problem.member(found.x, i) for i, key in enumerate(problem.keys)}


def _member(kind: str, z: np.ndarray) -> np.ndarray:
    """Deviations in scales → parameters in their units."""
    member = typical(kind).members[0].copy()
    moved = _SCALE * z
    member[:_PARAMETERS] *= np.exp(moved[:_PARAMETERS])
    at = [p.name for p in PARAMETERS].index("quantised")
    # The last parameter is a share: its odds are what moves.
    share = typical(kind).members[0][at]
    odds = share / (1.0 - share) * np.exp(moved[at])
    member[at] = odds / (1.0 + odds)
    member[_PARAMETERS:] += moved[_PARAMETERS:]
    return member


def _residual(
    fit: ProductFit, t: TimedProducts, card: ProductCard, peaks: Mapping[str, float]
) -> np.ndarray:
    return t.log_s - fit.log_seconds(t.kind, t.shapes, card, peaks[t.dtype], t.dtype)


def spread_of(kind: str, errors: np.ndarray) -> tuple[float, float]:
    """10 % and 90 % quantiles of held-out errors; of few errors, drawn to the unfitted spread."""
    low, high = UNFITTED_SPREAD[kind]
    share = min(1.0, len(errors) / _MANY)
    found = np.quantile(errors, [0.1, 0.9]) if len(errors) else np.zeros(2)
    return (
        min(float(share * found[0] + (1.0 - share) * low), 0.0),
        max(float(share * found[1] + (1.0 - share) * high), 0.0),
    )


__all__ = ["DENSE", "TimedProducts", "Unseen", "fit_products", "held_out", "spread_of", "ticks_of"]
