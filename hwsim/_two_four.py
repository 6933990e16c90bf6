"""Is a boolean matrix 2:4? In Numba, both directions in one pass: apart, to keep loading light."""

from __future__ import annotations

import numba
import numpy as np

_PAIRS = np.uint64(0x00FF00FF00FF00FF)
_QUADS = np.uint64(0x0000000700000007)
# Added to a byte of at most 4 it sets the byte's top bit where that is above 2.
_ABOVE_TWO = np.uint64(0x7D7D7D7D7D7D7D7D)
_TOP_BITS = np.uint64(0x8080808080808080)
_QUADS_ABOVE_TWO = np.uint64(0x0000007D0000007D)
_QUADS_TOP_BITS = np.uint64(0x0000008000000080)
_ZERO, _ONE_BYTE, _TWO_BYTES = np.uint64(0), np.uint64(8), np.uint64(16)


@numba.njit(cache=True, nogil=True)
def directions(mask: np.ndarray) -> tuple[bool, bool]:
    """Whether no four consecutive entries of a row, and of a column, have more than two ones.

    Args:
        mask: C-contiguous uint8 matrix of zeros and ones, (outputs, inputs).

    Returns:
        along the inputs, along the outputs. Ends shorter than four are held to two as well.
    """
    if mask.shape[1] % 8:
        return _rows(mask), _columns(mask)
    return _words(mask.reshape(-1).view(np.uint64), mask.shape[0], mask.shape[1] // 8)


@numba.njit(cache=True, nogil=True)
def _words(words: np.ndarray, rows: int, width: int) -> tuple[bool, bool]:
    """Eight entries at a time, four rows at a time, until both answers are no."""
    along_inputs, along_outputs = True, True
    for first in range(0, rows, 4):
        last = min(first + 4, rows)
        wide, high = _ZERO, _ZERO
        if last - first == 4:
            for c in range(width):
                at = first * width + c
                a, b = words[at], words[at + width]
                d, e = words[at + 2 * width], words[at + 3 * width]
                high |= (a + b + d + e + _ABOVE_TWO) & _TOP_BITS
                wide |= _quads(a) | _quads(b) | _quads(d) | _quads(e)
        else:
            for c in range(width):
                total = _ZERO
                for r in range(first, last):
                    total += words[r * width + c]
                    wide |= _quads(words[r * width + c])
                high |= (total + _ABOVE_TWO) & _TOP_BITS
        along_inputs = along_inputs and wide == _ZERO
        along_outputs = along_outputs and high == _ZERO
        if not along_inputs and not along_outputs:
            break
    return along_inputs, along_outputs


@numba.njit(cache=True, nogil=True, inline="always")
def _quads(word: np.uint64) -> np.uint64:
    """Not zero where either four bytes of a word have more than two ones."""
    pairs = (word + (word >> _ONE_BYTE)) & _PAIRS
    quads = (pairs + (pairs >> _TWO_BYTES)) & _QUADS
    return (quads + _QUADS_ABOVE_TWO) & _QUADS_TOP_BITS


@numba.njit(cache=True, nogil=True)
def _rows(mask: np.ndarray) -> bool:
    rows, columns = mask.shape
    for r in range(rows):
        for first in range(0, columns, 4):
            total = 0
            for c in range(first, min(first + 4, columns)):
                total += mask[r, c]
            if total > 2:
                return False
    return True


@numba.njit(cache=True, nogil=True)
def _columns(mask: np.ndarray) -> bool:
    rows, columns = mask.shape
    for first in range(0, rows, 4):
        for c in range(columns):
            total = 0
            for r in range(first, min(first + 4, rows)):
                total += mask[r, c]
            if total > 2:
                return False
    return True
