"""The inner loops of the lookup kernels, in Numba."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from hwsim.kernels.cpu.layout import WINDOW
from hwsim.kernels.cpu.two_four_passes import bfloat16
from hwsim.kernels.cpu.vector import (
    IR_F32,
    IR_I32,
    add_scaled,
    has_avx2,
    intrinsic,
    ir_lanes,
    ir_load,
    ir_multiply_add,
    store,
    total,
    zeros,
)

NONE = np.uint32(0xFFFFFFFF)
"""Stands for no place in the dense weight."""
_EIGHT = (0,) * WINDOW
_NOWHERE = 1 << 40  # beyond any column


@intrinsic
def add_lookups(typing_context, held, table, first, starts, words, values, step):
    """held + Σ over 8 steps of value · table[first + start of the step + place].

    starts[step :]: one number a step. words[step :]: eight uint32, one a lane, the places of its
    8 steps in four bits each: byte n has step n in its lower half and step n + 4 in its upper one.
    values[8 · step :]: float32, eight a step; or uint16 that hold a bfloat16 each, [step modulo 4]
    [lane][step / 4], so that a word of 32 bits holds two. With AVX2 the eight inputs of a step are
    one register, in which one permute finds all lanes' inputs; elsewhere each lane loads its own.
    """
    i64, eight, indices = ir.IntType(64), ir.VectorType(IR_F32, 8), ir.VectorType(IR_I32, 8)
    octet, octets = ir.IntType(8), ir.VectorType(ir.IntType(8), 32)

    def found(context, builder, table_type, data, at, places):
        base = builder.gep(context.make_array(table_type)(context, builder, data).data, [at])

        def called(name, result, *given):
            kind = ir.FunctionType(result, [value.type for value in given])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)

        if has_avx2():
            # A load that no compiler makes part of the permute: on Zen 3 it so takes half the
            # time. The permute looks at the lowest three bits of a place.
            pointer = builder.bitcast(base, octet.as_pointer())
            inputs = builder.bitcast(called("llvm.x86.avx.ldu.dq.256", octets, pointer), eight)
            return called("llvm.x86.avx2.permps", eight, inputs, places)
        result = ir.Constant(eight, ir.Undefined)
        for lane in range(8):
            place = builder.and_(builder.extract_element(places, IR_I32(lane)), IR_I32(7))
            value = builder.load(builder.gep(base, [builder.zext(place, i64)]))
            result = builder.insert_element(result, value, IR_I32(lane))
        return result

    def weights(context, builder, value_type, values, at):
        """Of all eight steps."""
        if isinstance(value_type.dtype, types.Float):
            return [
                ir_load(context, builder, value_type, values, builder.add(at, i64(8 * number)), 8)
                for number in range(8)
            ]
        data = context.make_array(value_type)(context, builder, values).data
        pairs = []
        for number in range(4):
            pointer = builder.gep(data, [builder.add(at, i64(16 * number))])
            pairs.append(builder.load(builder.bitcast(pointer, indices.as_pointer()), align=4))
        low = [builder.shl(pair, ir.Constant(indices, [16] * 8)) for pair in pairs]
        high = [builder.and_(pair, ir.Constant(indices, [0xFFFF0000] * 8)) for pair in pairs]
        return [builder.bitcast(half, eight) for half in low + high]

    def codegen(context, builder, signature, arguments):
        sum_, data, origin, *arrays, at = arguments
        kinds = signature.args
        starting, numbers = (
            context.make_array(kind)(context, builder, array).data
            for kind, array in zip(kinds[3:5], arrays[:2], strict=True)
        )
        pointer = builder.bitcast(builder.gep(numbers, [at]), indices.as_pointer())
        word = builder.load(pointer, align=4)
        halves = [
            builder.bitcast(half, octets)
            for half in (word, builder.lshr(word, ir.Constant(indices, [4] * 8)))
        ]
        parts: list[Any] = [None] * 4  # side by side, to hide the latency of multiply-adds
        for number, ours in enumerate(
            weights(context, builder, kinds[5], arrays[2], builder.mul(at, i64(8)))
        ):
            pointer = builder.gep(starting, [builder.add(at, i64(number))])
            start = builder.add(origin, builder.zext(builder.load(pointer), i64))
            # Its byte in all four of the lane: shuffles of bytes are faster than shifts.
            order = [n // 4 * 4 + number % 4 for n in range(32)]
            places = builder.bitcast(ir_lanes(builder, halves[number // 4], order), indices)
            inputs = found(context, builder, kinds[1], data, start, places)
            before = parts[number % 4]
            if before is None:
                parts[number % 4] = builder.fmul(inputs, ours)
            else:
                parts[number % 4] = ir_multiply_add(builder, inputs, ours, before)
        pairs = builder.fadd(parts[0], parts[1]), builder.fadd(parts[2], parts[3])
        return builder.fadd(sum_, builder.fadd(*pairs))

    i64_type = types.int64
    return held(held, table, i64_type, starts, words, values, i64_type), codegen


@numba.njit(cache=True, nogil=True)
def plan(order, pointers, index, columns):
    """(step of each weight, start of each step, where the steps of each group begin).

    From a CSR of at least eight columns; groups are eight of its rows each, in the given order. A
    window of eight inputs starts at the first one that is not placed yet, or at a multiple of
    eight that holds as many; each row with weights in it places its first one, all in one step.
    The steps of a group are filled up to a multiple of eight.
    """
    rows, groups = pointers.size - 1, order.size // WINDOW
    steps = np.empty(pointers[-1], np.uint32)
    starts = np.zeros(pointers[-1] + WINDOW * groups, np.uint16)
    begins = np.zeros(groups + 1, np.int64)
    at, stop = np.zeros(WINDOW, np.int64), np.zeros(WINDOW, np.int64)
    ahead = np.empty(WINDOW, np.int64)  # the next input of each row
    count = 0
    for group in range(groups):
        for lane in range(WINDOW):
            row = order[group * WINDOW + lane]
            at[lane] = pointers[row] if row < rows else 0
            stop[lane] = pointers[row + 1] if row < rows else 0
            ahead[lane] = index[at[lane]] if at[lane] < stop[lane] else _NOWHERE
        first = ahead.min()
        while first < _NOWHERE:
            end = min(first + WINDOW, columns)
            aligned = first // WINDOW * WINDOW + WINDOW
            between = 0
            for lane in range(WINDOW):
                between += aligned <= ahead[lane] < end
            if not between:
                end = min(aligned, end)
            starts[count] = end - WINDOW
            for lane in range(WINDOW):
                if ahead[lane] < end:
                    steps[at[lane]] = count
                    at[lane] += 1
                    ahead[lane] = index[at[lane]] if at[lane] < stop[lane] else _NOWHERE
            count += 1
            first = ahead.min()
        count += -count % WINDOW
        begins[group + 1] = count
    return steps, starts[:count], begins


@numba.njit(cache=True, nogil=True)
def lay_out(order, pointers, index, source, steps, starts):
    """(words, sources) of a plan: words as `add_lookups` reads them, sources [step][lane].

    A lane without a weight has the source NONE.
    """
    words = np.zeros(starts.size, np.uint32)
    sources = np.full(WINDOW * starts.size, NONE, np.uint32)
    for place in range(order.size):
        row, lane = order[place], place % WINDOW
        if row < pointers.size - 1:
            for p in range(pointers[row], pointers[row + 1]):
                step = steps[p]
                code = np.uint32(index[p] - starts[step]) << _shift(step)
                words[step // WINDOW * WINDOW + lane] |= code
                sources[step * WINDOW + lane] = source[p]
    return words, sources


@numba.njit(cache=True, nogil=True)
def _shift(step):
    """Where a step's place lies in its word."""
    return np.uint32(8 * (step % 4) + step // 4 % 2 * 4)


@numba.njit(cache=True, nogil=True)
def gather(weights, sources, values):
    """values[p] = weights[sources[p]], zero without a source."""
    for p in range(sources.size):
        source = sources[p]
        values[p] = weights[np.uint64(source)] if source != NONE else np.float32(0.0)


@numba.njit(cache=True, nogil=True)
def gather_rounded(weights, sources, values):
    """The same as bfloat16, in the order that `add_lookups` reads pairs."""
    bits = weights.view(np.uint32)
    for p in range(sources.size):
        step, lane = p // WINDOW, p % WINDOW
        to = step // WINDOW * 64 + step % 4 * 16 + lane * 2 + step // 4 % 2
        source = sources[p]
        values[to] = bfloat16(bits[np.uint64(source)]) if source != NONE else np.uint32(0)


@numba.njit(cache=True, nogil=True)
def multiply(order, begins, starts, words, values, x, y, first, last):
    """y[b, row] = Σ weight · x[b, column] for the rows of groups first … last; x, y row-major.

    Returns whether all of x is finite. If not, nothing is written: lanes without a weight multiply
    zero with an input of another row, and that has to be zero.
    """
    flat = x.reshape(-1)
    if not _finite(flat):
        return False
    found = np.empty(WINDOW * (last - first), np.float32)
    none = order.size - y.shape[1]  # places in front that stand for no row
    for b in range(len(x)):
        for group in range(first, last):
            held = zeros(_EIGHT)
            for step in range(begins[group], begins[group + 1], WINDOW):
                held = add_lookups(held, flat, b * x.shape[1], starts, words, values, step)
            store(found, WINDOW * (group - first), held)
        start = np.uint64(WINDOW * first)
        for place in range(max(np.uint64(none), start), np.uint64(WINDOW * last)):
            y[b, order[place]] = found[place - start]
    return True


@numba.njit(cache=True, nogil=True)
def _finite(flat):
    """Whether all of them are numbers below infinity."""
    whole = flat.size // 32 * 32
    held = zeros((0,) * 32)
    for at in range(0, whole, 32):
        held = add_scaled(held, np.float32(0.0), flat, at)
    found = total(held)
    for at in range(whole, flat.size):
        found += np.float32(0.0) * flat[at]
    return found == 0.0


@numba.njit(cache=True, nogil=True)
def multiply_one_by_one(order, begins, starts, words, values, sources, x, y):
    """What `multiply` does, for any x: only lanes with a weight; values float32, [step][lane]."""
    y[:] = 0.0
    for group in range(begins.size - 1):
        for step in range(begins[group], begins[group + 1]):
            for lane in range(WINDOW):
                at = step * WINDOW + lane
                if sources[at] != NONE:
                    word = words[step // WINDOW * WINDOW + lane]
                    column = starts[step] + (word >> _shift(step) & np.uint32(15))
                    for b in range(len(x)):
                        y[b, order[group * WINDOW + lane]] += values[at] * x[b, column]
