"""One pass over bits: what a masked step costs beyond a dense one."""

from __future__ import annotations

from typing import Any

import numba


@numba.njit(cache=True, nogil=True)
def zero_bits(bits: Any, mask: Any) -> None:
    """Multiply integers by 0 or 1, in place. One thread: memory is the limit, and a parallel pass
    waits for a busy core.
    """
    for i in range(bits.size):
        bits[i] *= mask[i]
