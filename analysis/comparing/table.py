"""What a comparison found: means with intervals over seeds, and differences taken by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from analysis.comparing.clocks import Contender, Course, MeanClock
from analysis.comparing.conclusion import (
    DENSE,
    NARROWER,
    SPARSE,
    Conclusion,
    conclude,
    corrected,
)
from analysis.comparing.plan import Choice, ComparisonPlan, Entry
from analysis.comparing.runs import Figures
from analysis.stats import Interval, holm, mean_interval, paired_difference, power
from hwsim import units

NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """A contender with its runs: seed → figures, seed → folder."""

    entry: Entry
    choice: Choice
    runs: Mapping[int, Figures]
    folders: Mapping[int, Path]

    @property
    def name(self) -> str:
        """Of the contender."""
        return self.entry.name

    @property
    def diverged(self) -> int:
        """Runs whose loss became NaN or infinite; they have no figures."""
        return sum(not run.test for run in self.runs.values())

    def values(self, figure: Callable[[Figures], float]) -> dict[int, float]:
        """Seed → figure, of the runs that did not diverge."""
        return {seed: float(figure(run)) for seed, run in self.runs.items() if run.test}

    def mean(self, figure: Callable[[Figures], float]) -> Interval:
        """Mean and 95 % interval over seeds; NaN if all runs diverged."""
        values = list(self.values(figure).values())
        return mean_interval(values) if values else Interval(NAN, NAN, NAN, 0)


@dataclass(frozen=True)
class Difference:
    """How much better one variant is than another at the same density, by seed.

    Attributes:
        density: of both; a dense model stands beside every density.
        one, other: names of variants.
        interval: of the difference of their metrics; above 0 where `one` is better.
        p: two-sided, of no difference (paired t test), not corrected for other questions.
        detectable: the difference that so many seeds would have shown in four cases of five.
    """

    density: float
    one: str
    other: str
    interval: Interval
    p: float = 1.0
    detectable: float = float("inf")

    @property
    def verdict(self) -> str:
        """What the 95 % interval allows to say of `one`."""
        if self.interval.low > 0:
            return "better"
        return "worse" if self.interval.high < 0 else "not told apart"

    @property
    def turned(self) -> Difference:
        """The same, seen from the other side."""
        i = self.interval
        turned = Interval(-i.point, -i.high, -i.low, i.n)
        return Difference(self.density, self.other, self.one, turned, self.p, self.detectable)


@dataclass(frozen=True)
class Table:
    """All contenders of a Plan, measured.

    Attributes:
        plan: what was compared.
        metric: of the task, on the test set.
        lower_is_better: its direction.
        devices: names of those with net times.
        rows: one per contender, in the plan's order.
        task: what the task says of its data: sizes and digests.
        trivial: rule → test metrics of predictors that train nothing; see `Prepared.trivial`.
        share: of the dense run's net time whose loss is the target of the same seed.
    """

    plan: ComparisonPlan
    metric: str
    lower_is_better: bool
    devices: tuple[str, ...]
    rows: tuple[Row, ...]
    task: Mapping[str, Any]
    trivial: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    share: float = 0.9

    def row(self, name: str) -> Row:
        """The row of a contender."""
        return next(row for row in self.rows if row.name == name)

    @cached_property
    def metrics(self) -> dict[str, Interval]:
        """Contender → the task's metric on the test set."""
        return {row.name: row.mean(lambda run: run.test[self.metric]) for row in self.rows}

    @property
    def dense(self) -> Row | None:
        """The dense run's row, if it takes part."""
        return next((row for row in self.rows if row.entry.family == "dense"), None)

    def relative(self, row: Row, figure: Callable[[Figures], float]) -> float:
        """Mean of a figure over the dense run's mean; NaN without a dense run."""
        if self.dense is None:
            return NAN
        return row.mean(figure).point / self.dense.mean(figure).point

    def seconds(self, row: Row, device: str) -> tuple[float, float, float]:
        """Mean net training time of the whole run: expected, low, high."""
        runs = [run.seconds[device] for run in row.runs.values() if run.test]
        if not runs:
            return NAN, NAN, NAN
        middle, low, high = np.mean(runs, axis=0)
        return float(middle), float(low), float(high)

    def verified(self, device: str) -> bool:
        """Whether every price on the device was held against a real kernel."""
        return all(r.verified.get(device, True) for row in self.rows for r in row.runs.values())

    @cached_property
    def floor(self) -> float | None:
        """The test metric of the best predictor that trains nothing; None if the task has none."""
        found = [
            metrics[self.metric] for metrics in self.trivial.values() if self.metric in metrics
        ]
        if not found:
            return None
        return min(found) if self.lower_is_better else max(found)

    def learnt(self, row: Row) -> bool | None:
        """Whether the mean of a contender is better than that; None if it is not known."""
        if self.floor is None or row.name not in self.metrics:
            return None
        mean = self.metrics[row.name].point
        return mean < self.floor if self.lower_is_better else mean > self.floor

    @cached_property
    def conclusions(self) -> tuple[Conclusion, ...]:
        """Net time to the dense run's metric on validation, device by device."""
        dense = self.dense
        if dense is None or not any(run.courses for run in dense.runs.values()):
            return ()
        made = []
        for device in self.devices:
            contenders = [self._contender(row, device) for row in self.rows]
            clock = MeanClock(self._contender(dense, device), self.share)
            words = f"dense's {self.metric} at {units.percent(self.share)} of its run"
            made.append(conclude(contenders, device, clock, words))
        return tuple(corrected(made))

    def _falling(self, course: Sequence[float]) -> list[float]:
        """A metric's course so that lower is better."""
        return list(course) if self.lower_is_better else [-value for value in course]

    def _contender(self, row: Row, device: str) -> Contender:
        kinds = {"dense": DENSE, "narrower dense": NARROWER}
        courses = {
            seed: Course(run.times[device], self._falling(run.courses[self.metric]))
            for seed, run in row.runs.items() if device in run.times and self.metric in run.courses
        }  # fmt: skip
        return Contender(
            row.name, kinds.get(row.entry.family, SPARSE), courses, self.learnt(row),
            self.plan.tuned and not row.choice.at_an_end, _known(row.entry),
        )  # fmt: skip

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Each contender against each before it in the plan, at the same density."""
        made = []
        for density in self.plan.densities:
            rows = [
                r for r in self.rows if density in (r.entry.density, *r.entry.beside)
                or r.entry.family == "dense"
            ]  # fmt: skip
            for other, one in combinations(rows, 2):
                found = self._difference(one, other)
                if found is not None:
                    made.append(
                        Difference(
                            density, one.entry.variant, other.entry.variant, found,
                            *power(found),
                        )
                    )  # fmt: skip
        return tuple(made)

    def _difference(self, one: Row, other: Row) -> Interval | None:
        a, b = (row.values(lambda run: run.test[self.metric]) for row in (one, other))
        if not set(a) & set(b):
            return None
        return paired_difference(b, a) if self.lower_is_better else paired_difference(a, b)

    def areas(self, row: Row) -> dict[int, float]:
        """Seed → the metric's mean over the validations of its run: the area under its curve."""
        return {
            seed: float(np.mean(run.courses[self.metric]))
            for seed, run in row.runs.items() if run.test and self.metric in run.courses
        }  # fmt: skip

    @cached_property
    def area_differences(self) -> dict[str, tuple[Interval, float]]:
        """Contender → by how much its area is better than dense's, and p of no difference.

        Of those validated at the same steps as dense. Paired by seed; p is after Holm's correction
        over these contenders.
        """
        if self.dense is None:
            return {}
        dense, found = self.areas(self.dense), {}
        steps = {run.steps for run in self.dense.runs.values() if run.test}
        for row in self.rows:
            own = self.areas(row)
            alike = {run.steps for run in row.runs.values() if run.test} == steps
            if row.entry.family != "dense" and alike and set(own) & set(dense):
                a, b = (dense, own) if self.lower_is_better else (own, dense)
                found[row.name] = paired_difference(a, b)
        p = holm([power(interval)[0] for interval in found.values()])
        return {name: (one, q) for (name, one), q in zip(found.items(), p, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """Everything, numbers unrounded."""
        base = self.plan.base
        return {
            "task": base.task, "model": base.model, "preset": base.preset, "steps": base.steps,
            "batch_size": base.batch_size, "metric": self.metric,
            "lower_is_better": self.lower_is_better, "seeds": list(self.plan.seeds),
            "data": dict(self.task),
            "trivial": {rule: dict(found) for rule, found in self.trivial.items()},
            "contenders": [self._row_json(row) for row in self.rows],
            "conclusions": [one.to_json() for one in self.conclusions],
            "differences": [
                {"density": d.density, "one": d.one, "other": d.other, "verdict": d.verdict,
                 "one_better_by": _interval_json(d.interval)}
                for d in self.differences
            ],
        }  # fmt: skip

    def _row_json(self, row: Row) -> dict[str, Any]:
        names = next((list(run.test) for run in row.runs.values() if run.test), [])
        return {
            "name": row.name, "family": row.entry.family, "variant": row.entry.variant,
            "density": row.entry.density, "diverged": row.diverged,
            "learning_rate": row.choice.rate,
            "tried": {f"{rate:g}": value for rate, value in row.choice.tried.items()},
            "test": {n: _interval_json(row.mean(lambda r, n=n: r.test[n])) for n in names},
            "test_by_seed": {s: run.test for s, run in row.runs.items()},
            "flops": row.mean(lambda r: r.flops).point, "bytes": row.mean(lambda r: r.bytes).point,
            "published_flops": row.mean(lambda r: r.published_flops).point,
            "length": row.entry.length, "learnt": self.learnt(row),
            "mask_updates": row.mean(lambda r: r.updates).point,
            "mean_density": row.mean(lambda r: r.mean_density).point,
            "explored": row.mean(lambda r: r.explored).point,
            "coverage": row.mean(lambda r: r.coverage).point,
            "net_time_s": {
                d: dict(zip(("expected", "low", "high"), self.seconds(row, d), strict=True))
                | {"verified": all(r.verified.get(d, True) for r in row.runs.values())}
                for d in self.devices
            },
            "folders": {s: str(folder) for s, folder in row.folders.items()},
        }  # fmt: skip


def _known(entry: Entry) -> bool:
    """Whether it is RigL as it was published: no setting but the density."""
    free = {"algorithm", "density", "algorithm_options", "update_interval", "distribution"}
    plain = set(entry.settings) <= free and not entry.settings.get("algorithm_options")
    return entry.family == "rigl" and plain


def _interval_json(interval: Interval) -> dict[str, float]:
    return {
        "mean": interval.point, "low": interval.low, "high": interval.high, "runs": interval.n,
    }  # fmt: skip
