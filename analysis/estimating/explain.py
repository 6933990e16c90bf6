"""Why a layer costs what it costs: the answer of `nettime estimate --explain`, for people and
machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from analysis.display import tables
from analysis.display.console import print_json, progress_bar, stdout
from analysis.estimating.breakdown import estimate_json
from hwsim import Device, Workload, units
from hwsim.answers.cache_traffic import Traffic, cache_traffic
from hwsim.answers.explain import (
    Balance,
    Change,
    Explanation,
    explain_layer,
    layer_changes,
    layer_settings,
)
from hwsim.devices.cpu import Cpu

if TYPE_CHECKING:
    from rich.console import RenderableType

# A change is named as a help if the layer gains more than this by it.
_NOTICEABLE = 1.005
_NO_GAIN = "–"
_RESOURCES = {"array": "array busy", "fill": "filling", "drain": "output port busy"}


def show(
    model: str, devices: Sequence[Device], sparse: Workload, layer: str, setting: dict[str, Any],
    as_json: bool, priced: str = "",
) -> None:  # fmt: skip
    """Prints one layer of a sparse step, device by device.

    Args:
        model: what the step is of.
        sparse: the step under its masks.
        setting: how the masks were made; `seed` also draws those that are tried instead.
        priced: batch, length, optimizer, dtype and seed, in a sentence.

    Raises:
        InputError: a layer that the step does not have; the valid names are listed.
    """
    import numpy as np

    found = []
    with progress_bar(f"explaining {layer}", len(devices)) as update:
        for done, device in enumerate(devices):
            rng = np.random.default_rng(setting["seed"])
            found.append((device, explain_layer(device, sparse, layer, rng)))
            update(done + 1, device.name)
    if as_json:
        op = found[0][1][0].op
        return print_json({
            "command": "estimate", "model": model, "setting": setting, "priced": priced,
            "explain": layer,
            "weight_shape": op.weight_shape, "density": op.density,
            "devices": [_device_json(device, phases) for device, phases in found],
        })  # fmt: skip
    if priced:
        stdout().print(f"{model}: {priced}")
    for device, phases in found:
        for part in tables_of(device, phases):
            stdout().print(part)
    if not all(p.estimate.verified for _, phases in found for p in phases):
        stdout().print(tables.UNVERIFIED_NOTE)
    return None


def tables_of(device: Device, phases: Sequence[Explanation]) -> Iterator[RenderableType]:
    """What limits each phase, what else the layer could do, and a sentence about it."""
    names = [p.op.phase for p in phases]
    title = f"{phases[0].op.name} on {device.name}"
    yield tables.table(title, ["", *names], list(_facts(phases)), text=("", *names))
    yield _mask_sentence(phases[0])
    changes, settings = layer_changes(phases), layer_settings(phases)
    kinds = [(c, [p.changes for p in phases]) for c in changes]
    kinds += [(c, [p.settings for p in phases]) for c in settings]
    rows = [(c.what, _change_row(c, of_phases)) for c, of_phases in kinds]
    felt = [row for _, row in rows if set(row[2:]) != {_NO_GAIN}]
    if felt:
        columns = ["instead", "weights", *names, "layer"]
        yield tables.table("Gain by another mask or setting", columns, felt, text=("instead",))
    yield from _caches(device, phases)
    unfelt = [what for what, row in rows if set(row[2:]) == {_NO_GAIN}]
    if unfelt:
        yield f"Without effect: {', '.join(unfelt)}."
    yield sentence(device, changes)


def _caches(device: Device, phases: Sequence[Explanation]) -> Iterator[RenderableType]:
    """On a processor: what each phase's kernel does to the caches under this mask."""
    rows, reasons = [], []
    for p, found in _traffic(device, phases):
        if isinstance(found, str):
            reasons.append(f"{p.op.phase}: {found}")
            continue
        for level in found.levels:
            rows.append((
                f"{p.op.phase} {level.name}", found.kernel,
                units.quantity(level.loads + level.stores), units.quantity(level.misses),
                units.quantity(found.bytes_below(level), "B"),
            ))  # fmt: skip
        assumed = units.quantity(found.assumed_bytes, "B")
        rows.append((f"{p.op.phase} price", p.estimate.kernel, "", "", assumed))
    if rows:
        columns = ["simulated caches", "kernel", "accesses", "misses", "bytes below"]
        yield tables.table("", columns, rows)
        yield "Empty caches at first; in the row of the price, the bytes that it takes to be moved."
    if rows and reasons:
        yield f"Not simulated: {'; '.join(reasons)}."


def _traffic(
    device: Device, phases: Sequence[Explanation]
) -> Iterator[tuple[Explanation, Traffic | str]]:
    if isinstance(device, Cpu):
        for p in phases:
            yield p, cache_traffic(device, p.op, p.estimate.kernel, p.estimate.bytes)


