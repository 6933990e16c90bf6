"""Which GPU kernel may run which product, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hwsim.mask import Mask
from hwsim.masks.statistical import StatisticalMask
from hwsim.patterns.block import Block
from hwsim.patterns.n_m import NM
from hwsim.patterns.passes.v_n_m_sizes import ROWS, WIDTHS
from hwsim.patterns.v_n_m import VNM
from hwsim.workload import Op

BLOCKS = tuple(Block(size, size) for size in (128, 64, 32, 16))
_NEIGHBOURS = 32
V_N_M_DTYPES = ("bfloat16", "float16", "float32")
_NOT_V_N_M = (
    f"mask is not V:2:M with its fullest row more than half full (V: {', '.join(map(str, ROWS))}; "
    f"M: {', '.join(map(str, WIDTHS))})"
)


class Counts(NamedTuple):
    """Active weights of the rows of a mask, or of its columns, as a kernel over them feels it.

    Attributes:
        longest: of the fullest row.
        uneven: how much longer 32 neighbouring rows take than their mean: the slowest of each
            group; 1 where nothing is active.
        equal: whether all rows with any have the same number, and there is one.
    """

    longest: int
    uneven: float
    equal: bool


class Facts:
    """What GPU kernels ask of a mask, each found out once.

    Args:
        mask: asked about.
        memory: what is known already; kept by the caller for as long as the mask lives. It must
            not hold the mask, which would then wait for the garbage collector with its megabytes.
    """

    __slots__ = ("mask", "memory")

    def __init__(self, mask: Mask, memory: dict[Any, Any]) -> None:
        self.mask, self.memory = mask, memory

    def _known(self, name: str, find: Callable[[], Any]) -> Any:
        if name not in self.memory:
            self.memory[name] = find()
        return self.memory[name]

    @property
    def along_inputs(self) -> bool:
        """At most two active in every four consecutive inputs, as `patterns.n_m.NM(2, 4, 1)`."""
        return self._known("two_four", self._two_four)[0]

    @property
    def along_outputs(self) -> bool:
        """At most two active in every four consecutive outputs, as `patterns.n_m.NM(2, 4, 0)`."""
        return self._known("two_four", self._two_four)[1]

    def along(self, dtype: str) -> tuple[bool, bool]:
        """Whether 2:4 kernels of a dtype take the mask along its inputs, and along its outputs.

        In 16 and 8 bits they keep two of each four; in tf32 one of each two.
        Source: torch 2.13, _semi_structured_conversions.py; NVIDIA's cuSPARSELt documentation.
        """
        if dtype == "tfloat32":
            return self._known("one_two", self._one_two)
        return self._known("two_four", self._two_four)

    def transposable(self, dtype: str) -> bool:
        """Whether both forward and grad_input may use the mask as 2:4 in a dtype."""
        return all(self.along(dtype))

    @property
    def block_side(self) -> int:
        """Side of the largest square blocks that the mask consists of; 0 if there are none."""
        return self._known("block_side", self._block_side)

    @property
    def v_n_m(self) -> tuple[int, int]:
        """V and M of the largest blocks that the V:N:M kernel takes the mask by; or (0, 0)."""
        return self._known("v_n_m", self._v_n_m)

    def counts(self, phase: str) -> Counts:
        """Of the rows that a kernel of this phase goes over: the columns in grad_input."""
        if phase == "grad_input":
            return self._known("columns", lambda: counts_of(self.mask, 1))
        return self._known("rows", lambda: counts_of(self.mask, 0))

    def key(self, phase: str, dtype: str) -> tuple:
        """All of the above: masks of equal keys and sizes have equal prices in this phase."""
        return self.mask.nnz, self.along(dtype), self.block_side, self.v_n_m, self.counts(phase)

    def _two_four(self) -> tuple[bool, bool]:
        if isinstance(self.mask, StatisticalMask):
            return self.mask.satisfies(NM(2, 4, 1)), self.mask.satisfies(NM(2, 4, 0))
        from hwsim.patterns.passes import two_four

        return two_four.directions(self.mask.array.view(np.uint8))

    def _one_two(self) -> tuple[bool, bool]:
        if isinstance(self.mask, StatisticalMask):
            return self.mask.satisfies(NM(1, 2, 1)), self.mask.satisfies(NM(1, 2, 0))
        array = self.mask.array
        rows, columns = (size // 2 * 2 for size in array.shape)
        wide = (array[:, 0:columns:2] & array[:, 1:columns:2]).any()
        high = (array[0:rows:2] & array[1:rows:2]).any()
        return not wide, not high

    def _v_n_m(self) -> tuple[int, int]:
        if isinstance(self.mask, StatisticalMask):
            sizes = ((v, m) for m in WIDTHS for v in ROWS)
            longest, inputs = self.counts("forward").longest, self.mask.shape[1]
            return next(
                (s for s in sizes if longest > -(-inputs // s[1])
                 and self.mask.satisfies(VNM(s[0], 2, s[1]))), (0, 0),
            )  # fmt: skip
        from hwsim.patterns.passes import v_n_m

        return v_n_m.largest(self.mask.array.view(np.uint8), self.counts("forward").longest)

    def _block_side(self) -> int:
        if isinstance(self.mask, StatisticalMask):
            divides = (b for b in BLOCKS if not any(n % b.rows for n in self.mask.shape))
            return next((b.rows for b in divides if self.mask.satisfies(b)), 0)
        array = self.mask.array
        for block in BLOCKS:
            side = block.rows
            if array.shape[0] % side or array.shape[1] % side:
                continue
            # The first row, then first and last of each block, tell most masks apart.
            alike = (array[0, ::side] == array[0, side - 1 :: side]).all()
            alike = alike and (array[::side] == array[side - 1 :: side]).all()
            alike = alike and (array[:, ::side] == array[:, side - 1 :: side]).all()
            if alike and self.mask.satisfies(block):
                return side
        return 0


def counts_of(mask: Mask, axis: int) -> Counts:
    """Of the active weights of a mask's rows (axis 0) or columns (1)."""
    if not mask.nnz:
        return Counts(0, 1.0, False)
    slowest, fullest = mask.slowest(axis, _NEIGHBOURS)
    counts = (mask.row_nnz, mask.col_nnz)[axis]
    longest, least = int(counts.max()), int(counts.min())
    equal = least == longest or (least == 0 and bool(((counts == 0) | (counts == longest)).all()))
    return Counts(round(fullest), slowest * _NEIGHBOURS / mask.nnz, equal)


