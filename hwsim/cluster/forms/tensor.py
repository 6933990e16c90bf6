"""Tensor parallel: every product is cut into t, and activations are summed up after two of them.

Source: Shoeybi et al. 2019 (Megatron-LM), section 3; Korthikanti et al. 2022 (arXiv 2205.05198),
section 4.2, for sequence parallelism, whose ranks gather a product's input once more for its weight
gradient, beside that of its input; section 6.2 for sums of gradients beside weight gradients.
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.cluster.parts import Part, between_products
from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.workload import PRODUCTS, Op


def ranks_that_differ(part: Part, ranks: int) -> int:
    """Ranks whose shares are priced apart: all where masks are drawn, else one for them all.

    Shares of a mask that is known by its statistics are alike: a random one's differ by some
    thousandths.
    """
    ops = (*part.forward, *part.backward, *part.update)
    drawn = any(op.mask is not None and not op.mask.variants for op in ops)
    return ranks if drawn else 1


def cut(
    part: Part, ranks: int, *, sequence: bool, rank: int = 0,
    shares: dict[tuple, Mask] | None = None, alike: dict[tuple, Op] | None = None,
) -> Part:  # fmt: skip
    """The part as one of `ranks` cards has it: of a mask, the rows or columns that lie there.

    Args:
        sequence: whether norms are shared out too.
        shares: of masks, kept between calls: products and updates of a layer share one.
        alike: of what has no mask, kept between calls for the ranks of one part.

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
    kept = {} if shares is None else shares
    same = {} if alike is None else alike

    def own(ops: list[Op]) -> list[Op]:
        shared = set() if sequence else _of_heads_and_hidden_units(ops)
        found = []
        for i, op in enumerate(ops):
            if op.mask is not None:
                found.append(_masked(op, ranks, rank, kept))
                continue
            asked = (id(op), sequence or i in shared)
            if asked not in same:
                same[asked] = _cut(op, ranks, part, asked[1])
            found.append(same[asked])
        return found

    return replace(part, forward=own(part.forward), backward=own(part.backward),
                   update=own(part.update))  # fmt: skip


def _masked(op: Op, ranks: int, rank: int, kept: dict[tuple, Mask]) -> Op:
    """A rank's share of a masked op: as wide as its share of the mask."""
    mask, shape = op.mask, op.weight_shape
    assert mask is not None and shape is not None
    axis = 0 if shape[0] >= shape[1] else 1
    if shape[axis] < ranks:
        raise InputError(
            f"tp: value is {ranks}; allowed is at most {shape[axis]}, the width of {op.name}"
        )
    asked = (id(mask), axis, ranks, rank)
    if asked not in kept:
        kept[asked] = mask.share(axis, rank, ranks)
    share = kept[asked]

    def part(whole: int) -> int:
        return whole * share.shape[axis] // shape[axis]

    if op.kind == "conv":
        # A convolution's sizes are its images' too: its share is priced as so many fewer rows.
        return replace(op, m=max(op.m // ranks, 1), dense_flops=op.dense_flops // ranks,
                       activation_bytes=op.activation_bytes // ranks)  # fmt: skip
    n, k = op.n, op.k
    moved = part(op.activation_bytes)
    if op.kind in PRODUCTS:
        n, k = share.shape
        moved = (op.m * k + op.m * n) * op.itemsize * op.count
    flops, weight_bytes = part(op.dense_flops), part(op.weight_bytes)
    return replace(op, n=n, k=k, weight_shape=share.shape, mask=share, activation_bytes=moved,
                   dense_flops=flops, weight_bytes=weight_bytes)  # fmt: skip


def _of_heads_and_hidden_units(ops: list[Op]) -> set[int]:
    """Where ops lie that a product of one kind of cut feeds, and one of the other takes up.

    The rest is the residual stream's: what lies at a block's ends, or beside a norm.
    """
    found = set()
    for some in between_products(ops):
        kinds = {ops[i].kind for i in some}
        if "attention" in kinds or (some.start and some.stop < len(ops) and "norm" not in kinds):
            found.update(some)
    return found


def _cut(op: Op, ranks: int, part: Part, shared: bool) -> Op:
    flops = op.dense_flops // ranks
    if op.kind == "attention":
        if op.count % ranks:
            return op
        return replace(op, count=op.count // ranks, dense_flops=flops,
                       activation_bytes=op.activation_bytes // ranks)  # fmt: skip
    if op.kind in PRODUCTS:
        wide = op.n >= op.k
        size = op.n if wide else op.k
        padded = -(-size // ranks)
        m, n, k = op.m, padded if wide else op.n, op.k if wide else padded
        shape = None if op.weight_shape is None else (n, k)
        if op.kind == "conv" or shape is None:
            return replace(op, m=max(op.m // ranks, 1), dense_flops=flops,
                           activation_bytes=op.activation_bytes // ranks)  # fmt: skip
        return replace(op, n=n, k=k, weight_shape=shape, dense_flops=flops,
                       activation_bytes=(m * k + m * n) * op.itemsize * op.count,
                       weight_bytes=op.weight_bytes // ranks)  # fmt: skip
    # Norms, dropouts and sums of the residual stream are every rank's own; heads and hidden
    # units are shared out. What moves more than such a sum with its dropout is none of it: scores
    # of a vocabulary.
    residual = op.activation_bytes <= 4 * part.boundary_bytes and op.kind == "elementwise"
    if not shared and (op.kind == "norm" or residual) and op.phase != "update":
        return op
    shape = op.weight_shape
    if shape is not None:
        shape = (max(shape[0] // ranks, 1), shape[1])
    return replace(op, dense_flops=flops, activation_bytes=op.activation_bytes // ranks,
                   weight_bytes=op.weight_bytes // ranks, weight_shape=shape,
                   m=max(op.m // ranks, 1) if op.kind in ("norm", "softmax") else op.m)  # fmt: skip


def beside_sums(part: Part) -> set[str]:
    """Layers cut by their outputs, whose inputs' gradients are summed up: what an attention reads,
    and what widens."""
    found: set[str] = set()
    before: list[str] = []
    for op in part.forward:
        if op.kind == "gemm" and op.n > op.k:
            found.add(op.name)
        elif op.kind == "gemm":
            before.append(op.name)
        elif op.kind == "attention":
            found.update(before)
    return found


def exchanges(part: Part) -> int:
    """All-reduces of the activations in one pass of a block: after attention, after its MLP."""
    products = sum(op.kind == "gemm" for op in part.forward)
    return (1 if part.heads else 0) + (1 if products >= 2 else 0)
