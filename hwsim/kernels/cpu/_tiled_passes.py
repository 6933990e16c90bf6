"""The inner loops of the tiled sparse layer, in Numba; see `linear/tiled.py` for the layout."""

from __future__ import annotations

import numba
import numpy as np

from hwsim.kernels.cpu._vector import (
    add_scaled,
    load,
    partial_dot,
    store,
    sums_of_eight,
    total,
    transpose_eight,
    zeros,
)


@numba.njit(cache=True, nogil=True)
def build(mask, tile, transposed):
    """(pointers, local indices, source positions) of a boolean matrix.

    Weights are ordered by tile of columns, then row, then column. `transposed` describes the
    transposed matrix, from the same array. A source position is the place in the flat matrix,
    which has less than 2³² elements.
    """
    n_out, n_in = mask.shape
    rows, columns = (n_in, n_out) if transposed else (n_out, n_in)
    tiles = -(-columns // tile)
    pointers = np.zeros(tiles * rows + 1, np.int64)
    for o in range(n_out):
        for i in range(n_in):
            if mask[o, i]:
                row, column = (i, o) if transposed else (o, i)
                pointers[column // tile * rows + row + 1] += 1
    for n in range(tiles * rows):
        pointers[n + 1] += pointers[n]
    filled = pointers[:-1].copy()
    index = np.empty(pointers[-1], np.uint16)
    source = np.empty(pointers[-1], np.uint32)
    for o in range(n_out):
        for i in range(n_in):
            if mask[o, i]:
                row, column = (i, o) if transposed else (o, i)
                place = column // tile * rows + row
                at = filled[place]
                filled[place] += 1
                index[at] = column % tile
                source[at] = o * n_in + i
    return pointers, index, source


@numba.njit(cache=True, nogil=True)
def gather(weights, source, values):
    """values[p] = weights[source[p]]."""
    for p in range(source.size):
        values[p] = weights[np.uint64(source[p])]


@numba.njit(cache=True, nogil=True)
def multiply(pointers, index, values, x, y, shape, first_row, last_row, width):
    """y = W · x for rows first_row … last_row; x and y packed.

    shape: (rows, columns, columns per tile, batch blocks). The accumulators of one row stay in
    registers while its weights of a tile are walked; the tile of x stays in the nearest cache.
    """
    rows, columns, tile, blocks = shape
    lanes = len(width)
    tiles = (columns + tile - 1) // tile
    for block in range(blocks):
        for t in range(tiles):
            base = (block * columns + t * tile) * lanes
            for row in range(first_row, last_row):
                at = (block * rows + row) * lanes
                held = zeros(width) if t == 0 else load(y, at, width)
                for p in range(pointers[t * rows + row], pointers[t * rows + row + 1]):
                    held = add_scaled(held, values[p], x, base + np.int64(index[p]) * lanes)
                store(y, at, held)


@numba.njit(cache=True, nogil=True)
def sample(pointers, index, dy, x, dw, shape, first_row, last_row, width):
    """dw[p] = Σ over the batch of dy[row] · x[column], for the weights of some rows.

    Same order and packing as `multiply`. A row of dy stays in registers; eight dot products are
    summed at a time.
    """
    rows, columns, tile, blocks = shape
    lanes = len(width)
    tiles = (columns + tile - 1) // tile
    for block in range(blocks):
        for t in range(tiles):
            base = (block * columns + t * tile) * lanes
            for row in range(first_row, last_row):
                start, stop = pointers[t * rows + row], pointers[t * rows + row + 1]
                if block == 0:
                    for p in range(start, stop):
                        dw[p] = 0.0
                held = load(dy, (block * rows + row) * lanes, width)
                p = start
                while p + 8 <= stop:
                    sums = sums_of_eight(
                        partial_dot(held, x, base + np.int64(index[p]) * lanes),
                        partial_dot(held, x, base + np.int64(index[p + 1]) * lanes),
                        partial_dot(held, x, base + np.int64(index[p + 2]) * lanes),
                        partial_dot(held, x, base + np.int64(index[p + 3]) * lanes),
                        partial_dot(held, x, base + np.int64(index[p + 4]) * lanes),
                        partial_dot(held, x, base + np.int64(index[p + 5]) * lanes),
                        partial_dot(held, x, base + np.int64(index[p + 6]) * lanes),
                        partial_dot(held, x, base + np.int64(index[p + 7]) * lanes),
                    )
                    store(dw, p, add_scaled(sums, np.float32(1.0), dw, p))
                    p += 8
                while p < stop:
                    dw[p] += total(partial_dot(held, x, base + np.int64(index[p]) * lanes))
                    p += 1


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
