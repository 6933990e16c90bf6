"""What accelerators share: memory, buffers, a vector unit, a host; from a run to a price."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwsim.accelerators import scaled
from hwsim.accelerators.pipelined import Pipelined
from hwsim.bounded import prices
from hwsim.device import parameter
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.roofline import roofline
from hwsim.workload import PRODUCTS, Op, Workload

if TYPE_CHECKING:
    from hwsim.pipeline.tiles import Machine

SELECT_PASSES = 4  # a radix select over 32-bit scores looks at each of them once per byte


@dataclass(frozen=True, eq=False)
class Accelerator(Pipelined):
    """A chip with arrays that multiply, buffers around them, DRAM, a vector unit and a host.

    Products run through the pipeline of `hwsim.pipeline`. All else (norms, activations, loss,
    optimizer, packing) is done by the vector unit at the speed of its lanes or of DRAM. Masks are
    updated by the vector unit or by the host, whichever is faster.

    With `prefetch`, a workload costs less than the sum of its ops: while the array still works on
    one op, the weights of the next one's first tile are loaded (its inputs must wait for results).
    What is saved is the smaller of the time that this load takes and the time in which DRAM was
    idle during the op before; never so much that an op falls under its roofline.
    """

    dram_bandwidth: float = parameter("B/s", "all channels together; may be inf", above=0.0)
    dram_channels: int = parameter(
        "1", "channels that share it", at_least=1, at_most=1024, integer=True, default=1
    )
    dram_latency_s: float = parameter(
        "s", "from the end of a transfer to its data", at_least=0.0, at_most=1.0, default=0.0
    )
    interleave_bytes: int = parameter(
        "B", "consecutive bytes on one channel", at_least=1, at_most=2**40, integer=True,
        default=256,
    )  # fmt: skip
    weight_buffer_bytes: float = parameter("B", "for stationary operands", above=0.0)
    input_buffer_bytes: float = parameter("B", "for streamed operands", above=0.0)
    output_buffer_bytes: float = parameter("B", "for results and partial sums", above=0.0)
    vector_lanes: float = parameter("FLOP/cycle", "of the vector unit", above=0.0)
    host_bandwidth: float = parameter("B/s", "link to the host", above=0.0)
    host_operations: float = parameter("FLOP/s", "of the host, in a selection", above=0.0)
    overhead_s: float = parameter("s", "to start an op", at_least=0.0, at_most=1.0, default=0.0)
    prefetch: int = parameter(
        "1", "1: the next op's first weights are loaded early", at_least=0, at_most=1,
        integer=True, default=1,
    )  # fmt: skip
    _leads: dict[tuple, tuple[float, float]] = field(default_factory=prices, init=False, repr=False)
    _known: dict[Any, Any] = field(default_factory=prices, init=False, repr=False)

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-adds of all arrays in one cycle."""
        raise TypeError(f"{type(self).__name__} must define macs_per_cycle")

    def products(self, op: Op) -> tuple[Estimate, ...]:
        """The kernels of a matrix product."""
        raise TypeError(f"{type(self).__name__} must define products(op)")

    def machine(self) -> Machine:
        from hwsim.pipeline.tiles import Machine

        return Machine(
            channels=self.dram_channels,
            channel_bytes_per_cycle=self.channel_bytes_per_cycle,
            latency_cycles=self.latency_cycles,
            interleave_bytes=self.interleave_bytes,
            weight_buffer_bytes=self.weight_buffer_bytes,
            input_buffer_bytes=self.input_buffer_bytes,
            output_buffer_bytes=self.output_buffer_bytes,
        )

    @property
    def channel_bytes_per_cycle(self) -> float:
        """Of one memory channel."""
        return self.dram_bandwidth / self.clock_hz / self.dram_channels

    @property
    def latency_cycles(self) -> int:
        """Of a memory access, rounded up."""
        return math.ceil(self.dram_latency_s * self.clock_hz)

    def roofline(self, op: Op) -> float:
        per_cycle = 2 * self.macs_per_cycle if op.kind in PRODUCTS else self.vector_lanes
        return roofline(op, per_cycle * self.clock_hz, self.dram_bandwidth)

    def price(self, op: Op) -> tuple[Estimate, ...]:
        if op.kind in PRODUCTS:
            return self.products(op)
        if op.kind == "mask_update":
            return (self._vector(op, "vector select", SELECT_PASSES), self._host_select(op))
        return (self._vector(op, "vector unit", 1),)

    def _ranked(self, op: Op) -> tuple[Estimate, ...]:
        if op.kind not in PRODUCTS or not scaled.is_huge(op, self.macs_per_cycle):
            return super()._ranked(op)
        part, times = scaled.smaller(op, self.macs_per_cycle)
        if part.signature == op.signature:  # nothing left to halve
            return super()._ranked(op)
        flops, floor = op.flops, self.roofline(op)
        found = [
            scaled.multiplied(e, times, floor, flops, self.clock_hz) if e.legal else e
            for e in super()._ranked(part)
        ]
        return (dataclasses.replace(found[0], rejected=tuple(found[1:])), *found[1:])

    def estimate(self, item: Op | Workload) -> Estimate:
        if not isinstance(item, Workload) or not self.prefetch:
            return super().estimate(item)
        total = super().estimate(item)
        saved = sum(self._saved(item))
        if not saved:
            return total
        seconds = total.seconds - saved
        left = seconds / total.seconds
        return dataclasses.replace(
            total,
            seconds=seconds,
            low_s=min(total.low_s, seconds),
            high_s=max(total.high_s, seconds),
            cycles=seconds * self.clock_hz,
            by_bound={b: s * left for b, s in total.by_bound.items()},
            by_kernel={k: s * left for k, s in total.by_kernel.items()},
        )

    def seconds_of(self, workload: Workload) -> list[float]:
        alone = super().seconds_of(workload)
        if not self.prefetch:
            return alone
        return [s - less for s, less in zip(alone, self._saved(workload), strict=True)]

    def _saved(self, workload: Workload) -> list[float]:
        """Of each op, seconds by which its weights come while the op before it computes."""
        saved, idle = [], 0.0
        for op in workload.ops:
            known = self._leads if op.mask is None else op.mask.prices(self)
            lead, slack = known.get(("lead", op.signature), (0.0, 0.0))
            saved.append(min(lead, idle))
            idle = slack
        return saved

    def _vector(self, op: Op, kernel: str, passes: int) -> Estimate:
        compute = op.flops * passes / (self.vector_lanes * self.clock_hz)
        memory = op.bytes * passes / self.dram_bandwidth
        busy = max(compute, memory)
        fixed = (self.dram_latency_s if op.bytes else 0.0) + self.overhead_s
        bound = "compute" if compute > memory else "memory" if memory else "none"
        if fixed > busy:
            bound = "launch"
        return Estimate(
            busy + fixed, busy, compute + memory + fixed, self.cycles(busy + fixed),
            op.bytes * passes, op.flops, kernel, bound, verified=False,
        )  # fmt: skip

    def _host_select(self, op: Op) -> Estimate:
        """Scores to the host, the selection there, the new mask and values back."""
        link = op.bytes / self.host_bandwidth
        busy = max(link, op.flops / self.host_operations, self.roofline(op))
        seconds = busy + self.overhead_s
        return Estimate(
            seconds, busy, link + op.flops / self.host_operations + seconds,
            self.cycles(seconds), op.bytes, op.flops, "host select",
            "memory" if busy == link else "compute", verified=False,
        )  # fmt: skip

    def _price_of_run(
        self, op: Op, totals: Sequence[int], kernel: str, bound: str,
        rejected: tuple[Estimate, ...] = (),
    ) -> Estimate:  # fmt: skip
        """An Estimate from the totals of `fast.recurrence`; keeps what prefetch can save."""
        cycles, array, fill, _, moved, _, channel, stuck, first = totals
        work = array + self._serial_fill(fill)
        flops, moves, known = self._under_mask(op)
        times = run_seconds(
            cycles, work, channel, first, flops, moves,
            *(self._known.get("constants") or self._constants()),
        )  # fmt: skip
        bound = "memory" if channel > work else bound
        return self._estimate_of_run(
            op, times, moved, flops, known, kernel, bound, stuck, rejected
        )  # fmt: skip

    def _estimate_of_run(
        self, op: Op, times: Sequence[float], moved: float, flops: int, known: dict[Any, Any],
        kernel: str, bound: str, stuck: float, rejected: tuple[Estimate, ...],
    ) -> Estimate:  # fmt: skip
        """An Estimate from the `times` of `run_seconds`; keeps what prefetch can save in `known`.

        Raises:
            InputError: the run is stuck at a buffer that is too small.
        """
        if stuck >= 0:
            from hwsim.pipeline import fast

            reason = fast.too_small(int(stuck))
            raise InputError(f"device {self.name!r}: op {op.name!r}: {reason}")
        seconds, low, high, lead, slack = times
        if self.prefetch:
            known["lead", op.signature] = lead, slack
        return Estimate(
            seconds, low, high, whole_cycles(seconds * self.clock_hz), moved, flops, kernel, bound,
            True, "", False, rejected,
        )  # fmt: skip

    def _under_mask(self, op: Op) -> tuple[int, int, dict[Any, Any]]:
        """FLOPs and compulsory bytes that the mask leaves, and where its prices are kept."""
        mask, flops, moves = op.mask, op.dense_flops, op.activation_bytes
        if mask is None:
            return flops, moves + op.weight_bytes, self._leads
        nnz, size = mask.nnz, op.weights
        return flops * nnz // size, moves + op.weight_bytes * nnz // size, mask.prices(self)

    def _constants(self) -> tuple[float, ...]:
        """Clock, peak FLOP/s, bandwidth, overhead and three latencies (load, store, load)."""
        known = self._known["constants"] = (
            self.clock_hz, 2 * self.macs_per_cycle * self.clock_hz, self.dram_bandwidth,
            self.overhead_s, 3 * self.latency_cycles,
        )  # fmt: skip
        return known

    def _shape(self, op: Op) -> tuple[int, int, int, int]:
        """Operand bytes and passes, which no mask changes: worked out once."""
        known = self._known.get(op.signature)
        if known is None:
            known = self._known[op.signature] = (*operand_bytes(op), passes(op))
        return known

    def _serial_fill(self, fill: int) -> int:
        """Cycles of filling that the array waits for."""
        return fill


