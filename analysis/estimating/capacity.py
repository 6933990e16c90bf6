"""Whether a step fits a single device, and what would hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwsim import Device, Workload, units
from hwsim.cluster.memory import need, what_fits
from hwsim.cluster.parts import parts_of
from hwsim.cluster.plan import ParallelPlan


def needed_bytes(step: Workload, device: Device | None = None) -> float:
    """Alive at once while it runs: as observed, or by its parts where nobody looked.

    What is observed is the model without masks: these are added, and what a device's sparse kernels
    keep.
    """
    observed = float(step.peak_bytes)
    if observed and not step.masks:
        return observed
    held = need(parts_of(step), ParallelPlan(), device)
    return observed + held.masks + held.indices + held.packed if observed else held.total


def lines(step: Workload, devices: Sequence[Device], moment_bytes: float) -> dict[str, str]:
    """Device → one line, of those that a step does not fit."""
    found: dict[str, str] = {}
    for device in _limited(devices):
        needed = needed_bytes(step, device)
        if needed <= device.memory_bytes:
            continue
        plan = what_fits(parts_of(step), device.memory_bytes, moment_bytes, device)
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


def _limited(devices: Sequence[Device]) -> list[Device]:
    return [d for d in devices if d.memory_bytes < float("inf")]


def _words(plan: ParallelPlan) -> str:
    return plan.form + (f",recompute={plan.recompute}" if plan.recompute != "none" else "")


def as_json(step: Workload, devices: Sequence[Device]) -> dict[str, Any]:
    """Bytes that a step needs, of each device that has a limit, and whether it fits."""
    needed = {d.name: needed_bytes(step, d) for d in _limited(devices)}
    fits = {d.name: needed[d.name] <= d.memory_bytes for d in _limited(devices)}
    return {"needed_bytes": needed_bytes(step), "needed_bytes_on": needed, "fits": fits}
