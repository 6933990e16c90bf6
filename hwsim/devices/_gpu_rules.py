"""Which GPU kernel may run which product, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwsim.mask import Mask
from hwsim.patterns.block import Block
from hwsim.workload import Op


@dataclass(frozen=True)
class TwoFour:
    """At most two active in every four consecutive inputs (axis 1) or outputs (axis 0).

    The same law as `hwsim.patterns.n_m.NM(2, 4, axis)`, fast enough for fresh masks.
    """

    axis: int

    def holds(self, mask: Mask) -> bool:
        from hwsim import _two_four

        array = mask.array.view(np.uint8)
        return bool((_two_four.along_inputs if self.axis else _two_four.along_outputs)(array))


ALONG_INPUTS, ALONG_OUTPUTS = TwoFour(1), TwoFour(0)
BLOCKS = tuple(Block(size, size) for size in (128, 64, 32, 16))


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


def why_not_two_four(op: Op) -> str:
    """Why no 2:4 kernel can run this op; empty if one can."""
    if op.mask is None:
        return "no mask"
    if op.kind != "gemm":
        return f"no 2:4 kernel for {op.kind}"
    if op.phase == "grad_weight":
        return "grad_weight has two dense operands: the mask is on its output"
    unaligned = why_not_aligned(op)
    if unaligned:
        return unaligned
    if op.phase == "forward" and not op.mask.satisfies(ALONG_INPUTS):
        return "mask is not 2:4 along the inputs"
    if op.phase == "grad_input" and not op.mask.satisfies(ALONG_OUTPUTS):
        return "mask is not 2:4 along the outputs (not transposable)"
    return ""


def transposable(op: Op) -> bool:
    """Whether both forward and grad_input may use the mask as 2:4."""
    return (
        op.mask is not None and op.mask.satisfies(ALONG_INPUTS) and op.mask.satisfies(ALONG_OUTPUTS)
    )


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


def why_not_gather(op: Op) -> str:
    """Why the constant fan-in kernel cannot run this op; empty if it can."""
    if op.mask is None:
        return "no mask"
    if op.kind != "gemm":
        return f"no gather kernel for {op.kind}"
    along = "columns" if op.phase == "grad_input" else "rows"
    counts = op.mask.col_nnz if along == "columns" else op.mask.row_nnz
    active = counts[counts > 0]
    if not active.size:
        return "no active weight"
    if (active != active[0]).any():
        return f"active {along} do not all have the same number of weights"
    return ""


def why_not_csr(op: Op) -> str:
    """Why the CSR kernel cannot run this op; empty if it can."""
    if op.mask is None:
        return "no mask"
    return "" if op.kind == "gemm" else f"no csr kernel for {op.kind}"


def block_of(op: Op) -> int:
    """Side of the largest square blocks that the mask consists of; 0 if there are none."""
    if op.mask is None or op.kind != "gemm":
        return 0
    for block in BLOCKS:
        side, array = block.rows, op.mask.array
        if array.shape[0] % side or array.shape[1] % side:
            continue
        # First and last row, then column, of each block tell most masks apart.
        alike = (array[::side] == array[side - 1 :: side]).all()
        alike = alike and (array[:, ::side] == array[:, side - 1 :: side]).all()
        if alike and op.mask.satisfies(block):
            return side
    return 0


def longest(mask: Mask, phase: str) -> int:
    """Active weights of the fullest row; of the fullest column in grad_input."""
    return int((mask.col_nnz if phase == "grad_input" else mask.row_nnz).max())


def imbalance(mask: Mask, phase: str, group: int = 32) -> float:
    """How much longer `group` neighbouring rows take than their mean: the slowest of each group.

    Rows are columns of the weight in grad_input. 1 where nothing is active.
    """
    counts = mask.col_nnz if phase == "grad_input" else mask.row_nnz
    if not counts.any():
        return 1.0
    filled = np.pad(counts, (0, -len(counts) % group)).reshape(-1, group)
    return float(filled.max(axis=1).sum() * group / filled.sum())
