"""Fits seconds per counted term (`hwsim.cpu.costs`) to timed CPU kernels."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.cpu.costs import KERNEL_TERMS, dense_kernel, terms
from hwsim.errors import InputError
from hwsim.measured.record import Measurement
from hwsim.measured.timing import UNSTEADY, cache_bytes


@dataclass(frozen=True)
class CpuFit:
    """Seconds per term of each kernel, and how far the fit is from what it was made of.

    Attributes:
        costs: kernel → term → seconds.
        spread: kernel → relative error that 90 % of its records stay within.
    """

    costs: dict[str, dict[str, float]]
    spread: dict[str, float]


def fit_cpu(records: Iterable[Measurement]) -> CpuFit:
    """Seconds per term, by non-negative least squares on relative errors.

    Raises:
        InputError: a kernel without enough records for its terms.
    """
    by_kernel: dict[str, list[Measurement]] = {name: [] for name in KERNEL_TERMS}
    for record in records:
        name = kernel_of(record)
        if name in by_kernel:
            by_kernel[name].append(record)
    costs, spread = {}, {}
    for name, known in by_kernel.items():
        least = len(KERNEL_TERMS[name])
        if len(known) < least:
            raise InputError(
                f"records: {len(known)} of kernel {name!r}; allowed are at least {least}"
            )
        # What was disturbed is left out where enough is left.
        steady = [r for r in known if r.median_s <= UNSTEADY * r.min_s]
        costs[name], errors = _fit_kernel(name, steady if len(steady) >= 2 * least else known)
        spread[name] = float(np.percentile(errors, 90))
    return CpuFit(costs, spread)


def kernel_of(record: Measurement) -> str:
    """The kernel of `hwsim.cpu.costs` that a record belongs to."""
    return dense_kernel(record.phase, record.m) if record.kernel == "dense" else record.kernel


def _fit_kernel(name: str, records: list[Measurement]) -> tuple[dict[str, float], np.ndarray]:
    counts = _counts(name, records)
    # The fastest sample: a median also measures what else the machine was doing.
    seconds = np.array([r.min_s for r in records])
    solution = relative_fit(counts, seconds)
    errors = np.abs(counts @ solution / seconds - 1.0)
    return dict(zip(KERNEL_TERMS[name], solution.tolist(), strict=True)), errors


def relative_fit(counts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Seconds of each term, none negative, for counts (records, terms).

    Least squares of relative errors, in rounds in which what lies far off counts less: single
    records are disturbed.
    """
    from scipy.optimize import nnls

    relative = counts / seconds[:, None]
    scale = relative.max(axis=0)
    scale[scale == 0] = 1.0
    weights = np.ones(len(seconds))
    solution = np.zeros(counts.shape[1])
    for _ in range(5):
        solution = nnls(relative / scale * weights[:, None], weights)[0] / scale
        errors = np.abs(relative @ solution - 1.0)
        weights = 1.0 / np.sqrt(1.0 + (errors / 0.1) ** 2)
    return solution


def usable(records: Iterable[Measurement]) -> tuple[list[Measurement], dict[str, int]]:
    """(records of known kernels, why others are left out, with how many).

    Raises:
        InputError: records of several numbers of threads, or none that is known.
    """
    kept, rejected = [], {}
    for r in records:
        why = ""
        if r.dtype != "float32":
            why = f"dtype {r.dtype} is not fitted"
        elif kernel_of(r) not in KERNEL_TERMS:
            why = f"kernel {r.kernel!r} has no fitted model"
        elif r.cache != "warm":
            why = "cache is cold"
        if why:
            rejected[why] = rejected.get(why, 0) + 1
        else:
            kept.append(r)
    threads = sorted({r.threads for r in kept})
    if len(threads) != 1:
        raise InputError(
            f"records: threads are {', '.join(map(str, threads)) or 'none'}; allowed is one number"
        )
    return kept, rejected


def parameters(fit: CpuFit, records: Sequence[Measurement]) -> dict[str, Any]:
    """What a fit says of a device's parameters, by name."""
    return {
        "threads": records[0].threads,
        "peak_flops": _peak_flops(records),
        **{name: _rounded(table) for name, table in fit.costs.items()},
        "spread": _rounded(fit.spread),
    }


