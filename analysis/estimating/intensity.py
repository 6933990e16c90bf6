"""FLOP/s, share of the peak and FLOP per byte of parts of a step: where each lies on a roofline.

Source: Williams, Waterman and Patterson 2009, "Roofline".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim import Device, Estimate, Op, Workload, gemm

if TYPE_CHECKING:
    from rich.table import Table

    from analysis.estimating.breakdown import Breakdown

# Large enough that nothing but the roof counts.
_SIDE, _BYTES = 1 << 15, 1 << 40


@dataclass(frozen=True)
class Roof:
    """What a device can do at most on operands of one type.

    Attributes:
        flops_per_s: of dense products.
        bytes_per_s: of a pass over more than any cache holds; infinite where a device has none.
    """

    dtype: str
    flops_per_s: float
    bytes_per_s: float

    @property
    def ridge(self) -> float:
        """FLOP per byte above which arithmetic is the limit."""
        return self.flops_per_s / self.bytes_per_s


@dataclass(frozen=True)
class Spot:
    """A part of a step under a roof: FLOP, bytes and seconds as its estimate has them."""

    label: str
    flops: float
    bytes: float
    seconds: float

    @property
    def flops_per_s(self) -> float:
        """0 where no time is taken."""
        return self.flops / self.seconds if self.seconds else 0.0

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / self.bytes if self.bytes else math.inf


def roof_of(device: Device, step: Workload) -> Roof:
    """Of the type in which the step does most of its arithmetic."""
    flops: dict[str, int] = {}
    for op in step:
        if op.kind in ("gemm", "conv", "attention"):
            flops[op.dtype] = flops.get(op.dtype, 0) + op.dense_flops
    dtype = max(flops, key=lambda d: flops[d], default="float32")
    product = gemm(_SIDE, _SIDE, _SIDE, None, "forward", dtype)
    passing = Op("elementwise", "forward", dtype=dtype, activation_bytes=_BYTES)
    seconds, stream_s = device.roofline(product), device.roofline(passing)
    return Roof(
        dtype, product.dense_flops / seconds if seconds else math.inf,
        _BYTES / stream_s if stream_s else math.inf,
    )  # fmt: skip


def spot(label: str, e: Estimate) -> Spot:
    """An estimate as a spot."""
    return Spot(label, e.flops, e.bytes, e.seconds)


def as_json(b: Breakdown, roof: Roof) -> dict[str, Any]:
    """For machines: of each row, dense and sparse."""
    return {
        "dtype": roof.dtype,
        "peak_flops_per_s": _finite(roof.flops_per_s),
        "bytes_per_s": _finite(roof.bytes_per_s),
        "rows": [
            {"label": row.label, **{
                name: _spot_json(spot(row.label, e), roof)
                for name, e in (("dense", row.dense), ("sparse", row.sparse))
            }}
            for row in (*b.rows, b.total)
        ],
    }  # fmt: skip


def _spot_json(s: Spot, roof: Roof) -> dict[str, float | None]:
    return {
        "flops_per_s": s.flops_per_s,
        "share_of_peak": s.flops_per_s / roof.flops_per_s,
        "flops_per_byte": _finite(s.intensity),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table_of(b: Breakdown, roof: Roof, top: int) -> Table:
    """The dearest rows of a breakdown, dense and sparse, under the device's roof."""
    from analysis.display import tables
    from hwsim import units

    ranked = sorted(b.rows, key=lambda r: -max(r.sparse.seconds, r.dense.seconds))
    chosen = ranked[:top] if top else list(b.rows)
    rows = []
    for row in (*chosen, b.total):
        cells = [row.label]
        for e in (row.dense, row.sparse):
            s = spot(row.label, e)
            cells += [
                units.quantity(s.flops_per_s),
                units.percent(s.flops_per_s / roof.flops_per_s),
                units.digits(s.intensity) if math.isfinite(s.intensity) else "–",
            ]  # fmt: skip
        rows.append(cells)
    columns = ("", "FLOP/s", "of peak", "FLOP/B", "sparse FLOP/s", "of peak", "FLOP/B")
    title = f"{b.device}: a peak of {units.quantity(roof.flops_per_s)}FLOP/s in {roof.dtype}"
    if math.isfinite(roof.bytes_per_s):
        title += (
            f", {units.quantity(roof.bytes_per_s)}B/s; even at {units.digits(roof.ridge)} FLOP/B"
        )
    return tables.table(title, columns, rows)


def spots(device: Device, step: Workload) -> dict[str, list[Spot]]:
    """Kind of operation → its distinct ops; what is under a mask is a kind of its own."""
    found: dict[str, dict[tuple, list[Estimate]]] = {}
    for op, price in device.breakdown(step):
        kind = f"{op.kind} under a mask" if op.mask is not None else op.kind
        size = (op.phase, *op.signature[3:], op.density)
        found.setdefault(kind, {}).setdefault(size, []).append(price)
    return {
        kind: [spot(kind, Estimate.total(prices)) for prices in ops.values()]
        for kind, ops in found.items()
    }