def _facts(phases: Sequence[Explanation]) -> Iterator[list[str]]:
    yield ["time", *(units.seconds(p.estimate.seconds) for p in phases)]
    yield ["roofline", *(units.seconds(p.roofline_s) for p in phases)]
    marked = [p.estimate.kernel + ("" if p.estimate.verified else "*") for p in phases]
    yield ["kernel", *marked]
    yield ["limited by", *(_bounds(p) for p in phases)]
    if any(p.limits for p in phases):
        yield ["longest chain", *(units.shares(p.limits) for p in phases)]
    if all(p.pes is not None for p in phases):
        pes = [p.pes for p in phases if p.pes is not None]
        yield ["slowest PE", *(load.slowest for load in pes)]
        yield ["  its load", *(f"{units.quantity(round(x.max))} {x.unit}" for x in pes)]
        yield ["  mean load", *(f"{units.quantity(round(x.mean))} {x.unit}" for x in pes)]
        yield ["  balance", *(units.percent(load.balance) for load in pes)]
    for name in _resources(phases):
        shares = [_occupancy(p)[name] for p in phases]
        yield [_RESOURCES.get(name, f"{name} busy"), *(units.percent(share) for share in shares)]


def _bounds(p: Explanation) -> str:
    """Shares of the time by what limits it; the bound alone where the model tells no more."""
    known = {b: s for b, s in p.estimate.by_bound.items() if s > 0}
    if not p.estimate.seconds or len(known) < 2:
        return p.estimate.bound
    return units.shares(known)


def _occupancy(p: Explanation) -> dict[str, float]:
    """Busy shares with all DRAM channels as one, the busiest of them."""
    shares = {name: s for name, s in p.occupancy.items() if not name.startswith("channel ")}
    channels = [s for name, s in p.occupancy.items() if name.startswith("channel ")]
    if channels:
        shares["memory" if len(channels) == 1 else f"{len(channels)} channels"] = max(channels)
    return shares


def _resources(phases: Sequence[Explanation]) -> list[str]:
    """Those that any phase uses, in the pipeline's order."""
    shares = [_occupancy(p) for p in phases]
    return [name for name in shares[0] if any(s[name] for s in shares)]


def _mask_sentence(p: Explanation) -> str:
    return (
        f"Mask: {p.op.nnz} of {p.op.weights} weights. Outputs have {_described(p.rows)}; "
        f"inputs have {_described(p.columns)}."
    )


def _described(b: Balance) -> str:
    empty = f", {b.empty} have none" if b.empty else ""
    return f"{units.digits(b.mean)} each, at most {b.max} (number {b.slowest}){empty}"


def _change_row(change: Change, phases: Sequence[Sequence[Change]]) -> list[str]:
    gains = [next(c.speedup for c in of_phase if c.what == change.what) for of_phase in phases]
    return [
        change.what, units.quantity(change.nnz), *(_gain(g) for g in gains), _gain(change.speedup)
    ]  # fmt: skip


def _gain(value: float) -> str:
    """Two decimals, since a few per cent count here; a dash for none."""
    if abs(value - 1) < _NOTICEABLE - 1:
        return _NO_GAIN
    return f"{value:.2f}×" if value < 10 else units.ratio(value)


def sentence(device: Device, changes: Sequence[Change]) -> str:
    """Which of the masks would help most, in words."""
    if not changes or changes[0].speedup < _NOTICEABLE:
        return f"None of these masks makes the layer faster on {device.name}."
    best = changes[0]
    return (
        f"On {device.name} the mask that would help most: {best.what}, "
        f"{_gain(best.speedup)} over all its phases."
    )


def _device_json(device: Device, phases: Sequence[Explanation]) -> dict[str, Any]:
    changes = layer_changes(phases)
    caches = {p.op.phase: found for p, found in _traffic(device, phases)}
    return {
        "device": device.name,
        "phases": [_phase_json(p, caches.get(p.op.phase)) for p in phases],
        "changes": [_change_json(c) for c in changes],
        "settings": [_change_json(c) for c in layer_settings(phases)],
        "best_change": _change_json(changes[0])
        if changes and changes[0].speedup >= _NOTICEABLE
        else None,
    }


def _phase_json(p: Explanation, caches: Traffic | str | None) -> dict[str, Any]:
    pes = p.pes
    return {
        "phase": p.op.phase,
        **estimate_json(p.estimate),
        "by_bound_s": dict(p.estimate.by_bound),
        "longest_chain_s": p.limits,
        "roofline_s": p.roofline_s,
        "outputs": _balance_json(p.rows),
        "inputs": _balance_json(p.columns),
        "pes": None
        if pes is None
        else {
            "slowest": pes.slowest, "mean": pes.mean, "max": pes.max, "unit": pes.unit,
            "balance": pes.balance,
        },
        "occupancy": p.occupancy,
        "caches": None if caches is None else _traffic_json(caches),
        "changes": [_change_json(c) for c in p.changes],
        "settings": [_change_json(c) for c in p.settings],
    }  # fmt: skip


def _traffic_json(found: Traffic | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"reason": found}
    levels = [
        {"level": one.name, "accesses": one.loads + one.stores, "misses": one.misses,
         "bytes_below": found.bytes_below(one)}
        for one in found.levels
    ]  # fmt: skip
    return {"kernel": found.kernel, "assumed_bytes": found.assumed_bytes, "levels": levels}


def _balance_json(b: Balance) -> dict[str, Any]:
    return {
        "mean": b.mean, "max": b.max, "slowest": b.slowest, "empty": b.empty, "balance": b.balance
    }  # fmt: skip


def _change_json(c: Change) -> dict[str, Any]:
    return {"what": c.what, "weights": c.nnz, "seconds": c.seconds, "speed_up": c.speedup}
