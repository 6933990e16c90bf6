"""Vectors of float32 as values in Numba code.

A vector lives in as many registers as the machine needs for it; LLVM picks the instructions. So a
kernel keeps its accumulators in registers, whichever machine it is compiled for, and still reads
as a loop. The number of lanes is the length of a tuple, `width`, known when compiling.

Positions are element offsets into a one-dimensional array. Nothing is checked here: callers check
all sizes and indices first.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, register_model

# In Numba code an intrinsic is called without its typing context; type checkers do not know.
intrinsic: Any = numba_intrinsic
IR_F32, IR_I32 = ir.FloatType(), ir.IntType(32)


class VectorType(types.Type):
    """float32 × lanes."""

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"float32x{lanes}")
        self.lanes = lanes


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(IR_F32, kind.lanes))


def _pointer(context, builder, array_type, array, start, lanes):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), ir.VectorType(IR_F32, lanes).as_pointer())


def ir_load(context, builder, array_type, array, start, lanes):
    """A vector of so many lanes from an array, at any alignment."""
    return builder.load(_pointer(context, builder, array_type, array, start, lanes), align=4)


def _splat(builder, scalar, lanes):
    kind = ir.VectorType(IR_F32, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, IR_I32(0))
    order = ir.Constant(ir.VectorType(IR_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, one, order)


def ir_multiply_add(builder, a, b, c):
    """a·b + c in one instruction, lane by lane."""
    name = f"llvm.fma.v{a.type.count}f32"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(a.type, [a.type] * 3), name
    )
    return builder.call(function, [a, b, c])


def ir_lanes(builder, vector, order):
    """A vector with its lanes in another order."""
    return builder.shuffle_vector(
        vector, vector, ir.Constant(ir.VectorType(IR_I32, len(order)), list(order))
    )


@intrinsic
def zeros(typing_context, width):
    """A vector of zeros."""
    kind = VectorType(len(width))

    def codegen(context, builder, signature, arguments):
        return ir.Constant(
            ir.VectorType(IR_F32, kind.lanes), [ir.Constant(IR_F32, 0.0)] * kind.lanes
        )

    return kind(width), codegen


@intrinsic
def load(typing_context, array, start, width):
    """array[start : start + lanes]."""
    kind = VectorType(len(width))

    def codegen(context, builder, signature, arguments):
        data, first, _ = arguments
        return ir_load(context, builder, signature.args[0], data, first, kind.lanes)

    return kind(array, types.int64, width), codegen


@intrinsic
def store(typing_context, array, start, vector):
    """Writes the vector to array[start : start + lanes]."""

    def codegen(context, builder, signature, arguments):
        data, first, value = arguments
        pointer = _pointer(context, builder, signature.args[0], data, first, vector.lanes)
        builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), codegen


@intrinsic
def add_scaled(typing_context, vector, scale, array, start):
    """vector + scale · array[start : start + lanes], rounded once."""

    def codegen(context, builder, signature, arguments):
        held, factor, data, first = arguments
        lanes = vector.lanes
        read = ir_load(context, builder, signature.args[2], data, first, lanes)
        return ir_multiply_add(builder, _splat(builder, factor, lanes), read, held)

    return vector(vector, types.float32, array, types.int64), codegen


@intrinsic
def partial_dot(typing_context, vector, array, start):
    """Eight partial sums of vector · array[start : start + lanes], as a vector of eight."""
    result = VectorType(8)

    def codegen(context, builder, signature, arguments):
        held, data, first = arguments
        total = None
        for part in range(0, vector.lanes, 8):
            ours = ir_lanes(builder, held, range(part, part + 8))
            at = builder.add(first, ir.IntType(64)(part))
            theirs = ir_load(context, builder, signature.args[1], data, at, 8)
            if total is None:
                total = builder.fmul(ours, theirs)
            else:
                total = ir_multiply_add(builder, ours, theirs, total)
        return total

    return result(vector, array, types.int64), codegen


@intrinsic
def eight_dots(typing_context, vector, array, start, index, first):
    """Lane n of eight: vector · array[start + index[first + n] · lanes :], n in 0 … 7."""
    return _dots(vector, array, index, ((0, 4, 2, 6), (1, 5, 3, 7)))


@intrinsic
def four_dots(typing_context, vector, array, start, index, first):
    """The same for four."""
    return _dots(vector, array, index, ((0, 2, 1, 3),))


def _dots(vector, array, index, groups):
    """Four products run side by side: enough to hide the latency of multiply-adds, and few
    enough to stay in sixteen registers beside `vector`. Sums are folded by halves of lanes, in
    which each partner is four, two and one away."""
    i64 = ir.IntType(64)
    count = 4 * len(groups)

    def four(context, builder, signature, arguments, numbers):
        held, data, start, positions, first = arguments
        places = context.make_array(signature.args[3])(context, builder, positions).data
        rows = []
        for number in numbers:
            one = builder.load(builder.gep(places, [builder.add(first, i64(number))]))
            row = builder.mul(builder.zext(one, i64), i64(vector.lanes))
            rows.append(builder.add(start, row))
        totals: list[Any] = [None] * 4
        for part in range(0, vector.lanes, 8):
            ours = ir_lanes(builder, held, range(part, part + 8))
            for n, row in enumerate(rows):
                theirs = ir_load(
                    context, builder, signature.args[1], data, builder.add(row, i64(part)), 8
                )
                if totals[n] is None:
                    totals[n] = builder.fmul(ours, theirs)
                else:
                    totals[n] = ir_multiply_add(builder, ours, theirs, totals[n])
        return totals

    def codegen(context, builder, signature, arguments):
        level = []
        for numbers in groups:
            level += four(context, builder, signature, arguments, numbers)
        if count == 4:
            level = [
                builder.fadd(ir_lanes(builder, t, range(4)), ir_lanes(builder, t, range(4, 8)))
                for t in level
            ]
        step = count // 2
        while step:
            level = [
                _fold(builder, a, b, step) for a, b in zip(level[::2], level[1::2], strict=True)
            ]
            step //= 2
        return level[0]

    return VectorType(count)(vector, array, types.int64, index, types.int64), codegen


def _fold(builder, x, y, step):
    """Lanes without bit `step` from x and y side by side, plus those with it."""
    lanes = x.type.count
    low = [n if not n & step else lanes + (n ^ step) for n in range(lanes)]
    high = [(n | step) if not n & step else lanes + n for n in range(lanes)]
    kind = ir.VectorType(IR_I32, lanes)
    return builder.fadd(
        builder.shuffle_vector(x, y, ir.Constant(kind, low)),
        builder.shuffle_vector(x, y, ir.Constant(kind, high)),
    )


@intrinsic
def prefetch(typing_context, array, start, width):
    """Asks for array[start : start + lanes] ahead of its use; without effect on any value."""
    lanes = len(width)

    def codegen(context, builder, signature, arguments):
        data, first, _ = arguments
        origin = context.make_array(signature.args[0])(context, builder, data).data
        byte = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, IR_I32, IR_I32, IR_I32]),
            "llvm.prefetch.p0i8",
        )
        for line in range(0, lanes, 16):
            place = builder.gep(origin, [builder.add(first, ir.IntType(64)(line))])
            # To be read, of the highest locality, data.
            call = [builder.bitcast(place, byte), IR_I32(0), IR_I32(3), IR_I32(1)]
            builder.call(function, call)
        return context.get_dummy_value()

    return types.void(array, types.int64, width), codegen


@intrinsic
def total(typing_context, vector):
    """The sum of all lanes."""

    def codegen(context, builder, signature, arguments):
        held = arguments[0]
        lanes = vector.lanes
        while lanes > 1:
            lanes //= 2
            low = ir_lanes(builder, held, range(lanes))
            held = builder.fadd(low, ir_lanes(builder, held, range(lanes, 2 * lanes)))
        return builder.extract_element(held, IR_I32(0))

    return types.float32(vector), codegen


@intrinsic
def transpose_eight(typing_context, source, start, step, target, to, target_step):
    """target[to + j·target_step + i] = source[start + i·step + j] for i, j in 0 … 7."""

    def codegen(context, builder, signature, arguments):
        data, first, stride, other, goal, goal_stride = arguments
        i64 = ir.IntType(64)

        def place(origin, distance, n):
            return builder.add(origin, builder.mul(distance, i64(n)))

        rows = [
            ir_load(context, builder, signature.args[0], data, place(first, stride, n), 8)
            for n in range(8)
        ]
        # Swap blocks off the diagonal: of four, then two, then one.
        for size in (4, 2, 1):
            low = [n if not n & size else 8 + (n ^ size) for n in range(8)]
            high = [n | size if not n & size else 8 + n for n in range(8)]
            kind = ir.VectorType(IR_I32, 8)
            for n in range(8):
                if not n & size:
                    a, b = rows[n], rows[n | size]
                    rows[n] = builder.shuffle_vector(a, b, ir.Constant(kind, low))
                    rows[n | size] = builder.shuffle_vector(a, b, ir.Constant(kind, high))
        for n, row in enumerate(rows):
            at = place(goal, goal_stride, n)
            pointer = _pointer(context, builder, signature.args[3], other, at, 8)
            builder.store(row, pointer, align=4)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(source, i64, i64, target, i64, i64), codegen


@intrinsic
def multiply_add(typing_context, vector, factor, array, start):
    """vector + factor · array[start : start + lanes], lane by lane, rounded once."""

    def codegen(context, builder, signature, arguments):
        held, other, data, first = arguments
        read = ir_load(context, builder, signature.args[2], data, first, vector.lanes)
        return ir_multiply_add(builder, other, read, held)

    return vector(vector, factor, array, types.int64), codegen


@intrinsic
def pick(typing_context, table, start, index, at):
    """Eight values table[start + index[at + lane]], by eight loads; index is uint8 or uint16.

    Indices are read as words of 64 bits and taken apart by shifts, which leaves more of the load
    units to the values.
    """
    bits, i64 = index.dtype.bitwidth, ir.IntType(64)

    def codegen(context, builder, signature, arguments):
        data, first, positions, place = arguments
        base = builder.gep(
            context.make_array(signature.args[0])(context, builder, data).data, [first]
        )
        numbers = context.make_array(signature.args[2])(context, builder, positions).data
        words = builder.bitcast(builder.gep(numbers, [place]), i64.as_pointer())
        result = ir.Constant(ir.VectorType(IR_F32, 8), ir.Undefined)
        each = 64 // bits
        loaded = [builder.load(builder.gep(words, [i64(n)]), align=1) for n in range(8 // each)]
        for lane in range(8):
            number = builder.lshr(loaded[lane // each], i64(lane % each * bits))
            if lane % each < each - 1:
                number = builder.and_(number, i64((1 << bits) - 1))
            value = builder.load(builder.gep(base, [number]))
            result = builder.insert_element(result, value, IR_I32(lane))
        return result

    return VectorType(8)(table, types.int64, index, types.int64), codegen


def has_avx2() -> bool:
    """Whether the code that Numba makes here may use AVX2."""
    from llvmlite.binding import get_host_cpu_features
    from numba.core import config

    features = getattr(config, "CPU_FEATURES", None)  # the user's choice, if there is one
    if getattr(config, "CPU_NAME", None) not in (None, "host") or features is not None:
        return "+avx2" in (features or "")
    return bool(get_host_cpu_features().get("avx2", False))
