"""When a run updates its masks, and whether that is often enough for what was asked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hwsim.errors import InputError
from sparse_train.algorithms import Algorithm
from sparse_train.masking.plan import MaskCalendar
from sparse_train.registries import ALGORITHMS
from sparse_train.schedules import last_update_step

# Updates that a short run has at least, where the interval is left to it.
_LEAST_UPDATES = 10


@dataclass(frozen=True)
class Calendar:
    """Of a run's settings, those that decide when masks change; see `TrainConfig`."""

    algorithm: str
    options: Mapping[str, Any]
    density: float
    steps: int
    update_interval: int | None
    end_step: int | None

    @property
    def interval(self) -> int:
        """What is set, or the algorithm's own, shorter where a run has no room for enough of it."""
        if self.update_interval is not None:
            return self.update_interval
        own = ALGORITHMS.get(self.algorithm).update_interval
        if own <= 1:
            return own
        least = max(_LEAST_UPDATES, self._needed)
        return max(1, min(own, (self._end - 1) // least))

    def check(self) -> None:
        """Raises an InputError if no update would happen, or too few for the density asked for."""
        try:
            kind = ALGORITHMS.get(self.algorithm)
        except InputError:
            return  # A stranger's algorithm that is not there: who opens it knows what to say.
        if kind.update_interval == 0:
            return
        every, end = self.interval, self._end
        happen = last_update_step(every, end) // every if every else 0
        if happen == 0 and kind.update_interval > 1:
            most = f"an update_interval of 1 to {end - 1}" if end > 1 else "a run of 3 steps"
            raise InputError(
                f"update_interval: value is {every}; masks change before step {end} of "
                f"{self.steps}, so {self.algorithm} would never change one; allowed is {most}, or "
                "algorithm 'static'"
            )
        if self._needed > 1 and happen < self._needed:
            raise InputError(
                f"density: value is {self.density:g}; {self.algorithm} needs {self._needed} "
                f"updates for it, and has {happen} before step {end}; allowed is an "
                f"update_interval of at most {max(1, (end - 1) // self._needed)}, more steps, or "
                "a larger share pruned at each"
            )

    @cached_property
    def _needed(self) -> int:
        """Updates that the density takes; 1 where options are wrong: others say so, later."""
        kind = ALGORITHMS.get(self.algorithm)
        if isinstance(kind, Algorithm):
            return kind.least_updates(self.density)
        if not set(self.options) <= {field.name for field in dataclasses.fields(kind)}:
            return 1
        try:
            rule: Algorithm = kind(**self.options)
        except (InputError, TypeError):
            return 1
        return rule.least_updates(self.density)

    @property
    def _end(self) -> int:
        """Masks change before this step."""
        if isinstance(self.end_step, int):
            return max(1, self.end_step)
        return max(1, math.floor(0.75 * self.steps))


def check_layers(rule: Algorithm, plan: MaskCalendar) -> None:
    """Raises an InputError if a layer cannot come down to its budget before updates end.

    A run says what density it has: one that is missed is refused. In a loop of one's own, whose
    length is not known for sure, it is not.
    """
    if plan.end_step is None or not rule.by_layer:
        return  # `Calendar.check` is about the whole.
    happen = plan.updates_until(plan.end_step)
    for name, budget in plan.budgets(plan.end_step).items():
        density = budget / math.prod(plan.shapes[name])
        needed = rule.least_updates(density)
        if 1 < needed > happen:
            raise InputError(
                f"density: layer {name} is to end at {density:.3g}; {type(rule).__name__} needs "
                f"{needed} updates for it, and has {happen} before step {plan.end_step}; allowed "
                "is a shorter update_interval, more steps, a larger share pruned at each, or "
                "distribution 'uniform'"
            )
