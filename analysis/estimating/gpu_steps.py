"""Training steps that `nettime measure gpu` timed: in the form of measured steps, and beside their
estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.steps.record import Step
from hwsim import Device
from hwsim.measured.record import STEP, Measurement


def measured_steps(records: Sequence[Measurement]) -> list[Step]:
    """The whole steps among some records, as `nettime crosscheck steps` reads them."""
    found = []
    for record in records:
        if record.phase != STEP:
            continue
        model, _, pattern = record.kernel.partition(" ")
        found.append(Step(
            f"encoder:{model}", record.machine, "training", record.m, record.median_s,
            {"width": record.n, "layers": record.k}, precision=record.dtype, optimizer="adamw",
            pattern=pattern, family=model, source="nettime measure gpu",
        ))  # fmt: skip
    return found


def steps(records: Sequence[Measurement], device: Device | None) -> list[dict[str, Any]]:
    """One row per measured step: time, gain over the dense one, and what `device` says."""
    from analysis.steps.models import workload_of

    measured = {f"{s.model.partition(':')[2]} {s.pattern}": s for s in measured_steps(records)}
    found = []
    for name, step in measured.items():
        dense = measured.get(f"{name.split()[0]} dense")
        estimated = device.estimate(workload_of(step)).seconds if device else None
        against = device.estimate(workload_of(dense)).seconds if device and dense else None
        found.append({
            "step": name, "measured_s": step.seconds,
            "speed_up": dense.seconds / step.seconds if dense else None,
            "estimated_s": estimated,
            "estimated_speed_up": against / estimated if against and estimated else None,
        })  # fmt: skip
    return found
