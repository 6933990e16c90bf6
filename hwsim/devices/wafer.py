"""A weight-streaming accelerator: activations stay, weights pass through."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hwsim.device import Device, parameter
from hwsim.devices._waves import dense_table, grouped_table, wave_cycles, wave_table
from hwsim.estimate import Estimate
from hwsim.workload import PRODUCTS, Op


class _Rates(NamedTuple):
    """What a streamed product takes of each part of the grid, whatever its mask.

    Attributes:
        of_waves: PE columns that hold a feature; cycles of a column for each nonzero that it
            receives, of the stream for each nonzero of all columns, of a row's links for each
            output with a nonzero.
        column_bound: what a column's cycles are: "compute", or "port" where its links are slower.
        peak_flops: of the grid on these values.
        bytes, stream_s: of all weights if dense: with indices if they are sent, and the seconds of
            the values alone at the stream's bandwidth.
    """

    of_waves: tuple[int, float, float, float]
    column_bound: str
    peak_flops: float
    bytes: float
    stream_s: float


@dataclass(frozen=True, eq=False)
class Wafer(Device):
    """Weight streaming over a grid of processing elements (PEs).

    Activations are resident: tokens are spread over the PE rows, input features over the PE
    columns. Weights come from a memory outside: each nonzero once, with its index, sent down the
    column that holds its input feature, where every PE multiplies it with its tokens. Sums are
    reduced along the rows and leave through output ports. The PEs hold the sums of 128 outputs at
    a time, a wave. Waves wait for each other, columns within a wave do not. With, per wave,

        T = ⌈m/pe_rows⌉ tokens a PE,  lanes = ⌊datapath_bytes/value⌋
        v = max(⌈T/lanes⌉ + nonzero_overhead, (value + index)/broadcast_bytes)

        cycles = Σ max(v · nonzeros of the column with most of them,
                       (value + index) · nonzeros of all columns / stream bytes a cycle,
                       T · value · outputs with a nonzero / port_bytes)

    all counted from the actual mask. With q nonzeros in each of the columns in each of W waves, and
    stream and ports fast enough, that is W·q·v. An output without a nonzero costs nothing.

    grad_input exchanges the mask's rows and columns: dy's features lie over the columns. In
    grad_weight only the mask's entries are computed (sampled): their indices come down the columns,
    dy is broadcast along the rows at T · value · outputs / broadcast_bytes, and each sum leaves
    through its column's port. So there v = max(⌈T/lanes⌉ + nonzero_overhead, index/broadcast_bytes,
    value/port_bytes), and indices in and values out share the stream.

    The dense kernel is the same with every weight, without index and overhead. A convolution is the
    product of its patches; a grouped one, that with its block-diagonal weight.

    Products of activations (attention) run at peak. The other operations between products are
    limited by the PEs' memories; an embedding's rows pass through the stream. Weights and moments
    are updated where they are kept, outside, compressed: so a mask saves the optimizer's bytes too,
    and packing is free. All activations of an op are taken to fit into the PEs' memories.

    Source of the mechanism: Lie (2022), "Cerebras architecture deep dive", IEEE Micro 43(3), and
    James (2021), "Scaling up and out: training massive models on Cerebras systems using weight
    streaming". No such machine has been timed against it, so every price is unverified.
    """

    model = "wafer"
    clock_hz: float = parameter("Hz", "of the PEs", above=0.0)
    pe_rows: int = parameter("1", "PEs that share a column's features", at_least=1, integer=True)
    pe_columns: int = parameter("1", "PEs that share a row's tokens", at_least=1, integer=True)
    datapath_bytes: float = parameter("B/cycle", "values that a PE multiplies", above=0.0)
    nonzero_overhead: float = parameter(
        "cycle", "to receive a nonzero and start its multiply-adds", at_least=0.0
    )
    index_bytes: float = parameter("B", "sent with each nonzero", at_least=0.0)
    stream_bandwidth: float = parameter("B/s", "of weights into the grid", above=0.0)
    broadcast_bytes: float = parameter("B/cycle", "down a column or along a row", above=0.0)
    port_bytes: float = parameter("B/cycle", "out of a row or column", above=0.0)
    sram_bytes: float = parameter("B/cycle", "between a PE and its memory", above=0.0)
    host_bandwidth: float = parameter("B/s", "of the memory that holds the weights", above=0.0)
    host_flops: float = parameter("FLOP/s", "of the machines that update the weights", above=0.0)
    placement: str = parameter(
        "1", "which features share a column: neighbours, or those pe_columns apart",
        choices=("contiguous", "interleaved"), default="interleaved",
    )  # fmt: skip
    model_error: float = parameter(
        "1", "relative half-width of the interval", at_least=0.0, at_most=1.0
    )
    _shared: dict[tuple, tuple[_Rates, Estimate]] = field(
        default_factory=dict, init=False, repr=False
    )

    def peak_flops(self, itemsize: int) -> float:
        """FLOP/s of all PEs on values of `itemsize` bytes."""
        return 2.0 * self.pe_rows * self.pe_columns * self._lanes(itemsize) * self.clock_hz

    def roofline(self, op: Op) -> float:
        """Active arithmetic at peak; active weights at the stream's speed, all else at its home's.

        Updates run outside, where the weights are; packing is not needed.
        """
        if op.kind == "pack":
            return 0.0
        if op.phase == "update":
            return max(op.flops / self.host_flops, op.bytes / self.host_bandwidth)
        compute = op.flops / self.peak_flops(op.itemsize)
        if op.kind in PRODUCTS:
            return max(compute, (op.bytes - op.activation_bytes) / self.stream_bandwidth)
        streamed = op.kind == "embedding"
        return max(
            compute, op.bytes / (self.stream_bandwidth if streamed else self._sram_bandwidth)
        )

    def price(self, op: Op) -> tuple[Estimate, ...]:
        if op.kind not in PRODUCTS or op.phase == "update":
            return (self._beside(op),)
        if not op.weight_bytes:
            return (self._resident(op),)
        # What no mask changes is worked out once: masks come and go, layers stay.
        known = self._shared.get(op.signature)
        if known is None:
            known = self._shared[op.signature] = self._rates(op, self.index_bytes), self._dense(op)
        rates, dense = known
        if op.mask is None:
            return (dense,)
        sparse = self._streamed(op, "sparse", self._table(op), rates, (dense,))
        if sparse.seconds <= dense.seconds:
            return sparse, dense
        sparse = dataclasses.replace(sparse, rejected=())
        return dataclasses.replace(dense, rejected=(sparse,)), sparse

    def _beside(self, op: Op) -> Estimate:
        """An operation that is no product."""
        seconds = self.roofline(op)
        if op.kind == "pack":
            return self._estimate("stored compressed", seconds, seconds, 0.0, 0.0, {"none": 0.0})
        host = op.phase == "update"
        compute = op.flops / (self.host_flops if host else self.peak_flops(op.itemsize))
        by_bound = {"compute" if compute == seconds else "memory": seconds}
        moved = op.bytes if host or op.kind == "embedding" else 0.0
        kernel = "host" if host else "grid"
        return self._estimate(kernel, seconds, seconds, moved, op.flops, by_bound)

    def _resident(self, op: Op) -> Estimate:
        """A product of activations, all of which lie in the PEs' memories."""
        compute = op.dense_flops / self.peak_flops(op.itemsize)
        memory = op.bytes / self._sram_bandwidth
        seconds = max(compute, memory)
        by_bound = {"compute" if compute == seconds else "memory": seconds}
        return self._estimate("resident", seconds, compute, 0.0, op.dense_flops, by_bound)

    def _dense(self, op: Op) -> Estimate:
        """Every weight is streamed, whatever the mask: no index, no overhead."""
        if op.count == 1:
            table = dense_table(*_oriented(op), self.pe_columns)
        else:
            ones = np.broadcast_to(np.uint8(1), (op.n * op.count, op.k))
            table = self._grouped(op, ones)
        rates = self._rates(op, None)
        return self._streamed(op.with_mask(None), "dense", table, rates)

    def _streamed(
        self,
        op: Op,
        kernel: str,
        table: np.ndarray,
        rates: _Rates,
        rejected: tuple[Estimate, ...] = (),
    ) -> Estimate:
        """A product whose weights pass through the grid."""
        cycles, even, uneven, stream, links = wave_cycles(table, *rates.of_waves)
        flops, moved, stream_s = op.dense_flops, rates.bytes, rates.stream_s
        if op.mask is not None:
            active, weights = op.mask.nnz, op.weights
            flops = flops * active // weights
            moved, stream_s = moved * active / weights, stream_s * active / weights
        floor = max(flops / rates.peak_flops, stream_s)
        seconds = max(cycles / self.clock_hz, floor)
        by_bound: dict[str, float] = {}
        each = seconds / cycles if cycles else 0.0
        if even:
            by_bound[rates.column_bound] = even * each
        if uneven:
            by_bound["imbalance"] = uneven * each
        if stream:
            by_bound["memory"] = stream * each
        if links:
            by_bound["port"] = by_bound.get("port", 0.0) + links * each
        return self._estimate(kernel, seconds, floor, moved, flops, by_bound, rejected)

    def _estimate(
        self,
        kernel: str,
        seconds: float,
        floor_s: float,
        moved: float,
        flops: float,
        by_bound: dict[str, float],
        rejected: tuple[Estimate, ...] = (),
    ) -> Estimate:
        """An Estimate whose interval ends at the roofline `floor_s`."""
        bound = max(by_bound, key=by_bound.__getitem__, default="none") if seconds else "none"
        error = seconds * self.model_error
        return Estimate(
            seconds, max(seconds - error, floor_s), seconds + error, seconds * self.clock_hz,
            moved, flops, kernel, bound, True, "", False, rejected, by_bound,
        )  # fmt: skip

    def _rates(self, op: Op, index: float | None) -> _Rates:
        """Of the sparse kernel with `index` bytes a nonzero, or of the dense one (None)."""
        value = op.itemsize
        tokens = -(-op.m // self.pe_rows)
        busy = math.ceil(tokens / self._lanes(value))
        busy += 0.0 if index is None else self.nonzero_overhead
        sent = index or 0.0
        if op.phase == "grad_weight":
            linked = max(sent / self.broadcast_bytes, value / self.port_bytes)
            per_output = tokens * value / self.broadcast_bytes
        else:
            linked = (value + sent) / self.broadcast_bytes
            per_output = tokens * value / self.port_bytes
        _, features = _oriented(op)
        streamed = (value + sent) * self.clock_hz / self.stream_bandwidth
        return _Rates(
            of_waves=(min(self.pe_columns, features), max(busy, linked), streamed, per_output),
            column_bound="port" if linked > busy else "compute",
            peak_flops=self.peak_flops(value),
            bytes=op.weight_bytes / value * (value + sent),
            stream_s=op.weight_bytes / self.stream_bandwidth,
        )

    def _table(self, op: Op) -> np.ndarray:
        """What the mask gives each wave to do; kept with the mask."""
        mask = op.mask
        assert mask is not None
        known = mask.prices(self)
        transposed = op.phase == "grad_input"
        key = ("waves", transposed, op.count)
        table = known.get(key)
        if table is None:
            spread = (self.pe_columns, self.placement == "interleaved")
            if op.count > 1:
                table = self._grouped(op, mask.array.view(np.uint8))
            elif transposed:
                table = wave_table(mask.blocks[1].T, mask.col_nnz, *spread)
            else:
                table = wave_table(mask.blocks[0], mask.row_nnz, *spread)
            known[key] = table
        return table

    def _grouped(self, op: Op, mask: np.ndarray) -> np.ndarray:
        """The waves of a block-diagonal weight, from its blocks one above the other."""
        spread = (self.pe_columns, self.placement == "interleaved")
        return grouped_table(mask, op.count, *spread, op.phase == "grad_input")

    def _lanes(self, itemsize: int) -> int:
        """Multiply-adds of a PE in a cycle."""
        return max(1, int(self.datapath_bytes // itemsize))

    @property
    def _sram_bandwidth(self) -> float:
        return self.sram_bytes * self.pe_rows * self.pe_columns * self.clock_hz


def _oriented(op: Op) -> tuple[int, int]:
    """(outputs, features that the columns hold) of a product in its phase, all groups together."""
    outputs, features = op.n * op.count, op.k * op.count
    return (features, outputs) if op.phase == "grad_input" else (outputs, features)


MODEL = Wafer
