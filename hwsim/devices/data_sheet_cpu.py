"""A processor known by its data sheet alone: cores, clocks, vector width, caches, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.cpu.sheet_work import DENSE_TILE, gemm_vectors, sparse_cycles
from hwsim.device import Device, parameter
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.mask import Mask
from hwsim.masks.statistical import StatisticalMask
from hwsim.roofline import roofline
from hwsim.workload import PRODUCTS, Op

_LINE = 64
_WAYS = (8, 8, 16)
_SPARSE = {
    "forward": ("tiled", "csr"), "grad_input": ("tiled", "csr"), "grad_weight": ("sampled",)
}  # fmt: skip
# Rows that are simulated of a kernel whose accesses are counted.
_GROUPS, _ROWS = 4, 16


@dataclass(frozen=True, eq=False)
class DataSheetCpu(Device):
    """No kernel was timed: a time is arithmetic, memory and a call.

    Arithmetic: vector instructions at `fma_units` or `load_ports` a cycle, of all threads; a dense
    product loads what its register tile does not hold. Memory: bytes that each level of cache must
    fetch from the one below, at that one's rate. Of a dense operation these are its operands: from
    main memory weights and what the last level does not hold. Of a masked kernel they are the
    misses that the cache simulation (`hwsim.caches`) counts under the mask, or under random
    ones where it is known by its statistics alone; with `simulate = 0`, its operands once.

    Dense products bring operands into the order of their loops first, so they move them more than
    once (`weight_passes`, `conv_weight_passes`, `conv_activation_passes`). That is not done under
    the arithmetic: both are added. A product of one sample reads its weights by one core, with as
    many lines on their way as the core has buffers for. What a masked kernel misses is added too:
    no prefetcher knows its indices.

    No constant is fitted to a processor's own kernels, so every price is unverified.
    """

    model = "data_sheet_cpu"
    ways, most_ways = 8, 32  # for each of which a mask is drawn and simulated
    cores: int = parameter("1", "that run alike", at_least=1, at_most=4096, integer=True)
    threads: int = parameter("1", "that work, one a core", at_least=1, integer=True)
    clock_hz: float = parameter("Hz", "of all cores under vector load", above=0.0)
    vector_bytes: int = parameter("B", "of a vector register", at_least=4, integer=True)
    fma_units: float = parameter("1/cycle", "multiply-adds of vectors, a core", above=0.0)
    load_ports: float = parameter("1/cycle", "loads of vectors, a core", above=0.0, default=2.0)
    l1_bytes: float = parameter("B", "first-level cache of a core", above=0.0)
    l2_bytes: float = parameter("B", "second-level cache of a core", above=0.0)
    l3_bytes: float = parameter("B", "last-level cache, shared", above=0.0)
    l2_rate: float = parameter("B/cycle", "from the second level, a core", above=0.0)
    l3_rate: float = parameter("B/cycle", "from the last level, a core", above=0.0)
    memory_channels: int = parameter("1", "of main memory", at_least=1, integer=True)
    channel_bandwidth: float = parameter("B/s", "of one channel", above=0.0)
    memory_latency_s: float = parameter("s", "of main memory", above=0.0)
    lines_in_flight: float = parameter("1", "misses of a core under way", above=0.0)
    dense_share: float = parameter(
        "1", "of the arithmetic's rate that dense products reach", above=0.0, at_most=1.0
    )
    weight_passes: float = parameter(
        "1", "times that a dense product moves its weights", at_least=1.0, default=2.0
    )
    conv_weight_passes: float = parameter(
        "1", "the same of a convolution", at_least=1.0, default=7.0
    )
    conv_activation_passes: float = parameter(
        "1", "times that a convolution moves its activations", at_least=1.0, default=3.0
    )
    element_cycles: float = parameter(
        "cycle", "a vector of an elementwise operation's arithmetic", at_least=0.0, default=1.0
    )
    call_s: float = parameter("s", "to start an operation", at_least=0.0)
    barrier_s: float = parameter("s", "to gather all threads after it", at_least=0.0, default=0.0)
    warm_weights: int = parameter(
        "1", "1: weights that fit are in the last level, as when one product is timed; 0: they "
        "come from memory, as in a step", at_least=0, at_most=1, integer=True, default=0,
    )  # fmt: skip
    simulate: int = parameter(
        "1", "1: misses of masked kernels are counted by simulation", at_least=0, at_most=1,
        integer=True, default=1,
    )  # fmt: skip
    model_error: float = parameter(
        "1", "relative half-width of the interval", at_least=0.0, at_most=1.0
    )

    def __post_init__(self) -> None:
        if self.threads > self.cores:
            raise InputError(
                f"threads: value is {self.threads}; allowed is at most cores = {self.cores}"
            )

    @property
    def lanes(self) -> int:
        """Float32 numbers of a vector."""
        return self.vector_bytes // 4

    @property
    def peak_flops(self) -> float:
        """FLOP/s of float32, all threads."""
        return 2 * self.lanes * self.fma_units * self.clock_hz * self.threads

    @property
    def memory_bandwidth(self) -> float:
        """B/s of all channels together."""
        return self.memory_channels * self.channel_bandwidth

    def roofline(self, op: Op) -> float:
        """Active arithmetic at peak, bytes at the speed of all first-level caches."""
        nearest = self.load_ports * self.vector_bytes * self.clock_hz * self.threads
        return roofline(op, self.peak_flops * 4 / max(op.itemsize, 4), nearest)

    def price(self, op: Op) -> tuple[Estimate, ...]:
        if op.kind not in PRODUCTS:
            return (self._other(op),)
        dense = self._dense(op)
        if op.mask is None:
            return (dense,)
        if op.kind != "gemm" or op.count != 1:
            reason = f"is for linear layers, this is a {op.kind} of {op.count} products"
            return (dense, *(Estimate.illegal(name, reason) for name in _SPARSE[op.phase]))
        # What zeros save is their share of the dense product, at most.
        least = dense.seconds * op.density
        return (dense, *(self._sparse(op, op.mask, name, least) for name in _SPARSE[op.phase]))

    def _dense(self, op: Op) -> Estimate:
        vectors = gemm_vectors(op.m, op.n, op.k, self.lanes) * op.count
        vectors *= max(1.0, op.dense_flops / (2 * op.m * op.n * op.k * op.count))
        rows, columns = DENSE_TILE
        loads = 1 / min(rows, op.m) + 1 / min(columns, -(-op.n // self.lanes))
        cycles = vectors * max(1 / self.fma_units, loads / self.load_ports) / self.dense_share
        if op.m == 1 and op.kind == "gemm":
            rate = min(self.memory_bandwidth, self.lines_in_flight * _LINE / self.memory_latency_s)
            memory = op.weight_bytes / rate
            if self.warm_weights:
                memory = min(memory, self._weights(op.weight_bytes) * self.threads)
            memory += self._activations(op.activation_bytes)
            return self._made(op, "dense", max(cycles / self.clock_hz, memory), "memory")
        conv = op.kind == "conv"
        compute = cycles / self.threads / self.clock_hz
        memory = self._weights(
            op.weight_bytes * (self.conv_weight_passes if conv else self.weight_passes)
        ) + self._activations(op.activation_bytes) * (self.conv_activation_passes if conv else 1.0)
        bound = "compute" if compute >= memory else "memory"
        return self._made(op, "dense", compute + memory, bound)

    def _sparse(self, op: Op, mask: Mask, kernel: str, least_s: float) -> Estimate:
        cycles = sparse_cycles(kernel, op.m, mask.nnz, self.lanes, self.load_ports)
        if self.simulate and mask.nnz:
            near, middle, far = self._misses(op, mask, kernel)
            a_core = self.clock_hz * self.threads
            memory = near * _LINE / (self.l2_rate * a_core)
            memory += middle * _LINE / (self.l3_rate * a_core)
            if not self.warm_weights or op.activation_bytes + 6 * mask.nnz > self.l3_bytes / 2:
                memory += self._from_memory(far * _LINE)
        else:
            memory = self._weights(6 * mask.nnz) + self._activations(op.activation_bytes)
        compute = cycles / self.threads / self.clock_hz
        bound = "compute" if compute >= memory else "memory"
        return self._made(op, kernel, compute + memory, bound, least_s)

    def _misses(self, op: Op, mask: Mask, kernel: str) -> tuple[float, float, float]:
        """Lines that one step of the kernel fetches into each level; kept with the mask."""
        import numpy as np

        from hwsim.caches.traces import sampled_counts

        if isinstance(mask, StatisticalMask):
            mask = mask.example()
        known = mask.prices(self)
        key = ("misses", kernel, op.phase, op.m)
        if key not in known:
            turned = op.phase == "grad_input"
            walked = Mask(np.ascontiguousarray(mask.array.T), copy=False) if turned else mask
            sizes = (self.l1_bytes, self.l2_bytes, self.l3_bytes)
            levels = tuple(
                (f"L{i + 1}", 1 << max(0, round(math.log2(size / (ways * _LINE)))), ways)
                for i, (size, ways) in enumerate(zip(sizes, _WAYS, strict=True))
            )
            # Whole blocks of samples repeat; CSR's rows of inputs hold all samples.
            samples = op.m if kernel == "csr" else min(op.m, 64)
            counts = sampled_counts(
                kernel, walked, samples, levels, groups=_GROUPS, rows_per_group=_ROWS,
                rng=np.random.default_rng(0),
            )  # fmt: skip
            known[key] = tuple(counts.misses[name] * op.m / samples for name, *_ in levels)
        return known[key]

    def _other(self, op: Op) -> Estimate:
        """What is no product: its arithmetic by vectors, its bytes."""
        cycles = op.flops / self.lanes * self.element_cycles / self.fma_units
        memory = self._activations(op.activation_bytes) + self._from_memory(
            op.weight_bytes * op.density
        )
        compute = cycles / self.threads / self.clock_hz
        bound = "compute" if compute >= memory else "memory"
        return self._made(op, "stream", max(compute, memory), bound)

    def _weights(self, moved: float) -> float:
        """Seconds of a product's weights."""
        if self.warm_weights and moved <= self.l3_bytes / 2:
            return self._activations(moved)
        return self._from_memory(moved)

    def _from_memory(self, moved: float) -> float:
        """Seconds of bytes from main memory, to as many cores as work."""
        a_core = self.lines_in_flight * _LINE / self.memory_latency_s
        return moved / min(self.memory_bandwidth, 2 * a_core * self.threads)

    def _activations(self, moved: float) -> float:
        """Seconds of bytes that the operation before wrote: from the level that holds them."""
        rate = self.clock_hz * self.threads
        if moved <= self.l2_bytes * self.threads:
            return moved / (self.l2_rate * rate)
        if moved <= self.l3_bytes:
            return moved / (self.l3_rate * rate)
        return self._from_memory(moved)

    def _made(self, op: Op, kernel: str, busy: float, bound: str, least_s: float = 0.0) -> Estimate:
        fixed = self.call_s + (self.barrier_s if self.threads > 1 else 0.0)
        floor = self.roofline(op)
        seconds = max(max(busy, floor) + fixed, least_s)
        if fixed > seconds / 2:
            bound = "launch"
        error = seconds * self.model_error
        return Estimate(
            seconds, max(seconds - error, floor), seconds + error, self.cycles(seconds), op.bytes,
            op.flops, kernel, bound, verified=False,
        )  # fmt: skip


MODEL = DataSheetCpu
