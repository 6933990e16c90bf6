"""How dense each layer is to be in which step, and in which steps masks are updated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.checks import check_density, check_integer
from hwsim.errors import InputError
from sparse_train import schedules
from sparse_train.distributions import Distribution, Listed, budgets
from sparse_train.naming import mask_shape
from sparse_train.patterns import Projection
from sparse_train.schedules import Schedule


@dataclass(frozen=True)
class MaskCalendar:
    """The calendar of a run.

    Attributes:
        shapes: layer name → weight shape, as torch has it.
        distribution: shapes, density → density per layer.
        schedule: progress → density of all layers together, or layer name → density. Progress is
            1 at the last update, so that the run ends at the schedule's end.
        update_interval: steps between updates; 0 for no updates.
        drop_fraction: α, the share dropped at the start.
        drop_schedule: how it falls: "cosine", "linear" or "constant".
        end_step: updates happen before this step; None for ever.
        pattern: what masks must look like; budgets are then such as it meets.
        matrices: layer name → (n_out, n_in) of those whose shape does not tell.
        density: where a schedule that was named ends; None where one was given, which may move.
    """

    shapes: Mapping[str, tuple[int, ...]]
    distribution: Distribution
    schedule: Schedule
    update_interval: int
    drop_fraction: float
    drop_schedule: str
    end_step: int | None
    pattern: Projection | None = field(default=None, kw_only=True)
    matrices: Mapping[str, tuple[int, int]] = field(default_factory=dict, kw_only=True)
    density: float | None = field(default=None, kw_only=True)

    def is_update_step(self, step: int) -> bool:
        """Whether masks are updated in step number `step`, counted from 1."""
        if self.update_interval == 0:
            return False
        return schedules.is_update_step(step, self.update_interval, self.end_step)

    def updates_until(self, step: int) -> int:
        """How many steps up to `step` update masks."""
        if self.update_interval == 0:
            return 0
        last = step if self.end_step is None else min(step, self.end_step - 1)
        return max(last, 0) // self.update_interval

    def drop_fraction_at(self, step: int) -> float:
        """Share of the active weights that an update at a step drops."""
        return schedules.drop_fraction(
            self.drop_fraction, step, self.end_step, shape=self.drop_schedule
        )

    def progress(self, step: int) -> float:
        """0 at the start, 1 at the last update; always 0 where updates never end."""
        if self.update_interval == 0 or self.end_step is None:
            return 0.0
        last = schedules.last_update_step(self.update_interval, self.end_step)
        return min(step / last, 1.0) if last > 0 else 1.0

    def budgets(self, step: int) -> dict[str, int]:
        """Layer name → active weights asked for at `step`.

        The total is met to the integer; where the pattern adds weights in steps (a fan-in of all
        neurons), what a layer is short of or beyond its share goes to the next ones, so that the
        total is met within half a step of one layer.
        """
        return self._in_steps(self._wanted(step))

    def _in_steps(self, wanted: dict[str, int]) -> dict[str, int]:
        if self.pattern is None:
            return wanted
        found, owed = {}, 0
        for name, budget in wanted.items():
            shape = self.matrices.get(name) or mask_shape(tuple(self.shapes[name]))
            below, above = self.pattern.steps(shape, max(budget + owed, int(budget > 0)))
            near = below if budget + owed - below <= above - budget - owed else above
            found[name] = near if budget else 0
            owed += budget - found[name]
        return found

    def _wanted(self, step: int) -> dict[str, int]:
        asked = self.schedule(self.progress(step))
        if isinstance(asked, Mapping):
            return budgets(self.shapes, self._per_layer(asked))
        density = check_density("density", asked)
        densities = self.distribution(self.shapes, density)
        if isinstance(self.distribution, Listed):
            return budgets(self.shapes, densities)
        weights = sum(math.prod(shape) for shape in self.shapes.values())
        return budgets(self.shapes, densities, math.floor(round(density * weights, 9) + 0.5))

    def _per_layer(self, asked: Mapping[str, float]) -> dict[str, float]:
        if set(asked) != set(self.shapes):
            odd = sorted(set(asked) ^ set(self.shapes))[0]
            raise InputError(
                f"schedule: layer {odd!r} is in only one of schedule and model; "
                "allowed is one density for every masked layer"
            )
        return {n: check_density(f"density of {n!r}", asked[n]) for n in self.shapes}


def make_plan(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    density: float,
    distribution: Distribution,
    schedule: str | Schedule,
    initial_density: float,
    update_interval: int,
    drop_fraction: float,
    drop_schedule: str,
    end_step: int | None,
    total_steps: int | None,
    pattern: Projection | None = None,
    matrices: Mapping[str, tuple[int, int]] | None = None,
) -> MaskCalendar:
    """A checked Plan; `end_step` is three quarters of `total_steps` unless given.

    Raises:
        InputError: a value that is out of range, or a moving schedule without an end.
    """
    check_density("density", density)
    check_density("initial_density", initial_density)
    check_integer("update_interval", update_interval, 0)
    if total_steps is not None:
        check_integer("total_steps", total_steps, 1)
        if end_step is None:
            end_step = max(1, math.floor(0.75 * total_steps))
    if end_step is not None:
        check_integer("end_step", end_step, 1)
    good = isinstance(drop_fraction, (int, float)) and not isinstance(drop_fraction, bool)
    if not good or not 0 <= drop_fraction <= 1:
        raise InputError(
            f"drop_fraction: value is {drop_fraction!r}; allowed is a number from 0 to 1"
        )
    schedules.drop_fraction(drop_fraction, 0, end_step, shape=drop_schedule)
    moving = schedules.schedule(schedule, initial_density, density)
    if schedule != "constant" and (end_step is None or update_interval == 0):
        raise InputError(
            "schedule: a density that moves needs updates and their end; "
            "give total_steps or end_step, and an algorithm that updates masks"
        )
    return MaskCalendar(
        shapes=dict(shapes),
        distribution=distribution,
        schedule=moving,
        update_interval=update_interval,
        drop_fraction=float(drop_fraction),
        drop_schedule=drop_schedule,
        end_step=end_step,
        pattern=pattern,
        matrices=dict(matrices or {}),
        density=float(density) if isinstance(schedule, str) else None,
    )
