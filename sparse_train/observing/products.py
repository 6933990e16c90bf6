"""Products of a step: what of a forward one its backward pass needs to be told."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hwsim.workload import Op
from sparse_train.observing.operators import dtype_name, storage_of


@dataclass(frozen=True)
class ForwardProduct:
    """A forward product, kept until its backward pass."""

    op: Op
    left: int
    right: int
    sizes: tuple[int, int, int, int]
    weight: str  # "left", "right" or "": the operand that is a parameter


def grouped(layer: str, shape: tuple[int, int] | None, experts: int, rows: int, out: Tensor) -> Op:
    """The product of stacked experts: one an expert, over its even share of the rows.

    Assumed: no router is known, so that each expert is taken to get as many rows as the others.
    """
    assert shape is not None
    n, k = shape[0] // experts, shape[1]
    itemsize = out.element_size()
    return Op(
        "gemm", "forward", layer, -(-rows // experts), n, k, experts, dtype_name(out.dtype),
        dense_flops=2 * rows * n * k,
        activation_bytes=rows * (n + k) * itemsize,
        weight_bytes=experts * n * k * itemsize,
        weight_shape=shape,
    )  # fmt: skip


def differentiated(product: ForwardProduct, left: Tensor, right: Tensor, out: Tensor) -> str:
    """The forward operand whose gradient a backward product is.

    Told by the result's shape; where both operands have it (square layers), by the operand that
    is read again: the gradient of one reads the other.
    """
    _, rows, inner, columns = product.sizes
    of_left, of_right = sorted((rows, inner)), sorted((inner, columns))
    if of_left != of_right:
        shape = sorted(out.shape[-2:]) if out.ndim >= 2 else sorted((*out.shape, 1))
        return "left" if shape == of_left else "right"
    touched = {storage_of(left), storage_of(right)}
    if (product.left in touched) != (product.right in touched):
        return "right" if product.left in touched else "left"
    # Both or neither are read (a product with itself): a weight is its own gradient's operand last.
    return "left" if product.weight == "right" else "right"
