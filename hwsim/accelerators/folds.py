"""A product on a systolic array as tiles of the pipeline; and whether a mask is n of m."""

from __future__ import annotations

import math

import numba
import numpy as np

from hwsim.accelerators.cutting import cut
from hwsim.pipeline.fast import recurrence

_MOST_TILES = 4096  # a product with more folds is run in groups of folds
STATIONARY, OUTPUT = 0, 1


@numba.njit(cache=True, nogil=True)
def _ceil(a, b):
    return (a + b - 1) // b


@numba.njit(cache=True, nogil=True)
def fold_cycles(kind, rows, cols, length, chained):
    """Cycles of one fold, without the fill: until the last result has left the array.

    Stationary: the fill takes `rows` cycles, then `length` vectors enter skewed by row and leave
    skewed by column. Output stationary: `length` is the contraction. Chained folds follow each
    other without a gap, so that only the last one pays the skew.

    Source: SCALE-Sim (Samajdar et al. 2018, arXiv 1811.02883), whose total_cycles is a last index.
    """
    if chained:
        return max(length, rows) if kind == STATIONARY else length
    return rows + cols + length - 2


@numba.njit(cache=True, nogil=True)
def fold_table(
    kind, rows, cols, contraction, across, stream, products, held, streamed, result,
    chained, weight_capacity, input_capacity, output_capacity, sum_bytes, blocked,
):  # fmt: skip
    """The columns of `pipeline.Tiles`, shape (7, tiles), int64.

    Args:
        kind: STATIONARY, an operand (contraction × across) lies on rows × cols while `stream`
            vectors pass; or OUTPUT, results (stream × across) lie on rows × cols and the
            contraction passes.
        products: how many of that size.
        held, streamed, result: bytes of both operands and the result, all products together.
        sum_bytes: of one partial sum.
        blocked: cut the stream into blocks that stay in their buffer, instead of reading it once
            per column of folds.

    Partial sums stay in half the output buffer, so a long stream is cut into blocks. An operand
    that fits into half its buffer is read once, otherwise once per block (held) or once per column
    of folds (streamed).
    """
    all_held, all_streamed, all_result = held, streamed, result
    held, streamed = _ceil(held, products), _ceil(streamed, products)
    down = _ceil(contraction if kind == STATIONARY else stream, rows)
    wide = _ceil(across, cols)
    block = stream
    if kind == STATIONARY:
        sums = np.int64(min(output_capacity / 2 / (min(cols, across) * sum_bytes), 1e15))
        slices = np.int64(min(input_capacity / 2 / max(streamed / stream / down, 1e-9), 1e15))
        block = max(1, min(stream, sums, slices))
        if blocked:
            fits = np.int64(min(np.ceil(streamed / (input_capacity / 2)), stream))
            block = min(block, _ceil(stream, max(fits, 1)))
    blocks = _ceil(stream, block) if kind == STATIONARY else 1
    folds = products * blocks * wide * down
    # A group of folds must leave room for another one in every buffer.
    group = _ceil(folds, _MOST_TILES)
    per_fold = max(held / (wide * down if kind == STATIONARY else wide), 1.0)
    group = max(1, min(group, np.int64(min(weight_capacity / 2 / per_fold, 1e15))))
    per_fold = max(streamed / (blocks * down), 1.0)
    group = max(1, min(group, np.int64(min(input_capacity / 2 / per_fold, 1e15))))
    # Results come out of every `down`-th fold if stationary, of every one otherwise.
    every = down if kind == STATIONARY else 1
    per_result = max(_ceil(result, products) / (blocks * wide * down // every), 1.0)
    group = max(1, min(group, every * np.int64(min(output_capacity / 2 / per_result, 1e9))))
    keeps_held = blocks == 1 or held <= weight_capacity / 2
    keeps_stream = wide == 1 or streamed / blocks <= input_capacity / 2
    table = np.zeros((7, _ceil(folds, group)), np.int64)
    table[6] = -1
    fold = 0
    for p in range(products):
        held = all_held * (p + 1) // products - all_held * p // products
        streamed = all_streamed * (p + 1) // products - all_streamed * p // products
        result = all_result * (p + 1) // products - all_result * p // products
        for b in range(blocks):
            length = min(block, stream - b * block) if kind == STATIONARY else contraction
            s0 = streamed * b // blocks
            s1 = streamed * (b + 1) // blocks
            r0, r1 = result * b // blocks, result * (b + 1) // blocks
            cycles = fold_cycles(kind, rows, cols, length, chained)
            for w in range(wide):
                h0 = held * min(w * cols, across) // across
                h1 = held * min((w + 1) * cols, across) // across
                o0 = r0 + (r1 - r0) * min(w * cols, across) // across
                o1 = r0 + (r1 - r0) * min((w + 1) * cols, across) // across
                for d in range(down):
                    t = fold // group
                    if kind == STATIONARY:
                        if b == 0 or not keeps_held:
                            part = (h1 - h0) * (d + 1) // down - (h1 - h0) * d // down
                            table[0, t] += part
                        if d == down - 1:
                            table[2, t] += o1 - o0
                        if fold % group == 0 or not chained:
                            # A group fills its first fold; the others' fills are in its cycles.
                            if fold % group == 0:
                                table[3, t] = rows
                            else:
                                table[4, t] += rows
                    else:
                        if d == 0:
                            table[0, t] += h1 - h0
                        table[2, t] += (o1 - o0) * (d + 1) // down - (o1 - o0) * d // down
                    if w == 0 or not keeps_stream:
                        table[1, t] += (s1 - s0) * (d + 1) // down - (s1 - s0) * d // down
                    table[4, t] += cycles
                    fold += 1
    if chained:
        table[4, -1] += rows + cols - 2
    # A stationary operand fills the array whole; one that passes by may come in pieces.
    whole = math.inf if kind == STATIONARY else weight_capacity
    return cut(table, whole, input_capacity, output_capacity)


@numba.njit(cache=True, nogil=True)
def priced(
    kind, rows, cols, contraction, across, stream, products, held, streamed, result,
    chained, weight_capacity, input_capacity, output_capacity, sum_bytes, blocked,
    port_bytes_per_cycle, channels, bytes_per_cycle, latency, interleave, arrays,
):  # fmt: skip
    """The totals of `fastpath.recurrence` for the product's tiles."""
    table = fold_table(
        kind, rows, cols, contraction, across, stream, products, held, streamed, result,
        chained, weight_capacity, input_capacity, output_capacity, sum_bytes, blocked,
    )  # fmt: skip
    count = table.shape[1]
    for t in range(count):
        table[5, t] = np.int64(np.ceil(table[2, t] / port_bytes_per_cycle))
    scratch = np.zeros((2, count), np.int64)
    totals = recurrence(
        table[0], table[1], table[2], table[3], table[4], table[5], table[6],
        channels, bytes_per_cycle, latency, interleave,
        weight_capacity, input_capacity, output_capacity, arrays + 1, arrays, chained,
        scratch[0], scratch[1], np.zeros(channels, np.int64),
    )  # fmt: skip
    return (
        totals[0], totals[1], totals[2], totals[3], totals[4], totals[5], totals[6], totals[7],
        totals[8],
    )  # fmt: skip
