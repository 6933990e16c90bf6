"""The inner loop of the balanced kernel, in Numba."""

from __future__ import annotations

import numba
import numpy as np

from hwsim.kernels.cpu._vector import lookup, multiply_add, pick, store, zeros

EIGHT = (0,) * 8


@numba.njit(cache=True, nogil=True)
def multiply_balanced(values, index, blocks, each, x, y, first, last):
    """y for groups of 16 rows; x one sample of blocks × 32 inputs.

    values, index: [group][block][weight within the block, `each` of them][16 rows]. Half of the
    inputs are found by permutes, half by loads: different units of the processor do these.
    """
    for group in range(first, last):
        low, high = zeros(EIGHT), zeros(EIGHT)
        at = group * blocks * each * 16
        for block in range(blocks):
            for _ in range(each):
                low = multiply_add(low, lookup(x, block * 32, index, at), values, at)
                after = at + 8
                high = multiply_add(high, pick(x, block * 32, index, after), values, after)
                at += 16
        store(y, group * 16, low)
        store(y, group * 16 + 8, high)


@numba.njit(cache=True, nogil=True)
def lay_out(mask, rows, blocks, each, index, source):
    """Fills index and source, both in the order that `multiply_balanced` reads.

    Row `rows[r]` of the mask is lane r % 16 of group r / 16. Lanes without a row keep what was
    there before. A source is the place in the flat dense weight.
    """
    n_in = mask.shape[1]
    for r in range(rows.size):
        row = rows[r]
        group, lane = r // 16, r % 16
        for block in range(blocks):
            at = (group * blocks + block) * each * 16 + lane
            for column in range(block * 32, block * 32 + 32):
                if mask[row, column]:
                    index[at] = column - block * 32
                    source[at] = np.uint32(row * n_in + column)
                    at += 16
