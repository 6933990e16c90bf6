"""Where the time of a training step goes: dense and sparse side by side, device by device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim import Device, Estimate, InputError, Mask, Op, Workload, units
from hwsim.display import Printed, TextTable
from hwsim.errors import unknown
from hwsim.workload import PHASES

GROUPINGS: dict[str, Callable[[Op], str]] = {
    "phase": lambda op: op.phase,
    "kind": lambda op: op.kind,
    "layer": lambda op: op.name or op.kind,
}


@dataclass(frozen=True)
class PricedPart:
    """One group of ops, priced without and with masks."""

    label: str
    dense: Estimate
    sparse: Estimate

    @property
    def speed_up(self) -> float:
        """Dense seconds over sparse seconds; above 1 sparse is faster."""
        return speed_up(self.dense.seconds, self.sparse.seconds)


@dataclass(frozen=True)
class Breakdown(Printed):
    """A training step on one device.

    Attributes:
        device: its name.
        rows: in the order in which the step runs.
        total: of all rows.
        maskable: share of the dense time in ops that a mask acts on; the rest no mask shortens.
    """

    device: str
    rows: tuple[PricedPart, ...]
    total: PricedPart
    maskable: float

    def as_table(self) -> TextTable:
        """Dense and sparse time of each part, and how much faster sparse is."""
        rows = [
            (row.label, units.seconds(row.dense.seconds), units.seconds(row.sparse.seconds),
             units.ratio(row.speed_up), row.sparse.bound)
            for row in (*self.rows, self.total)
        ]  # fmt: skip
        verified = self.total.dense.verified and self.total.sparse.verified
        note = "" if verified else "unverified: no real kernel has been held against some prices"
        columns = ("training step", "dense", "sparse", "faster", "bound")
        return TextTable(self.device, columns, rows, note)

    @property
    def ceiling(self) -> float:
        """Speed-up if everything under a mask cost nothing (Amdahl's law)."""
        return float("inf") if self.maskable == 1 else 1 / (1 - self.maskable)

    def amdahl(self, density: float) -> float:
        """Speed-up if everything under a mask took `density` of its dense time, and no more."""
        return 1 / (1 - self.maskable + self.maskable * density)


@dataclass(frozen=True)
class Coverage:
    """How much of a model its masks reach.

    Attributes:
        layers: under a mask.
        active, maskable, weights: active weights, weights of those layers, weights of the model.
        flops: share of the dense FLOPs that lies in products under a mask.
    """

    layers: int
    active: int
    maskable: int
    weights: int
    flops: float

    @property
    def share(self) -> float:
        """Of the model's weights, how many a mask can act on."""
        return self.maskable / self.weights if self.weights else 0.0

    @property
    def density(self) -> float:
        """Active share of the weights under masks."""
        return self.active / self.maskable if self.maskable else 1.0


def coverage(workload: Workload, masks: Mapping[str, Mask], weights: int) -> Coverage:
    """What `masks` reach of a model with `weights` parameters, whose step is `workload`."""
    masked = workload.with_masks(masks)
    return Coverage(
        len(masks),
        sum(mask.nnz for mask in masks.values()),
        sum(mask.size for mask in masks.values()),
        weights,
        masked.coverage,
    )


def breakdown(
    device: Device,
    dense: Workload,
    sparse: Workload,
    by: str = "phase",
    *,
    growth: float = 0.0,
    grown: Workload | None = None,
) -> Breakdown:
    """Prices both steps and groups them.

    Args:
        dense: the step without masks.
        sparse: the same step under masks.
        by: one of GROUPINGS.
        growth: share of the steps that update the masks, 0 for static ones.
        grown: such a step; needed if `growth` is above 0.

    Raises:
        InputError: an unknown grouping, or a device that cannot run an op.
    """
    if by not in GROUPINGS:
        raise InputError(unknown("grouping", by, tuple(GROUPINGS)))
    group = GROUPINGS[by]
    plain = _grouped(device, dense, group)
    masked = _grouped(device, sparse, group, 1.0 - growth)
    if growth and grown is not None:
        for label, estimates in _grouped(device, grown, group, growth).items():
            masked.setdefault(label, []).extend(estimates)
    rows = tuple(
        PricedPart(
            label, Estimate.total(plain.get(label, [])), Estimate.total(masked.get(label, []))
        )
        for label in _ordered([*plain, *masked], by)
    )
    total = PricedPart("total", device.estimate(dense), _whole(device, sparse, growth, grown))
    rows += _overlap(rows, total)
    names = sparse.masks
    reached = sum(
        device.estimate(op).seconds
        for op in dense.ops
        if op.weight_shape is not None and op.name in names
    )
    return Breakdown(
        device.name, rows, total, reached / total.dense.seconds if total.dense.seconds else 0.0
    )


def _whole(device: Device, sparse: Workload, growth: float, grown: Workload | None) -> Estimate:
    """The mean step: an ordinary one, and in its share one that updates the masks."""
    if not growth or grown is None:
        return device.estimate(sparse)
    return Estimate.total(
        (device.estimate(sparse).scaled(1.0 - growth), device.estimate(grown).scaled(growth))
    )


def _overlap(rows: Sequence[PricedPart], total: PricedPart) -> tuple[PricedPart, ...]:
    """A row of what a device saves by starting an op before the last one ends; none if nothing."""
    dense = total.dense.seconds - sum(r.dense.seconds for r in rows)
    sparse = total.sparse.seconds - sum(r.sparse.seconds for r in rows)
    if max(-dense / (total.dense.seconds or 1), -sparse / (total.sparse.seconds or 1)) < 1e-6:
        return ()
    return (PricedPart("overlap", _saved(min(dense, 0.0)), _saved(min(sparse, 0.0))),)


def _saved(seconds: float) -> Estimate:
    return Estimate(seconds, seconds, seconds, 0.0, 0.0, 0.0, "none", "none")


def speed_up(dense_s: float, sparse_s: float) -> float:
    """Dense over sparse; 1 where both cost nothing."""
    if sparse_s:
        return dense_s / sparse_s
    return float("inf") if dense_s else 1.0


def how_much(value: float) -> str:
    """A speed-up in words.

    >>> how_much(6.14), how_much(0.5), how_much(1.004)
    ('6.1× faster', '2.0× slower', 'as fast')
    """
    from hwsim.units import ratio

    if 0.95 < value < 1.05:
        return "as fast"
    return f"{ratio(value)} faster" if value > 1 else f"{ratio(1 / value)} slower"


def verdict(breakdowns: Iterable[Breakdown], density: float) -> str:
    """The sentence that tells the truth about a sparse step on some devices."""
    from hwsim.units import percent, ratio

    parts = list(breakdowns)
    speeds = _listed([f"{how_much(b.total.speed_up)} on {b.device}" for b in parts])
    rest = _listed([f"{percent(1 - b.maskable)} on {b.device}" for b in parts])
    caps = _listed([ratio(b.ceiling) if b.maskable < 1 else "nothing" for b in parts])
    return (
        f"At density {percent(density)} a training step is {speeds}, against dense. "
        f"Of the dense time, {rest} is not maskable, which caps the gain of any mask at {caps}."
    )


def as_json(b: Breakdown) -> dict[str, Any]:
    """A breakdown for machines: seconds throughout."""
    return {
        "device": b.device,
        "maskable_share_of_dense_time": b.maskable,
        "speed_up_ceiling": b.ceiling,
        "rows": [_row_json(row) for row in b.rows],
        "total": _row_json(b.total),
    }


def _row_json(row: PricedPart) -> dict[str, Any]:
    return {
        "label": row.label,
        "dense": estimate_json(row.dense),
        "sparse": estimate_json(row.sparse),
        "speed_up": row.speed_up,
    }


def estimate_json(e: Estimate) -> dict[str, Any]:
    """What an Estimate says, in seconds and bytes, for machines."""
    return {
        "seconds": e.seconds, "low_s": e.low_s, "high_s": e.high_s, "cycles": e.cycles,
        "bytes": e.bytes, "flops": e.flops, "kernel": e.kernel, "bound": e.bound,
        "verified": e.verified,
    }  # fmt: skip


def _grouped(
    device: Device, workload: Workload, group: Callable[[Op], str], times: float = 1.0
) -> dict[str, list[Estimate]]:
    groups: dict[str, list[Estimate]] = {}
    for op, price in device.breakdown(workload):
        groups.setdefault(group(op), []).append(price if times == 1 else price.scaled(times))
    return groups


def _ordered(labels: list[str], by: str) -> list[str]:
    """Each label once: phases in the order of a step, the others as they come."""
    unique = dict.fromkeys(labels)
    return [phase for phase in PHASES if phase in unique] if by == "phase" else list(unique)


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
