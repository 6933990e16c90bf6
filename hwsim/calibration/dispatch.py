"""Fits a device's specification to measurements.

One function per device model, all with the same shape: records and a data sheet in, the text of a
specification and its held-out errors out. `calibrate` picks the function by the data sheet's model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.device import Device, parameters_of
from hwsim.errors import InputError
from hwsim.gpu.matmul import FAMILIES
from hwsim.measured.crosscheck import CrossCheck, Pair
from hwsim.measured.record import STEP, Measurement

if TYPE_CHECKING:
    from hwsim.calibration.gpu import Unseen

FEWEST_SHAPES = 8


@dataclass(frozen=True)
class Calibration:
    """A fitted specification and how well it does on shapes that it has not seen.

    Attributes:
        text: the specification, TOML; `load_device` reads it.
        errors: one row per kernel and family of operands: shapes, held-out MAPE and bias, and the
            interval that estimates will show.
        rejected: why records were left out, with how many.
        held_out: every record beside the estimate of a fit to the other half of the shapes;
            None for a model whose fit does not cut its records so.
    """

    text: str
    errors: tuple[dict[str, Any], ...]
    rejected: dict[str, int]
    held_out: CrossCheck | None = None


def calibrate(
    data_sheet: Device, records: Sequence[Measurement], *, rng: np.random.Generator
) -> Calibration:
    """Fits `data_sheet`'s model to `records`; what they say nothing about stays as it is.

    Raises:
        InputError: a model that has no fit, or too few usable records.
    """
    if data_sheet.model not in CALIBRATORS:
        raise InputError(
            f"calibrate: device {data_sheet.name!r} has model {data_sheet.model!r}; "
            f"allowed: {', '.join(sorted(CALIBRATORS))}"
        )
    return CALIBRATORS[data_sheet.model](data_sheet, records, rng=rng)


def fit_gpu(
    data_sheet: Device,
    records: Sequence[Measurement],
    *,
    rng: np.random.Generator,
    members: int = 3,
) -> Calibration:
    """Dense and 2:4 products of a GPU, fitted together, apart for 16-bit, float8 and int8.

    Records must be of kernel "dense" or "2:4", warm, and without packing in the time, since the
    model adds that itself. A shape counts once however many dtypes and kernels it is timed in.

    Raises:
        InputError: fewer than eight usable shapes.
    """
    from hwsim.calibration.gpu import fit_products, held_out, spread_of, ticks_of
    from hwsim.devices.gpu import Gpu

    if not isinstance(data_sheet, Gpu):
        raise InputError(f"data sheet {data_sheet.name!r}: model is not 'gpu'")
    usable, rejected = _usable(records, data_sheet)
    shapes = {r.shape for r in usable}
    if len(shapes) < FEWEST_SHAPES:
        left_out = "; ".join(f"{n}: {why}" for why, n in rejected.items()) or "none"
        raise InputError(
            f"records: {len(shapes)} usable shapes; allowed is at least {FEWEST_SHAPES} "
            f"(left out: {left_out})"
        )
    timed = _timed(usable)
    peaks = {t.dtype: data_sheet.peak(t.dtype) for t in timed}
    unseen = held_out(timed, data_sheet.card, peaks, members=members, rng=rng)
    ticks = ticks_of(timed)
    fits = fit_products(timed, data_sheet.card, peaks, members=members, ticks=ticks, rng=rng)
    tables: dict[str, dict[str, list[float]]] = {"dense_fit": {}, "sparse_fit": {}}
    rows, spreads = [], {}
    for (kind, family), fit in fits.items():
        errors = np.array([
            u.log_error for u in unseen if (u.kind, FAMILIES[u.dtype]) == (kind, family)
        ])  # fmt: skip
        fit = replace(fit, spread=spread_of(kind, errors))
        spreads[kind, family] = fit.spread
        tables["dense_fit" if kind == "dense" else "sparse_fit"].update(_entries(family, fit))
        rows.append(_error_row(kind, family, errors, fit.spread))
    machines = sorted({f"{r.machine} ({r.toolchain})" for r in usable})
    source = f"fitted to {len(usable)} records of {len(shapes)} shapes: {', '.join(machines)}"
    changes = {"fit": "own", **tables, **_packing(records, data_sheet)}
    if ticks.step_s:
        changes |= {"timer_tick_s": ticks.step_s, "timer_offset_s": ticks.offset_s}
    text = specification_text(data_sheet, changes, source)
    return Calibration(text, tuple(rows), rejected, _beside(unseen, data_sheet.name, spreads))


def _beside(
    unseen: Sequence[Unseen], device: str, spreads: Mapping[tuple[str, str], tuple[float, float]]
) -> CrossCheck:
    """Held-out products as a cross-check, for its errors of time and speed-up, by size."""
    pairs = []
    for u in unseen:
        low, high = spreads[u.kind, FAMILIES[u.dtype]]
        record = Measurement.of_median(
            u.measured_s, machine=device, toolchain="held out", kernel=u.kind, phase="forward",
            m=u.shape[0], n=u.shape[1], k=u.shape[2], dtype=u.dtype, rounds=1,
            density=1.0 if u.kind == "dense" else 0.5,
        )  # fmt: skip
        estimated = u.estimated_s
        pairs.append(Pair(record, estimated, estimated * math.exp(low), estimated * math.exp(high)))
    return CrossCheck(device, tuple(pairs), {})


def _packing(records: Sequence[Measurement], device: Any) -> dict[str, float]:
    """Shares of the bandwidth that packing reaches, from records of packing alone, if any.

    The median over weights of bytes read and written, by the time and the data sheet's bandwidth.
    """
    from hwsim.gpu.matmul import ELEMENT_BYTES, packed_share

    found = {}
    for kernel, name in (
        ("fused pack", "fused_pack_share"), ("library pack", "library_pack_share"),
    ):  # fmt: skip
        shares = [
            r.n * r.k * ELEMENT_BYTES[r.dtype] * (1.0 + packed_share(r.dtype))
            / (r.median_s * device.dram_bytes_per_s)
            for r in records
            if r.kernel == kernel
        ]  # fmt: skip
        if shares:
            found[name] = float(f"{np.median(shares):.3g}")
    return found


def _usable(
    records: Sequence[Measurement], device: Device
) -> tuple[list[Measurement], dict[str, int]]:
    usable, rejected = [], {}
    captured = {(r.kernel, r.phase, r.dtype, r.shape) for r in records if r.graph}
    for r in records:
        why = ""
        if r.phase == STEP:
            why = "a whole step, not a product"
        elif r.kernel not in ("dense", "2:4"):
            why = f"kernel {r.kernel!r} has no fitted model"
        elif not r.graph and (r.kernel, r.phase, r.dtype, r.shape) in captured:
            why = "launched by the host; the same product was timed in a graph"
        elif r.packing:
            why = "packing is in the time"
        elif r.cache != "warm":
            why = "cache is cold"
        elif r.dtype not in ("bfloat16", "float16", "float8", "int8"):
            why = f"dtype {r.dtype} is not fitted"
        elif r.dtype not in device.peak_flops:  # type: ignore[attr-defined]
            why = f"the data sheet gives no peak for {r.dtype}"
        if why:
            rejected[why] = rejected.get(why, 0) + 1
        else:
            usable.append(r)
    return usable, rejected


def _timed(records: Sequence[Measurement]) -> list[Any]:
    from hwsim.calibration.gpu import TimedProducts
    from hwsim.gpu.rules import product
    from hwsim.workload import gemm

    groups: dict[tuple[str, str], list[tuple[tuple[int, int, int], float]]] = {}
    for r in records:
        shape = product(gemm(r.m, r.n, r.k, phase=r.phase, dtype=r.dtype))
        groups.setdefault((r.kernel, r.dtype), []).append((tuple(shape), r.median_s))
    return [
        TimedProducts(
            kind, dtype, np.array([s for s, _ in rows], float), np.log([t for _, t in rows])
        )
        for (kind, dtype), rows in sorted(groups.items())
    ]  # fmt: skip


def _entries(family: str, fit: Any) -> dict[str, list[float]]:
    """The rows of a fit's table, rounded to what a fit knows."""
    rows = {f"{family}.{i}": member for i, member in enumerate(fit.members)}
    if fit.correction is not None:
        rows[f"{family}.correction"] = fit.correction
    rows[f"{family}.spread"] = np.asarray(fit.spread)
    return {key: [float(f"{x:.5g}") for x in values] for key, values in rows.items()}


