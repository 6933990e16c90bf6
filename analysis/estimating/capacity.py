"""Whether a step fits a single device, and what would hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwsim import Device, Workload, units
from hwsim.cluster.memory import need, what_fits
from hwsim.cluster.parts import parts_of
from hwsim.cluster.plan import ParallelPlan


def needed_bytes(step: Workload) -> float:
    """Alive at once while it runs: as observed, or by its parts where nobody looked."""
    return float(step.peak_bytes) or need(parts_of(step), ParallelPlan()).total


def lines(step: Workload, devices: Sequence[Device], moment_bytes: float) -> dict[str, str]:
    """Device → one line, of those that a step does not fit."""
    found: dict[str, str] = {}
    needed = needed_bytes(step)
    for device in devices:
        if needed <= device.memory_bytes:
            continue
        plan = what_fits(parts_of(step), device.memory_bytes, moment_bytes)
        if plan is None:
            would = "no number of such cards would hold it: a smaller batch or model would"
        elif plan.cards == 1:
            would = "recomputation of all activations would make it fit, or a smaller batch"
        else:
            would = (
                f"{plan.cards} cards would hold it: --gpus {plan.cards} --parallel {_words(plan)}"
            )
        found[device.name] = (
            f"Does not fit {device.name}: the step needs {units.quantity(needed, 'B')}, the card "
            f"has {units.quantity(device.memory_bytes, 'B')}; {would}."
        )
    return found


def _words(plan: ParallelPlan) -> str:
    return plan.form + (f",recompute={plan.recompute}" if plan.recompute != "none" else "")


def as_json(step: Workload, devices: Sequence[Device]) -> dict[str, Any]:
    """Bytes that a step needs, and of each device that has a limit whether it fits."""
    needed = needed_bytes(step)
    fits = {d.name: needed <= d.memory_bytes for d in devices if d.memory_bytes < float("inf")}
    return {"needed_bytes": needed, "fits": fits}
