"""The inner loops of the 2:4 kernels, in Numba."""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from hwsim.kernels.cpu.vector import (
    IR_F32,
    IR_I32,
    has_avx2,
    intrinsic,
    ir_lanes,
    ir_multiply_add,
    store,
    zeros,
)

ROWS = 32
WIDTH = (0,) * ROWS


@intrinsic
def add_two_of_four(typing_context, held, table, start, codes, code_at, values, value_at):
    """held + Σ over 8 quads of 4 inputs, 2 weights each: value · table[start + 4·quad + place].

    values[value_at :]: float32 [quad][weight][lanes], or uint16 that hold a bfloat16 each, [quad]
    [lanes][weight], so that a word of 32 bits holds two: a shift and a mask make float32 of them.
    codes[code_at :]: one uint32 a lane, the places of its 16 weights in two bits each, the first
    lowest. Permutes within 128 bits look at two bits only: with AVX2 one finds eight inputs.
    """
    i64, lanes = ir.IntType(64), held.lanes
    eight, indices = ir.VectorType(IR_F32, 8), ir.VectorType(IR_I32, 8)

    def weights(builder, value_type, data, place, part):
        """Both weights of a quad for eight lanes."""
        if isinstance(value_type.dtype, types.Float):
            both = [builder.gep(data, [builder.add(place, i64(n + part))]) for n in (0, lanes)]
            return [builder.load(builder.bitcast(p, eight.as_pointer()), align=4) for p in both]
        at = builder.gep(data, [builder.add(place, i64(2 * part))])
        words = builder.load(builder.bitcast(at, indices.as_pointer()), align=2)
        low = builder.shl(words, ir.Constant(indices, [16] * 8))
        high = builder.and_(words, ir.Constant(indices, [0xFFFF0000] * 8))
        return [builder.bitcast(half, eight) for half in (low, high)]

    def found(builder, four, places):
        if has_avx2():
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(eight, [eight, indices]),
                "llvm.x86.avx.vpermilvar.ps.256",
            )  # fmt: skip
            return builder.call(function, [four, places])
        result = ir.Constant(eight, ir.Undefined)
        for lane in range(8):
            place = builder.and_(builder.extract_element(places, IR_I32(lane)), IR_I32(3))
            value = builder.extract_element(four, place)
            result = builder.insert_element(result, value, IR_I32(lane))
        return result

    def codegen(context, builder, signature, arguments):
        total, inputs, first, code_array, code_place, value_array, value_place = arguments
        x_type, code_type, value_type = (signature.args[n] for n in (1, 3, 5))
        x = context.make_array(x_type)(context, builder, inputs).data
        code_data = context.make_array(code_type)(context, builder, code_array).data
        value_data = context.make_array(value_type)(context, builder, value_array).data
        parts = range(0, lanes, 8)
        totals = [ir_lanes(builder, total, range(p, p + 8)) for p in parts]
        places = []
        for part in parts:
            at = builder.gep(code_data, [builder.add(code_place, i64(part))])
            places.append(builder.load(builder.bitcast(at, indices.as_pointer()), align=4))
        for quad in range(8):
            at = builder.gep(x, [builder.add(first, i64(4 * quad))])
            pointer = builder.bitcast(at, ir.VectorType(IR_F32, 4).as_pointer())
            four = ir_lanes(builder, builder.load(pointer, align=4), [0, 1, 2, 3] * 2)
            place = builder.add(value_place, i64(quad * 2 * lanes))
            for n, part in enumerate(parts):
                for ours in weights(builder, value_type, value_data, place, part):
                    input_ = found(builder, four, places[n])
                    totals[n] = ir_multiply_add(builder, input_, ours, totals[n])
                    places[n] = builder.lshr(places[n], ir.Constant(indices, [2] * 8))
        while len(totals) > 1:
            both = ir.Constant(ir.VectorType(IR_I32, 2 * totals[0].type.count), [
                *range(2 * totals[0].type.count)
            ])  # fmt: skip
            pairs = zip(totals[::2], totals[1::2], strict=True)
            totals = [builder.shuffle_vector(a, b, both) for a, b in pairs]
        return totals[0]

    i64_type = types.int64
    return held(held, table, i64_type, codes, i64_type, values, i64_type), codegen


@numba.njit(cache=True, nogil=True)
def multiply_two_four(values, codes, blocks, x, y, first, last):
    """y for groups of 32 rows; x one sample of blocks × 32 inputs.

    values: [group][block][16 weights][32 rows], those in 16 bits [group][block][8 quads][32 rows]
    [2 weights]; codes: [group][block][32 rows].
    """
    for group in range(first, last):
        held = zeros(WIDTH)
        for block in range(blocks):
            at = (group * blocks + block) * ROWS
            held = add_two_of_four(held, x, block * 32, codes, at, values, 16 * at)
        store(y, group * ROWS, held)


@numba.njit(cache=True, nogil=True)
def lay_out(mask, rows, paired, codes, source):
    """Fills codes and source, both in the order that `multiply_two_four` reads.

    Row `rows[r]` of the mask is lane r % 32 of group r / 32. Lanes without a row keep what was
    there before. A source is the place in the flat dense weight. `paired` is for 16 bits.
    """
    n_in = mask.shape[1]
    blocks = n_in // 32
    for r in range(rows.size):
        group, lane = r // ROWS, r % ROWS
        for block in range(blocks):
            at = (group * blocks + block) * ROWS
            code, weight = 0, 0
            for column in range(block * 32, block * 32 + 32):
                if mask[rows[r], column]:
                    code |= column % 4 << 2 * weight
                    if paired:
                        to = 16 * at + (weight // 2 * ROWS + lane) * 2 + weight % 2
                    else:
                        to = 16 * at + weight * ROWS + lane
                    source[to] = rows[r] * n_in + column
                    weight += 1
            codes[at + lane] = code


@numba.njit(cache=True, nogil=True)
def gather_rounded(weights, source, values):
    """values[p] = weights[source[p]] as bfloat16, to nearest, ties to even; NaN stays NaN."""
    bits = weights.view(np.uint32)
    for p in range(source.size):
        values[p] = bfloat16(bits[np.uint64(source[p])])


@numba.njit(cache=True, nogil=True)
def bfloat16(word):
    """The upper half of a float32's bits, rounded to nearest, ties to even; NaN stays NaN."""
    if word & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
        return word >> np.uint32(16) | np.uint32(0x40)
    odd = word >> np.uint32(16) & np.uint32(1)
    return (word + np.uint32(0x7FFF) + odd) >> np.uint32(16)
