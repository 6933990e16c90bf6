"""A GPU: tensor cores for dense and 2:4, CUDA cores for what is gathered, bytes for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hwsim.bounded import prices
from hwsim.errors import InputError
from hwsim.estimate import Estimate
from hwsim.gpu import rules, sparse, whole_steps
from hwsim.gpu.clock_ticks import Ticks
from hwsim.gpu.described import DescribedGpu
from hwsim.gpu.library import Library
from hwsim.gpu.matmul import DENSE, FAMILIES, SPARSE, packed_share
from hwsim.measured.record import Measurement
from hwsim.workload import Op, Workload, gemm

_DERIVED_WIDENING = 1.5
_UNMEASURED_SPREAD = (-0.5, 0.7)
_SMALLEST = rules.Product(64, 64, 64)
_MEASURED_DTYPES = ("bfloat16", "float16", "float8", "int8")


@dataclass(frozen=True, eq=False)
class Gpu(DescribedGpu):
    """One NVIDIA-like GPU.

    Dense and 2:4 products are priced by `gpu_matmul`; whatever the data sheet alone supports is
    taken from it and from published figures. A 2:4 product pays for pruning and packing its
    weight each time, since values change every step, and for its descriptors unless they are
    kept. CSR, gather (constant fan-in), block and V:N:M kernels are roofs with an efficiency: they
    are unverified. The `pack` op is the multiplication of the weight by its mask; packing into a
    format belongs to the product, so that a kernel is chosen by all that it costs.

    Source: Castro et al. and the torch sparsity documentation for the order of packing costs;
    each number's own source is in the specification.
    """

    model = "gpu"
    _estimates: dict[tuple, Estimate] = field(default_factory=prices, init=False, repr=False)
    _ranks: dict[tuple, tuple[Estimate, ...]] = field(
        default_factory=prices, init=False, repr=False
    )
    library: Library = field(init=False, repr=False)
    steps: Mapping[str, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", whole_steps.constants(self.step_fit))
        fitted = self.fit != "none"
        library = Library(
            self.card, self.peak,
            {DENSE: self.dense_fit, SPARSE: self.sparse_fit} if fitted else {},
            searched=self.algorithm == "searched", square=self.batched == "square",
        )  # fmt: skip
        if fitted and not library.fits:
            raise InputError(f"device {self.name!r}: fit is {self.fit!r} but no fit is given")
        object.__setattr__(self, "library", library)

    def price(self, op: Op) -> tuple[Estimate, ...]:
        if op.kind in ("gemm", "conv"):
            return self._price_product(op)
        if op.kind == "attention":
            return (self._attention(op),)
        return (self._price_stream(op),)

    def estimate(self, item: Op | Workload) -> Estimate:
        """As every device; of a whole step, with the interval that measured steps have."""
        if not isinstance(item, Workload):
            return super().estimate(item)
        item.count_masks()
        total = Estimate.total([ranked[0] for ranked in self._all_kernels(item.ops)])
        # Errors of single kernels partly cancel in a step; what is common to them does not.
        spread = math.exp(self.step_spread)
        return replace(
            total, low_s=max(total.low_s, total.seconds / spread),
            high_s=min(total.high_s, total.seconds * spread),
        )  # fmt: skip

    def _attention(self, op: Op) -> Estimate:
        """Fused, or one of the products that it is made of."""
        seconds = whole_steps.any_attention_s(self, op, self.library.one)
        kernel = "attention" if op.fused else "bmm"
        return self._of_step(op, kernel, seconds, op.bytes, op.flops)

    def _convolution(self, op: Op) -> Estimate:
        seconds = whole_steps.any_convolution_s(self, op, self.library.one)
        moved = op.activation_bytes + op.weight_bytes
        return self._of_step(op, DENSE, seconds, moved, op.dense_flops)

    def _of_step(self, op: Op, kernel: str, seconds: float, moved: float, flops: float) -> Estimate:
        """One kernel of a step, with the gap before it."""
        memory = moved / self.dram_bytes_per_s
        arithmetic = flops / self._rate(op)
        bound = "compute" if arithmetic > memory else "memory"
        share = whole_steps.gap_share(op)
        gap = self.steps["gap_s"] * share
        bound = "launch" if gap > seconds else bound
        spread = 2.0 * self.step_spread
        seconds = self._called(gap + seconds, share)
        held = whole_steps.constant_of(op) in (self.step_fit or {})
        return self._estimate(op, kernel, seconds, (-spread, spread), moved, flops, bound, held)

    def _rate(self, op: Op) -> float:
        """FLOP/s that no kernel of this kind of op can beat."""
        if op.kind == "attention" and op.fused:
            tensor = whole_steps.attention_peak(self, op.dtype)
            return max(self.peak(op.dtype), tensor) * self.boost
        if op.kind in ("gemm", "conv", "attention"):
            return self.peak(op.dtype) * self.boost
        return self.vector_flops * self.boost

    def roofline(self, op: Op) -> float:
        """Active weights' arithmetic at the tensor-core peak, and what cannot fit L2 from DRAM.

        A product may find its operands in L2, so only bytes beyond its capacity are certain.
        """
        return self._floor(op, op.flops, op.bytes)

    def _floor(self, op: Op, flops: float, moved: float) -> float:
        """Seconds below which neither the arithmetic nor the bytes can be done."""
        memory = max(0.0, moved - self.l2_bytes) / self.dram_bytes_per_s
        return max(flops / self._rate(op), memory)

    def price_record(self, record: Measurement) -> Estimate:
        """The price of exactly what a record timed: dense or 2:4, packed or not, no mask needed.

        Raises:
            InputError: another kernel, or a size that 2:4 cannot take.
        """
        if record.kernel not in (DENSE, SPARSE):
            raise InputError(f"kernel {record.kernel!r} cannot be priced without its mask")
        op = gemm(record.m, record.n, record.k, None, record.phase, record.dtype)
        if record.kernel == DENSE:
            return self._shown(self._alone(op))
        reason = rules.why_not_aligned(op)
        if reason:
            raise InputError(f"2:4: {reason}")
        return self._shown(self._two_four(op, packed=record.packing, in_step=False))

    def _shown(self, estimate: Estimate) -> Estimate:
        """As the clock of this card's records shows it: its ticks are not the product's time."""
        if not self.timer_tick_s:
            return estimate
        return Ticks(self.timer_tick_s, self.timer_offset_s).of_estimate(estimate, self.cycles)

    def product_seconds(self, kind: str, dtype: str, shape: rules.Product) -> float:
        """Seconds of one product by a library's kernel, launch included, packing not."""
        return self.library.one(kind, dtype, shape)

    def _price_product(self, op: Op) -> tuple[Estimate, ...]:
        return (
            self._dense(op),
            self._masked_two_four(op),
            *(self._sparse(op, kernel) for kernel in sparse.KERNELS),
        )

    def _ranked(self, op: Op) -> tuple[Estimate, ...]:
        """Layers of equal size whose masks look the same to every kernel are priced once."""
        if op.kind not in ("gemm", "conv"):
            return super()._ranked(op)
        facts = self._facts(op)
        key: tuple = _size_of(op)
        if facts is not None:
            key += facts.key(op.phase, op.dtype)
        known = self._ranks.get(key)
        if known is None:
            known = self._ranks[key] = super()._ranked(op)
        return known

    def _facts(self, op: Op) -> rules.Facts | None:
        """What kernels ask of an op's mask; what was found out is kept with the mask."""
        return None if op.mask is None else rules.Facts(op.mask, op.mask.prices(self))

    def _alone(self, op: Op) -> Estimate:
        """A dense product by itself, as a bench times it."""
        seconds = self._called(self.product_seconds(DENSE, op.dtype, rules.product(op)))
        moved = op.activation_bytes + op.weight_bytes
        return self._library(op, DENSE, seconds, moved, op.dense_flops)

    def _dense(self, op: Op) -> Estimate:
        """The dense product, which knows no mask: layers of equal size are priced once."""
        key = (DENSE, *_size_of(op))
        known = self._estimates.get(key)
        if known is None and op.kind == "conv":
            known = self._estimates[key] = self._convolution(op)
        if known is None:
            alone = self.product_seconds(DENSE, op.dtype, rules.product(op))
            moved = op.activation_bytes + op.weight_bytes
            seconds = self._called(whole_steps.in_step_s(self, op, alone, moved))
            known = self._library(op, DENSE, seconds, moved, op.dense_flops)
            self._estimates[key] = known
        return known

    def _masked_two_four(self, op: Op) -> Estimate:
        reason = rules.why_not_two_four(op, self._facts(op))
        if not self.sparse_units:
            reason = "this card has no 2:4 tensor cores"
        return Estimate.illegal(SPARSE, reason) if reason else self._two_four(op)

    def _two_four(self, op: Op, *, packed: bool = True, in_step: bool = True) -> Estimate:
        """A 2:4 product; `packed` says whether packing the weight belongs to it.

        Of its mask it matters only whether it is transposable.
        """
        facts = self._facts(op)
        both_ways = facts is not None and facts.transposable(op.dtype)
        key = (SPARSE, packed, in_step, both_ways, *_size_of(op))
        known = self._estimates.get(key)
        if known is None:
            known = self._estimates[key] = self._priced_two_four(op, packed, in_step)
        return known

    def _priced_two_four(self, op: Op, packed: bool, in_step: bool) -> Estimate:
        seconds = self.product_seconds(SPARSE, op.dtype, rules.padded(op))
        operands = op.activation_bytes + op.weight_bytes * packed_share(op.dtype)
        # In a step the library's 2:4 products wait for the same clocks as its dense ones.
        if in_step:
            filled = rules.padded(op).rows / rules.product(op).rows
            held = op.activation_bytes * filled + op.weight_bytes * packed_share(op.dtype)
            seconds = whole_steps.in_step_s(self, op, seconds, held)
        pack_s, pack_bytes = self._pack(op) if packed else (0.0, 0.0)
        if self.descriptors == "per_call":
            seconds += self.descriptor_s
        moved = operands + pack_bytes
        seconds = self._called(seconds) + pack_s
        return self._library(op, SPARSE, seconds, moved, op.dense_flops / 2)

    def pack_seconds(self, op: Op) -> float:
        """What the price of `op` as a 2:4 product holds for pruning and packing its weight."""
        return self._pack(op)[0]

    def _pack(self, op: Op) -> tuple[float, float]:
        """Seconds and bytes of pruning and packing this product's weight once.

        The fused kernel writes a transposable weight in both directions in one pass; forward and
        grad_input then bear half of it each.
        """
        if self.packing == "never":
            return 0.0, 0.0
        moved = op.weight_bytes * (1.0 + packed_share(op.dtype))
        if self.packing == "library":
            return self._called(moved / (self.dram_bytes_per_s * self.library_pack_share)), moved
        seconds = self._called(moved / (self.dram_bytes_per_s * self.fused_pack_share))
        facts = self._facts(op)
        shared = 0.5 if facts is not None and facts.transposable(op.dtype) else 1.0
        return shared * seconds, shared * moved

    def _called(self, seconds: float, share: float = 1.0) -> float:
        """With the host's part: eager calls follow each other no faster than it can make them.

        `share` is of one call, of ops that are called together.
        """
        return seconds if self.launch == "graph" else max(seconds, self.eager_s * share)

    def _library(self, op: Op, kind: str, seconds: float, moved: float, flops: float) -> Estimate:
        """An Estimate of a library's product, with the interval of its fit."""
        found = self.library.fit_of(kind, op.dtype)
        own = self.fit == "own" and op.kind == "gemm" and op.dtype in _MEASURED_DTYPES
        own = own and (kind, FAMILIES[op.dtype]) in self.library.fits
        low, high = found.spread
        if not own and self.fit != "none":
            low, high = low * _DERIVED_WIDENING, high * _DERIVED_WIDENING
        launch_s = self.library.launch_s(kind, op.dtype)
        peak = self.peak(op.dtype) * (2.0 if kind == SPARSE else 1.0)
        # 2:4 does the dense product in half the operations: `flops` are those left.
        arithmetic_s = flops * (2.0 if kind == SPARSE else 1.0) / peak
        memory_s = max(0.0, moved - self.l2_bytes) / self.dram_bytes_per_s
        if max(arithmetic_s, memory_s) < launch_s:
            bound = "launch"
        else:
            bound = "compute" if arithmetic_s >= memory_s else "memory"
        return self._estimate(op, kind, seconds, (low, high), moved, flops, bound, own)

    def _sparse(self, op: Op, kernel: str) -> Estimate:
        """A product by one of `_gpu_sparse`, with its passes over memory before and after it."""
        why_not, work = sparse.KERNELS[kernel]
        facts = self._facts(op)
        reason = why_not(op, facts)
        if reason or facts is None:
            return Estimate.illegal(kernel, reason)
        flops, moved, compute, bound, beside = work(self, op, facts)
        if kernel in sparse.ON_TENSOR_CORES:  # which wait in a step as the library's products do
            compute = whole_steps.in_step_s(self, op, compute, moved)
        # What zeros save is their share of the dense product, at most: nothing computes the rest
        # faster than the library's own kernel.
        compute = max(compute, self._dense(op).seconds * op.density)
        return self._simple(op, kernel, moved, flops, compute, bound, product=True, beside=beside)

    def _price_stream(self, op: Op) -> Estimate:
        """What moves bytes: optimizer, norms, activations, embeddings, mask updates, masking."""
        moved = float(op.bytes)
        if op.kind == "pack":
            # Weight read and written, one byte of mask per weight.
            moved = op.weight_bytes + op.weights
        seconds = max(whole_steps.stream_s(self, op, moved), op.flops / self.vector_flops)
        kernel = "mask multiply" if op.kind == "pack" else "stream"
        return self._of_step(op, kernel, seconds, moved, op.flops)

    def _simple(
        self, op: Op, kernel: str, moved: float, flops: float, compute: float,
        bound: str = "compute", *, product: bool = False, beside: tuple[float, ...] = (),
    ) -> Estimate:  # fmt: skip
        """Launch plus the larger of arithmetic and bytes; no real kernel was held against it.

        A product's floor is that of the smallest dense product: it too starts and ends a tile.
        Each of `beside` is a pass of so many bytes, launched by itself.
        """
        launch_s = self.library.launch_s(DENSE, op.dtype)
        passes_s = sum(self._called(launch_s + b / self.stream_bytes_per_s) for b in beside)
        if product:
            launch_s = max(launch_s, self.product_seconds(DENSE, op.dtype, _SMALLEST))
        memory = moved / self.stream_bytes_per_s
        work = max(compute, memory)
        if max(memory, passes_s) > compute:
            bound = "memory"
        if launch_s > max(work, passes_s):
            bound = "launch"
        seconds = self._called(launch_s + work) + passes_s
        moved += sum(beside)
        return self._estimate(op, kernel, seconds, _UNMEASURED_SPREAD, moved, flops, bound, False)

    def _estimate(
        self, op: Op, kernel: str, seconds: float, spread: tuple[float, float], moved: float,
        flops: float, bound: str, verified: bool,
    ) -> Estimate:  # fmt: skip
        floor = self._floor(op, flops, moved)
        seconds = max(seconds, floor)
        low = max(seconds * math.exp(spread[0]), floor)
        return Estimate(
            seconds, low, seconds * math.exp(spread[1]), self.cycles(seconds), moved, flops,
            kernel, bound, verified=verified,
        )  # fmt: skip


def _size_of(op: Op) -> tuple:
    """What the price of an unmasked product depends on: its signature but the layer's name."""
    signature = op.signature
    return (*signature[:2], *signature[3:])


MODEL = Gpu
