"""Density over training, and the drop fraction and calendar of mask updates.

A schedule is a callable progress → density, progress from 0 (start) to 1 (the last mask update).
At progress 1 it returns its end to the bit: what was asked for is what the run ends with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwsim.errors import InputError
from hwsim.registry import unknown
from sparse_train.distributions import check_density

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """start → end along a curve, while progress goes from `begin` to `finish`; flat outside.

    `shape` is one of SHAPES: at p = (progress − begin) / (finish − begin) the density is

    - polynomial: end + (start − end) · (1 − p)^power
    - cosine: end + (start − end) · (1 + cos πp) / 2
    - exponential: start · (end / start)^p
    """

    shape: str
    start: float
    end: float
    power: float = 1.0
    begin: float = 0.0
    finish: float = 1.0

    def __post_init__(self) -> None:
        check_density("start", self.start)
        check_density("end", self.end)
        if not 0 <= self.begin < self.finish <= 1:
            raise InputError(
                f"begin, finish: values are {self.begin}, {self.finish}; "
                "allowed is 0 ≤ begin < finish ≤ 1"
            )
        if self.shape == "exponential" and not (self.start > 0 and self.end > 0):
            raise InputError(
                f"start, end: values are {self.start}, {self.end}; allowed is above 0 "
                "for an exponential schedule"
            )

    def __call__(self, progress: float) -> float:
        if math.isnan(progress):
            raise InputError("progress: value is nan; allowed is a number")
        if progress <= self.begin:
            return self.start
        if progress >= self.finish:
            return self.end
        p = (progress - self.begin) / (self.finish - self.begin)
        if self.shape == "cosine":
            left = (1 + math.cos(math.pi * p)) / 2
        elif self.shape == "exponential":
            return self.start * (self.end / self.start) ** p
        else:
            left = (1 - p) ** self.power
        return self.end + (self.start - self.end) * left


def constant(density: float) -> Curve:
    """The same density from start to end.

    >>> constant(0.1)(0.5)
    0.1
    """
    return Curve("polynomial", density, density)


def linear(start: float, end: float, **span: float) -> Curve:
    """
    >>> linear(1.0, 0.5)(0.5)
    0.75
    """
    return Curve("polynomial", start, end, 1.0, **span)


def quadratic(start: float, end: float, **span: float) -> Curve:
    """
    >>> quadratic(1.0, 0.0)(0.5)
    0.25
    """
    return Curve("polynomial", start, end, 2.0, **span)


def cubic(start: float, end: float, **span: float) -> Curve:
    """Gradual magnitude pruning's: fast at first, slow at the end.

    Source: Zhu & Gupta 2017, equation 1 (there for sparsities).

    >>> cubic(1.0, 0.0)(0.5)
    0.125
    """
    return Curve("polynomial", start, end, 3.0, **span)


def cosine(start: float, end: float, **span: float) -> Curve:
    """Slow at both ends.

    >>> round(cosine(1.0, 0.0)(0.5), 9)
    0.5
    """
    return Curve("cosine", start, end, **span)


def exponential(start: float, end: float, **span: float) -> Curve:
    """The same share of what is left goes at each step.

    >>> round(exponential(1.0, 0.01)(0.5), 9)
    0.1
    """
    return Curve("exponential", start, end, **span)


@dataclass(frozen=True)
class Piecewise:
    """Through given points: straight lines between them, or steps that hold the last value."""

    points: tuple[tuple[float, float], ...]
    steps: bool = False

    def __call__(self, progress: float) -> float:
        before = self.points[0]
        for point in self.points:
            if progress < point[0]:
                if self.steps or point[0] == before[0]:
                    return before[1]
                share = (progress - before[0]) / (point[0] - before[0])
                return before[1] + (point[1] - before[1]) * max(share, 0.0)
            before = point
        return before[1]


def piecewise(points: Sequence[tuple[float, float]], *, steps: bool = False) -> Piecewise:
    """Densities at given progress, joined by lines (or held, with `steps`).

    Raises:
        InputError: no points, progress that falls, or a density outside 0 to 1.

    >>> piecewise([(0.0, 1.0), (0.5, 0.2), (1.0, 0.1)])(0.25)
    0.6
    """
    if not points:
        raise InputError("points: none is given; allowed is at least one (progress, density)")
    last = 0.0
    for progress, density in points:
        if not last <= progress <= 1:
            raise InputError(
                f"points: progress {progress!r} after {last!r}; allowed is rising, from 0 to 1"
            )
        last = progress
        check_density("points", density)
    return Piecewise(tuple((float(p), float(d)) for p, d in points), steps)


NAMED: dict[str, Callable[..., Curve]] = {
    "linear": linear,
    "quadratic": quadratic,
    "cubic": cubic,
    "cosine": cosine,
    "exponential": exponential,
}


def schedule(given: str | Schedule, start: float, end: float) -> Schedule:
    """A schedule by name, from density `start` to `end`, or the user's own callable.

    Raises:
        InputError: a name that is not known.
    """
    if not isinstance(given, str):
        if not callable(given):
            raise InputError(
                f"schedule: value is {given!r}; allowed is a name or a function progress → density"
            )
        return given
    if given == "constant":
        return constant(end)
    if given not in NAMED:
        raise InputError(unknown("schedule", given, sorted([*NAMED, "constant"])))
    return NAMED[given](start, end)


def drop_fraction(
    alpha: float,
    step: int,
    end_step: int | None,
    *,
    shape: str = "cosine",
    floor: float = 0.0,
    power: float = 1.0,
) -> float:
    """Share of the active weights that an update drops and grows again.

    - cosine: floor + (alpha − floor)/2 · (1 + cos(π · step / end_step))
    - linear: floor + (alpha − floor) · (1 − step / end_step)^power
    - constant: alpha

    Without an `end_step` it stays at alpha; from `end_step` on it is `floor`.

    Source: Evci et al. 2020, section 3 (cosine); Dettmers & Zettlemoyer 2019 (linear).

    >>> round(drop_fraction(0.3, 100, 300), 9)
    0.225
    """
    if shape not in ("cosine", "linear", "constant"):
        raise InputError(unknown("drop schedule", shape, ("cosine", "linear", "constant")))
    if shape == "constant" or end_step is None:
        return alpha
    share = min(step / end_step, 1.0)
    if shape == "linear":
        return floor + (alpha - floor) * (1 - share) ** power
    return floor + (alpha - floor) / 2 * (1 + math.cos(math.pi * share))


def is_update_step(step: int, interval: int, end_step: int | None) -> bool:
    """Whether masks are updated in step number `step`, counted from 1.

    >>> [t for t in range(401) if is_update_step(t, 100, 300)]
    [100, 200]
    """
    return step > 0 and step % interval == 0 and (end_step is None or step < end_step)


def last_update_step(interval: int, end_step: int) -> int:
    """The last step in which masks are updated, 0 if there is none."""
    return (end_step - 1) // interval * interval
