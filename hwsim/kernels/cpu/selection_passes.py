"""The passes of an exact top-k over the bit patterns of float32 scores, in Numba.

A score becomes a uint32 key with the same order; key 0 is below every number and marks positions
that may not be taken. One pass over the scores gathers the keys that a sample lets expect among the
k largest, with their places; the selection itself then works on those few.
"""

from __future__ import annotations

import numba
import numpy as np

BLOCK = 2048
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SIGN = np.uint32(0x80000000)
INFINITY = np.uint32(0x7F800000)
_ONE = np.uint32(1)
_ZERO = np.uint32(0)


@numba.njit(inline="always")
def _fill_keys(bits, allowed, wanted, by_magnitude, keys):
    """Keys of a block of bits; 0 where allowed differs from wanted.

    Returns the magnitude's bits of the largest score: of those allowed, and of all.
    """
    if by_magnitude:
        for i in range(bits.size):
            keys[i] = (bits[i] & _MAGNITUDE) + _ONE
    else:
        for i in range(bits.size):
            # Minus zero becomes zero; of other negative numbers every bit is turned, so that the
            # larger magnitude is the lower key.
            b = bits[i] if bits[i] != _SIGN else _ZERO
            keys[i] = ~b if b & _SIGN else b | _SIGN
    worst = worst_of_all = _ZERO
    for i in range(bits.size):
        worst_of_all = max(worst_of_all, np.uint32(bits[i] & _MAGNITUDE))
    if allowed is None:
        worst = worst_of_all
    else:
        for i in range(bits.size):
            # All bits set where the two agree. Casts keep the loop in 32-bit lanes: Numba's
            # operators would widen to 64.
            taken = np.uint32(np.uint32(allowed[i] ^ wanted) - _ONE)
            keys[i] &= taken
            worst = max(worst, np.uint32(bits[i] & _MAGNITUDE & taken))
    return worst, worst_of_all


@numba.njit(inline="always")
def _part(allowed, first, last):
    return None if allowed is None else allowed[first:last]


@numba.njit(cache=True, nogil=True)
def sample(bits, allowed, wanted, by_magnitude, step):
    """The keys of every `step`-th score."""
    keys = np.empty(bits.size // step, np.uint32)
    for i in range(keys.size):
        at = i * step
        _fill_keys(
            bits[at : at + 1], _part(allowed, at, at + 1), wanted, by_magnitude, keys[i : i + 1]
        )
    return keys


@numba.njit(cache=True, nogil=True)
def gather(bits, allowed, wanted, by_magnitude, start, stop, least, keys, places):
    """Keys of at least `least` in order, and where they are.

    Returns how many, −1 if there is no room for them (each block needs BLOCK slots to spare); and
    the magnitude's bits of the largest score, of those allowed and of all.
    """
    block = np.empty(BLOCK, np.uint32)
    filled = np.uint64(0)  # unsigned: no wrap-around of negative indices in the inner loop
    fits = True
    worst = worst_of_all = _ZERO
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        some = _part(allowed, first, last)
        high, highest = _fill_keys(bits[first:last], some, wanted, by_magnitude, block)
        worst, worst_of_all = max(worst, high), max(worst_of_all, highest)
        fits = fits and filled + BLOCK <= places.size
        if not fits:
            continue
        begun = filled
        for i in range(last - first):
            places[filled] = first + i
            filled += np.uint64(block[i] >= least)
        for j in range(begun, filled):
            keys[j] = block[places[j] - np.uint32(first)]
    return np.int64(filled) if fits else np.int64(-1), worst, worst_of_all


@numba.njit(cache=True, nogil=True)
def kth_largest(keys, k):
    """(the k-th largest of the keys, how many equal to it are among the k).

    Radix selection: the top 11 bits, then the middle 11, then the low 10.
    """
    prefix = _ZERO
    for shift, bits in ((21, 11), (10, 11), (0, 10)):
        table = np.zeros(1 << bits, np.int64)
        low = np.uint32((1 << bits) - 1)
        move = np.uint32(shift)
        for key in keys:
            table[(key >> move) & low] += 1
        bucket = table.size - 1
        while table[bucket] < k:
            k -= table[bucket]
            bucket -= 1
        prefix |= np.uint32(bucket << shift)
        if shift:
            kept = np.empty(table[bucket] + 1, np.uint32)
            filled = np.uint64(0)
            for key in keys:
                kept[filled] = key
                filled += np.uint64(((key >> move) & low) == bucket)
            keys = kept[:filled]
    return prefix, k


@numba.njit(cache=True, nogil=True)
def scatter(keys, places, threshold, ties, out):
    """Ones in `out` (uint8) above the threshold, and at its first `ties` places; ties left."""
    for i in range(keys.size):
        tie = keys[i] == threshold and ties > 0
        ties -= tie
        if tie or keys[i] > threshold:
            out[places[i]] = 1
    return ties
