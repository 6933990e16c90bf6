"""The passes of an exact top-k over the bit patterns of float32 scores, in Numba.

A score becomes a uint32 key with the same order; key 0 is below every number and marks positions
that may not be taken. Keys are made anew in each pass, in blocks that stay in the L1 cache: that
is cheaper than to write and read them back.
"""

from __future__ import annotations

import numba
import numpy as np

BLOCK = 2048
TOP_BITS = 11
LOW_SHIFT = np.uint32(21)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SIGN = np.uint32(0x80000000)
_INFINITY = np.uint32(0x7F800000)
_ONE = np.uint32(1)
_ZERO = np.uint32(0)


@numba.njit(inline="always")
def _fill_keys(bits, allowed, wanted, by_magnitude, keys):
    """Keys of a block of bits; 0 where allowed differs from wanted. True on an allowed NaN."""
    if by_magnitude:
        for i in range(bits.size):
            keys[i] = (bits[i] & _MAGNITUDE) + _ONE
    else:
        for i in range(bits.size):
            # Minus zero becomes zero; of other negative numbers every bit is turned, so that the
            # larger magnitude is the lower key.
            b = bits[i] if bits[i] != _SIGN else _ZERO
            keys[i] = ~b if b & _SIGN else b | _SIGN
    worst = _ZERO
    if allowed is None:
        for i in range(bits.size):
            worst = max(worst, np.uint32(bits[i] & _MAGNITUDE))
    else:
        for i in range(bits.size):
            # All bits set where the two agree. Casts keep the loop in 32-bit lanes: Numba's
            # operators would widen to 64.
            taken = np.uint32(np.uint32(allowed[i] ^ wanted) - _ONE)
            keys[i] &= taken
            worst = max(worst, np.uint32(bits[i] & _MAGNITUDE & taken))
    return worst > _INFINITY


@numba.njit(inline="always")
def _part(allowed, first, last):
    return None if allowed is None else allowed[first:last]


@numba.njit(cache=True, nogil=True)
def histogram(bits, allowed, wanted, by_magnitude, start, stop, table):
    """Adds the top bits of the keys to table (4, 2048). True if an allowed score is NaN.

    Four tables in turn: equal neighbours then do not wait for each other's store.
    """
    keys = np.empty(BLOCK, np.uint32)
    bad = False
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        count = last - first
        some = _part(allowed, first, last)
        bad |= _fill_keys(bits[first:last], some, wanted, by_magnitude, keys)
        whole = count & ~3
        for i in range(0, whole, 4):
            table[0, keys[i] >> LOW_SHIFT] += 1
            table[1, keys[i + 1] >> LOW_SHIFT] += 1
            table[2, keys[i + 2] >> LOW_SHIFT] += 1
            table[3, keys[i + 3] >> LOW_SHIFT] += 1
        for i in range(whole, count):
            table[0, keys[i] >> LOW_SHIFT] += 1
    return bad


@numba.njit(cache=True, nogil=True)
def collect(bits, allowed, wanted, by_magnitude, start, stop, bucket, out):
    """Writes the keys whose top bits are `bucket` to out, which has one slot to spare."""
    keys = np.empty(BLOCK, np.uint32)
    filled = np.uint64(0)  # unsigned: no wrap-around of negative indices in the inner loop
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        count = last - first
        _fill_keys(bits[first:last], _part(allowed, first, last), wanted, by_magnitude, keys)
        for i in range(count):
            out[filled] = keys[i]
            filled += np.uint64((keys[i] >> LOW_SHIFT) == bucket)
    return filled


@numba.njit(cache=True, nogil=True)
def kth_largest(keys, k):
    """(the k-th largest of the keys, how many equal to it are among the k, how many there are).

    The keys agree in their top 11 bits. Two rounds: the middle 11 bits, then the low 10.
    """
    table = np.zeros(2048, np.int64)
    for key in keys:
        table[(key >> np.uint32(10)) & np.uint32(2047)] += 1
    middle, k = _bucket_of(table, k)
    kept = np.empty(table[middle] + 1, np.uint32)
    filled = 0
    for key in keys:
        kept[filled] = key
        filled += (key >> np.uint32(10)) & np.uint32(2047) == middle
    low = np.zeros(1024, np.int64)
    for i in range(filled):
        low[kept[i] & np.uint32(1023)] += 1
    last, k = _bucket_of(low, k)
    prefix = keys[0] & np.uint32(0xFFE00000)
    return prefix | np.uint32(middle << 10) | np.uint32(last), k, low[last]


@numba.njit(inline="always")
def _bucket_of(table, k):
    """The bucket that holds the k-th largest, and its rank within that bucket."""
    bucket = table.size - 1
    while table[bucket] < k:
        k -= table[bucket]
        bucket -= 1
    return bucket, k


@numba.njit(cache=True, nogil=True)
def bucket_of(table, k):
    return _bucket_of(table, k)


@numba.njit(cache=True, nogil=True)
def index_of_tie(bits, allowed, wanted, by_magnitude, threshold, rank):
    """Where the `rank`-th key that equals the threshold lies, counted from the front."""
    keys = np.empty(BLOCK, np.uint32)
    for first in range(0, bits.size, BLOCK):
        last = min(first + BLOCK, bits.size)
        _fill_keys(bits[first:last], _part(allowed, first, last), wanted, by_magnitude, keys)
        for i in range(last - first):
            rank -= keys[i] == threshold
            if rank == 0:
                return first + i
    return bits.size


@numba.njit(cache=True, nogil=True)
def write_mask(bits, allowed, wanted, by_magnitude, start, stop, threshold, last_tie, out):
    """Adds to out (uint8) what lies above the threshold, or on it up to index last_tie."""
    keys = np.empty(BLOCK, np.uint32)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        count = last - first
        _fill_keys(bits[first:last], _part(allowed, first, last), wanted, by_magnitude, keys)
        with_ties = min(max(last_tie + 1 - first, 0), count)
        _add_at_least(keys[:with_ties], threshold, out[first : first + with_ties])
        # Keys are integers: above the threshold is at least the threshold plus one.
        _add_at_least(keys[with_ties:count], threshold + _ONE, out[first + with_ties : last])


@numba.njit(inline="always")
def _add_at_least(keys, least, out):
    for i in range(keys.size):
        out[i] |= np.uint8(keys[i] >= least)
