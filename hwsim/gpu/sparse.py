"""What a GPU's sparse kernels have to do. No card has timed them here: all are unverified."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from hwsim.gpu import rules
from hwsim.gpu.matmul import DENSE, ELEMENT_BYTES
from hwsim.patterns.passes.v_n_m_sizes import COLUMNS
from hwsim.workload import Op

V_N_M = "v_n_m"
ON_TENSOR_CORES = ("block", V_N_M)


class SparseCard(Protocol):
    """What a card is asked for; `hwsim.devices.gpu.Gpu` is one."""

    @property
    def vector_flops(self) -> float:
        """FLOP/s outside tensor cores."""
        ...

    @property
    def l2_bytes(self) -> float:
        """Size of the second-level cache."""
        ...

    @property
    def csr_share(self) -> float:
        """Of the bandwidth, that CSR products reach."""
        ...

    @property
    def gather_share(self) -> float:
        """Of the bandwidth, that gathered products reach."""
        ...

    @property
    def block_share(self) -> float:
        """Of the peak, that the block kernel reaches."""
        ...

    @property
    def packing(self) -> str:
        """How 2:4 weights are packed."""
        ...

    @property
    def stream_bytes_per_s(self) -> float:
        """Bytes that long streams move in a second."""
        ...

    def peak(self, dtype: str) -> float:
        """FLOP/s of dense products in a type."""
        ...

    def product_seconds(self, kind: str, dtype: str, shape: rules.Product) -> float:
        """Of a dense or 2:4 product."""
        ...


# A row's entries are taken 32 at a time; each turn waits for an index and then for a feature, two
# loads from L2 of about 0.25 µs. Source: order of published latencies of A100 and H100.
_ENTRIES, _DEPENDENT_S = 32, 0.5e-6
_FLOAT32_BYTES, _INDEX_BYTES = 4.0, 4.0
# An atomic sum reads and writes its float32.
_ATOMIC_BYTES = 8.0


class Work(NamedTuple):
    """What one product takes.

    Attributes:
        flops: performed, zeros included that are multiplied.
        moved: bytes of the product's own kernel.
        compute_s: seconds of its arithmetic, or of whatever else than main memory holds it up.
        bound: what that is.
        beside: bytes of each pass over memory before or after it; each is a launch.
    """

    flops: float
    moved: float
    compute_s: float
    bound: str = "compute"
    beside: tuple[float, ...] = ()


# Fitted to 39 products by Sputnik on an RTX 3090 (UDC-GAC/venom), shapes of BERT at densities 0.5
# to 0.02; a product of another half of the shapes is missed by 10 %. What neighbouring rows share
# of the operand they gather falls with the density, and is felt as the operand outgrows L2.
_SCATTER, _OUTGROWN, _AT_MOST, _START_S, _START_OUTPUTS = 0.0535 / 5.0, 2.67, 4.0, 73e-6, 3.1e6


def csr(gpu: SparseCard, op: Op, facts: rules.Facts) -> Work:
    """CSR on CUDA cores: neighbours wait for the fullest of their rows, filled up to 32 entries."""
    uneven = facts.counts(op.phase).uneven
    work = _by_entries(gpu, op, facts, gpu.csr_share, uneven, index_bytes=4.0)
    if not op.nnz:
        return work
    rows, depth = (op.k, op.n) if op.phase == "grad_input" else (op.n, op.k)
    entries = op.nnz / rows * uneven
    filled = -(-entries // _ENTRIES) * _ENTRIES / entries
    gathered = depth * op.m * ELEMENT_BYTES[op.dtype]
    outgrown = min(gathered / gpu.l2_bytes, _AT_MOST) ** _OUTGROWN
    scatter = 1.0 + _SCATTER * (op.density**-0.5 - 1.0) * outgrown
    start = _START_S * min(1.0, op.m * rows / _START_OUTPUTS)
    return work._replace(compute_s=max(work.compute_s * filled * scatter, work.compute_s) + start)


def gather(gpu: SparseCard, op: Op, facts: rules.Facts) -> Work:
    """Constant fan-in on CUDA cores: all rows are equal, and indices short."""
    return _by_entries(gpu, op, facts, gpu.gather_share, 1.0, index_bytes=2.0)


def _by_entries(
    gpu: SparseCard, op: Op, facts: rules.Facts, share: float, uneven: float, index_bytes: float
) -> Work:
    """One fused multiply-add per active weight and row.

    Source: Gale et al. 2020 (Sputnik) for the shape of the cost; the efficiency is published.
    """
    compute = op.flops * uneven / (gpu.vector_flops * share)
    chain = facts.counts(op.phase).longest / _ENTRIES * _DEPENDENT_S
    moved = op.activation_bytes + op.nnz * op.count * (ELEMENT_BYTES[op.dtype] + index_bytes)
    bound = "imbalance" if uneven > 1.5 else "gather"
    return Work(op.flops, moved, max(compute, chain), bound)


def block(gpu: SparseCard, op: Op, facts: rules.Facts) -> Work:
    """Tensor cores over active blocks alone; small blocks fill them badly.

    Source: Gray et al. 2017 (block-sparse kernels); the efficiency is assumed.
    """
    return Work(op.flops, op.bytes, op.flops / _tile_rate(gpu, op, facts.block_side))


def v_n_m(gpu: SparseCard, op: Op, facts: rules.Facts) -> Work:
    """Tensor cores over the columns that V rows share: 4/M of the dense arithmetic.

    The product is that of blocks V high, and never faster than the library's dense product of the
    compacted size. Around it the kernel makes passes of its own: x is transposed for its columns
    to be runs (forward, grad_weight); values are packed, since they change in every step (forward
    and grad_input, each alone, since the other may run dense). grad_input adds what it finds to
    its outputs, once per block of rows: a read and a write of float32 each, assumed to be done at
    the rate of main memory; before it they are set to zero, after it turned and rounded.

    Source: Castro et al. 2023 for the format; `hwsim/kernels/gpu/v_n_m.py` for what is done.
    """
    v, width = facts.v_n_m
    blocks, slots = -(-op.n // v), COLUMNS * -(-op.k // width)
    element = ELEMENT_BYTES[op.dtype]
    many = op.m * op.count
    x, y, packed = element * many * op.k, element * many * op.n, blocks * v * slots * op.count
    flops = 2.0 * op.m * packed
    as_dense = gpu.product_seconds(DENSE, op.dtype, rules.compacted(op, slots))
    compute = max(flops / _tile_rate(gpu, op, v), as_dense)
    indices = _INDEX_BYTES * blocks * slots * op.count
    repacked = () if gpu.packing == "never" else (op.weight_bytes + element * packed,)
    if op.phase == "forward":
        moved = x + y + element * packed + indices
        return Work(flops, moved, compute, beside=(2.0 * x, *repacked))
    if op.phase == "grad_weight":
        # One byte says of each value whether it is active.
        moved = x + y + (_FLOAT32_BYTES + 1.0) * packed + indices
        return Work(flops, moved, compute, beside=(2.0 * x,))
    sums = _FLOAT32_BYTES * many * op.k
    scatter = _ATOMIC_BYTES * blocks * slots * many / gpu.stream_bytes_per_s
    bound = "gather" if scatter > compute else "compute"
    moved = y + element * packed + indices + sums
    return Work(flops, moved, max(compute, scatter), bound, (sums, sums + x, *repacked))


def _tile_rate(gpu: SparseCard, op: Op, side: int) -> float:
    """FLOP/s of tensor cores on tiles of `side` rows of a weight."""
    return gpu.peak(op.dtype) * gpu.block_share * 2 * side / (side + 128.0)


KERNELS: dict[
    str,
    tuple[Callable[[Op, rules.Facts | None], str], Callable[[SparseCard, Op, rules.Facts], Work]],
] = {
    "csr": (rules.why_not_csr, csr),
    "gather": (rules.why_not_gather, gather),
    "block": (rules.why_not_block, block),
    V_N_M: (rules.why_not_v_n_m, v_n_m),
}
