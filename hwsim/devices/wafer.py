"""A weight-streaming accelerator: activations stay, weights pass through."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hwsim.accelerators.pipelined import PeLoad, Pipelined
from hwsim.accelerators.placement import placed
from hwsim.accelerators.waves import (
    ACTIVE,
    NONZEROS,
    SLOWEST,
    dense_table,
    grouped_counts,
    wave_cycles,
    wave_table,
)
from hwsim.bounded import prices
from hwsim.device import parameter
from hwsim.estimate import Estimate
from hwsim.mask import Mask
from hwsim.masks.statistical import StatisticalMask
from hwsim.workload import PRODUCTS, Op

if TYPE_CHECKING:
    from hwsim.pipeline.tiles import Machine, Tiles

# In the pipeline a wave is cut into pieces, since what arrives is multiplied at once: so many,
# or fewer where that would make too many tiles.
_PIECES, _MOST_TILES = 16, 1024


class _Rates(NamedTuple):
    """What a streamed product takes of each part of the grid, whatever its mask.

    Attributes:
        of_waves: PE columns that hold a feature; cycles of a column for each nonzero that it
            receives, of the stream for each nonzero of all columns, of a row's links for each
            output with a nonzero, and for each wave.
        column_bound: what a column's cycles are: "compute", or "port" where its links are slower.
        peak_flops: of the grid on these values.
        bytes, stream_s: of all weights if dense: with indices if they are sent, and the seconds of
            the values alone at the stream's bandwidth.
        sent, returned: bytes that go down a column for each nonzero, and that come back.
    """

    of_waves: tuple[int, float, float, float, float]
    column_bound: str
    peak_flops: float
    bytes: float
    stream_s: float
    sent: float
    returned: float


@dataclass(frozen=True, eq=False)
class Wafer(Pipelined):
    """Weight streaming over a grid of processing elements (PEs).

    Activations are resident: tokens are spread over the PE rows, input features over the PE
    columns. Weights come from a memory outside: each nonzero once, with its index, sent down the
    column that holds its input feature, where every PE multiplies it with its tokens. Sums are
    reduced along the rows and leave through output ports. The PEs hold the sums of 128 outputs at
    a time, a wave. Waves wait for each other, columns within a wave do not. With, per wave,

        T = ⌈m/pe_rows⌉ tokens a PE,  lanes = ⌊datapath_bytes/value⌋
        v = max(⌈a·T/lanes⌉ + nonzero_overhead, (value + index)/broadcast_bytes)

        cycles = Σ max(v · nonzeros of the column with most of them,
                       (value + index) · nonzeros of all columns / stream bytes a cycle,
                       T · value · outputs with a nonzero / port_bytes) + wave_overhead

    all counted from the actual mask. With q nonzeros in each of the columns in each of W waves, and
    stream and ports fast enough, that is W·q·v. An output without a nonzero costs nothing.

    `placement` says which features share a column: neighbours, those `pe_columns` apart, or
    "balanced", dealt by their nonzeros so that in no wave a column has much more than the others
    (`hwsim.accelerators.placement`). Bringing activations to their columns is not charged.

    a is `activation_density` in forward and grad_weight, where x is multiplied, else 1: a PE skips
    tokens whose activation a ReLU made zero, under dense weights too. That a PE packs the others
    into its lanes, and that columns even out who has more of them, is assumed.

    Beyond some 99 % sparsity the gain falls behind the density, since outputs still leave through
    the ports, columns differ more, and waves change. A CS-3 is measured to do so (arXiv 2604.27985:
    100 times a CPU at 90 %, slower than it beyond 99 %); how much each part has in it is not
    published, so the numbers are assumed.

    grad_input exchanges the mask's rows and columns: dy's features lie over the columns. In
    grad_weight only the mask's entries are computed (sampled): their indices come down the columns,
    dy is broadcast along the rows at T · value · outputs / broadcast_bytes, and each sum leaves
    through its column's port. So there v = max(⌈T/lanes⌉ + nonzero_overhead, index/broadcast_bytes,
    value/port_bytes), and indices in and values out share the stream.

    The dense kernel is the same with every weight, without index and nonzero_overhead. A
    convolution is the product of its patches; a grouped one, that with its block-diagonal weight.

    Products of activations (attention) run at peak. The other operations between products are
    limited by the PEs' memories; an embedding's rows pass through the stream. Weights and moments
    are updated where they are kept, outside, compressed: so a mask saves the optimizer's bytes too,
    and packing is free. All activations of an op are taken to fit into the PEs' memories.

    `run` puts the waves through the pipeline, each in pieces: stream, columns and ports work side
    by side, and the stream may be a piece or two ahead of the columns, also into the next wave.
    The price keeps waves apart, so the two differ by what overlaps at the ends of waves.

    Source of the mechanism: Lie (2022), "Cerebras architecture deep dive", IEEE Micro 43(3), and
    James (2021), "Scaling up and out: training massive models on Cerebras systems using weight
    streaming". No such machine has been timed against it, so every price is unverified.
    """

    model = "wafer"
    filling = "port"  # dy's broadcast along the rows
    ways = 48
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
        "1", "which features share a column: neighbours, those pe_columns apart, or by nonzeros",
        choices=("contiguous", "interleaved", "balanced"), default="interleaved",
    )  # fmt: skip
    activation_density: float = parameter(
        "1", "share of the activations x that are not zero", above=0.0, at_most=1.0, default=1.0
    )
    wave_overhead: float = parameter(
        "cycle", "to change from one wave to the next", at_least=0.0, default=0.0
    )
    model_error: float = parameter(
        "1", "relative half-width of the interval", at_least=0.0, at_most=1.0
    )
    _shared: dict[tuple, tuple[_Rates, Estimate]] = field(
        default_factory=prices, init=False, repr=False
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
            compute *= self._live(op)
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

    def machine(self) -> Machine:
        """The stream as one channel, the grid as one array, the row links as the output port."""
        from hwsim.pipeline.tiles import Machine

        return Machine(channel_bytes_per_cycle=self.stream_bandwidth / self.clock_hz)

    def tiles(self, op: Op) -> Tiles:
        """The waves of a product's fastest kernel, in pieces.

        dy's broadcast in grad_weight counts as filling: it comes before the columns multiply.
        """
        from hwsim.pipeline.tiles import Tiles

        if not op.weight_bytes:
            cycles = math.ceil(self.estimate(op).cycles)
            return Tiles.of([(0, 0, 0, 0, cycles, 0)], names=(op.name or op.kind,))
        if self.estimate(op).kernel == "sparse":
            table, rates = self._table(op), self._rates(op, self.index_bytes)
        else:
            table, rates = self._dense_waves(op)
        _, per_nonzero, _, per_output, per_wave = rates.of_waves
        nonzeros = table[:, NONZEROS]
        columns = table[:, SLOWEST] * per_nonzero + (nonzeros > 0) * per_wave
        links, none = table[:, ACTIVE] * per_output, np.zeros(len(table))
        fill, drain = (links, none) if op.phase == "grad_weight" else (none, links)
        waves = [nonzeros * rates.sent, none, nonzeros * rates.returned, fill, columns, drain]
        pieces = max(1, min(_PIECES, _MOST_TILES // len(table)))
        cut = [_cut(np.ceil(part).astype(np.int64), pieces) for part in waves]
        table = np.array([*cut, np.full_like(cut[0], -1)])
        return Tiles(*table, names=(op.name or op.kind,) * table.shape[1])

    def pe_load(self, op: Op) -> PeLoad:
        """Nonzeros of the PE columns over all waves; all of them in the dense kernel."""
        if op.mask is None or self.estimate(op).kernel != "sparse":
            outputs, features = _oriented(op)
            columns = min(self.pe_columns, features)
            most = outputs * -(-features // columns)
            return PeLoad("PE column 0", outputs * features / columns, most, "weights")
        counts, _ = _counts(op)
        columns = min(self.pe_columns, counts.shape[1])
        column_of = placed(counts, columns, self.placement)
        loads = np.bincount(column_of, weights=counts.sum(axis=0), minlength=columns)
        slowest = int(loads.argmax())
        return PeLoad(
            f"PE column {slowest}", float(loads.mean()), float(loads[slowest]), "nonzeros"
        )

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
        return self._streamed(op.with_mask(None), "dense", *self._dense_waves(op))

    def _dense_waves(self, op: Op) -> tuple[np.ndarray, _Rates]:
        """Every weight is streamed, whatever the mask: no index, no overhead."""
        if op.count == 1:
            table = dense_table(*_oriented(op), self.pe_columns)
        else:
            ones = np.broadcast_to(np.uint8(1), (op.n * op.count, op.k))
            table = wave_table(
                *grouped_counts(ones, op.count, op.phase == "grad_input"), self.pe_columns,
                self.placement,
            )  # fmt: skip
        return table, self._rates(op, None)

    def _streamed(
        self,
        op: Op,
        kernel: str,
        table: np.ndarray,
        rates: _Rates,
        rejected: tuple[Estimate, ...] = (),
    ) -> Estimate:
        """A product whose weights pass through the grid."""
        cycles, even, uneven, stream, links, between = wave_cycles(table, *rates.of_waves)
        flops, moved, stream_s = op.dense_flops, rates.bytes, rates.stream_s
        if self.activation_density < 1.0:
            flops = int(flops * self._live(op))
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
        if between:
            by_bound["launch"] = between * each
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
        busy = math.ceil(tokens * self._live(op) / self._lanes(value))
        busy += 0.0 if index is None else self.nonzero_overhead
        sent, returned = index or 0.0, 0.0
        if op.phase == "grad_weight":
            returned = value
            linked = max(sent / self.broadcast_bytes, value / self.port_bytes)
            per_output = tokens * value / self.broadcast_bytes
        else:
            sent += value
            linked = sent / self.broadcast_bytes
            per_output = tokens * value / self.port_bytes
        _, features = _oriented(op)
        per_nonzero = sent + returned
        of_stream = per_nonzero * self.clock_hz / self.stream_bandwidth
        columns = min(self.pe_columns, features)
        return _Rates(
            of_waves=(columns, max(busy, linked), of_stream, per_output, self.wave_overhead),
            column_bound="port" if linked > busy else "compute",
            peak_flops=self.peak_flops(value),
            bytes=op.weight_bytes / value * per_nonzero,
            stream_s=op.weight_bytes / self.stream_bandwidth,
            sent=sent,
            returned=returned,
        )

    def _table(self, op: Op) -> np.ndarray:
        """What the mask gives each wave to do; kept with the mask."""
        assert op.mask is not None
        known = op.mask.prices(self)
        transposed = op.phase == "grad_input"
        key = ("waves", transposed, op.count)
        table = known.get(key)
        if table is None:
            table = known[key] = self._counted_waves(op, op.mask)
        return table

    def _counted_waves(self, op: Op, mask: Mask) -> np.ndarray:
        if isinstance(mask, StatisticalMask) and op.count == 1:
            axis = 1 if op.phase == "grad_input" else 0
            columns = min(self.pe_columns, mask.shape[1 - axis])
            return mask.waves(axis, columns, self.placement)
        return wave_table(*_counts(op), self.pe_columns, self.placement)

    def _live(self, op: Op) -> float:
        """Share of the multiply-adds whose activation is not zero."""
        multiplies_x = op.weight_bytes and op.phase in ("forward", "grad_weight")
        return self.activation_density if multiplies_x else 1.0

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


def _counts(op: Op) -> tuple[np.ndarray, np.ndarray]:
    """(nonzeros of each feature in each wave, nonzeros of each output) of a masked product."""
    mask, transposed = op.mask, op.phase == "grad_input"
    assert mask is not None
    if op.count > 1:
        return grouped_counts(mask.array.view(np.uint8), op.count, transposed)
    if transposed:
        return mask.blocks[1].T, mask.col_nnz
    return mask.blocks[0], mask.row_nnz


def _cut(whole: np.ndarray, pieces: int) -> np.ndarray:
    """Each number as `pieces` successive ones that add up to it and differ by at most one."""
    ends = whole[:, None] * np.arange(pieces + 1) // pieces
    return np.diff(ends, axis=1).ravel()


MODEL = Wafer
