"""A product on a systolic array as tiles of the pipeline.

A stream is cut into blocks, whose partial sums stay in half the output buffer. An operand that fits
into half its buffer is read once, otherwise once per block (held) or once per column of folds
(streamed). Of the ways to do so the fastest is taken.

**More buffer is never slower**, by construction. A tiling is feasible where the tiles that the
pipeline has under way at once fit; so loads wait for no buffer, and a larger buffer only lets more
tilings in (in the output buffer, more room also ends waits). What depends on an operand that is no
longer kept, or on tiles in finer pieces, counts for no less than with more room. Beyond _MOST_FOLDS
folds, and beyond 16 times as many, fewer ways are tried, and nothing is guaranteed.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from hwsim.accelerators.steps import MOST_PIECES, in_pieces, more, under_way
from hwsim.pipeline.fast import CYCLES, STUCK, recurrence

_MOST_TILES = 4096  # a product with more folds is run in groups of folds
_GROUP_BYTES = 1 << 20  # of one operand in such a group
_MOST_FOLDS = 1 << 14  # up to so many, more blocks than needed are tried
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
def fold_table(shape, operands, blocks, keeps_held, keeps_stream, group):
    """The columns of `pipeline.Tiles`, shape (7, tiles), int64.

    Args:
        shape: kind, rows, cols, contraction, across, stream, products, chained. Of kind STATIONARY,
            an operand (contraction × across) lies on rows × cols while `stream` vectors pass; of
            OUTPUT, results (stream × across) lie on rows × cols and the contraction passes. Of that
            there are `products`.
        operands: bytes of both operands and the result, all products together.
        blocks: of the stream.
        keeps_held, keeps_stream: whether an operand is read once.
        group: folds that are run as one tile.
    """
    kind, rows, cols, contraction, across, stream, products, chained = shape
    all_held, all_streamed, all_result = operands
    down = _ceil(contraction if kind == STATIONARY else stream, rows)
    wide = _ceil(across, cols)
    block = _ceil(stream, blocks)
    folds = products * blocks * wide * down
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
    return table


@numba.njit(cache=True, nogil=True)
def _array_cycles(shape, blocks):
    """Cycles of all folds and their fills: what no memory can better."""
    kind, rows, cols, contraction, across, stream, products, chained = shape
    wide = _ceil(across, cols)
    if kind == OUTPUT:
        return (
            products
            * wide
            * _ceil(stream, rows)
            * (fold_cycles(kind, rows, cols, contraction, chained))
        )
    block = _ceil(stream, blocks)
    last = stream - (blocks - 1) * block
    each = (blocks - 1) * fold_cycles(kind, rows, cols, block, chained)
    each += fold_cycles(kind, rows, cols, last, chained)
    if not chained:
        each += blocks * rows
    return products * wide * _ceil(contraction, rows) * each


@numba.njit(cache=True, nogil=True)
def _run(table, weights, room, memory):
    """The totals of `recurrence`; `weights`: bytes of their buffer, or infinite."""
    port, channels, bytes_per_cycle, latency, interleave, arrays, chained = memory
    count = table.shape[1]
    for t in range(count):
        table[5, t] = np.int64(np.ceil(table[2, t] / port))
    scratch = np.zeros((2, count), np.int64)
    return recurrence(
        table[0], table[1], table[2], table[3], table[4], table[5], table[6],
        channels, bytes_per_cycle, latency, interleave,
        weights, math.inf, max(room[2], 2.0 * table[2].max()), arrays + 1, arrays, chained,
        scratch[0], scratch[1], np.zeros(channels, np.int64),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _group(shape, operands, blocks):
    """Folds that run as one tile: of many, so many that no buffer has to be large for them."""
    kind, rows, cols, contraction, across, stream, products, _ = shape
    wide = _ceil(across, cols)
    folds = products * blocks * wide * _ceil(contraction if kind == STATIONARY else stream, rows)
    one_pass = folds // blocks  # over the held operand; the stream passes once per column of folds
    most = max(operands[0] / one_pass, operands[1] * np.float64(wide) / folds, operands[2] / folds)
    return max(1, min(_ceil(folds, _MOST_TILES), np.int64(_GROUP_BYTES / max(most, 1.0))))


@numba.njit(cache=True, nogil=True)
def _tightened(shape, operands, blocks, keeps_held, keeps_stream, room, memory, slowest):
    """The tiles in as few pieces as fit, their run, and the cycles of the slowest so far."""
    whole = shape[0] == STATIONARY  # it fills the array; an operand that passes comes in pieces
    window = memory[5] + 2
    group, pieces, ahead = _group(shape, operands, blocks), 1, 0
    table = fold_table(shape, operands, blocks, keeps_held, keeps_stream, group)
    while True:
        # Tiles that the weight buffer has room for: all under way, or two, or one.
        used = math.inf if ahead == 0 else (3 - ahead) * np.float64(table[0].max())
        totals = _run(table, used, room, memory)
        slowest = max(slowest, totals[CYCLES])
        held = under_way(table[0], window) <= room[0] if ahead == 0 else used <= room[0]
        others = under_way(table[1], window) <= room[1] and 2 * table[2].max() <= room[2]
        if held and others:
            return table, totals, slowest
        if not held and whole and group == 1 and ahead < 2:
            ahead += 1
        elif (not held and ahead == 2) or pieces >= MOST_PIECES:
            totals[STUCK] = 0 if not held else 2 if 2 * table[2].max() > room[2] else 1
            return table, totals, slowest
        else:
            ahead = 0
            pieces = pieces * 4 if group == 1 else 1
            group = np.int64(1)
            table = fold_table(shape, operands, blocks, keeps_held, keeps_stream, group)
            table = in_pieces(table, pieces, whole)


@numba.njit(cache=True, nogil=True)
def fastest(shape, operands, sum_bytes, room, memory):
    """The tiles of the fastest tiling, the totals of their run, and the cycles of its price.

    Args:
        shape, operands: as in `fold_table`.
        sum_bytes: of one partial sum.
        room: bytes of the weight, the input and the output buffer.
        memory: bytes a cycle of the output port; channels, bytes a cycle, latency and interleave as
            in `Machine`; arrays, and whether folds are chained.
    """
    kind, rows, cols, contraction, across, stream, products, _ = shape
    held, streamed = _ceil(operands[0], products), _ceil(operands[1], products)
    wide = _ceil(across, cols)
    one_block = products * wide * _ceil(contraction, rows)  # folds
    rate = memory[1] * memory[2]
    best, best_totals, best_table = np.int64(-1), np.zeros(9, np.int64), np.zeros((7, 0), np.int64)
    best_totals[STUCK] = 2
    for keeps_stream in (True, False):
        if wide == 1 and not keeps_stream:
            continue  # there is one column of folds: both are the same
        slowest = np.int64(0)  # of blocks that are too many to be tried where fewer would do
        blocks = 1
        while blocks <= (stream if kind == STATIONARY else 1):
            block = _ceil(stream, blocks)
            actual = _ceil(stream, block)
            beyond = more(blocks) * one_block > _MOST_FOLDS
            sums = 2.0 * block * min(cols, across) * sum_bytes
            fits = kind == OUTPUT or block == 1 or sums <= room[2]
            if keeps_stream and wide > 1:
                fits = fits and 2 * _ceil(streamed, actual) <= room[1]
            folds = actual * one_block
            if keeps_stream and wide > 1 and folds > 16 * _MOST_FOLDS:
                break
            keeps_held = actual == 1 or 2 * held <= room[0]
            least = np.float64(_array_cycles(shape, actual)) / memory[5]
            moved = operands[0] * np.float64(1 if keeps_held else actual) + operands[2]
            moved += operands[1] * np.float64(1 if keeps_stream else wide)
            if best >= 0 and max(least, moved / rate) >= best:
                if beyond:
                    break
            elif fits or beyond:
                table, totals, cycles = best_table, best_totals, slowest
                for keeps in (True, False):
                    if keeps == keeps_held or (keeps and folds <= _MOST_FOLDS):
                        table, totals, cycles = _tightened(
                            shape, operands, actual, keeps, keeps_stream, room, memory, cycles
                        )
                if beyond:
                    slowest = cycles
                if fits and totals[STUCK] < 0 and (best < 0 or cycles < best):
                    best, best_totals, best_table = cycles, totals, table
                elif best < 0 and totals[STUCK] >= 0:
                    best_totals[STUCK] = totals[STUCK]
                if fits and beyond:
                    break
            blocks = 2 * blocks if beyond else more(blocks)
    return best_table, best_totals, best
