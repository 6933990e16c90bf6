"""Tensor parallel: every product is cut into t, and activations are summed up after two of them.

Source: Shoeybi et al. 2019 (Megatron-LM), section 3; Korthikanti et al. 2022, section 4.2, for
sequence parallelism.
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.cluster.parts import Part
from hwsim.errors import InputError
from hwsim.workload import PRODUCTS, Op


def cut(part: Part, ranks: int, *, sequence: bool) -> Part:
    """The part as one of `ranks` cards has it.

    Raises:
        InputError: heads or widths that `ranks` does not divide.
    """
    if ranks == 1:
        return part
    batch = max(part.rows // max(part.length, 1), 1)
    if part.heads and (part.heads // batch) % ranks:
        raise InputError(
            f"tp: value is {ranks}; allowed is a divisor of the {part.heads // batch} heads of "
            f"{part.name}"
        )

    def own(ops: list[Op]) -> list[Op]:
        return [_cut(op, ranks, part, sequence) for op in ops]

    return replace(part, forward=own(part.forward), backward=own(part.backward),
                   update=own(part.update))  # fmt: skip


def _cut(op: Op, ranks: int, part: Part, sequence: bool) -> Op:
    flops = op.dense_flops // ranks
    if op.kind == "attention":
        if op.count % ranks:
            return op
        return replace(op, count=op.count // ranks, dense_flops=flops,
                       activation_bytes=op.activation_bytes // ranks)  # fmt: skip
    if op.kind in PRODUCTS:
        wide = op.n >= op.k
        side = "n" if wide else "k"
        if getattr(op, side) % ranks:
            size = getattr(op, side)
            padded = -(-size // ranks)
        else:
            padded = getattr(op, side) // ranks
        itemsize = op.itemsize
        m, n, k = op.m, padded if wide else op.n, op.k if wide else padded
        shape = None if op.weight_shape is None else (n, k)
        if op.kind == "conv" or op.mask is not None or shape is None:
            # A mask's share of a rank is as dense as the whole: its price is taken off the whole.
            return replace(op, m=max(op.m // ranks, 1), dense_flops=flops,
                           activation_bytes=op.activation_bytes // ranks)  # fmt: skip
        return replace(op, n=n, k=k, weight_shape=shape, dense_flops=flops,
                       activation_bytes=(m * k + m * n) * itemsize * op.count,
                       weight_bytes=op.weight_bytes // ranks)  # fmt: skip
    # Norms, dropouts and sums of the residual stream are every rank's own; heads and hidden
    # units are shared out. Both are told apart by their bytes: a sum reads two and writes one.
    residual = op.activation_bytes <= 3 * part.boundary_bytes and op.kind == "elementwise"
    whole = not sequence and (op.kind == "norm" or residual) and op.phase != "update"
    if whole or (op.weight_shape is not None and op.mask is not None):
        return op
    shape = op.weight_shape
    if shape is not None:
        shape = (max(shape[0] // ranks, 1), shape[1])
    return replace(op, dense_flops=flops, activation_bytes=op.activation_bytes // ranks,
                   weight_bytes=op.weight_bytes // ranks, weight_shape=shape,
                   m=max(op.m // ranks, 1) if op.kind in ("norm", "softmax") else op.m)  # fmt: skip


def exchanges(part: Part) -> int:
    """All-reduces of the activations in one pass of a block: after attention, after its MLP."""
    products = sum(op.kind == "gemm" for op in part.forward)
    return (1 if part.heads else 0) + (1 if products >= 2 else 0)
