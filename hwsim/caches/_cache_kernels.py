"""The inner loops of the cache simulation, in Numba.

Accesses are first folded into events: consecutive accesses to one line are one event, since all
but the first are sure hits. A level turns a block of events into the block of events that the
next level sees. No branch depends on hit or miss: the outcome decides how far the output index
advances. So random traces cost no mispredicted branches, and the processor overlaps the look-ups.

An event is (line << 3) | flags. A set is a row of uint32 entries, (tag << 1) | dirty, the newest
first; a set of up to 32 ways is looked up and reordered as one vector.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

DIRTY = 1  # a store is among the accesses of the event
STORE = 2  # the first access is a store
MOVES = 4  # on a hit the line becomes the newest of its set
EMPTY = 0xFFFFFFFE  # an entry that no tag equals
WIDEST_VECTOR = 32
TAG_BITS = 30  # the entry's 32 less the dirty bit and one, so that no tag looks empty

_U = np.uint64
_ONE = np.uint64(1)
_AHEAD = np.uint64(16)


def lanes(ways: int) -> int:
    """Entries stored per set: the next power of two, at least 4; the spare ones stay empty."""
    return max(4, 1 << (ways - 1).bit_length()) if ways <= WIDEST_VECTOR else ways


def _vector_of(ways):
    """Lanes, LLVM type and constant maker of a set with `ways` entries."""
    width = lanes(len(ways))
    vector = ir.VectorType(ir.IntType(32), width)

    def constant(values):
        return ir.Constant(vector, [ir.Constant(ir.IntType(32), v) for v in values])

    return width, vector, constant


def _row(context, builder, array_type, array, first, vector):
    """(pointer to the first entry, pointer to the row as a vector)."""
    start = builder.gep(context.make_array(array_type)(context, builder, array).data, [first])
    return start, builder.bitcast(start, vector.as_pointer())


def _splat(builder, zero, value):
    one = builder.insert_element(zero, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, zero, zero)


def _lanes_set(builder, same, width):
    """Which lanes are set, as the bits of an int64. Eight lanes at a time: one instruction each."""
    i64 = ir.IntType(64)
    total = i64(0)
    for start in range(0, width, 8):
        size = min(8, width - start)
        order = ir.Constant(
            ir.VectorType(ir.IntType(32), size), [start + lane for lane in range(size)]
        )
        part = builder.shuffle_vector(same, same, order)
        bits = builder.zext(builder.bitcast(part, ir.IntType(size)), i64)
        total = builder.or_(total, builder.shl(bits, i64(start)))
    return total


def _merge(builder, old, front, table, row, width, constant):
    """`old` moved back by one after `front`, in the lanes that a row of `table` says.

    The merge is bitwise: a select would become a masked store, which some processors run in
    microcode.
    """
    i32 = ir.IntType(32)
    first = builder.insert_element(constant([0] * width), front, i32(0))
    shifted = builder.shuffle_vector(old, first, constant([width, *range(width - 1)]))
    content = [constant([0xFFFFFFFF if lane < n else 0 for lane in range(width)]) for n in table]
    rows = ir.Constant(ir.ArrayType(old.type, len(content)), content)
    stored = cgutils.global_constant(builder.module, f"lanes_{width}_{len(content)}", rows)
    stored.align = 4 * width
    mask = builder.load(builder.gep(stored, [i32(0), row]), align=4 * width)
    return builder.xor(old, builder.and_(builder.xor(old, shifted), mask))


@intrinsic
def _load_line(typing_context, entries, first, ways, key, fifo):
    """Looks `key` up in the set at entries[first] and reorders it; 1 on a miss, else 0.

    For sets without dirty lines. `ways` is a tuple of that many zeros: its length is known when
    compiling; `fifo` is None for LRU and anything else for FIFO.

    Written as LLVM vectors of any width, so that each machine gets its own instructions. With p
    the place of the hit, or the last way, entries 0 … p move back by one and the new one goes to
    the front.
    """
    width, vector, constant = _vector_of(ways)
    last = len(ways) - 1
    moved_by_hit = fifo is types.none

    def codegen(context, builder, signature, arguments):
        i64 = ir.IntType(64)
        array, first_value, _, key_value, _ = arguments
        _, row = _row(context, builder, signature.args[0], array, first_value, vector)
        old = builder.load(row, align=4 * width)
        wanted = _splat(builder, constant([0] * width), key_value)
        found = _lanes_set(builder, builder.icmp_unsigned("==", old, wanted), width)
        hit = builder.icmp_unsigned("!=", found, i64(0))
        if width <= 8:
            # Few lanes: the table is asked by the bits themselves, a shorter chain.
            lowest = [(n & -n).bit_length() if n else last + 1 for n in range(1 << width)]
            table = [n if moved_by_hit or not bits else 0 for bits, n in enumerate(lowest)]
            place = found
        else:
            table = range(width + 1)
            found = builder.or_(found, i64(1 << last))
            place = builder.add(builder.cttz(found, ir.IntType(1)(1)), i64(1))
            place = place if moved_by_hit else builder.select(hit, i64(0), place)
        new = _merge(builder, old, key_value, table, place, width, constant)
        builder.store(new, row, align=4 * width)
        return builder.zext(builder.not_(hit), i64)

    return types.uint64(entries, types.uint64, ways, types.uint32, fifo), codegen


@intrinsic
def _prefetch(typing_context, entries, first):
    """Asks for the cache line of entries[first], which will be written."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        i32 = ir.IntType(32)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, i32(1), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(entries, types.uint64), codegen


