"""Is a boolean matrix V:2:M, and of which V and M? In Numba: apart, to keep loading light."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from hwsim.patterns.passes.n_m import along_rows
from hwsim.patterns.passes.v_n_m_sizes import COLUMNS, ROWS, WIDTHS, N

_ROWS, _WIDTHS = np.array(ROWS), np.array(WIDTHS)
_ZERO, _BYTE = np.uint64(0), np.uint64(0xFF)
# Added to a byte of at most 130 it sets the byte's top bit where that is above 2.
_ABOVE_TWO, _TOP_BIT = np.uint64(0x7D), np.uint64(0x80)
_EIGHT, _SIXTEEN, _THIRTY_TWO = np.uint64(8), np.uint64(16), np.uint64(32)


def largest(mask: np.ndarray, longest: int) -> tuple[int, int]:
    """(V, M) that a mask is V:2:M of: the largest M of WIDTHS, then the largest V of ROWS.

    An M is asked about where it has less than twice the room that the fullest row needs: with
    more, mostly zeros would be multiplied. A V is passed over where half of it holds all rows.

    Args:
        mask: C-contiguous uint8 matrix of zeros and ones, (outputs, inputs).
        longest: ones of the fullest row.

    Returns:
        (0, 0) where there is none.
    """
    v, m = _largest(mask, longest, _ROWS, _WIDTHS)
    return int(v), int(m)


@numba.njit(cache=True, nogil=True)
def holds(mask: np.ndarray, v: int, m: int) -> bool:
    """Whether each v × m block uses at most four columns, and each of its rows at most two.

    Args:
        mask: C-contiguous uint8 matrix of zeros and ones, (outputs, inputs).
    """
    return _rows_hold(mask, m) and _blocks_hold(mask, v, m)


@numba.njit(cache=True, nogil=True)
def _largest(mask: np.ndarray, longest: int, rows: Any, widths: Any) -> tuple[int, int]:
    n_out, n_in = mask.shape
    for m in widths:
        blocks = (n_in + m - 1) // m
        if longest <= blocks or longest > N * blocks or not _rows_hold(mask, m):
            continue
        for v in rows:
            if (v == rows[-1] or v < 2 * n_out) and _blocks_hold(mask, v, m):
                return v, m
    return 0, 0


@numba.njit(cache=True, nogil=True)
def _rows_hold(mask: np.ndarray, m: int) -> bool:
    """Whether m successive entries of a row hold at most two ones."""
    if m % 8 or m > 128 or mask.shape[1] % 8:
        return along_rows(mask, N, m)
    row = 0
    while row < mask.shape[0] and _words_hold(mask[row].view(np.uint64), m // 8):
        row += 1
    return row == mask.shape[0]


@numba.njit(cache=True, nogil=True)
def _words_hold(words: np.ndarray, m: int) -> bool:
    """Whether groups of m words hold at most two ones: bytes are added, then folded to one."""
    found, left = _ZERO, _ZERO
    whole = words.size // m * m
    # Loops of known steps take many words at once.
    if m == 1:
        for c in range(words.size):
            found |= _above_two(words[c])
    elif m == 2:
        for c in range(whole // 2):
            found |= _above_two(words[2 * c] + words[2 * c + 1])
    else:
        for first in range(0, whole, m):
            total = _ZERO
            for c in range(first, first + m):
                total += words[c]
            found |= _above_two(total)
    for c in range(whole, words.size):
        left += words[c]
    return ((found | _above_two(left)) & _TOP_BIT) == _ZERO


@numba.njit(cache=True, nogil=True, inline="always")
def _above_two(word: np.uint64) -> np.uint64:
    """Its top bit is set where the bytes of a word add up to more than two."""
    word += word >> _THIRTY_TWO
    word += word >> _SIXTEEN
    word += word >> _EIGHT
    return (word & _BYTE) + _ABOVE_TWO


@numba.njit(cache=True, nogil=True)
def _blocks_hold(mask: np.ndarray, v: int, m: int) -> bool:
    """Whether v successive rows use at most four of m successive columns."""
    n_out, n_in = mask.shape
    used = np.zeros(n_in, np.uint8)
    for first in range(0, n_out, v):
        used[:] = 0
        for r in range(first, min(first + v, n_out)):
            row = mask[r]
            for c in range(n_in):
                used[c] |= row[c]
        for start in range(0, n_in, m):
            columns = 0
            for c in range(start, min(start + m, n_in)):
                columns += used[c]
            if columns > COLUMNS:
                return False
    return True