def error_rows(
    records: Sequence[Measurement], fit: CpuFit, rng: np.random.Generator
) -> tuple[dict[str, Any], ...]:
    """Per kernel: the error on each half of the shapes of a fit to the other half."""
    shapes = sorted({r.shape for r in records})
    half = {shapes[number]: place % 2 for place, number in enumerate(rng.permutation(len(shapes)))}
    errors: dict[str, list[float]] = {name: [] for name in fit.costs}
    for name in fit.costs:
        mine = [r for r in records if kernel_of(r) == name]
        for side in (0, 1):
            seen = [r for r in mine if half[r.shape] != side]
            held_out = [r for r in mine if half[r.shape] == side]
            if len(seen) >= len(KERNEL_TERMS[name]) and held_out:
                costs, _ = _fit_kernel(name, seen)
                seconds = np.array([r.min_s for r in held_out])
                errors[name] += (_counts(name, held_out) @ [*costs.values()] / seconds - 1).tolist()
    return tuple(
        {
            "kernel": name, "operands": "float32", "records": len(off),
            "held_out_mape": float(np.abs(off).mean()) if off else None,
            "held_out_bias": float(np.mean(off)) if off else None,
            "low": 1 / (1 + fit.spread[name]), "high": 1 + fit.spread[name],
        }
        for name, off in errors.items()
    )  # fmt: skip


def _rounded(table: dict[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.4g}") for key, value in table.items()}


def _peak_flops(records: Sequence[Measurement]) -> float:
    dense = [r for r in records if r.kernel == "dense" and r.m > 1]
    return float(f"{1.1 * max(2.0 * r.m * r.n * r.k / r.min_s for r in dense):.4g}")


def _counts(name: str, records: Sequence[Measurement]) -> np.ndarray:
    """(records, terms) of a kernel."""
    cached = cache_bytes().get("L3", 32 << 20) // 4
    found = [
        terms(
            name,
            r.phase,
            r.m,
            r.n,
            r.k,
            round(r.density * r.n * r.k),
            cached,
            lines=r.weight_lines,
            steps=r.lookup_steps,
        )
        for r in records
    ]
    return np.array([[one[c] for c in KERNEL_TERMS[name]] for one in found])


def specification(fit: CpuFit, records: Sequence[Measurement], *, clock_hz: float) -> str:
    """The TOML text of the machine that `records` are from."""
    machine, threads = records[0].machine, records[0].threads
    peak = _peak_flops(records)
    source = f"fitted: nettime calibrate cpu on {machine}, {platform.system()}, {threads} thread(s)"
    lines = [
        'model = "cpu"',
        f'description = "{machine}, {threads} thread(s), the kernels of hwsim.kernels.cpu"',
        "",
        "[parameters]",
        _entry("clock_hz", clock_hz, "Hz", "the kernel's report of the core's clock"),
        _entry("threads", threads, "1", "threads that the kernels were timed with"),
        _entry("peak_flops", peak, "FLOP/s", "1.1 × the fastest dense product timed"),
        # Two vector loads a cycle beside two multiply-adds: 2 FLOP for 4 bytes; twice to be safe.
        _entry("cache_bytes_per_s", 4.0 * peak, "B/s", "assumed: 4 bytes a FLOP is out of reach"),
        _entry(
            "last_level_bytes", float(cache_bytes().get("L3", 32 << 20)), "B",
            "the kernel's report",
        ),
    ]  # fmt: skip
    for name, table in fit.costs.items():
        lines.append(_entry(name, table, "s", source))
    lines.append(_entry("attention_share", 0.21, "1", "assumed: as measured on a Zen 3 EPYC"))
    lines.append(_entry("element_s", 1.8e-10, "s", "assumed: as measured on a Zen 3 EPYC"))
    lines.append(_entry("spread", fit.spread, "1", "relative error of the fit, 90 % of records"))
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any, unit: str, source: str) -> str:
    if isinstance(value, dict):
        text = "{ " + ", ".join(f"{key} = {number:.4g}" for key, number in value.items()) + " }"
    else:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f'{name} = {{ value = {text}, unit = "{unit}", source = "{source}" }}'


def relative_errors(
    records: Iterable[Measurement], estimate: Callable[[Measurement], float]
) -> dict[str, np.ndarray]:
    """Kernel → estimate / fastest sample − 1, one per record."""
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(kernel_of(record), []).append(estimate(record) / record.min_s - 1.0)
    return {name: np.array(errors) for name, errors in found.items()}
