"""A weight-streaming accelerator: activations stay, weights pass through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hwsim.device import Device, parameter
from hwsim.estimate import Estimate
from hwsim.workload import PRODUCTS, Op


@dataclass(frozen=True, eq=False)
class Wafer(Device):
    """Weight streaming over a grid of processing elements (PEs).

    Activations are resident: tokens are spread over the PE rows, input features over the PE
    columns. Weights come from a memory outside, each nonzero once, with its index; it is sent down
    the column that holds its input feature, and every PE there multiplies it with its tokens. Sums
    are reduced along the rows and leave through output ports. 128 outputs are summed at a time (a
    wave); waves follow each other, and within one the columns run freely. So, with
    T = ⌈m/pe_rows⌉ tokens a PE and v = ⌈T/simd⌉ + nonzero_overhead cycles a nonzero,

        cycles = Σ over waves of max(v·(most nonzeros in a column),
                                     nonzeros·(value + index bytes)/(stream bytes a cycle),
                                     active outputs·T/(port values a cycle))

    counted from the actual mask. With the same number q of nonzeros in every column of each of the
    w waves and the stream and ports fast enough, that is w·q·v. Outputs without a nonzero cost
    nothing. grad_input is the same with the roles of rows and columns of the mask exchanged;
    grad_weight computes only the active entries (sampled): their indices come, their values go.
    The dense kernel streams every weight without index and without overhead.

    Weights live outside, compressed. So packing is free, the optimizer and mask updates run there
    at `host_bandwidth`, and a sparse weight moves fewer bytes in all of them.

    Source of the mechanism: Lie (2022), "Cerebras architecture deep dive", IEEE Micro 43(3); no
    such machine was at hand, so every price is unverified.
    """

    model = "wafer"
    clock_hz: float = parameter("Hz", "of the PEs", above=0.0)
    pe_rows: int = parameter("1", "PEs that share a column's tokens", at_least=1, integer=True)
    pe_columns: int = parameter("1", "PEs that share a row's features", at_least=1, integer=True)
    simd: int = parameter("MAC/cycle", "multiply-adds of a PE", at_least=1, integer=True)
    nonzero_overhead: float = parameter(
        "cycle", "to receive a nonzero and start its multiply-adds", at_least=0.0
    )
    index_bytes: float = parameter("B", "sent with each nonzero", at_least=0.0)
    stream_bandwidth: float = parameter("B/s", "of weights into the grid", above=0.0)
    port_values: float = parameter("value/cycle", "of each PE row's output port", above=0.0)
    sram_bandwidth: float = parameter("B/s", "of all PE memories together", above=0.0)
    host_bandwidth: float = parameter("B/s", "of the memory that holds the weights", above=0.0)
    placement: str = parameter(
        "name", "which features share a column", choices=("contiguous", "interleaved"),
        default="interleaved",
    )  # fmt: skip
    model_error: float = parameter(
        "1", "relative half-width of the interval", at_least=0.0, at_most=1.0
    )

    @property
    def peak_flops(self) -> float:
        return 2.0 * self.pe_rows * self.pe_columns * self.simd * self.clock_hz

    def roofline(self, op: Op) -> float:
        compute = op.flops / self.peak_flops
        if op.kind not in PRODUCTS:
            return max(compute, op.bytes / self._home(op))
        streamed = op.bytes - op.activation_bytes
        return max(compute, streamed / self.stream_bandwidth)

    def price(self, op: Op) -> tuple[Estimate, ...]:
        if op.kind == "pack":
            return (Estimate(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "stored compressed", "none"),)
        if op.kind not in PRODUCTS:
            return (self._elementwise(op),)
        if op.weight_shape is None:
            return (self._resident(op),)
        dense = self._dense(op)
        return (dense,) if op.mask is None else (self._sparse(op), dense)

    def _home(self, op: Op) -> float:
        """Bandwidth of the memory where the operands of a non-product are."""
        return self.host_bandwidth if op.phase == "update" else self.sram_bandwidth

    def _elementwise(self, op: Op) -> Estimate:
        compute = op.flops / self.peak_flops
        memory = op.bytes / self._home(op)
        bound = "compute" if compute > memory else "memory" if memory else "none"
        kernel = "host" if op.phase == "update" else "vector"
        return self._estimate(op, max(compute, memory), op.flops, op.bytes, kernel, bound)

    def _resident(self, op: Op) -> Estimate:
        """A product of two activations, all of whose operands lie in the PEs' memories."""
        compute = op.dense_flops / self.peak_flops
        memory = op.bytes / self.sram_bandwidth
        bound = "compute" if compute >= memory else "memory"
        return self._estimate(op, max(compute, memory), op.dense_flops, 0, "resident", bound)

    def _dense(self, op: Op) -> Estimate:
        """Every weight is streamed: whole waves, no index, no overhead."""
        outputs, features = _oriented(op)
        column = -(-features // self.pe_columns)
        tokens = self._tokens(op)
        compute = outputs * column * math.ceil(tokens / self.simd)
        stream = op.weight_bytes / op.count / self._stream_bytes
        port = outputs * tokens / self.port_values
        cycles = op.count * max(compute, stream, port)
        bound = {compute: "compute", stream: "memory"}.get(cycles / op.count, "port")
        seconds = cycles / self.clock_hz
        return self._estimate(op, seconds, op.dense_flops, op.weight_bytes, "dense", bound)

    def _sparse(self, op: Op) -> Estimate:
        from hwsim.devices._waves import BOUNDS, wave_cycles

        assert op.mask is not None
        loads, outputs = self._loads(op)
        tokens = self._tokens(op)
        value = op.itemsize + self.index_bytes
        split = wave_cycles(
            loads,
            outputs,
            math.ceil(tokens / self.simd) + self.nonzero_overhead,
            value / self._stream_bytes,
            tokens / self.port_values,
        )
        seconds = sum(split) / self.clock_hz
        bound = BOUNDS[max(range(4), key=split.__getitem__)] if seconds else "none"
        return self._estimate(op, seconds, op.flops, op.mask.nnz * value, "sparse", bound)

    def _loads(self, op: Op) -> tuple[np.ndarray, np.ndarray]:
        """Nonzeros per wave and PE column, and active outputs per wave; kept with the mask."""
        from hwsim._counts import BLOCK
        from hwsim.devices import _waves

        assert op.mask is not None
        known = op.mask.prices(self)
        transposed = op.phase == "grad_input"
        key = "transposed" if transposed else "straight"
        if key not in known:
            by_rows, by_columns = op.mask.blocks
            spread = (self.pe_columns, self.placement == "interleaved")
            if transposed:
                loads = _waves.column_loads_transposed(by_columns, *spread)
                known[key] = loads, _waves.active_columns(by_rows, BLOCK)
            else:
                loads = _waves.column_loads(by_rows, *spread)
                known[key] = loads, _waves.active_rows(by_columns, BLOCK)
        return known[key]

    def _tokens(self, op: Op) -> int:
        """Tokens of each PE."""
        return -(-op.m // self.pe_rows)

    @property
    def _stream_bytes(self) -> float:
        """Bytes a cycle."""
        return self.stream_bandwidth / self.clock_hz

    def _estimate(
        self, op: Op, seconds: float, flops: float, moved: float, kernel: str, bound: str
    ) -> Estimate:
        low = max(seconds * (1.0 - self.model_error), min(seconds, self.roofline(op)))
        return Estimate(
            seconds, low, seconds * (1.0 + self.model_error), self.cycles(seconds), moved, flops,
            kernel, bound, verified=False,
        )  # fmt: skip


def _oriented(op: Op) -> tuple[int, int]:
    """(outputs, resident features) of a product in its phase."""
    return (op.k, op.n) if op.phase == "grad_input" else (op.n, op.k)


MODEL = Wafer
