"""A CPU's fitted constants carried over to the machine at hand by a check of a few seconds.

Hosts that call themselves alike differ by a third in speed: clocks, neighbours, memory. What a
kernel's terms cost relative to each other changes less. So some cases of each kernel are timed, and
all seconds of a kernel are multiplied by the median of measured over estimated. A kernel without a
record takes the median of the others.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwsim.calibration.cpu import kernel_of, relative_errors
from hwsim.cpu.costs import KERNEL_TERMS
from hwsim.device import parameters_of
from hwsim.devices.cpu import Cpu
from hwsim.errors import InputError
from hwsim.measured.cpu_cases import CASES
from hwsim.measured.record import Measurement
from hwsim.measured.timing import UNSTEADY

# Two sizes, one that fits the nearer caches and one that does not.
QUICK_CASES = tuple(replace(case, batches=(1, 64)) for case in (CASES[0], CASES[6]))
QUICK_S = 4.0


@dataclass(frozen=True)
class Scaling:
    """How much slower this machine is than the constants say, kernel by kernel.

    Attributes:
        ratios: kernel → measured over estimated seconds, the median of its records.
        before, after: mean |estimate / measurement − 1| of all records, with the constants as they
            were, and scaled.
    """

    ratios: dict[str, float]
    before: float
    after: float


def scaling(device: Cpu, records: Sequence[Measurement]) -> Scaling:
    """What records of this machine say of a device's constants.

    Raises:
        InputError: no records of a kernel that the device knows.
    """
    steady = [r for r in records if r.median_s <= UNSTEADY * r.min_s] or list(records)
    known = [r for r in steady if kernel_of(r) in KERNEL_TERMS and r.dtype == "float32"]
    if not known:
        raise InputError("records: none of a CPU kernel; allowed is at least one")
    off = relative_errors(known, lambda r: device.price_record(r).seconds)
    found = {kernel: float(np.median(1.0 / (1.0 + errors))) for kernel, errors in off.items()}
    others = float(np.median(list(found.values())))
    ratios = {kernel: found.get(kernel, others) for kernel in KERNEL_TERMS}
    before = np.concatenate(list(off.values()))
    after = np.concatenate([(1 + errors) * ratios[k] - 1 for k, errors in off.items()])
    return Scaling(ratios, float(np.abs(before).mean()), float(np.abs(after).mean()))


def scaled_text(device: Cpu, found: Scaling, *, machine: str, clock_hz: float) -> str:
    """The specification of a device with each kernel's seconds scaled, TOML."""
    how = f"scaled from {device.name}: nettime calibrate cpu --quick on {machine}, "
    how += f"{platform.system()}, {device.threads} thread(s)"
    fastest = min(1.0, *found.ratios.values())
    middle = float(np.median(list(found.ratios.values())))
    values: dict[str, tuple[Any, str]] = {}
    for key in parameters_of(type(device)):
        value, source = getattr(device, key), device.sources.get(key, "assumed")
        if key in found.ratios:
            value = {term: cost * found.ratios[key] for term, cost in value.items()}
            source = f"{how}, × {found.ratios[key]:.3g}"
        elif key in ("peak_flops", "cache_bytes_per_s"):
            value, source = value / fastest, how  # no estimate may beat it
        elif key == "element_s":
            value, source = value * middle, how
        elif key == "clock_hz":
            value, source = clock_hz, "the kernel's report of the core's clock"
        values[key] = value, source
    lines = [
        f'model = "{device.model}"',
        f'description = "{_plain(machine)}, {device.threads} thread(s): {device.name}, scaled"',
        "", "[parameters]",
    ]  # fmt: skip
    units = parameters_of(type(device))
    for key, (value, source) in values.items():
        lines.append(
            f'{key} = {{ value = {_toml(value)}, unit = "{units[key]["unit"]}", '
            f'source = "{_plain(source)}" }}'
        )
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {v:.4g}" for k, v in value.items()) + " }"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isprintable() and c not in '"\\')
