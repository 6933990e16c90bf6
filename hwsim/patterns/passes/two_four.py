"""Is a boolean matrix 2:4? In Numba, both directions in one pass: apart, to keep loading light."""

from __future__ import annotations

from typing import Any

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
    words = mask.reshape(-1).view(np.uint64)
    return _words(words.reshape(mask.shape[0], mask.shape[1] // 8))


@numba.njit(cache=True, nogil=True)
def _words(words: np.ndarray) -> tuple[bool, bool]:
    """Eight entries at a time, four rows at a time, until both answers are no."""
    along_inputs, along_outputs = True, True
    rows = words.shape[0]
    whole = rows // 4 * 4
    for first in range(0, whole, 4):
        # A row of its own each: the compiler then knows the index and can take many words at once.
        wide, high = _four(words[first], words[first + 1], words[first + 2], words[first + 3])
        along_inputs = along_inputs and wide == _ZERO
        along_outputs = along_outputs and high == _ZERO
        if not along_inputs and not along_outputs:
            return False, False
    for c in range(words.shape[1]):
        total = _ZERO
        for r in range(whole, rows):
            total += words[r, c]
            along_inputs = along_inputs and _quads(words[r, c]) == _ZERO
        along_outputs = along_outputs and (total + _ABOVE_TWO) & _TOP_BITS == _ZERO
    return along_inputs, along_outputs


@numba.njit(cache=True, nogil=True)
def _four(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> tuple[Any, Any]:
    """Not zero where four of a row, and where four of a column, have more than two ones."""
    wide, high = _ZERO, _ZERO
    for i in range(len(a)):
        high |= (a[i] + b[i] + c[i] + d[i] + _ABOVE_TWO) & _TOP_BITS
        wide |= _quads(a[i]) | _quads(b[i]) | _quads(c[i]) | _quads(d[i])
    return wide, high


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
