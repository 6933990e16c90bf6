"""A product on flexible multipliers as tiles of the pipeline, and priced in one call."""

from __future__ import annotations

import math

import numba
import numpy as np

from hwsim.accelerators.adder_tree import PORT_CYCLES, WAVE_CYCLES, pack
from hwsim.accelerators.base import run_seconds
from hwsim.accelerators.cutting import cut
from hwsim.pipeline.fast import ARRAY, CHANNEL_MAX, CYCLES, FIRST_WEIGHTS, STUCK, recurrence

_TILES = 16  # at least so many a product, where its rows allow it: loads overlap with work
_PIECES = 8.0  # at least so many of a stream that is not kept, for the same reason


@numba.njit(cache=True, nogil=True)
def _share(whole, done, total):
    """The first `done` of `total` parts of `whole`, none of it for an empty total."""
    return np.int64(0) if total == 0 else np.int64(np.float64(whole) * done / total)


@numba.njit(cache=True, nogil=True)
def _tiles(parts, repeats, held, streamed, result, bits_per_row, resident, input_half, output_half):
    """The columns of `pipeline.Tiles` of packed `parts`, shape (7, tiles), int64."""
    count = parts.shape[1]
    elements, outputs = parts[0].sum(), parts[3].sum()
    splits = np.ones(count, np.int64)
    e = o = np.int64(0)
    total = 0
    for t in range(count):
        o += parts[3, t]
        out = _share(result, o, outputs) - _share(result, o - parts[3, t], outputs)
        need = max(1.0, np.ceil(out / output_half))
        if not resident:
            need = max(need, np.ceil(streamed / input_half), _PIECES)
        elif t == 0:
            need = max(need, 4.0)  # the stream may start before all of it is there
        splits[t] = min(max(np.int64(need), 1), max(parts[1, t], 1))
        total += splits[t]
    table = np.zeros((7, total), np.int64)
    table[6] = -1
    e = o = r = np.int64(0)
    at = 0
    for t in range(count):
        e0, o0, r0 = e, o, r
        e, r, o = e + parts[0, t], r + parts[2, t], o + parts[3, t]
        last = t == count - 1
        weights = (held if last else _share(held, e, elements)) - _share(held, e0, elements)
        weights += (r * bits_per_row + 7) // 8 - (r0 * bits_per_row + 7) // 8
        out = (result if last else _share(result, o, outputs)) - _share(result, o0, outputs)
        stream = streamed if (t == 0 or not resident) else np.int64(0)
        cycles = parts[1, t] * repeats
        pieces = splits[t]
        for p in range(pieces):
            table[0, at] = weights if p == 0 else 0
            table[1, at] = stream * (p + 1) // pieces - stream * p // pieces
            table[2, at] = out * (p + 1) // pieces - out * p // pieces
            table[4, at] = cycles * (p + 1) // pieces - cycles * p // pieces
            at += 1
    return cut(table, math.inf, input_half * 2, output_half * 2)


