"""Fits the parameters of `gpu_matmul` to timed products.

All families and kinds of a card are fitted at once. Each parameter is a typical value plus a
deviation of the card, plus one of the kind (dense, 2:4), plus one of the family of operands; all
deviations are held near zero, so that a few measurements move what they know about and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hwsim.clock_ticks import Ticks, find_ticks
from hwsim.gpu_matmul import (
    DENSE,
    FAMILIES,
    MEMBER,
    PARAMETERS,
    TILES,
    UNFITTED_SPREAD,
    Card,
    ProductFit,
    features,
    log_seconds,
    typical,
)

_PARAMETERS = len(PARAMETERS)
_PRIOR = 0.4  # weight of a deviation of one scale against a residual of one _NOISE
_NOISE = 0.04
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
_RIDGE = 2.0
_OTHER_FAMILY = 0.3  # weight of another family's residual in the correction
_CLIP = 0.2
_UNKNOWN = 0.1  # blur of products of which none was seen


@dataclass(frozen=True, eq=False)
class Timed:
    """Products of one kind and dtype: shapes (products, 3) as rows, outputs, inputs; ln seconds."""

    kind: str
    dtype: str
    shapes: np.ndarray
    log_s: np.ndarray

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, FAMILIES[self.dtype]

    def only(self, keep: set[tuple[int, int, int]]) -> Timed:
        chosen = np.array([tuple(s) in keep for s in self.shapes], bool)
        return replace(self, shapes=self.shapes[chosen], log_s=self.log_s[chosen])


def fit_products(
    timed: Iterable[Timed],
    card: Card,
    peaks: Mapping[str, float],
    *,
    members: int = 3,
    ticks: Ticks | None = None,
    rng: np.random.Generator,
) -> dict[tuple[str, str], ProductFit]:
    """(kind, family) → its fit; spreads are those of an unfitted card until `held_out` gives them.

    The first member starts from the typical values, the others from random ones near them. Times
    that a clock of visible `ticks` has rounded count less.
    """
    sets = [t for t in timed if len(t.log_s)]
    keys = sorted({t.key for t in sets})
    ticks = ticks or Ticks()
    found = [_fit_member(sets, keys, card, peaks, ticks, None)]
    found += [_fit_member(sets, keys, card, peaks, ticks, rng) for _ in range(members - 1)]
    fits = {
        key: ProductFit(np.stack([member[key] for member in found]), None, UNFITTED_SPREAD[key[0]])
        for key in keys
    }
    return {key: _corrected(key, fits, sets, card, peaks) for key in keys}


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
    timed: Iterable[Timed],
    card: Card,
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


def ticks_of(sets: Iterable[Timed]) -> Ticks:
    """The visible step of the clock that timed some products."""
    times = [np.exp(t.log_s) for t in sets]
    return find_ticks(np.concatenate(times)) if times else Ticks()


def _blur(fit: ProductFit, t: Timed, card: Card, peaks: Mapping[str, float]) -> float:
    """How well unseen small products are known, relative: half as much again as the seen ones.

    From the median residual, as for a normal distribution; of the faster half of the products.
    """
    if not len(t.log_s):
        return _UNKNOWN
    small = t.log_s <= np.median(t.log_s)
    left = np.abs(_residual(fit, t, card, peaks))[small]
    return 1.5 * 1.4826 * float(np.median(left))


def _priced(
    fit: ProductFit, t: Timed, card: Card, peaks: Mapping[str, float], ticks: Ticks, blur: float
) -> list[Unseen]:
    logs = fit.log_seconds(t.kind, t.shapes, card, peaks[t.dtype], t.dtype)
    shown = ticks.shown(np.exp(logs), blur)
    return [
        Unseen(t.kind, t.dtype, (int(s[0]), int(s[1]), int(s[2])), math.exp(log_s), float(e))
        for s, log_s, e in zip(t.shapes, t.log_s, shown, strict=True)
    ]


def _fit_member(
    sets: list[Timed],
    keys: list[tuple[str, str]],
    card: Card,
    peaks: Mapping[str, float],
    ticks: Ticks,
    rng: np.random.Generator | None,
) -> dict[tuple[str, str], np.ndarray]:
    """One robust least-squares fit of all keys at once: key → member vector."""
    from scipy.optimize import least_squares

    kinds = sorted({kind for kind, _ in keys})
    levels = 1 + len(kinds) + len(keys)
    weight = _PRIOR * np.concatenate([_CARD, *([_KIND] * len(kinds)), *([_FAMILY] * len(keys))])

    def places(i: int) -> tuple[int, int, int]:
        """Where key i's three deviations start."""
        return 0, MEMBER * (1 + kinds.index(keys[i][0])), MEMBER * (1 + len(kinds) + i)

    def deviation(x: np.ndarray, i: int) -> np.ndarray:
        return sum(x[p : p + MEMBER] for p in places(i))  # type: ignore[return-value]

    def residual(z: np.ndarray, i: int) -> np.ndarray:
        member = _member(keys[i][0], z)
        mine = [t for t in sets if t.key == keys[i]]
        parts = [
            (log_seconds(member, t.kind, t.shapes, card, peaks[t.dtype], t.dtype) - t.log_s)
            / np.hypot(_NOISE, ticks.noise(np.exp(t.log_s)))
            for t in mine
        ]
        dtype = mine[0].dtype
        smallest = log_seconds(member, mine[0].kind, _SMALLEST, card, peaks[dtype], dtype)
        return np.concatenate([*parts, (smallest - _LOG_FLOOR) / _FLOOR_NOISE])

    def all_residuals(x: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [residual(deviation(x, i), i) for i in range(len(keys))] + [weight * x]
        )

    def jacobian(x: np.ndarray) -> np.ndarray:
        blocks = []
        for i in range(len(keys)):
            z = deviation(x, i)
            at = residual(z, i)
            step = 1e-4
            slope = np.stack(
                [(residual(z + step * unit, i) - at) / step for unit in np.eye(MEMBER)], axis=1
            )
            block = np.zeros((len(at), MEMBER * levels))
            for place in places(i):
                block[:, place : place + MEMBER] += slope
            blocks.append(block)
        return np.concatenate([*blocks, np.diag(weight)])

    start = np.zeros(MEMBER * levels)
    if rng is not None:
        start = rng.normal(size=start.size) * np.where(np.arange(start.size) < MEMBER, 0.5, 0.3)
    # Robust (soft L1): a library's odd choice for one shape shall not bend all others.
    found = least_squares(
        all_residuals, start, jac=jacobian, loss="soft_l1", max_nfev=30, tr_solver="lsmr"
    )  # fmt: skip
    return {key: _member(key[0], deviation(found.x, i)) for i, key in enumerate(keys)}


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