def _error_row(
    kind: str, family: str, errors: np.ndarray, spread: tuple[float, float]
) -> dict[str, Any]:
    """Held-out errors of one kernel and family; the estimate over the measurement, minus one."""
    off = np.exp(-errors) - 1.0
    return {
        "kernel": kind,
        "operands": family,
        "records": len(errors),
        "held_out_mape": float(np.abs(off).mean()) if len(off) else None,
        "held_out_bias": float(off.mean()) if len(off) else None,
        "low": float(np.exp(spread[0])),
        "high": float(np.exp(spread[1])),
    }


def specification_text(device: Device, changes: Mapping[str, Any], source: str) -> str:
    """The TOML of `device` with some parameters changed; those get `source` as their source."""
    lines = [
        f"model = {_toml(device.model)}",
        f"description = {_toml(device.description)}",
        "",
        "[parameters]",
    ]
    tables = []
    for name, limits in parameters_of(type(device)).items():
        value = changes.get(name, getattr(device, name))
        where = source if name in changes else device.sources.get(name)
        if where is None or value is None:
            continue  # never given: the model's default holds
        if limits["vectors"]:
            tables += ["", f"[parameters.{name}]", f"unit = {_toml(limits['unit'])}"]
            tables += [f"source = {_toml(where)}", "", f"[parameters.{name}.value]"]
            tables += [f"{_toml(key)} = {_toml(numbers)}" for key, numbers in value.items()]
        else:
            lines.append(
                f"{name} = {{ value = {_toml(value)}, unit = {_toml(limits['unit'])}, "
                f"source = {_toml(where)} }}"
            )
    return "\n".join([*lines, *tables, ""])


