"""A product on flexible multipliers as tiles of the pipeline, and priced in one call.

There are two forms of tilings, of which the faster is taken:

- *kept*: the streamed operand lies in the input buffer, read from DRAM once, and the stationary one
  comes in many small tiles.
- *passing*: as much of the stationary operand as there is room for is held, and the whole stream
  passes by each such part in pieces. The first piece meets the first part as it comes in.

**More buffer is never slower**, by construction. A form has steps from roomy to tight: more tiles,
then more pieces of each. A step is feasible where the tiles that the pipeline has under way at once
fit; so loads wait for no buffer, and a run depends on the sizes of buffers only through the steps
that they allow (and the output buffer, where more room only ends waits). Now and then a tighter
step gains some cycles at the ends of its run, which a smaller buffer is not credited with: it pays
for the slowest of all steps up to its own.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from hwsim.accelerators.adder_tree import LONGEST, PORT_CYCLES, WAVE_CYCLES, pack
from hwsim.accelerators.base import run_seconds
from hwsim.accelerators.steps import MOST_PIECES, more
from hwsim.pipeline.fast import ARRAY, CYCLES, FIRST_WEIGHTS, STUCK, recurrence

_TILES = 16  # at least so many a product, where its rows allow it: loads overlap with work
_PIECES = 8  # at least so many of a stream while it comes in, for the same reason
# A stream that is longer than this may be cut, into chunks of this size, or into so many.
_LONG, _CHUNK, _MOST_CHUNKS = 1 << 24, 1 << 22, 1 << 10
_AHEAD = 3  # tiles in a buffer: one at work, two on their way (the pipeline's lookahead)


@numba.njit(cache=True, nogil=True)
def _share(whole, done, total):
    """The first `done` of `total` parts of `whole`, none of it for an empty total."""
    if total == 0:
        return np.int64(0)
    return np.int64(whole) if done == total else np.int64(np.float64(whole) * done / total)


@numba.njit(cache=True, nogil=True)
def _tiles_of(parts, group, first_splits, splits, operands):
    """The columns of `pipeline.Tiles`, shape (7, tiles), int64.

    Args:
        parts: packed rows, (4, parts): elements, cycles, rows, outputs.
        group: parts of a tile. Of the first tile, the first piece comes part by part.
        first_splits, splits: pieces of the first tile and of the others. The stream comes in with
            the first tile only if the two differ, else with every tile.
        operands: repeats, bytes held, streamed and of the result, bits a row, as in
            `fastest_table`.
    """
    repeats, held, streamed, result, bits_per_row = operands
    count = parts.shape[1]
    elements, outputs = parts[0].sum(), parts[3].sum()
    tiles = (count + group - 1) // group
    once = first_splits != splits
    early = min(group, count)
    table = np.zeros((7, first_splits + early - 1 + (tiles - 1) * splits), np.int64)
    table[6] = -1
    e = o = r = np.int64(0)
    at = 0
    for t in range(tiles):
        pieces = splits if t else first_splits
        weights = cycles = out = done_cycles = done_out = np.int64(0)
        begin = at
        for part in range(t * group, min(t * group + group, count)):
            e0, o0, r0 = e, o, r
            e, r, o = e + parts[0, part], r + parts[2, part], o + parts[3, part]
            sums = _share(result, o, outputs) - _share(result, o0, outputs)
            own = held if part == count - 1 else _share(held, e, elements)
            own -= _share(held, e0, elements)
            own += (r * bits_per_row + 7) // 8 - (r0 * bits_per_row + 7) // 8
            work = parts[1, part] * repeats
            if t == 0:
                table[0, at], table[2, at], table[4, at] = own, sums // pieces, work // pieces
                done_out, done_cycles = done_out + table[2, at], done_cycles + table[4, at]
                at += 1
            weights, cycles, out = weights + own, cycles + work, out + sums
        if t == tiles - 1 and outputs == 0:
            out = result
        if t:
            done_out, done_cycles = out // pieces, cycles // pieces
            table[0, at], table[2, at], table[4, at] = weights, done_out, done_cycles
            at += 1
        stream = np.int64(0) if once and t else streamed
        table[1, begin] = stream // pieces
        out, cycles, stream = out - done_out, cycles - done_cycles, stream - table[1, begin]
        rest = pieces - 1
        s0 = o0 = c0 = np.int64(0)
        for p in range(1, rest + 1):
            s1, o1, c1 = stream * p // rest, out * p // rest, cycles * p // rest
            table[1, at], table[2, at], table[4, at] = s1 - s0, o1 - o0, c1 - c0
            s0, o0, c0 = s1, o1, c1
            at += 1
        if rest == 0:
            table[2, at - 1] += out
            table[4, at - 1] += cycles
    return table


@numba.njit(cache=True, nogil=True)
def _packed(sizes, streams, tiles, array, facts):
    """`pack` into at least about so many tiles, and whether each row is one."""
    multipliers, delay_of, ports, step, lead, units = array
    elements = np.int64(0)
    for r in range(len(sizes)):
        if streams[r]:
            elements += sizes[r]
    levels = 0
    while (1 << levels) < multipliers:
        levels += 1
    target = max(1, elements // tiles)
    parts = np.zeros((4, elements // target + 2), np.int64)
    count = pack(
        sizes, streams, multipliers, levels, delay_of, ports, step, lead, units, target, parts,
        facts,
    )  # fmt: skip
    return parts[:, :count], target == 1


@numba.njit(cache=True, nogil=True)
def _largest(parts, group, operands):
    """Stationary bytes of the largest tile; a little more, for rounding."""
    _, held, _, _, bits_per_row = operands
    elements = max(parts[0].sum(), 1)
    most = 0.0
    for begin in range(0, parts.shape[1], group):
        e = r = np.int64(0)
        for t in range(begin, min(begin + group, parts.shape[1])):
            e, r = e + parts[0, t], r + parts[2, t]
        most = max(most, np.float64(held) * e / elements + r * bits_per_row / 8)
    return np.ceil(most) + 2.0


@numba.njit(cache=True, nogil=True)
def _run(table, weight_capacity, output_capacity, memory):
    channels, bytes_per_cycle, latency, interleave = memory
    scratch = np.empty((2, table.shape[1]), np.int64)
    return recurrence(
        table[0], table[1], table[2], table[3], table[4], table[5], table[6],
        channels, bytes_per_cycle, latency, interleave,
        weight_capacity, math.inf, max(output_capacity, 2.0 * table[2].max()), 2, 1, True,
        scratch[0], scratch[1], np.zeros(channels, np.int64),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _in_pieces(parts, group, once, tight, operands, room, memory, slowest):
    """The tiles in as few pieces as fit, their run, and the cycles of the slowest so far.

    `tight`: bytes that the weight buffer has, where it decides when a load begins; else infinite.
    """
    pieces = 1
    while True:
        splits = pieces if once else _PIECES * pieces
        table = _tiles_of(parts, group, _PIECES * pieces, splits, operands)
        totals = _run(table, tight, room[2], memory)
        slowest = max(slowest, totals[CYCLES])
        fits = 2 * table[2].max() <= room[2] and _AHEAD * table[1].max() <= room[1]
        if fits or pieces >= MOST_PIECES:
            if not fits:
                totals[STUCK] = 2 if 2 * table[2].max() > room[2] else 1
            return table, totals, slowest
        pieces *= 4


@numba.njit(cache=True, nogil=True)
def _form(sizes, streams, base, finest, once, best, operands, array, room, memory, facts):
    """A form at the first step that fits: tiles, totals, cycles of its price.

    Ends early, with tiles that may not fit, where it cannot be faster than `best` cycles.
    """
    parts, last, tiles, slowest = base, finest, _TILES if once else 1, np.int64(0)
    while True:
        group = 1
        if tiles < _TILES:
            group = (parts.shape[1] + tiles - 1) // tiles
        most = _largest(parts, group, operands)
        table, totals, slowest = _in_pieces(
            parts, group, once, math.inf, operands, room, memory, slowest
        )
        if totals[STUCK] >= 0 or (_AHEAD if once else 2) * most <= room[0]:
            return table, totals, slowest
        if best >= 0 and slowest >= best:
            return table, totals, slowest
        if last and group == 1:  # row by row, with no other on its way
            table, totals, slowest = _in_pieces(
                parts, group, once, most, operands, room, memory, slowest
            )
            if most > room[0]:
                totals[STUCK] = 0
            return table, totals, slowest
        tiles = more(tiles)
        if tiles > _TILES:
            parts, last = _packed(sizes, streams, tiles, array, facts)


@numba.njit(cache=True, nogil=True)
def fastest_table(sizes, streams, sampled, operands, array, room, memory, facts):
    """The tiles of the fastest form, the totals of their run, and the cycles of its price.

    A sampled product with a long stream is also tried in chunks of its contraction, one after the
    other, each with both operands short; its sums must find room in half the output buffer.

    Args:
        sizes, streams: of the rows, as in `pack`.
        sampled: whether every row has the whole contraction, which so may be cut.
        operands: how often the waves run (the products of a fused op); bytes of the stationary
            operand's values, of the streamed operand and of the result; bits of the bitmap that
            says where a row's values are.
        array: multipliers, delays by size, ports, steps a vector, lead and units, as in `pack`.
        room: bytes of the weight, the input and the output buffer.
        memory: channels, bytes a cycle, latency and interleave, as in `Machine`.
        facts: as in `pack`, filled.

    Returns:
        the columns of `pipeline.Tiles`, shape (7, tiles), int64; the totals of `recurrence`; and
        cycles, at least those of the run.
    """
    repeats, held, streamed, result, bits_per_row = operands
    table, totals, best = np.zeros((7, 0), np.int64), np.zeros(9, np.int64), np.int64(-1)
    first, first_totals, first_cycles = table, totals, best
    chunks = np.int64(1)
    if sampled and streamed > _LONG and 2 * result <= room[2]:
        chunks = -(-streamed // max(_CHUNK, streamed // _MOST_CHUNKS))
    counted = facts.copy()
    for attempt in range(3 if chunks > 1 else 1):
        cut = chunks if attempt else np.int64(1)  # all at once; a chunk; the last chunk
        short = sizes if cut == 1 else (sizes + cut - 1) // cut
        given = (
            repeats, (held + cut - 1) // cut, (streamed + cut - 1) // cut,
            np.int64(0) if attempt == 1 else result, bits_per_row,
        )  # fmt: skip
        found, run, cycles = _faster_form(short, streams, given, array, room, memory, counted)
        if attempt == 0:
            table, totals, best = found, run, cycles
            facts[:] = counted
        elif attempt == 1:
            first, first_totals, first_cycles = found, run, cycles
        elif run[STUCK] < 0 and first_totals[STUCK] < 0:
            cycles += (chunks - 1) * first_cycles
            if totals[STUCK] >= 0 or cycles < best:
                table = _repeated(first, chunks - 1, found)
                totals, best = first_totals * (chunks - 1) + run, cycles
                totals[STUCK], totals[FIRST_WEIGHTS] = -1, first_totals[FIRST_WEIGHTS]
                facts[:] = counted * chunks
                facts[LONGEST] = counted[LONGEST]
    return table, totals, best


@numba.njit(cache=True, nogil=True)
def _repeated(first, times, last):
    """The columns of `first` so often, then those of `last`."""
    each = first.shape[1]
    table = np.zeros((7, times * each + last.shape[1]), np.int64)
    for i in range(times):
        table[:, i * each : (i + 1) * each] = first
    table[:, times * each :] = last
    return table


@numba.njit(cache=True, nogil=True)
def _faster_form(sizes, streams, operands, array, room, memory, facts):
    """As `fastest_table`, of a contraction that is not cut."""
    _, held, streamed, result, _ = operands
    base, finest = _packed(sizes, streams, _TILES, array, facts)
    others = facts.copy()
    table, totals, best = np.zeros((7, 0), np.int64), np.zeros(9, np.int64), np.int64(-1)
    kept = 2 * streamed <= room[1]
    if kept:
        table, totals, best = _form(
            sizes, streams, base, finest, True, np.int64(-1), operands, array, room, memory, others
        )
        if totals[STUCK] < 0:
            # What the other form takes at the least: all bytes, or its ends and the work.
            rate = memory[0] * memory[1]
            moved = np.int64((held + streamed + result) / rate) + memory[2]
            ends = np.int64((table[0, 0] + streamed // _PIECES + result // _PIECES) / rate)
            if best <= max(moved, ends + 2 * memory[2] + totals[ARRAY]):
                return table, totals, best
        else:
            best = np.int64(-1)
    other, run, cycles = _form(
        sizes, streams, base, finest, False, best, operands, array, room, memory, others
    )
    if kept and best >= 0 and (run[STUCK] >= 0 or cycles >= best):
        return table, totals, best
    return other, run, cycles


_run_seconds = numba.njit(cache=True, nogil=True)(run_seconds)

# The first columns of `lines`; from _OPERANDS on they are as in `fastest_table`.
_LENGTH, _FIXED, _SAMPLED, _OPERANDS = range(4)


@numba.njit(cache=True, nogil=True)
def priced(counted, lines, work, array, room, memory, constants):
    """Many products, one after the other.

    Args:
        counted: of all rows of all products, what the masks decide: multipliers that a row needs,
            or vectors that it meets if the product is sampled.
        lines: per product its rows, the other of the two (the same for all rows), whether it is
            sampled, and from `repeats` to `bits_per_row` as in `fastest_table`.
        work: per product FLOPs and compulsory bytes.
        array, room, memory: as in `fastest_table`.
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
        o = lines[i, _OPERANDS:]
        operands = (o[0], o[1], o[2], o[3], o[4])
        _, totals, cycles = fastest_table(
            sizes, streams, bool(lines[i, _SAMPLED]), operands, array, room, memory, facts[i]
        )
        _, arrays, fill, _, moved, _, channel, stuck, first = totals
        of = found[i]
        of[0], of[1], of[2], of[3], of[4] = _run_seconds(
            cycles, arrays + fill, channel, first, work[i, 0], work[i, 1],
            hz, peak, bandwidth, overhead, latencies,
        )  # fmt: skip
        of[5], of[6], of[7], of[8] = moved, arrays, channel > arrays + fill, stuck
        of[9], of[10] = facts[i, PORT_CYCLES], facts[i, WAVE_CYCLES]
    return found, facts
