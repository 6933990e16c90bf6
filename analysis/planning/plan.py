"""Given a net time or a loss: which size, sparsity and number of steps is best, device by device.

    found = best(law, candidates(models, device), budget_s=3600.0)

Net time comes from the device model, loss from a scaling law of sparse training; no run is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.comparing.conclusion import Forecast
from analysis.planning.law import Law, Point
from analysis.planning.prices import GRADUAL, Size, SizedModel, StepCosts, average_density
from analysis.stats import Interval
from hwsim import Device, InputError, units

DENSITIES = (1.0, 0.5, 0.25, 0.125, 0.0625)
# Net times of the figure, over and under the one that is asked for.
_SPAN, _TIMES = 30.0, 61


@dataclass(frozen=True)
class Candidate:
    """A size at a density on a device.

    Attributes:
        step_s: mean net seconds of a step over the training.
    """

    size: Size
    density: float
    device: str
    step_s: float
    schedule: str

    @property
    def name(self) -> str:
        """Its size and density."""
        kind = "dense" if self.density == 1 else units.percent(self.density)
        return f"{self.size.name} {kind}"

    def point(self, seconds: float) -> Point:
        """What the law is asked after so much net time."""
        weights = self.size.weights
        return Point(
            weights * self.density, 1 - self.density, seconds / self.step_s * self.size.examples,
            average=weights * average_density(self.schedule, self.density),
        )  # fmt: skip

    def seconds_to(self, law: Law, loss: float) -> float:
        """Net time to a final loss; infinite if no length reaches it."""
        low, high = self.step_s, self.step_s * 1e15
        if law.loss(self.point(high)) > loss:
            return math.inf
        for _ in range(100):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if law.loss(self.point(middle)) > loss else (low, middle)
        return high


@dataclass(frozen=True)
class Best:
    """What a device answers.

    Attributes:
        candidates: all, the best first: of the lowest loss in the budget, or of the least time.
        seconds: candidate's name → net time: the budget, or what the loss takes.
        losses: candidate's name → loss, with its interval.
        forecast: of the best sparse candidate against the best dense one; None without either.
    """

    device: str
    candidates: tuple[Candidate, ...]
    seconds: dict[str, float]
    losses: dict[str, Interval]
    forecast: Forecast | None

    @property
    def winner(self) -> Candidate:
        """The candidate of lowest loss, or of least time to it."""
        return self.candidates[0]

    @property
    def sentence(self) -> str:
        """What to train on this device; "dense" where sparse is not surely faster."""
        first = self.winner
        text = f"On {self.device}: train {first.name}, "
        text += f"{self.seconds[first.name] / first.step_s:,.0f} steps"
        if first.density == 1:
            return text + ". Dense wins."
        assert self.forecast is not None
        if self.forecast.speed_up.low <= 1:
            text += f"; {self.forecast.other} is not told apart from it"
        return text + "."


def candidates(
    models: Sequence[SizedModel], device: Device, densities: Sequence[float] = DENSITIES,
    schedule: str = GRADUAL, pattern: str = "unstructured",
) -> list[Candidate]:  # fmt: skip
    """Every model at every density, priced on a device."""
    made = []
    for model in models:
        costs = StepCosts(model.subject, device, tuple(densities), pattern)
        made += [
            Candidate(model.size, density, device.name, costs.training(schedule, density), schedule)
            for density in sorted({*densities, 1.0}, reverse=True)
        ]
    return made


def best(
    law: Law, given: Sequence[Candidate], *, budget_s: float | None = None,
    loss: float | None = None,
) -> Best:  # fmt: skip
    """The order of candidates of one device within a net time, or to a loss.

    Raises:
        InputError: not one of budget and loss, or a loss that no candidate ever reaches.
    """
    if (budget_s is None) == (loss is None):
        raise InputError("budget, loss: give one of the two")
    if budget_s is not None and not 0 < budget_s < math.inf:
        raise InputError(f"budget: value is {budget_s!r} s; allowed is above 0")
    seconds: dict[str, float] = {}
    for one in given:
        found = budget_s if budget_s is not None else one.seconds_to(law, float(loss or 0))
        if math.isfinite(found):
            seconds[one.name] = found
    usable = [one for one in given if one.name in seconds]
    if not usable:
        raise InputError(f"loss: value is {loss}; by the law no candidate reaches it")
    losses = {one.name: _interval(law, one, seconds[one.name]) for one in usable}
    key = losses if budget_s is not None else None
    order = sorted(usable, key=lambda c: key[c.name].point if key else seconds[c.name])
    return Best(given[0].device, tuple(order), seconds, losses, _forecast(law, order, seconds))


def _interval(law: Law, one: Candidate, seconds: float) -> Interval:
    point = one.point(seconds)
    low, high = law.interval(point)
    return Interval(law.loss(point), low, high, len(law.draws) or 1)


def _forecast(law: Law, order: Sequence[Candidate], seconds: dict[str, float]) -> Forecast | None:
    """The best sparse candidate against whichever dense size gets to its loss first."""
    sparse = next((c for c in order if c.density < 1), None)
    dense = [c for c in order if c.density == 1]
    if sparse is None or not dense:
        return None
    spent = seconds[sparse.name]
    ratios, rival = [], dense[0]
    for one in law.laws:
        wanted = one.loss(sparse.point(spent))
        found = {c.name: c.seconds_to(one, wanted) / spent for c in dense}
        first = min(dense, key=lambda c: found[c.name])
        rival = first if not ratios and math.isfinite(found[first.name]) else rival
        ratios.append(found[first.name])
    low, high = np.quantile(ratios[1:] or ratios, [0.025, 0.975], method="nearest")
    beyond = dict.fromkeys(
        [*law.beyond(sparse.point(spent)), *law.beyond(rival.point(seconds[rival.name]))]
    )
    return Forecast(
        sparse.name, rival.name, sparse.device,
        Interval(ratios[0], float(low), float(high), max(len(ratios) - 1, 1)), tuple(beyond),
    )  # fmt: skip


@dataclass(frozen=True)
class Front:
    """Loss against net time on one device, for a figure: curves, and the lowest of them."""

    law: Law
    candidates: tuple[Candidate, ...]
    around_s: float

    @cached_property
    def seconds(self) -> np.ndarray:
        """(times,)"""
        return self.around_s * np.geomspace(1 / _SPAN, _SPAN, _TIMES)

    @cached_property
    def losses(self) -> dict[str, np.ndarray]:
        """Candidate's name → (times,)."""
        return {
            c.name: np.array([self.law.loss(c.point(s)) for s in self.seconds])
            for c in self.candidates
        }

    @cached_property
    def pareto(self) -> list[tuple[float, str]]:
        """(from this net time on, the candidate of the lowest loss)."""
        names = list(self.losses)
        first = np.argmin([self.losses[name] for name in names], axis=0)
        made: list[tuple[float, str]] = []
        for at, which in zip(self.seconds, first, strict=True):
            if not made or made[-1][1] != names[which]:
                made.append((float(at), names[which]))
        return made
