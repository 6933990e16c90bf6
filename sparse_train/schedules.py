"""Density over training, and the drop fraction and calendar of mask updates.

A schedule is a callable progress → density, progress from 0 (start) to 1 (the last mask update).
At progress 1 it returns its end to the bit: what was asked for is what the run ends with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hwsim.checks import check_density
from hwsim.errors import InputError, unknown
from hwsim.registry import NameTable

Schedule = Callable[[float], float]
DROP_SCHEDULES = ("cosine", "linear", "constant")

# Share of the way from start to end that is still ahead at p in [0, 1]: numbers or tensors.
SHAPES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda p: 1 - p,
    "quadratic": lambda p: (1 - p) ** 2,
    "cubic": lambda p: (1 - p) ** 3,
    "cosine": lambda p: 0.5 * (1 + (math.cos if isinstance(p, float) else torch.cos)(math.pi * p)),
}


@dataclass(frozen=True)
class Curve:
    """start → end along a curve, while progress goes from `begin` to `finish`; flat outside.

    With p = (progress − begin) / (finish − begin) the density is end + (start − end) · SHAPES(p),
    and for the shape "exponential" start · (end / start)^p.
    """

    shape: str
    start: float
    end: float
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
        if self.shape == "exponential":
            return self.start * (self.end / self.start) ** p
        return self.end + (self.start - self.end) * SHAPES[self.shape](p)


def constant(density: float) -> Curve:
    """The same density from start to end.

    >>> constant(0.1)(0.5)
    0.1
    """
    return Curve("linear", density, density)


def linear(start: float, end: float, **span: float) -> Curve:
    """
    >>> linear(1.0, 0.5)(0.5)
    0.75
    """
    return Curve("linear", start, end, **span)


def quadratic(start: float, end: float, **span: float) -> Curve:
    """
    >>> quadratic(1.0, 0.0)(0.5)
    0.25
    """
    return Curve("quadratic", start, end, **span)


def cubic(start: float, end: float, **span: float) -> Curve:
    """Gradual magnitude pruning's: fast at first, slow at the end.

    Source: Zhu & Gupta 2017, equation 1 (there for sparsities).

    >>> cubic(1.0, 0.0)(0.5)
    0.125
    """
    return Curve("cubic", start, end, **span)


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


SCHEDULES = NameTable(
    "schedule",
    {
        "constant": lambda start, end: constant(end),
        "linear": linear,
        "quadratic": quadratic,
        "cubic": cubic,
        "cosine": cosine,
        "exponential": exponential,
    },
    group="nettime.schedules",
)


def schedule(given: str | Schedule, start: float, end: float) -> Schedule:
    """A schedule by name, from density `start` to `end`, or the user's own callable.

    A name may also be points "progress:density,…", joined by lines, or "module:function" for one
    that makes a schedule of (start, end).

    Raises:
        InputError: a name that is not known, or points that are none.

    >>> schedule("0:1,0.5:0.2,1:0.1", 1.0, 0.1)(0.25)
    0.6
    """
    if not isinstance(given, str):
        if not callable(given):
            raise InputError(
                f"schedule: value is {given!r}; allowed is a name or a function progress → density"
            )
        return given
    return _from_points(given) if given[:1].isdigit() else SCHEDULES.get(given)(start, end)


def check_schedule(given: str) -> None:
    """An InputError unless `schedule` can make something of a name or of points."""
    if isinstance(given, str) and given[:1].isdigit():
        _from_points(given)
    else:
        SCHEDULES.check(given)


def _from_points(text: str) -> Piecewise:
    points = []
    for pair in text.split(","):
        progress, _, density = pair.partition(":")
        try:
            points.append((float(progress), float(density)))
        except ValueError:
            raise InputError(
                f"schedule: {pair!r} is no point; allowed is progress:density, as in 0:1,0.5:0.2"
            ) from None
    return piecewise(points)


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
    if shape not in DROP_SCHEDULES:
        raise InputError(unknown("drop schedule", shape, DROP_SCHEDULES))
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
