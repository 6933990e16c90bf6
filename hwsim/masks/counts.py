"""Counting a boolean matrix, in Numba: apart, to keep `import hwsim` light."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

# In Numba code an intrinsic is called without its typing context; type checkers do not know.
intrinsic: Any = numba_intrinsic

BLOCK = 128  # rows or columns counted together: a block's count fits a byte
_BLOCK_WORDS = BLOCK // 8
_EVERY_BYTE = np.uint64(0x0101010101010101)
_TOP_BYTE = np.uint64(56)


def block_counts(
    mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Ones of a matrix, from one pass: by blocks, per row, per column, in all.

    Args:
        mask: C-contiguous uint8 matrix of zeros and ones, (rows, columns).

    Returns:
        per column in each block of 128 rows, (⌈rows/128⌉, columns) uint8;
        per row in each block of 128 columns, (rows, ⌈columns/128⌉) uint8, a block's counts side by
        side in memory;
        per row, (rows,) int64; per column, (columns,) int64; their sum.
    """
    rows, columns = mask.shape
    by_rows = np.zeros((-(-rows // BLOCK), columns), np.uint8)
    by_columns = np.zeros((-(-columns // BLOCK), rows), np.uint8)
    per_row = np.empty(rows, np.int64)
    per_column = np.zeros(columns, np.int64)
    if columns % 8:
        total = _count_bytes(mask, by_rows, by_columns, per_row, per_column)
    else:
        words = mask.reshape(-1).view(np.uint64)
        sums = by_rows.reshape(-1).view(np.uint64)
        total = _count_words(words, sums, by_rows, by_columns, per_row, per_column)
    return by_rows, by_columns.T, per_row, per_column, total


@intrinsic
def _add_block(typing_context, words, start, sums, at):
    """sums[at : at + 16] += words[start : start + 16]; returns the sum of those words.

    One load serves both sums. As a loop it would be two: Numba's arrays may overlap, so that the
    compiler keeps neither the words nor the sums in registers.
    """
    i64 = ir.IntType(64)
    vector = ir.VectorType(i64, _BLOCK_WORDS)

    def codegen(context, builder, signature, arguments):
        def pointer(array, place):
            data = context.make_array(signature.args[array])(context, builder, arguments[array])
            address = builder.gep(data.data, [arguments[place]])
            return builder.bitcast(address, vector.as_pointer())

        read = builder.load(pointer(0, 1), align=1)
        goal = pointer(2, 3)
        builder.store(builder.add(builder.load(goal, align=1), read), goal, align=1)
        name = f"llvm.vector.reduce.add.v{_BLOCK_WORDS}i64"
        kind = ir.FunctionType(i64, [vector])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [read])

    return types.uint64(words, types.int64, sums, types.int64), codegen


@numba.njit(inline="always")
def _count_block(words, sums, start, goal):
    """Ones of 16 words from `start` on, which are added to those of `sums` from `goal` on."""
    # pyrefly: ignore[missing-argument]
    return (_add_block(words, start, sums, goal) * _EVERY_BYTE) >> _TOP_BYTE


@numba.njit(inline="always")
def _count_rest(words, sums, by_columns, width, row):
    """Ones of a row in the columns after its last whole block."""
    block = width // _BLOCK_WORDS
    of_rest = np.uint64(0)
    for i in range(block * _BLOCK_WORDS, width):
        word = words[row * width + i]
        sums[row // BLOCK * width + i] += word
        count = (word * _EVERY_BYTE) >> _TOP_BYTE
        by_columns[block, row] += count
        of_rest += count
    return of_rest


@numba.njit(cache=True, nogil=True)
def _count_words(
    words: np.ndarray,
    sums: np.ndarray,
    by_rows: np.ndarray,
    by_columns: np.ndarray,
    per_row: np.ndarray,
    per_column: np.ndarray,
) -> int:
    """Counts eight entries at a time: a 64-bit addition adds eight bytes that cannot overflow.

    The 16 words of a block of columns add up to bytes of at most 16; multiplied by 0x01…01 their
    sum, at most 128, is the top byte. It is memory that limits this, and one core reads four
    streams half as fast again as one: so a row of each quarter of the matrix at a time. `sums` are
    the words of `by_rows`.
    """
    rows = per_row.size
    width = words.size // rows
    whole = width // _BLOCK_WORDS
    quarter = rows // 4
    total = 0
    for r in range(quarter):
        s, t, u = r + quarter, r + 2 * quarter, r + 3 * quarter
        from_r, from_s, from_t, from_u = r * width, s * width, t * width, u * width
        to_r, to_s = r // BLOCK * width, s // BLOCK * width
        to_t, to_u = t // BLOCK * width, u // BLOCK * width
        of_r = _count_rest(words, sums, by_columns, width, r)
        of_s = _count_rest(words, sums, by_columns, width, s)
        of_t = _count_rest(words, sums, by_columns, width, t)
        of_u = _count_rest(words, sums, by_columns, width, u)
        for block in range(whole):
            first = block * _BLOCK_WORDS
            in_r = _count_block(words, sums, from_r + first, to_r + first)
            in_s = _count_block(words, sums, from_s + first, to_s + first)
            in_t = _count_block(words, sums, from_t + first, to_t + first)
            in_u = _count_block(words, sums, from_u + first, to_u + first)
            by_columns[block, r], by_columns[block, s] = in_r, in_s
            by_columns[block, t], by_columns[block, u] = in_t, in_u
            of_r, of_s, of_t, of_u = of_r + in_r, of_s + in_s, of_t + in_t, of_u + in_u
        per_row[r], per_row[s], per_row[t], per_row[u] = of_r, of_s, of_t, of_u
        total += np.int64(of_r + of_s + of_t + of_u)
    for r in range(4 * quarter, rows):
        of_r = _count_rest(words, sums, by_columns, width, r)
        for block in range(whole):
            first = block * _BLOCK_WORDS
            in_r = _count_block(words, sums, r * width + first, r // BLOCK * width + first)
            by_columns[block, r] = in_r
            of_r += in_r
        per_row[r] = of_r
        total += np.int64(of_r)
    _add_blocks(by_rows, per_column)
    return int(total)


@numba.njit(cache=True, nogil=True)
def _count_bytes(
    mask: np.ndarray,
    by_rows: np.ndarray,
    by_columns: np.ndarray,
    per_row: np.ndarray,
    per_column: np.ndarray,
) -> int:
    """The same for a width that is no multiple of eight."""
    rows, columns = mask.shape
    total = 0
    for r in range(rows):
        partial = by_rows[r // BLOCK]
        row = mask[r]
        of_row = 0
        for c in range(columns):
            partial[c] += row[c]
        for first in range(0, columns, BLOCK):
            count = 0
            for c in range(first, min(first + BLOCK, columns)):
                count += row[c]
            by_columns[first // BLOCK, r] = count
            of_row += count
        per_row[r] = of_row
        total += of_row
    _add_blocks(by_rows, per_column)
    return total


@numba.njit(cache=True, nogil=True)
def _add_blocks(by_rows: np.ndarray, per_column: np.ndarray) -> None:
    """The counts of a column in all blocks of rows."""
    for block in range(by_rows.shape[0]):
        of_block = by_rows[block]
        for c in range(per_column.size):
            per_column[c] += of_block[c]


def condensed_counts(
    inputs: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """What `block_counts` returns, of a matrix given by the places of its ones in each row.

    Args:
        inputs: (rows, k) integers, different in each row.
        columns: of the matrix.
    """
    rows, k = inputs.shape
    by_rows = np.zeros((-(-rows // BLOCK), columns), np.uint8)
    by_columns = np.zeros((-(-columns // BLOCK), rows), np.uint8)
    per_column = np.zeros(columns, np.int64)
    _count_places(inputs, by_rows, by_columns)
    _add_blocks(by_rows, per_column)
    return by_rows, by_columns.T, np.full(rows, k, np.int64), per_column, rows * k


@numba.njit(cache=True, nogil=True)
def _count_places(inputs: np.ndarray, by_rows: np.ndarray, by_columns: np.ndarray) -> None:
    for r in range(inputs.shape[0]):
        of_block = by_rows[r // BLOCK]
        for place in inputs[r]:
            of_block[place] += 1
            by_columns[place // BLOCK, r] += 1
