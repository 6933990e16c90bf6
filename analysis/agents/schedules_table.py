"""What a study of schedules found: accuracy and net time of each cell, over seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.agents.schedules_study import (
    CURVES,
    LEARNED,
    METHODS,
    SCHEDULES,
    Agents,
    ScheduleStudy,
)
from analysis.comparing.conclusion import CLAIM_SEEDS, LEAST_SEEDS, LEVEL
from analysis.comparing.table import Row, Table
from analysis.stats import Interval, holm, paired_difference, power
from hwsim import units

if TYPE_CHECKING:
    from analysis.comparing.runs import Figures


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over `n` seeds; the deviation of one seed is NaN."""

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """
        >>> Spread.of([1.0, 3.0]).mean
        2.0
        """
        if not values:
            return cls(math.nan, math.nan, 0)
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), deviation, len(values))


@dataclass(frozen=True)
class Duel:
    """Learned against the best curve of a cell, by seed; `interval` is above 0 where it is better.

    The best curve is chosen on the same seeds, which favours it.
    """

    method: str
    density: float
    curve: str
    interval: Interval
    p: float
    detectable: float

    @property
    def verdict(self) -> str:
        """Better or worse only by the 5 % level after Holm's correction, and seeds enough."""
        n = self.interval.n
        if n < LEAST_SEEDS:
            return "too few seeds to say anything"
        if self.p >= LEVEL:
            return f"not told apart ({units.digits(self.detectable, 2)} would have shown)"
        word = "better" if self.interval.point > 0 else "worse"
        return word if n >= CLAIM_SEEDS else f"{word} in all that was seen, too few for a claim"


@dataclass(frozen=True)
class ScheduleTable:
    """All cells, measured.

    Attributes:
        metric: of the task, on test data after the last step.
        devices: names of those with net times.
        rows: of the dense run and of all contenders.
        agents: what learning took.
        task: what the task says of its data.
        trivial, lower_is_better: see `analysis.comparing.table.Table`.
    """

    study: ScheduleStudy
    metric: str
    devices: tuple[str, ...]
    rows: tuple[Row, ...]
    agents: Agents
    task: Mapping[str, Any]
    trivial: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    lower_is_better: bool = False

    @cached_property
    def compared(self) -> Table:
        """The same runs as a comparison: conclusions on net time are made there."""
        return Table(
            self.study.plan, self.metric, self.lower_is_better, self.devices, self.rows, self.task,
            self.trivial,
        )  # fmt: skip

    @cached_property
    def _rows(self) -> dict[tuple[str, float], Row]:
        return {(row.entry.variant, row.entry.density): row for row in self.rows}

    @property
    def dense(self) -> Row:
        """The dense run's row."""
        return self._rows["dense", 1.0]

    @property
    def columns(self) -> list[tuple[str, float]]:
        """(method, target density), as the table has them."""
        return [(method, d) for method in METHODS for d in self.study.densities]

    def row(self, method: str, schedule: str, density: float) -> Row:
        """A cell's runs; at density 1 every curve is the dense run."""
        if schedule != LEARNED and density == 1:
            return self.dense
        return self._rows[f"{method} {schedule}", density]

    def spread(self, row: Row, figure: Callable[[Figures], float]) -> Spread:
        """Mean and deviation of a figure over the seeds of a row."""
        return Spread.of(list(row.values(figure).values()))

    def accuracy(self, row: Row) -> Spread:
        """Of the task's metric on test data."""
        return self.spread(row, lambda run: run.test[self.metric])

    def net_time(self, row: Row, device: str) -> Spread:
        """Of the whole run, over the dense run with the same seed."""
        mine = row.values(lambda run: run.seconds[device][0])
        dense = self.dense.values(lambda run: run.seconds[device][0])
        return Spread.of([mine[seed] / dense[seed] for seed in mine if seed in dense])

    def verified(self, device: str) -> bool:
        """Whether all prices were held against real kernels."""
        return all(r.verified.get(device, True) for row in self.rows for r in row.runs.values())

    def best(self, method: str, density: float) -> str:
        """The schedule of the best mean metric; the first of equals."""
        means = {s: self.accuracy(self.row(method, s, density)).mean for s in SCHEDULES}
        known = {s: mean for s, mean in means.items() if not math.isnan(mean)}
        sign = -1 if self.lower_is_better else 1
        return max(known, key=lambda s: sign * known[s]) if known else ""

    @cached_property
    def duels(self) -> tuple[Duel, ...]:
        """Learned against the best curve of each cell, Holm's correction over cells."""
        made = []
        for method, density in self.columns:
            means = {c: self.accuracy(self.row(method, c, density)).mean for c in CURVES}
            known = {c: m for c, m in means.items() if not math.isnan(m)}
            if not known:
                continue
            best = (min if self.lower_is_better else max)(known, key=known.__getitem__)
            ours, theirs = (
                self.row(method, s, density).values(lambda run: run.test[self.metric])
                for s in (LEARNED, best)
            )
            if self.lower_is_better:
                ours, theirs = theirs, ours
            if set(ours) & set(theirs):
                found = paired_difference(ours, theirs)
                made.append(Duel(method, density, best, found, *power(found)))
        p_values = holm([one.p for one in made]) if made else []
        return tuple(dataclasses.replace(one, p=p) for one, p in zip(made, p_values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Everything, numbers unrounded."""
        base = self.study.base
        cells = []
        for method, density in self.columns:
            for schedule in SCHEDULES:
                row = self.row(method, schedule, density)
                cells.append(
                    {
                        "method": method, "target_density": density, "schedule": schedule,
                        "test": dataclasses.asdict(self.accuracy(row)),
                        "test_by_seed": row.values(lambda run: run.test[self.metric]),
                        "net_time_of_dense": {
                            d: dataclasses.asdict(self.net_time(row, d)) for d in self.devices
                        },
                        "final_density": dataclasses.asdict(
                            self.spread(row, lambda run: run.density)
                        ),
                        "learning_rate": row.choice.rate, "diverged": row.diverged,
                        "folders": {s: str(folder) for s, folder in row.folders.items()},
                    }
                )  # fmt: skip
        return {
            "task": base.task, "data": dict(self.task), "model": base.model,
            "preset": base.preset, "steps": base.steps, "metric": self.metric,
            "seeds": list(self.study.seeds), "cells": cells,
            "learned_against_best_curve": [
                {"method": d.method, "target_density": d.density, "curve": d.curve,
                 "better_by": dataclasses.asdict(d.interval), "p_holm": d.p,
                 "verdict": d.verdict}
                for d in self.duels
            ],
            "conclusions": [one.to_json() for one in self.compared.conclusions],
            "agent_episodes": self.agents.episodes, "agent_processor_s": self.agents.cost_s,
        }  # fmt: skip
