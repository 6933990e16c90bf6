"""Products too large to be walked tile by tile: priced as many times a smaller one.

The tiles of a huge product are alike, so its time is proportional to their number but for filling
and draining at both ends. Sizes are halved, the largest first, until the product can be walked;
what that finds is multiplied up. The ends are counted once per part, a hundredth of such a run.
That a row of the larger product might outgrow a buffer is not seen.
"""

from __future__ import annotations

import dataclasses
import math

from hwsim.estimate import Estimate
from hwsim.workload import Op

# What is walked as it is: FLOPs, bytes, rows or columns, and folds of the largest matrix.
_MOST_FLOPS = 2**56
_MOST_BYTES = 2**40
_MOST_SIZE = 2**17
_MOST_FOLDS = 2**15


def is_huge(op: Op, cells: int) -> bool:
    """Whether the product would be walked for long, or its times would not be exact integers.

    `cells` is how many elements of a matrix lie on the device's arrays at a time.
    """
    return _is_huge(
        {"m": op.m, "n": op.n, "k": op.k, "count": op.count},
        op.dense_flops, op.activation_bytes + op.weight_bytes, cells,
    )  # fmt: skip


def _is_huge(sizes: dict[str, int], flops: int, moved: int, cells: int) -> bool:
    m, n, k, count = sizes["m"], sizes["n"], sizes["k"], sizes["count"]
    return (
        max(m, n, k, count) > _MOST_SIZE
        or max(m * n, n * k, m * k) * count > cells * _MOST_FOLDS
        or flops > _MOST_FLOPS
        or moved > _MOST_BYTES
    )


def smaller(op: Op, cells: int) -> tuple[Op, int]:
    """A product that can be walked, and how many times it the given one is.

    Sizes that a mask fixes are kept: such a mask is in memory, and not that large.
    """
    sizes = {"m": op.m, "n": op.n, "k": op.k, "count": op.count}
    free = ["m", "count"] if op.mask is not None else list(sizes)
    before = dict(sizes)
    times = 1
    flops, moved = op.dense_flops, op.activation_bytes + op.weight_bytes
    while _is_huge(sizes, flops // times, moved // times, cells):
        largest = max(free, key=lambda name: sizes[name])
        if sizes[largest] == 1:
            break
        sizes[largest] = -(-sizes[largest] // 2)
        times *= 2
    share = math.prod(sizes.values()) / math.prod(before.values())
    shape = op.weight_shape
    if shape is not None and op.mask is None:
        shape = (
            max(1, round(shape[0] * sizes["n"] / before["n"])),
            max(1, round(shape[1] * sizes["k"] / before["k"])),
        )
    weights = sizes["n"] * sizes["k"] / (op.n * op.k)
    part = dataclasses.replace(
        op, m=sizes["m"], n=sizes["n"], k=sizes["k"], count=sizes["count"], weight_shape=shape,
        dense_flops=math.ceil(op.dense_flops * share),
        activation_bytes=math.ceil(op.activation_bytes * share),
        weight_bytes=math.ceil(op.weight_bytes * (share if op.mask is None else weights)),
    )  # fmt: skip
    return part, times


def multiplied(part: Estimate, times: int, floor: float, flops: int, hz: float) -> Estimate:
    """The estimate of `times` such products in a row; never under the roofline."""
    seconds = max(part.seconds * times, floor)
    return dataclasses.replace(
        part,
        seconds=seconds,
        low_s=min(max(part.low_s * times, floor), seconds),
        high_s=max(part.high_s * times, seconds),
        cycles=seconds * hz,
        bytes=part.bytes * times,
        flops=flops,
        rejected=(),
    )