def whole_cycles(cycles: float) -> float:
    """A count of cycles without the rounding error of seconds times a clock."""
    nearest = round(cycles) if math.isfinite(cycles) else cycles
    return float(nearest) if abs(cycles - nearest) <= 1e-9 * max(abs(cycles), 1.0) else cycles


def run_seconds(
    cycles, work, channel, first, flops, moves, hz, peak, bandwidth, overhead, latency
):  # fmt: skip
    """From the cycles of a run to seconds; also compiled, for devices that price many runs at once.

    Args:
        cycles, work, channel, first: of the run, of the array with the filling that it waits for,
            of the busiest channel, and until the first tile's weights are there.
        flops, moves: that the mask leaves, for the roofline.
        hz, peak, bandwidth, overhead, latency: clock, FLOP/s, B/s, seconds to start an op, and
            cycles of three latencies (load, store, load).

    Returns:
        seconds, the lower and the upper end of their interval, and what prefetch can save: seconds
        of the first load, and seconds in which DRAM was idle.
    """
    floor = max(flops / peak, moves / bandwidth)
    seconds = max(cycles / hz, floor)
    lead = min(first / hz, seconds - floor)
    seconds += overhead
    low = min(max(max(channel, work) / hz, floor), seconds)
    high = max((work + channel + latency) / hz + overhead, seconds)
    return seconds, low, high, lead, (cycles - channel) / hz