@intrinsic
def _access_line(typing_context, entries, first, ways, key, dirty, moves):
    """`_load_line` for any access. A hit that must not move the line only marks it dirty.

    Returns (hit, entry): the entry found, or the one that fell out.
    """
    width, vector, constant = _vector_of(ways)
    i32, i64 = ir.IntType(32), ir.IntType(64)

    def codegen(context, builder, signature, arguments):
        array, first_value, _, key_value, dirty_value, moves_value = arguments
        start, row = _row(context, builder, signature.args[0], array, first_value, vector)
        zero = constant([0] * width)
        old = builder.load(row, align=4 * width)
        tags = builder.and_(old, constant([EMPTY] * width))
        same = builder.icmp_unsigned("==", tags, _splat(builder, zero, key_value))
        found = _lanes_set(builder, same, width)
        hit = builder.icmp_unsigned("!=", found, i64(0))
        found = builder.or_(found, i64(1 << (len(ways) - 1)))
        place = builder.cttz(found, ir.IntType(1)(1))
        entry = builder.load(builder.gep(start, [place]))
        carried = builder.select(hit, builder.and_(entry, i32(1)), i32(0))
        front = builder.or_(key_value, builder.or_(dirty_value, carried))
        stays = builder.and_(hit, builder.icmp_unsigned("==", moves_value, i32(0)))
        moved = builder.select(stays, i64(0), builder.add(place, i64(1)))
        mark = builder.and_(builder.sext(same, vector), _splat(builder, zero, dirty_value))
        marked = builder.or_(old, mark)
        new = _merge(builder, marked, front, range(width + 1), moved, width, constant)
        builder.store(new, row, align=4 * width)
        parts = [builder.zext(hit, i32), entry]
        return context.make_tuple(builder, signature.return_type, parts)

    u32 = types.uint32
    result = types.Tuple((u32, u32))
    return result(entries, types.uint64, ways, u32, u32, u32), codegen


@numba.njit(cache=True, nogil=True)
def fold_loads(addresses, line_bits, lines):
    """Writes each line once per run of accesses; returns (lines, bits set in any address)."""
    count = _U(0)
    previous = ~_U(0)
    seen = _U(0)
    for i in range(addresses.size):
        address = _U(addresses[i])
        seen |= address
        line = address >> line_bits
        lines[count] = line
        count += _U(line != previous)
        # The first of a run was written and kept; the next is written over unless it differs.
        previous = line
    return count, seen


@numba.njit(cache=True, nogil=True)
def load_pass(lines, count, entries, ways, set_bits, fifo, ahead, out):
    """Runs `count` loaded lines through a level without dirty lines; returns how many missed.

    Writes those to `out`. At most 32 ways. `ahead` is None, or anything else for a level so large
    that its sets are better asked for in advance; `lines` then has 16 elements to spare.
    """
    width = _U(_lanes_of(ways))
    set_mask = (_ONE << set_bits) - _ONE
    filled = _U(0)
    for i in range(_U(count)):
        line = lines[i]
        key = np.uint32((line >> set_bits) << _ONE)
        if ahead is not None:
            # pyrefly: ignore[missing-argument]
            _prefetch(entries, (lines[i + _AHEAD] & set_mask) * width)
        out[filled] = line
        # pyrefly: ignore[missing-argument]
        filled += _load_line(entries, (line & set_mask) * width, ways, key, fifo)
    return filled