class Product(NamedTuple):
    """One phase of a layer as the library sees it: out[rows, outputs] over depth inputs."""

    rows: int
    outputs: int
    depth: int


class Alignment(NamedTuple):
    """Sizes that a 2:4 kernel takes: the sparse weight's two, and the dense operand's rows."""

    weight_rows: int
    weight_columns: int
    dense_rows: int
    library: str


# Source: torch 2.13, torch/sparse/semi_structured.py, the constraints of both backends. fp32
# operands run as tf32, through CUTLASS alone; the other types are held to cuSPARSELt's limits.
ALIGNMENTS = {
    "bfloat16": Alignment(16, 16, 8, "cuSPARSELt"),
    "float16": Alignment(16, 16, 8, "cuSPARSELt"),
    "int8": Alignment(32, 32, 16, "cuSPARSELt"),
    "float8": Alignment(32, 32, 16, "cuSPARSELt"),
    "tfloat32": Alignment(32, 32, 4, "CUTLASS"),
}


def product(op: Op) -> Product:
    """The product of an op's phase; independent ones (`count`) lie side by side along rows."""
    if op.phase == "grad_input":
        return Product(op.m * op.count, op.k, op.n)
    if op.phase == "grad_weight":
        return Product(op.n * op.count, op.k, op.m)
    return Product(op.m * op.count, op.n, op.k)


def why_not_two_four(op: Op, facts: Facts | None) -> str:
    """Why no 2:4 kernel can run this op; empty if one can."""
    if facts is None:
        return "no mask"
    if op.kind != "gemm":
        return f"no 2:4 kernel for {op.kind}"
    if op.phase == "grad_weight":
        return "grad_weight has two dense operands: the mask is on its output"
    unaligned = why_not_aligned(op)
    if unaligned:
        return unaligned
    inputs, outputs = facts.along(op.dtype)
    pattern = "1:2, which tf32 kernels take," if op.dtype == "tfloat32" else "2:4"
    if op.phase == "forward" and not inputs:
        return f"mask is not {pattern} along the inputs"
    if op.phase == "grad_input" and not outputs:
        return f"mask is not {pattern} along the outputs (not transposable)"
    return ""


def why_not_aligned(op: Op) -> str:
    """Why no 2:4 kernel takes an op of this dtype and size; empty if one does."""
    limits = ALIGNMENTS.get(op.dtype)
    if op.dtype == "float32":
        return "2:4 kernels round float32 operands to tf32: give the op dtype tfloat32"
    if limits is None:
        return f"no 2:4 kernel for {op.dtype} (allowed: {', '.join(ALIGNMENTS)})"
    _, rows, columns = product(op)
    if rows % limits.weight_rows or columns % limits.weight_columns:
        return (
            f"weight is {rows}×{columns}; {limits.library} takes multiples of "
            f"{limits.weight_rows}×{limits.weight_columns} in {op.dtype}"
        )
    return ""


def padded(op: Op) -> Product:
    """The product a 2:4 kernel really runs: dense rows filled up to its alignment."""
    whole = product(op)
    step = ALIGNMENTS[op.dtype].dense_rows
    return whole._replace(rows=-(-whole.rows // step) * step)


def why_not_gather(op: Op, facts: Facts | None) -> str:
    """Why the constant fan-in kernel cannot run this op; empty if it can."""
    if facts is None:
        return "no mask"
    if op.kind != "gemm":
        return f"no gather kernel for {op.kind}"
    counts = facts.counts(op.phase)
    if not counts.longest:
        return "no active weight"
    if not counts.equal:
        along = "columns" if op.phase == "grad_input" else "rows"
        return f"active {along} do not all have the same number of weights"
    return ""


def why_not_csr(op: Op, facts: Facts | None) -> str:
    """Why the CSR kernel cannot run this op; empty if it can."""
    if facts is None:
        return "no mask"
    return "" if op.kind == "gemm" else f"no csr kernel for {op.kind}"


def why_not_block(op: Op, facts: Facts | None) -> str:
    """Why the block kernel cannot run this op; empty if it can."""
    if facts is None:
        return "no mask"
    side = facts.block_side if op.kind == "gemm" else 0
    return "" if side else "mask is not made of aligned square blocks"


def why_not_v_n_m(op: Op, facts: Facts | None) -> str:
    """Why the V:N:M kernel cannot run this op; empty if it can."""
    if facts is None:
        return "no mask"
    if op.kind != "gemm":
        return f"no v_n_m kernel for {op.kind}"
    if op.dtype not in V_N_M_DTYPES:
        return f"no v_n_m kernel for {op.dtype} (allowed: {', '.join(V_N_M_DTYPES)})"
    return "" if facts.v_n_m[0] else _NOT_V_N_M


def compacted(op: Op, slots: int) -> Product:
    """The product of an op's phase where its weight has `slots` columns instead of k."""
    whole = product(op)
    if op.phase == "forward":
        return whole._replace(depth=slots)
    return whole._replace(outputs=slots)