def operand_bytes(op: Op) -> tuple[int, int, int]:
    """Bytes of a product's two operands and its result without a mask: (first, second, result).

    The first is what streams by rows (x in forward, dy in the backward phases), the second is the
    weight (x in grad_weight). They add up to the op's compulsory traffic, so a convolution's input
    counts once and not once per window.
    """
    m, n, k = op.m, op.n, op.k
    x, y, w = m * k, m * n, n * k
    first, second, result = {
        "forward": (x, w, y), "grad_input": (y, w, x), "grad_weight": (y, x, w),
    }.get(op.phase, (x, w, y))  # fmt: skip
    whole = op.activation_bytes + op.weight_bytes
    if op.weight_shape is not None:
        # The weight's bytes are known; the rest is shared by the activations in proportion.
        rest = op.activation_bytes
        if op.phase == "grad_weight":
            one = rest * first // (first + second)
            return one, rest - one, op.weight_bytes
        one = rest * first // (first + result)
        return one, op.weight_bytes, rest - one
    one = whole * first // (first + second + result)
    two = whole * second // (first + second + result)
    return one, two, whole - one - two


def passes(op: Op) -> int:
    """How often m × n × k is gone through: 2 for a fused attention of two products."""
    return max(1, -(-op.dense_flops // (2 * op.m * op.n * op.k * op.count)))
