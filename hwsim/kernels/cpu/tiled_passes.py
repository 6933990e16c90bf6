"""The inner loops of the tiled sparse layer, in Numba; see `linear/tiled.py` for the layout."""

from __future__ import annotations

import numba
import numpy as np

from hwsim.kernels.cpu.vector import (
    add_scaled,
    eight_dots,
    four_dots,
    load,
    partial_dot,
    prefetch,
    store,
    total,
    transpose_eight,
    zeros,
)

AHEAD = 4  # rows; the next ones are fetched while one is worked on
_LINE = (0,) * 16  # of the next tile, one fetched with each row
ONE = np.float32(1.0)


@numba.njit(cache=True, nogil=True)
def build(active, shape, tile, chunk, transposed):
    """(order, pointers, local indices, source positions) of a matrix whose active places, in the
    flat matrix of `shape` (n_out, n_in), are given in ascending order.

    Weights are ordered by tile of columns, then row, then column; within a chunk of rows, those
    with as many weights in the tile follow each other, so that the loop over a row's weights is
    as long as the one before and the processor predicts its end. order[tile, place] is the row.
    `transposed` describes the transposed matrix, from the same places. A source position is the
    place in the flat matrix, which has less than 2³² elements.
    """
    n_out, n_in = shape
    rows, columns = (n_in, n_out) if transposed else (n_out, n_in)
    tiles = -(-columns // tile)
    counts = np.zeros((tiles, rows), np.uint32)
    for place in active:
        o, i = place // n_in, place % n_in
        row, column = (i, o) if transposed else (o, i)
        counts[column // tile, row] += 1
    order = np.empty((tiles, rows), np.uint32)
    pointers = np.zeros(tiles * rows + 1, np.int64)
    filled = np.empty((tiles, rows), np.int64)
    for t in range(tiles):
        for first in range(0, rows, chunk):
            part = counts[t, first : first + chunk]
            order[t, first : first + chunk] = first + np.argsort(part, kind="mergesort")
        for place in range(rows):
            at, row = t * rows + place, order[t, place]
            filled[t, row] = pointers[at]
            pointers[at + 1] = pointers[at] + counts[t, row]
    index = np.empty(pointers[-1], np.uint16)
    source = np.empty(pointers[-1], np.uint32)
    for place in active:
        o, i = place // n_in, place % n_in
        row, column = (i, o) if transposed else (o, i)
        at = filled[column // tile, row]
        filled[column // tile, row] += 1
        index[at] = column % tile
        source[at] = place
    return order.reshape(-1), pointers, index, source


@numba.njit(cache=True, nogil=True)
def gather(weights, source, values):
    """values[p] = weights[source[p]]."""
    for p in range(source.size):
        values[p] = weights[np.uint64(source[p])]


@numba.njit(cache=True, nogil=True)
def multiply(order, pointers, index, values, x, y, shape, first_row, last_row, width):
    """y = W · x for rows first_row … last_row, whole chunks of them; x and y packed.

    shape: (rows, columns, columns per tile, rows per chunk, batch blocks). The accumulators of
    one row stay in registers while its weights of a tile are walked; the tile of x and the
    chunk's rows of y stay in the near caches, and the next tile is fetched meanwhile: its rows are
    read in no order that a processor could foresee. Unsigned positions spare the tests for
    negative ones.
    """
    rows, columns, tile, chunk, blocks = shape
    lanes = len(width)
    tiles = (columns + tile - 1) // tile
    for block in range(blocks):
        for first in range(first_row, last_row, chunk):
            last = min(first + chunk, last_row)
            for t in range(tiles):
                base = np.int64((block * columns + t * tile) * lanes)
                soon = next_tile(block, t, last < last_row, shape) * lanes
                stop = np.uint64(pointers[np.uint64(t * rows + first)])
                for place in range(first, last):
                    at = row_of(order, t * rows, place, block * rows) * lanes
                    ahead = row_of(order, t * rows, min(place + AHEAD, last - 1), block * rows)
                    prefetch(y, ahead * lanes, width)
                    prefetch(x, soon + (place - first) * len(_LINE), _LINE)
                    start, stop = stop, np.uint64(pointers[np.uint64(t * rows + place + 1)])
                    held = zeros(width) if t == 0 else load(y, at, width)
                    for p in range(start, stop):
                        held = add_scaled(held, values[p], x, base + np.int64(index[p]) * lanes)
                    store(y, at, held)


@numba.njit(cache=True, nogil=True)
def next_tile(block, t, more, shape):
    """The column, counted over all batch blocks, at which the tile after this one starts.

    `more`: whether further rows follow, for which the tiles of this block are walked again.
    """
    columns, tile = shape[1], shape[2]
    if (t + 1) * tile < columns:
        return np.int64(block * columns + (t + 1) * tile)
    return np.int64((block if more else block + 1) * columns)


@numba.njit(cache=True, nogil=True)
def row_of(order, tile_start, place, block_start):
    """The row at a place of a tile's order, counted over all batch blocks."""
    return np.int64(block_start) + np.int64(order[np.uint64(tile_start + place)])


@numba.njit(cache=True, nogil=True)
def sample(order, pointers, index, dy, x, dw, shape, first_row, last_row, width):
    """dw[p] = Σ over the batch of dy[row] · x[column], for the weights of some rows.

    Same order, shape and packing as `multiply`. A row of dy stays in registers; eight dot
    products are summed at a time.
    """
    rows, columns, tile, chunk, blocks = shape
    lanes = len(width)
    tiles = (columns + tile - 1) // tile
    for block in range(blocks):
        for first in range(first_row, last_row, chunk):
            last = min(first + chunk, last_row)
            for t in range(tiles):
                base = np.int64((block * columns + t * tile) * lanes)
                soon = next_tile(block, t, last < last_row, shape) * lanes
                stop = pointers[np.uint64(t * rows + first)]
                for place in range(first, last):
                    at = row_of(order, t * rows, place, block * rows) * lanes
                    ahead = row_of(order, t * rows, min(place + AHEAD, last - 1), block * rows)
                    prefetch(dy, ahead * lanes, width)
                    prefetch(x, soon + (place - first) * len(_LINE), _LINE)
                    p, stop = stop, pointers[np.uint64(t * rows + place + 1)]
                    held = load(dy, at, width)
                    while p + 8 <= stop:
                        eight = eight_dots(held, x, base, index, p)
                        store(dw, p, add_scaled(eight, ONE, dw, p) if block else eight)
                        p += 8
                    if p + 4 <= stop:
                        four = four_dots(held, x, base, index, p)
                        store(dw, p, add_scaled(four, ONE, dw, p) if block else four)
                        p += 4
                    for q in range(np.uint64(p), np.uint64(stop)):
                        dot = total(partial_dot(held, x, base + np.int64(index[q]) * lanes))
                        dw[q] = dw[q] + dot if block else dot


@numba.njit(cache=True, nogil=True)
def pack(x, first, last, packed, lanes):
    """Rows of the batch (batch, features) → [batch / lanes][features][lanes], zeros as filling.

    Only batch blocks first … last. Squares of eight by eight are turned in registers.
    """
    batch, features = x.shape
    flat = x.reshape(-1)
    whole = features // 8 * 8
    for block in range(first, last):
        rows = min(lanes, batch - block * lanes)
        turned = rows // 8 * 8
        start = block * features * lanes
        for lane in range(0, turned, 8):
            source = (block * lanes + lane) * features
            for f in range(0, whole, 8):
                transpose_eight(flat, source + f, features, packed, start + f * lanes + lane, lanes)
        for lane in range(rows):
            row = x[block * lanes + lane]
            for f in range(whole if lane < turned else 0, features):
                packed[start + f * lanes + lane] = row[f]
        for f in range(features):
            for lane in range(rows, lanes):
                packed[start + f * lanes + lane] = 0.0


@numba.njit(cache=True, nogil=True)
def unpack(packed, first, last, x, lanes):
    """The reverse of `pack`; the filling is left out."""
    batch, features = x.shape
    flat = x.reshape(-1)
    whole = features // 8 * 8
    for block in range(first, last):
        rows = min(lanes, batch - block * lanes)
        turned = rows // 8 * 8
        start = block * features * lanes
        for lane in range(0, turned, 8):
            target = (block * lanes + lane) * features
            for f in range(0, whole, 8):
                transpose_eight(packed, start + f * lanes + lane, lanes, flat, target + f, features)
        for lane in range(rows):
            row = x[block * lanes + lane]
            for f in range(whole if lane < turned else 0, features):
                row[f] = packed[start + f * lanes + lane]


@numba.njit(cache=True, nogil=True)
def scatter(values, source, weights):
    """weights[source[p]] = values[p]."""
    for p in range(source.size):
        weights[np.uint64(source[p])] = values[p]
