"""A processor that runs the kernels of `hwsim.kernels.cpu`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hwsim.cpu.costs import (
    KERNEL_TERMS,
    NEAR_PAGES_BYTES,
    ROW_BY_ROW_SAMPLES,
    TERMS,
    dense_kernel,
    lookup_steps,
    stream_terms,
    terms,
    weight_lines,
)
from hwsim.device import Device, parameter
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.kernels.cpu.layout import MOST, WINDOW
from hwsim.mask import Mask
from hwsim.measured.record import Measurement
from hwsim.patterns.n_m import NM
from hwsim.roofline import roofline
from hwsim.workload import Op

_SPARSE = {
    "forward": ("tiled", "gather", "csr", "lookup", "two_four"),
    "grad_input": ("tiled", "gather", "csr", "lookup"),
    "grad_weight": ("sampled",),
}
_TWO_FOUR, _TWO_FOUR_BLOCK = NM(2, 4), 32
_UPKEEP_BYTES = 18
_CONVERTED = ("bfloat16", "float16")
_ANY_DTYPE = ("elementwise", "embedding")  # they move bytes; torch has them in every type


def _table(doc: str, **options):
    return parameter("s", f"seconds per {doc}", at_least=0.0, by_dtype=True, **options)


@dataclass(frozen=True, eq=False)
class Cpu(Device):
    """Each kernel's time is its counted terms (`hwsim.cpu.costs`) times fitted seconds.

    A masked product has the kernels that exist: dense BLAS on the masked weight, tiled, gather,
    CSR, in-register look-up, the sampled gradient, and a narrower dense product
    where whole neurons are gone. Values are packed once a step by the workload's `pack` op;
    activations are packed and unpacked within the tiled kernels' times. Convolutions have dense
    kernels only. Optimizer steps are dense, because the kernels keep dense parameters. Products of
    16-bit numbers are priced as float32 ones with their conversions, and unverified. All constants
    hold for `threads` threads.
    """

    model = "cpu"
    clock_hz: float = parameter("Hz", "core clock", above=0.0)
    threads: int = parameter("1", "threads the constants hold for", at_least=1, integer=True)
    peak_flops: float = parameter("FLOP/s", "float32 vector units, all threads", above=0.0)
    cache_bytes_per_s: float = parameter("B/s", "nearest cache, all threads", above=0.0)
    last_level_bytes: float = parameter("B", "last-level cache", above=0.0)
    dense: Mapping[str, float] = _table("term of a dense product")
    dense_vector: Mapping[str, float] = _table("term of a dense product with a batch of one")
    dense_gradient: Mapping[str, float] = _table("term of a dense grad_weight and its masking")
    csr: Mapping[str, float] = _table("term of scipy's CSR product")
    gather: Mapping[str, float] = _table("term of the row-by-row kernel")
    lookup: Mapping[str, float] = _table("term of the kernel with in-register look-up")
    two_four: Mapping[str, float] = _table("term of the 2:4 kernel with in-register look-up")
    tiled: Mapping[str, float] = _table("term of the tiled kernel, activations packed")
    sampled: Mapping[str, float] = _table("term of the sampled gradient")
    repack: Mapping[str, float] = _table("term of packing values for forward and grad_input")
    select: Mapping[str, float] = _table("term of one exact drop and grow")
    stream: Mapping[str, float] = _table("term of an operation that reads and writes memory")
    attention_share: float = parameter(
        "1", "share of the dense rate that attention's products reach", above=0.0, at_most=1.0
    )
    element_s: float = parameter(
        "s", "seconds per operation on an element: exp, erf, root and product alike", at_least=0.0
    )
    spread: Mapping[str, float] = parameter(
        "1", "relative error of a kernel's estimate, 90 % of cases", at_least=0.0, by_dtype=True
    )

    def __post_init__(self) -> None:
        for kernel, needed in KERNEL_TERMS.items():
            given = getattr(self, kernel)
            if set(given) != set(needed):
                raise InputError(
                    f"{kernel}: terms are {', '.join(sorted(given))}; allowed are exactly "
                    f"{', '.join(sorted(needed))}"
                )

    def price(self, op: Op) -> tuple[Estimate, ...]:
        if op.dtype != "float32" and op.kind not in _ANY_DTYPE:
            if op.dtype in _CONVERTED:
                return self._price_converted(op)
            reason = f"dtype is {op.dtype}; the kernels are float32"
            return (Estimate.illegal("dense", reason),)
        if op.kind in ("gemm", "conv", "attention"):
            return self._price_product(op)
        if op.kind == "pack":
            return (self._price_pack(op),)
        if op.kind == "mask_update":
            count = terms("select", "update", 1, 1, max(1, op.dense_flops // 2), 0)
            return (self._priced(op, "select", count),)
        moved = self._priced(op, "stream", stream_terms(op.activation_bytes + op.weight_bytes))
        if op.kind == "optimizer":
            return (moved,)
        # Of booleans and small integers, which are masks and classes, only the bytes count.
        element_s = 0.0 if op.dtype == "int8" else self.element_s * op.itemsize / 4
        return (self._longer(moved, op.flops * element_s),)

    def _price_converted(self, op: Op) -> tuple[Estimate, ...]:
        """16-bit operands as float32, by the float32 kernels: what a core without such units does.

        Each of the op's bytes is read, and twice as many are written (and the other way round for
        results). Assumed, not measured: no price of it is held against a record, and a core that
        multiplies bfloat16 (AVX512-BF16, AMX) is faster.
        """
        wide = replace(op, dtype="float32")
        moved = stream_terms(3 * (op.activation_bytes + op.weight_bytes))
        convert_s = self._cost("stream", moved)[0]
        return tuple(
            replace(self._longer(e, convert_s), verified=False, bytes=op.bytes) if e.legal else e
            for e in self.price(wide)
        )

    def roofline(self, op: Op) -> float:
        """Active arithmetic at the vector units' peak, bytes at the nearest cache's speed.

        Caches hold what the operation before wrote, so main memory bounds nothing by itself.
        """
        return roofline(op, self.peak_flops, self.cache_bytes_per_s)

    def price_record(self, record: Measurement) -> Estimate:
        """What a timed kernel should take; its mask is known by density alone.

        Raises:
            InputError: a kernel that is not modelled, or another dtype.
        """
        if record.dtype != "float32":
            raise InputError(f"dtype is {record.dtype}; the kernels are float32")
        kernel = record.kernel
        if kernel == "dense":
            kernel = dense_kernel(record.phase, record.m)
        nnz = round(record.density * record.n * record.k)
        cached = int(self.last_level_bytes) // 4
        counts = terms(
            kernel, record.phase, record.m, record.n, record.k, nnz, cached,
            lines=record.weight_lines, steps=record.lookup_steps,
        )  # fmt: skip
        seconds, low, high, bound = self._cost(kernel, counts)
        return Estimate(
            seconds,
            low,
            high,
            self.cycles(seconds),
            0.0,
            2.0 * nnz * record.m,
            record.kernel,
            bound,
        )

    def _price_pack(self, op: Op) -> Estimate:
        """Packing values for both directions, and what keeps a dense parameter sparse.

        Gradient and weight are zeroed where the mask is: each is read and written under a mask of
        one byte a weight.
        """
        n, k = op.weight_shape or (1, 1)
        lines = self._weight_lines(op.mask) if op.mask is not None else 0
        counts = terms("repack", "update", 1, n, k, op.nnz, lines=lines)
        packing = self._priced(op, "repack", counts)
        upkeep = self._priced(op, "stream", stream_terms(_UPKEEP_BYTES * n * k))
        return self._longer(packing, upkeep.seconds)

    def _weight_lines(self, mask: Mask) -> int:
        return self._counted(mask, "weight_lines", lambda: weight_lines(mask))

    def _lookup_steps(self, mask: Mask, phase: str) -> int:
        return self._counted(mask, f"lookup_steps {phase}", lambda: lookup_steps(mask, phase))

    def _counted(self, mask: Mask, name: str, count: Callable[[], int]) -> int:
        """Counted once for each mask."""
        known = mask.prices(self)
        if name not in known:
            known[name] = count()
        return known[name]

    def _longer(self, estimate: Estimate, seconds: float) -> Estimate:
        """The estimate with seconds added, and its interval in proportion."""
        share = 1.0 + seconds / estimate.seconds if estimate.seconds else 1.0
        return replace(
            estimate,
            seconds=estimate.seconds * share,
            low_s=estimate.low_s * share,
            high_s=estimate.high_s * share,
            cycles=estimate.cycles * share,
            by_bound={},
            by_kernel={},
        )

    def _price_product(self, op: Op) -> tuple[Estimate, ...]:
        found = [self._dense(op, op.m, op.n, op.k, op.count)]
        if op.mask is None:
            return tuple(found)
        if op.kind != "gemm" or op.count != 1:
            reason = f"is for linear layers, this is a {op.kind} of {op.count} products"
            return (*found, *(Estimate.illegal(name, reason) for name in _SPARSE[op.phase]))
        for name in _SPARSE[op.phase]:
            if reason := _unsuitable(name, op.mask, op.m):
                found.append(Estimate.illegal(name, reason))
            else:
                # Only of large weights does the sampled gradient ask which lines a mask uses.
                far = name == "sampled" and 4 * op.weights > NEAR_PAGES_BYTES
                lines = self._weight_lines(op.mask) if far else 0
                steps = self._lookup_steps(op.mask, op.phase) if name == "lookup" else 0
                counts = terms(
                    name, op.phase, op.m, op.n, op.k, op.mask.nnz, lines=lines, steps=steps
                )
                found.append(self._priced(op, name, counts))
        found.append(self._narrower(op, op.mask))
        # What zeros save is their share of the dense product, at most.
        least = found[0].seconds * op.density
        return tuple(
            self._longer(e, least - e.seconds) if e.legal and e.seconds < least else e
            for e in found
        )

    def _dense(self, op: Op, m: int, n: int, k: int, count: int) -> Estimate:
        kernel = dense_kernel(op.phase, m)
        cached = int(self.last_level_bytes) // 4
        counts = terms(kernel, op.phase, m, n, k, n * k, cached)
        times = count / self.attention_share if op.kind == "attention" else count
        scaled = {term: value * times for term, value in counts.items()}
        return self._priced(op, kernel, scaled, shown="dense")

    def _narrower(self, op: Op, mask: Mask) -> Estimate:
        rows, columns = int(np.count_nonzero(mask.row_nnz)), int(np.count_nonzero(mask.col_nnz))
        if mask.nnz != rows * columns or rows * columns in (0, mask.size):
            reason = f"{mask.nnz} weights in {rows} rows and {columns} columns: no narrower block"
            return Estimate.illegal("narrower", reason)
        counts = terms("dense", op.phase, op.m, rows, columns, mask.nnz)
        counts["activation"] += op.m * (op.n + op.k)  # gathered on one side, spread on the other
        return self._priced(op, "dense", counts, shown="narrower", verified=False)

    def _priced(
        self,
        op: Op,
        kernel: str,
        counts: Mapping[str, float],
        *,
        shown: str = "",
        verified: bool = True,
    ) -> Estimate:
        seconds, low, high, bound = self._cost(kernel, counts, self.roofline(op))
        return Estimate(
            seconds, low, high, self.cycles(seconds), op.bytes, op.flops, shown or kernel, bound,
            verified=verified and self._held_against_records(kernel),
        )  # fmt: skip

    def _held_against_records(self, kernel: str) -> bool:
        """Whether the kernel's costs were fitted to records, by the source that they name."""
        return self.sources.get(kernel, "").startswith("fitted")

    def _cost(
        self, kernel: str, counts: Mapping[str, float], least_s: float = 0.0
    ) -> tuple[float, float, float, str]:
        """(seconds, low end, high end, bound) of counted terms."""
        costs = getattr(self, kernel)
        parts = {term: count * costs[term] for term, count in counts.items()}
        seconds = max(sum(parts.values()), least_s)
        by_bound: dict[str, float] = {}
        for term, part in parts.items():
            by_bound[TERMS[term]] = by_bound.get(TERMS[term], 0.0) + part
        bound = max(by_bound, key=lambda name: by_bound[name])
        spread = 1.0 + self.spread.get(kernel, 0.0)
        return seconds, max(seconds / spread, least_s), seconds * spread, bound


def _unsuitable(kernel: str, mask: Mask, m: int) -> str:
    """Why a kernel cannot run a mask, as the kernel itself would say; empty if it can.

    What the look-up takes is counted mask by mask, which is not worth it for batches that it loses.
    """
    if kernel == "gather" and max(mask.shape) > MOST:
        return f"shape is {mask.shape}; allowed are {MOST} rows and columns"
    if kernel == "lookup":
        if min(mask.shape) < WINDOW or max(mask.shape) > MOST:
            return f"shape is {mask.shape}; allowed are {WINDOW} to {MOST} rows and columns"
        if m > ROW_BY_ROW_SAMPLES:
            return f"batch is {m}; estimated for {ROW_BY_ROW_SAMPLES} samples at most"
    if kernel == "two_four":
        if mask.shape[1] % _TWO_FOUR_BLOCK:
            return f"n_in is {mask.shape[1]}; allowed is a multiple of {_TWO_FOUR_BLOCK}"
        used = int(np.count_nonzero(mask.row_nnz))
        if 2 * mask.nnz != used * mask.shape[1] or not mask.satisfies(_TWO_FOUR):
            return "rows have other than 2 weights in every 4 inputs"
    return ""


MODEL = Cpu