@numba.njit(cache=True, nogil=True)
def fastest_table(
    sizes, streams, repeats, held, streamed, result, bits_per_row,
    multipliers, delay_of, ports, step, lead, units,
    weight_capacity, input_capacity, output_capacity,
    channels, bytes_per_cycle, latency, interleave, facts,
):  # fmt: skip
    """The columns of `pipeline.Tiles`, shape (7, tiles), int64, and the totals of their run.

    Args:
        held, streamed, result: bytes of the stationary operand's values, of the streamed operand
            and of the result.
        bits_per_row: of the bitmap that says where a row's values are.
        repeats: how often the waves run (the products of a fused op).
        facts: as in `pack`, filled.

    An operand that fits into half the input buffer may be kept there: it is streamed from DRAM once
    and not once per tile, but the work is cut into more tiles, of which only the first one overlaps
    with the stream. The faster of the two forms is taken. Tiles whose streams or results would not
    fit into half a buffer are run in parts.
    """
    rows = len(sizes)
    elements = largest = np.int64(0)
    for r in range(rows):
        if streams[r]:
            elements += sizes[r]
            largest = max(largest, sizes[r])
    levels = 0
    while (1 << levels) < multipliers:
        levels += 1
    row_bytes = (held + rows * bits_per_row / 8) / max(elements, 1)
    room = np.int64(min(weight_capacity / 2 / max(row_bytes, 1e-9), 9e15)) - largest
    kept = streamed <= input_capacity / 2
    targets = (max(1, min(room, elements // _TILES)), max(1, min(room, elements)))
    halves = (input_capacity / 2, output_capacity / 2)
    fine = max(1, targets[0] if kept else targets[1])
    parts = np.zeros((4, elements // fine + 2), np.int64)
    count = pack(
        sizes, streams, multipliers, levels, delay_of, ports, step, lead, units, fine, parts, facts
    )  # fmt: skip
    parts = parts[:, :count]
    table = _tiles(
        parts, repeats, held, streamed, result, bits_per_row, kept, halves[0], halves[1]
    )  # fmt: skip
    totals = _run(
        table, channels, bytes_per_cycle, latency, interleave,
        weight_capacity, input_capacity, output_capacity,
    )  # fmt: skip
    # The array waits for the weights of its first tile: in the other form that is all there is room
    # for, from channels that are all busy. What cannot gain a hundredth is not tried.
    first = held * min(1.0, targets[1] / max(elements, 1)) / (channels * bytes_per_cycle)
    least = max(totals[FIRST_WEIGHTS], np.int64(first)) + latency + totals[ARRAY]
    least = max(least, totals[CHANNEL_MAX]) * 1.01
    if not kept or (totals[STUCK] < 0 and totals[CYCLES] <= least):
        return table, totals
    if targets[1] >= elements:  # one tile, of which all is known
        whole = np.zeros((4, 1), np.int64)
        whole[:, 0] = parts.sum(axis=1)
    else:
        whole = np.zeros((4, elements // targets[1] + 2), np.int64)
        count = pack(
            sizes, streams, multipliers, levels, delay_of, ports, step, lead, units, targets[1],
            whole, facts,
        )  # fmt: skip
        whole = whole[:, :count]
    other = _tiles(
        whole, repeats, held, streamed, result, bits_per_row, False, halves[0], halves[1]
    )  # fmt: skip
    others = _run(
        other, channels, bytes_per_cycle, latency, interleave,
        weight_capacity, input_capacity, output_capacity,
    )  # fmt: skip
    if others[STUCK] < 0 and (totals[STUCK] >= 0 or others[CYCLES] < totals[CYCLES]):
        return other, others
    return table, totals


@numba.njit(cache=True, nogil=True)
def _run(
    table, channels, bytes_per_cycle, latency, interleave,
    weight_capacity, input_capacity, output_capacity,
):  # fmt: skip
    scratch = np.zeros((2, table.shape[1]), np.int64)
    return recurrence(
        table[0], table[1], table[2], table[3], table[4], table[5], table[6],
        channels, bytes_per_cycle, latency, interleave,
        weight_capacity, input_capacity, output_capacity, 2, 1, True,
        scratch[0], scratch[1], np.zeros(channels, np.int64),
    )  # fmt: skip


_run_seconds = numba.njit(cache=True, nogil=True)(run_seconds)

# The first columns of `lines`; from _OPERANDS on they are as in `fastest_table`.
_LENGTH, _FIXED, _SAMPLED, _OPERANDS = range(4)


@numba.njit(cache=True, nogil=True)
def priced(
    counted, lines, work,
    multipliers, delay_of, ports, step, lead, units,
    weight_capacity, input_capacity, output_capacity,
    channels, bytes_per_cycle, latency, interleave, constants,
):  # fmt: skip
    """Many products, one after the other.

    Args:
        counted: of all rows of all products, what the masks decide: multipliers that a row needs,
            or vectors that it meets if the product is sampled.
        lines: per product its rows, the other of the two (the same for all rows), whether it is
            sampled, and from `repeats` to `bits_per_row` as in `fastest_table`.
        work: per product FLOPs and compulsory bytes.
        constants: as `run_seconds` takes them.

    Returns:
        per product the five numbers of `run_seconds`, bytes moved, cycles of the array, whether it
        waits for memory, the tile that does not fit (or −1), cycles in which waves waited for
        ports, cycles of all waves; and the facts of `pack`.
    """
    count = len(lines)
    found = np.zeros((count, 11))
    facts = np.zeros((count, 6), np.int64)
    same = np.zeros(lines[:, _LENGTH].max(), np.int64)
    hz, peak, bandwidth, overhead, latencies = constants
    start = 0
    for i in range(count):
        length = lines[i, _LENGTH]
        sizes, streams = counted[start : start + length], same[:length]
        start += length
        streams[:] = lines[i, _FIXED]
        if lines[i, _SAMPLED]:
            sizes, streams = streams, sizes
        operands = lines[i, _OPERANDS:]
        _, totals = fastest_table(
            sizes, streams, operands[0], operands[1], operands[2], operands[3], operands[4],
            multipliers, delay_of, ports, step, lead, units,
            weight_capacity, input_capacity, output_capacity,
            channels, bytes_per_cycle, latency, interleave, facts[i],
        )  # fmt: skip
        cycles, array, fill, _, moved, _, channel, stuck, first = totals
        of = found[i]
        of[0], of[1], of[2], of[3], of[4] = _run_seconds(
            cycles, array + fill, channel, first, work[i, 0], work[i, 1],
            hz, peak, bandwidth, overhead, latencies,
        )  # fmt: skip
        of[5], of[6], of[7], of[8] = moved, array, channel > array + fill, stuck
        of[9], of[10] = facts[i, PORT_CYCLES], facts[i, WAVE_CYCLES]
    return found, facts
