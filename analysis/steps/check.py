"""A device's prices held against measured steps: error, bias, rank, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.steps.models import workload_of
from analysis.steps.record import Step
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.workload import Workload


@dataclass(frozen=True)
class Priced:
    """A measured step, its price, and the seconds by kind of operation."""

    step: Step
    estimate: Estimate
    by_kind: dict[str, float]

    @property
    def ratio(self) -> float:
        """Estimated over measured."""
        return self.estimate.seconds / self.step.seconds

    @property
    def inside(self) -> bool:
        """Whether the measured time lies in the estimate's interval."""
        return self.estimate.low_s <= self.step.seconds <= self.estimate.high_s

    @property
    def half_width(self) -> float:
        """Of the interval, relative to the estimate."""
        return (self.estimate.high_s - self.estimate.low_s) / 2.0 / self.estimate.seconds


@dataclass(frozen=True)
class StepCheck:
    """What came of it; `skipped` is why rows were left out, with how many."""

    device: str
    rows: tuple[Priced, ...]
    skipped: dict[str, int]

    def summary(self, rows: Sequence[Priced] | None = None) -> dict[str, float]:
        """Mean error |estimated/measured − 1|, bias (mean log ratio), spread (its standard
        deviation), Kendall's τ, share inside the interval and its median half-width."""
        from scipy.stats import kendalltau

        chosen = self.rows if rows is None else rows
        ratios = np.array([r.ratio for r in chosen])
        pairs = [(r.estimate.seconds, r.step.seconds) for r in chosen]
        tau = kendalltau(*zip(*pairs, strict=True))[0] if len(pairs) > 1 else float("nan")
        return {
            "steps": len(chosen), "error": float(np.abs(ratios - 1.0).mean()),
            "bias": float(np.log(ratios).mean()), "spread": float(np.log(ratios).std()),
            "tau": float(tau), "inside": float(np.mean([r.inside for r in chosen])),
            "half_width": float(np.median([r.half_width for r in chosen])),
        }  # fmt: skip

    def groups(self) -> dict[str, dict[str, float]]:
        """The same by how the steps were run, and by family of models."""
        found: dict[str, list[Priced]] = {}
        for row in self.rows:
            s = row.step
            how = "compiled" if s.compiled else "eager"
            found.setdefault(f"{s.mode}, {s.precision}, {s.layout}, {how}", []).append(row)
            found.setdefault(f"family {s.family or s.model}", []).append(row)
        return {name: self.summary(rows) for name, rows in sorted(found.items())}

    def kinds(self) -> dict[str, float]:
        """Share of the estimated seconds by kind of operation."""
        total: dict[str, float] = {}
        for row in self.rows:
            for kind, seconds in row.by_kind.items():
                total[kind] = total.get(kind, 0.0) + seconds / row.estimate.seconds
        return {k: v / len(self.rows) for k, v in sorted(total.items(), key=lambda p: -p[1])}

    def worst(self, count: int = 10) -> list[Priced]:
        """The rows of largest ratio between estimate and measurement."""
        return sorted(self.rows, key=lambda r: -abs(np.log(r.ratio)))[:count]


def check_steps(
    device: Device,
    steps: Iterable[Step],
    observe: Callable[[Step], Workload] = workload_of,
) -> StepCheck:
    """Prices every step on `device`; steps that compute the same are observed once.

    Raises:
        InputError: not one step can be priced; the reasons are named.
    """
    known: dict[tuple, Workload] = {}
    rows: list[Priced] = []
    skipped: dict[str, int] = {}
    for step in steps:
        try:
            if step.what not in known:
                known[step.what] = observe(step)
            rows.append(priced(device, step, known[step.what]))
        except InputError as error:
            skipped[str(error)] = skipped.get(str(error), 0) + 1
    if not rows:
        reasons = "; ".join(f"{n}: {why}" for why, n in list(skipped.items())[:3]) or "no steps"
        raise InputError(f"crosscheck: device {device.name!r} prices no step ({reasons})")
    return StepCheck(device.name, tuple(rows), skipped)


def priced(device: Device, step: Step, workload: Workload) -> Priced:
    """The price of one step."""
    by_kind: dict[str, float] = {}
    for op, price in device.breakdown(workload):
        by_kind[op.kind] = by_kind.get(op.kind, 0.0) + price.seconds
    return Priced(step, device.estimate(workload), by_kind)


def row_of(row: Priced) -> dict[str, Any]:
    """For tables and machines."""
    return {
        "model": row.step.model, "measured_on": row.step.device, "batch": row.step.batch,
        "mode": row.step.mode, "measured_s": row.step.seconds,
        "estimated_s": row.estimate.seconds, "ratio": row.ratio,
        "low_s": row.estimate.low_s, "high_s": row.estimate.high_s,
    }  # fmt: skip