@numba.njit(cache=True, nogil=True)
def fold(addresses, is_store, line_bits, load_flags, store_flags, events):
    """Writes the events of a block; returns (events, stores, bits set in any address)."""
    count = _U(0)
    stores = _U(0)
    event = _U(0)
    previous = ~_U(0)
    seen = _U(0)
    for i in range(addresses.size):
        address = _U(addresses[i])
        seen |= address
        line = address >> line_bits
        store = _U(is_store[i] != 0)
        flags = load_flags ^ ((load_flags ^ store_flags) & (_U(0) - store))
        fresh = line != previous
        previous = line
        stores += store
        # In a run the first access says load or store; later ones add that the line is dirty or
        # moves.
        event = ((line << _U(3)) | flags) if fresh else (event | (flags & _U(5)))
        count += _U(fresh)
        events[count - _ONE] = event
    return count, stores, seen


@numba.njit(cache=True, nogil=True)
def level_pass(events, count, entries, ways, set_bits, load_flags, store_flags, out, misses):
    """Runs `count` events through a level of at most 32 ways.

    Adds load misses, store misses and write-backs to `misses`; writes the events for the next
    level to `out` (room for two per event) and returns how many.
    """
    width = _U(_lanes_of(ways))
    set_mask = (_ONE << set_bits) - _ONE
    filled = _U(0)
    load_misses = _U(0)
    store_misses = _U(0)
    write_backs = _U(0)
    for i in range(_U(count)):
        event = events[i]
        line = event >> _U(3)
        place = line & set_mask
        key = np.uint32((line >> set_bits) << _ONE)
        # pyrefly: ignore[missing-argument]
        hit, entry = _access_line(
            entries, place * width, ways, key, np.uint32(event & _U(1)), np.uint32(event & _U(4))
        )
        miss = _ONE ^ _U(hit)
        by_store = (event >> _ONE) & miss
        store_misses += by_store
        load_misses += miss ^ by_store
        out[filled] = (line << _U(3)) | load_flags
        filled += miss
        written = miss & _U(entry)
        victim = ((_U(entry) >> _ONE) << set_bits) | place
        out[filled] = (victim << _U(3)) | store_flags
        filled += written
        write_backs += written
    misses[0] += load_misses
    misses[1] += store_misses
    misses[2] += write_backs
    return filled


@numba.extending.register_jitable
def _lanes_of(ways):
    n = len(ways)
    width = 4
    while width < n:
        width *= 2
    return width


@numba.njit(cache=True, nogil=True)
def wide_level_pass(events, count, entries, ways, set_bits, load_flags, store_flags, out, misses):
    """`level_pass` for any number of ways (an integer here), entry by entry."""
    set_mask = (_ONE << set_bits) - _ONE
    filled = _U(0)
    for i in range(_U(count)):
        event = events[i]
        line = event >> _U(3)
        place = line & set_mask
        key = np.uint32((line >> set_bits) << _ONE)
        row = entries[place * _U(ways) : (place + _ONE) * _U(ways)]
        p = 0
        while p < ways and (row[p] & np.uint32(EMPTY)) != key:
            p += 1
        hit = p < ways
        if not hit:
            p = ways - 1
        entry = row[p]
        dirty = np.uint32(event & _U(1))
        if hit and not event & _U(4):
            row[p] = entry | dirty
            continue
        for q in range(p, 0, -1):
            row[q] = row[q - 1]
        row[0] = key | dirty | (entry & np.uint32(1) if hit else np.uint32(0))
        if hit:
            continue
        misses[1 if event & _U(2) else 0] += _ONE
        out[filled] = (line << _U(3)) | load_flags
        filled += _ONE
        if entry & np.uint32(1):
            victim = ((_U(entry) >> _ONE) << set_bits) | place
            out[filled] = (victim << _U(3)) | store_flags
            filled += _ONE
            misses[2] += _ONE
    return filled
