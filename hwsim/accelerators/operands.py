"""Bytes of a product's operands, and how often it is gone through."""

from __future__ import annotations

from hwsim.workload import Op


def operand_bytes(op: Op) -> tuple[int, int, int]:
    """Bytes of a product's two operands and its result without a mask: (first, second, result).

    The first is what streams by rows (x in forward, dy in the backward phases), the second is the
    weight (x in grad_weight). They add up to the op's compulsory traffic, so a convolution's input
    counts once and not once per window.
    """
    m, n, k = op.m, op.n, op.k
    x, y, w = m * k, m * n, n * k
    first, second, result = {
        "forward": (x, w, y), "grad_input": (y, w, x), "grad_weight": (y, x, w),
    }.get(op.phase, (x, w, y))  # fmt: skip
    whole = op.activation_bytes + op.weight_bytes
    if op.weight_shape is not None:
        # The weight's bytes are known; the rest is shared by the activations in proportion.
        rest = op.activation_bytes
        if op.phase == "grad_weight":
            one = rest * first // (first + second)
            return one, rest - one, op.weight_bytes
        one = rest * first // (first + result)
        return one, op.weight_bytes, rest - one
    one = whole * first // (first + second + result)
    two = whole * second // (first + second + result)
    return one, two, whole - one - two


def passes(op: Op) -> int:
    """How often m × n × k is gone through: 2 for a fused attention of two products."""
    return max(1, -(-op.dense_flops // (2 * op.m * op.n * op.k * op.count)))
