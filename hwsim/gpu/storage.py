"""What a GPU's sparse kernels keep of a masked layer: values in their own form, and their places.

Bytes are those of the kernels in `hwsim/kernels/gpu`, which the tests pack to compare; of 2:4
those of the tensor cores' format (NVIDIA, PTX ISA, sparse matrix storage): two bits a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.gpu.matmul import ELEMENT_BYTES, SPARSE
from hwsim.gpu.rules import Facts
from hwsim.gpu.sparse import V_N_M
from hwsim.patterns.passes.v_n_m_sizes import COLUMNS
from hwsim.workload import Op

_INDEX_BYTES, _PLACE_BYTES = 4.0, 2.0 / 8.0


@dataclass(frozen=True)
class Stored:
    """Of one layer, or of several together.

    Attributes:
        value_bytes: of the values once more, in the forms that its kernels read.
        index_bytes: of all that says where these values are, the mask itself apart.
        sparse: weights that no kernel reads in their dense form.
        sampled: weights whose gradients no kernel makes but for active ones.
    """

    value_bytes: float = 0.0
    index_bytes: float = 0.0
    sparse: int = 0
    sampled: int = 0


def total(parts: Iterable[Stored]) -> Stored:
    """All of some layers together."""
    each = list(parts)
    return Stored(
        sum(s.value_bytes for s in each), sum(s.index_bytes for s in each),
        sum(s.sparse for s in each), sum(s.sampled for s in each),
    )  # fmt: skip


def stored(products: Sequence[Op], kernels: Mapping[str, str]) -> Stored:
    """What a layer's kernels keep.

    Args:
        products: of one masked layer, forward and backward.
        kernels: phase → kernel, of each of them.
    """
    masked = [op for op in products if op.mask is not None]
    kernels = {op.phase: kernels[op.phase] for op in masked}
    values = indices = 0.0
    for kernel in {k for k in kernels.values() if k in FORMS}:
        # 2:4 keeps each direction's operand apart; the others read one form both ways.
        read = sum(k == kernel for k in kernels.values()) if kernel == SPARSE else 1
        op = next(op for op in masked if kernels[op.phase] == kernel)
        held, places = FORMS[kernel](op)
        values += read * held * ELEMENT_BYTES[op.dtype]
        indices += read * places
    weights = masked[0].weights if masked else 0
    dense = [phase for phase, kernel in kernels.items() if kernel not in FORMS]
    reads = {"forward", "grad_input"} & kernels.keys()
    return Stored(
        values, indices, weights if reads and not reads & set(dense) else 0,
        weights if "grad_weight" in kernels and "grad_weight" not in dense else 0,
    )  # fmt: skip


def _two_four(op: Op) -> tuple[float, float]:
    kept = op.weights / 2
    return kept, kept * _PLACE_BYTES


def _csr(op: Op) -> tuple[float, float]:
    """Starts and columns of rows; those of columns, with each value's place among the rows."""
    assert op.mask is not None
    rows, columns = op.mask.shape
    return op.nnz, _INDEX_BYTES * (rows + columns + 2 + 3 * op.nnz)


def _gather(op: Op) -> tuple[float, float]:
    assert op.mask is not None
    neurons = int(np.count_nonzero(op.mask.row_nnz))
    return op.nnz, _INDEX_BYTES * (2 * neurons + 1 + op.nnz)


def _block(op: Op) -> tuple[float, float]:
    assert op.mask is not None
    side = Facts(op.mask, {}).block_side
    rows, columns = (size // side for size in op.mask.shape)
    return op.nnz, _INDEX_BYTES * (rows + columns + 2 + 4 * op.nnz / side**2)


def _v_n_m(op: Op) -> tuple[float, float]:
    """Columns of each block, and a byte for each value that says whether it is active."""
    assert op.mask is not None
    side, width = Facts(op.mask, {}).v_n_m
    blocks, slots = -(-op.mask.shape[0] // side), COLUMNS * -(-op.mask.shape[1] // width)
    values = blocks * side * slots
    return values, _INDEX_BYTES * blocks * slots + values


# Numbers of values that are kept, and bytes of their places.
FORMS: dict[str, Callable[[Op], tuple[float, float]]] = {
    SPARSE: _two_four, "csr": _csr, "gather": _gather, "block": _block, V_N_M: _v_n_m,
}  # fmt: skip