def _corrected(
    key: tuple[str, str],
    fits: Mapping[tuple[str, str], ProductFit],
    sets: list[Timed],
    card: Card,
    peaks: Mapping[str, float],
) -> ProductFit:
    """The fit with a ridge regression of its residuals; other families of the kind count less."""
    basis, target = [], []
    for t in sets:
        if t.kind == key[0]:
            weight = 1.0 if t.key == key else _OTHER_FAMILY
            left = np.clip(_residual(fits[t.key], t, card, peaks), -_CLIP, _CLIP)
            basis.append(weight * features(t.shapes))
            target.append(weight * left)
    x, y = np.concatenate(basis), np.concatenate(target)
    coefficients = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ y)
    return replace(fits[key], correction=coefficients)


def _residual(fit: ProductFit, t: Timed, card: Card, peaks: Mapping[str, float]) -> np.ndarray:
    return t.log_s - fit.log_seconds(t.kind, t.shapes, card, peaks[t.dtype], t.dtype)


def spread_of(kind: str, errors: np.ndarray) -> tuple[float, float]:
    """10 % and 90 % quantiles of held-out errors; of few errors, drawn to the unfitted spread."""
    low, high = UNFITTED_SPREAD[kind]
    share = min(1.0, len(errors) / 20.0)
    found = np.quantile(errors, [0.1, 0.9]) if len(errors) else np.zeros(2)
    return (
        min(float(share * found[0] + (1.0 - share) * low), 0.0),
        max(float(share * found[1] + (1.0 - share) * high), 0.0),
    )


__all__ = ["DENSE", "Timed", "Unseen", "fit_products", "held_out", "spread_of", "ticks_of"]
