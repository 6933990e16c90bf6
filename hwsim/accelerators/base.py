"""What accelerators share: memory, buffers, a vector unit, a host; from a run to a price."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwsim.accelerators import scaled
from hwsim.accelerators.on_chip import Stays, staying
from hwsim.accelerators.operands import operand_bytes, passes
from hwsim.accelerators.pipelined import Pipelined
from hwsim.bounded import prices
from hwsim.device import parameter
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.workload import PRODUCTS, Op, Workload

if TYPE_CHECKING:
    from hwsim.pipeline.tiles import Machine, Tiles

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

    With `fusion = "on_chip"`, a result of a workload stays on chip for the next op where half the
    input and half the output buffer hold it: it is not read from DRAM, and not written there unless
    it is wanted again (`hwsim.accelerators.on_chip`). An op by itself is priced without it.
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
    fusion: str = parameter(
        "1", "on_chip: results stay for the next op where they fit", choices=("off", "on_chip"),
        default="off",
    )  # fmt: skip
    _stays: Stays = field(default=Stays(), init=False, repr=False)
    _siblings: dict[Stays, Accelerator] = field(default_factory=dict, init=False, repr=False)
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
        compute = op.flops / (per_cycle * self.clock_hz)
        return max(compute, (op.bytes - self._stays.spared(op)) / self.dram_bandwidth)

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
        if not isinstance(item, Workload) or not (self.prefetch or self._fuses):
            return super().estimate(item)
        alone, less = self._in_step(item)
        total, saved = Estimate.total(alone), sum(less)
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

    def breakdown(self, workload: Workload) -> list[tuple[Op, Estimate]]:
        return list(zip(workload.ops, self._in_step(workload)[0], strict=True))

    def seconds_of(self, workload: Workload) -> list[float]:
        alone, less = self._in_step(workload)
        return [e.seconds - s for e, s in zip(alone, less, strict=True)]

    def step_tiles(self, workload: Workload) -> Iterator[tuple[Op, Tiles]]:
        for op, stays in zip(workload.ops, self._stay_in(workload), strict=True):
            if op.kind in PRODUCTS:
                yield op, self._sibling(stays).tiles(op)

    @property
    def _fuses(self) -> bool:
        return self.fusion == "on_chip"

    def _sibling(self, stays: Stays) -> Accelerator:
        """The same device for ops of which something stays on chip."""
        if stays == self._stays:
            return self
        if stays not in self._siblings:
            other = dataclasses.replace(self)
            object.__setattr__(other, "_stays", stays)
            self._siblings[stays] = other
        return self._siblings[stays]

    def _stay_in(self, workload: Workload) -> list[Stays]:
        """Of each op, what stays on chip, where that makes the step faster."""
        nothing = [Stays()] * len(workload.ops)
        if not self._fuses:
            return nothing
        room = min(self.input_buffer_bytes, self.output_buffer_bytes) / 2
        stays = staying(workload.ops, room)
        if self._step_seconds(workload, stays) > self._step_seconds(workload, nothing):
            return nothing
        return stays

    def _step_seconds(self, workload: Workload, stays: list[Stays]) -> float:
        alone, less = self._with(workload, stays)
        return sum(e.seconds for e in alone) - sum(less)

    def _in_step(self, workload: Workload) -> tuple[list[Estimate], list[float]]:
        """Of each op its price, and the seconds by which its weights come early."""
        workload.count_masks()
        return self._with(workload, self._stay_in(workload))

    def _with(self, workload: Workload, stays: list[Stays]) -> tuple[list[Estimate], list[float]]:
        """`_in_step`, given what stays on chip."""
        devices = [self] * len(stays)
        if self._fuses:
            devices = [self._sibling(kind) for kind in stays]
        found: list[Any] = [None] * len(stays)
        for device in {id(d): d for d in devices}.values():
            at = [i for i, other in enumerate(devices) if other is device]
            ranked = device._all_kernels([workload.ops[i] for i in at])
            for i, (best, *_) in zip(at, ranked, strict=True):
                found[i] = best
        if not self.prefetch:
            return found, [0.0] * len(stays)
        less, idle = [], 0.0
        for op, device in zip(workload.ops, devices, strict=True):
            known = device._leads if op.mask is None else op.mask.prices(device)
            lead, slack = known.get(("lead", op.signature), (0.0, 0.0))
            less.append(min(lead, idle))
            idle = slack
        return found, less

    def _vector(self, op: Op, kernel: str, passes: int) -> Estimate:
        compute = op.flops * passes / (self.vector_lanes * self.clock_hz)
        moved = (op.bytes - self._stays.spared(op)) * passes
        memory = moved / self.dram_bandwidth
        busy = max(compute, memory)
        fixed = (self.dram_latency_s if moved else 0.0) + self.overhead_s
        bound = "compute" if compute > memory else "memory" if memory else "none"
        if fixed > busy:
            bound = "launch"
        return Estimate(
            busy + fixed, busy, compute + memory + fixed, self.cycles(busy + fixed),
            moved, op.flops, kernel, bound, verified=False,
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
        mask, flops = op.mask, op.dense_flops
        moves = op.activation_bytes - self._stays.spared(op)
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
            first, second, result = operand_bytes(op)
            if op.phase in ("forward", "grad_input"):
                first = 0 if self._stays.read else first
                result = 0 if self._stays.written else result
            known = self._known[op.signature] = (first, second, result, passes(op))
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
