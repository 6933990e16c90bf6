"""The emitters of address traces, in Numba; see `hwsim.caches.traces`."""

from __future__ import annotations

import numba
import numpy as np

LINE = 64


@numba.njit(inline="always")
def _touch(start, size, store, addresses, is_store, filled):
    """One access per line of start … start + size."""
    address = start
    while address < start + size:
        addresses[filled] = address
        is_store[filled] = store
        filled += 1
        address += LINE
    return filled


@numba.njit(cache=True, nogil=True)
def emit_rows(order, pointers, index, first, last, bases, sizes, addresses, is_store):
    """Accesses of the rows at places first … last of an order; returns how many.

    bases: where indices, values, columns (x), rows (y) and gradients start. sizes: bytes of an
    index, of a value, of one column's samples, of the row loaded before, updated at each weight
    and stored after its weights, and of a gradient that is updated at each weight.
    """
    index_at, value_at, column_at, row_at, gradient_at = bases
    index_size, value_size, column_size, load_size, update_size, store_size, gradient_size = sizes
    row_size = max(load_size, update_size, store_size)
    filled = 0
    for place in range(first, last):
        y = row_at + np.int64(order[place]) * row_size
        filled = _touch(y, load_size, 0, addresses, is_store, filled)
        for p in range(pointers[place], pointers[place + 1]):
            filled = _touch(index_at + p * index_size, index_size, 0, addresses, is_store, filled)
            filled = _touch(value_at + p * value_size, value_size, 0, addresses, is_store, filled)
            x = column_at + np.int64(index[p]) * column_size
            filled = _touch(x, column_size, 0, addresses, is_store, filled)
            filled = _touch(y, update_size, 0, addresses, is_store, filled)
            filled = _touch(y, update_size, 1, addresses, is_store, filled)
            dw = gradient_at + p * gradient_size
            filled = _touch(dw, gradient_size, 0, addresses, is_store, filled)
            filled = _touch(dw, gradient_size, 1, addresses, is_store, filled)
        filled = _touch(y, store_size, 1, addresses, is_store, filled)
    return filled


@numba.njit(cache=True, nogil=True)
def emit_groups(layout, rows, first, last, bases, whole, addresses, is_store):
    """Accesses of groups first … last of the gather kernel for one sample; returns how many.

    layout: (order, starts, index, rest starts, rest index) as `_gather_passes.lay_out` has them.
    bases: where indices, values, x, y and what is left over start: there a weight takes eight
    bytes, its value and then its index. `whole` is 0 to leave out the inputs.
    """
    order, starts, index, rest, rest_index = layout
    index_at, value_at, column_at, row_at, rest_at = bases
    filled = 0
    for g in range(first, last):
        for p in range(starts[g], starts[g + 1], 8):
            filled = _touch(index_at + 2 * p, 16, 0, addresses, is_store, filled)
            filled = _touch(value_at + 4 * p, 32, 0, addresses, is_store, filled)
            for q in range(p, p + 8 * whole):
                x = column_at + np.int64(index[q]) * 4
                filled = _touch(x, 4, 0, addresses, is_store, filled)
        for place in range(8 * g, 8 * g + 8):
            if order[place] < rows:
                for p in range(rest[place], rest[place + 1]):
                    filled = _touch(rest_at + 8 * p, 8, 0, addresses, is_store, filled)
                    x = column_at + np.int64(rest_index[p]) * 4
                    filled = _touch(x, 4 * whole, 0, addresses, is_store, filled)
                y = row_at + np.int64(order[place]) * 4
                filled = _touch(y, 4, 1, addresses, is_store, filled)
    return filled


@numba.njit(cache=True, nogil=True)
def emit_streams(order, pointers, first, last, bases, sizes, addresses, is_store):
    """What `emit_rows` touches besides the columns: indices, values, rows and gradients.

    Stands in for rows that are left out of a sample: it takes the place in the caches that they
    would have taken.
    """
    index_at, value_at, _, row_at, gradient_at = bases
    index_size, value_size, _, load_size, update_size, store_size, gradient_size = sizes
    row_size = max(load_size, update_size, store_size)
    filled = 0
    for place in range(first, last):
        y = row_at + np.int64(order[place]) * row_size
        p, count = pointers[place], pointers[place + 1] - pointers[place]
        filled = _touch(y, max(load_size, update_size), 0, addresses, is_store, filled)
        start = index_at + p * index_size
        filled = _touch(start, count * index_size, 0, addresses, is_store, filled)
        start = value_at + p * value_size
        filled = _touch(start, count * value_size, 0, addresses, is_store, filled)
        start = gradient_at + p * gradient_size
        filled = _touch(start, count * gradient_size, 1, addresses, is_store, filled)
        filled = _touch(y, max(store_size, update_size), 1, addresses, is_store, filled)
    return filled


@numba.njit(cache=True, nogil=True)
def emit_dense(i0, i1, j0, j1, p0, p1, n, k, bases, addresses, is_store):
    """Accesses of one block of y = x·Wᵀ: rows i of x, rows j of W, columns p; returns how many.

    The blocks of x and W are read once, as a kernel that packs them does; y is updated.
    """
    x_at, w_at, y_at = bases
    filled = 0
    for i in range(i0, i1):
        start = x_at + (i * k + p0) * 4
        filled = _touch(start, (p1 - p0) * 4, 0, addresses, is_store, filled)
    for j in range(j0, j1):
        start = w_at + (j * k + p0) * 4
        filled = _touch(start, (p1 - p0) * 4, 0, addresses, is_store, filled)
    for i in range(i0, i1):
        start = y_at + (i * n + j0) * 4
        if p0 > 0:
            filled = _touch(start, (j1 - j0) * 4, 0, addresses, is_store, filled)
        filled = _touch(start, (j1 - j0) * 4, 1, addresses, is_store, filled)
    return filled