def _toml(value: Any) -> str:
    """A TOML value: text, number, list of numbers or inline table."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value).replace("e+", "e")


def fit_cpu(
    data_sheet: Device, records: Sequence[Measurement], *, rng: np.random.Generator
) -> Calibration:
    """Seconds per counted term of each CPU kernel; see `hwsim.calibration.cpu`.

    Records are those of `hwsim.calibration.measure_cpu.measure_cpu`: float32, of one number of
    threads. Each kernel's held-out error is that of a fit to the other half of the shapes.

    Raises:
        InputError: a kernel without enough records, or records of several numbers of threads.
    """
    from hwsim.calibration.cpu import error_rows, fit_cpu, parameters, usable
    from hwsim.devices.cpu import Cpu

    if not isinstance(data_sheet, Cpu):
        raise InputError(f"data sheet {data_sheet.name!r}: model is not 'cpu'")
    kept, rejected = usable(records)
    fit = fit_cpu(kept)
    rows = error_rows(kept, fit, rng)
    machines = sorted({f"{r.machine} ({r.toolchain}), {r.threads} thread(s)" for r in kept})
    source = f"fitted to {len(kept)} records: {', '.join(machines)}"
    changes = parameters(fit, kept)
    return Calibration(specification_text(data_sheet, changes, source), rows, rejected)


CALIBRATORS: dict[str, Callable[..., Calibration]] = {"cpu": fit_cpu, "gpu": fit_gpu}
