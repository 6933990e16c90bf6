"""The inner loops of the gather kernel, in Numba."""

from __future__ import annotations

import numba
import numpy as np

from hwsim.kernels.cpu.layout import MOST
from hwsim.kernels.cpu.tiled_passes import build
from hwsim.kernels.cpu.vector import multiply_add, pick, store, zeros

EIGHT = (0,) * 8


def csr(mask: np.ndarray, transposed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pointers, index, places in the flat dense weight) of a mask or its transpose."""
    active = np.flatnonzero(mask)
    _, pointers, index, source = build(active, mask.shape, MOST, 1, transposed)
    return pointers, index, source


def sorted_places(pointers: np.ndarray) -> np.ndarray:
    """Rows of a CSR in ascending order of their weights, filled up in front to a multiple of eight.

    Places without a row hold the number of rows. They come first, where rows have least weights.
    """
    rows = pointers.size - 1
    order = np.argsort(np.diff(pointers), kind="stable")
    return np.concatenate([np.full(-rows % 8, rows), order])


@numba.njit(cache=True, nogil=True)
def lay_out(order, pointers, index, source):
    """Eight rows side by side: (starts, their index, their source, rest, its index, its source).

    From CSR and its `sorted_places`: each group of eight has
    as many weights in each row as its first; what a row has beyond goes to the rest, a CSR in the
    same order. Places whose row is the number of rows stand for no row.
    """
    rows = pointers.size - 1
    groups = order.size // 8
    counts = np.zeros(order.size, np.int64)
    for place in range(order.size):
        if order[place] < rows:
            counts[place] = pointers[order[place] + 1] - pointers[order[place]]
    starts = np.zeros(groups + 1, np.int64)
    rest = np.zeros(order.size + 1, np.int64)
    for g in range(groups):
        starts[g + 1] = starts[g] + 8 * counts[8 * g]
        for place in range(8 * g, 8 * g + 8):
            rest[place + 1] = rest[place] + counts[place] - counts[8 * g]
    both_index = np.empty(starts[-1], np.uint16), np.empty(rest[-1], np.uint16)
    both_source = np.empty(starts[-1], np.uint32), np.empty(rest[-1], np.uint32)
    for place in range(order.size):
        common = counts[place // 8 * 8]
        for n in range(counts[place]):
            p = pointers[order[place]] + n
            if n < common:
                at = starts[place // 8] + 8 * n + place % 8
                both_index[0][at], both_source[0][at] = index[p], source[p]
            else:
                at = rest[place] + n - common
                both_index[1][at], both_source[1][at] = index[p], source[p]
    return starts, both_index[0], both_source[0], rest, both_index[1], both_source[1]


@numba.njit(cache=True, nogil=True)
def gather_groups(order, groups, rest, x, y, first, last):
    """y[b, row] = Σ weight · x[b, column] for the rows of groups first … last; x, y row-major.

    groups, rest: (pointers, index, values) as `lay_out` has them.
    """
    starts, index, values = groups
    rest_starts, rest_index, rest_values = rest
    flat = x.reshape(-1)
    found = np.empty(8 * (last - first), np.float32)
    none = np.int64(order.size - y.shape[1])  # places in front that stand for no row
    for b in range(len(x)):
        for g in range(first, last):
            held = zeros(EIGHT)
            for p in range(starts[g], starts[g + 1], 8):
                held = multiply_add(held, pick(flat, b * x.shape[1], index, p), values, p)
            store(found, 8 * (g - first), held)
        for place in range(np.uint64(max(none, 8 * first)), np.uint64(8 * last)):
            total = found[place - np.uint64(8 * first)]
            for p in range(rest_starts[place], rest_starts[place + np.uint64(1)]):
                total += rest_values[p] * x[b, rest_index[p]]
            y[b, order[place]] = total
