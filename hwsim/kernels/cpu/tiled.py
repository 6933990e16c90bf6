"""Sparse weights in tiles of input columns, and activations packed for them.

Activations: [batch / lanes][features][lanes], so that one weight meets `lanes` samples in
consecutive memory. Weights: ordered by tile of columns, then row, rows of a chunk by their number
of weights; values float32, columns uint16 within the tile. While a tile is walked, its slice of
the activations stays in the nearest caches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.kernels.cpu import tiled_passes as passes
from hwsim.kernels.cpu.layer import aligned
from hwsim.kernels.cpu.layout import TILE, chunk_for, lanes_for
from hwsim.kernels.cpu.threads import ranges, run


class PackedActivations:
    """Activations of a batch, packed.

    Attributes:
        data: one-dimensional float32, [batch / lanes][features][lanes]; filled up with zeros.
    """

    __slots__ = ("batch", "blocks", "data", "features", "lanes")

    def __init__(self, batch: int, features: int) -> None:
        self.batch, self.features = batch, features
        self.lanes = lanes_for(batch)
        self.blocks = -(-batch // self.lanes)
        self.data = aligned(self.blocks * features * self.lanes)

    @classmethod
    def of(cls, x: np.ndarray, threads: int = 1) -> PackedActivations:
        """From row-major (batch, features)."""
        packed = cls(*x.shape)
        parts = ranges(packed.blocks, threads)
        run(passes.pack, [(x, *part, packed.data, packed.lanes) for part in parts])
        return packed

    def rows(self, threads: int = 1) -> np.ndarray:
        """Row-major (batch, features)."""
        x = np.empty((self.batch, self.features), np.float32)
        parts = ranges(self.blocks, threads)
        run(passes.unpack, [(self.data, *part, x, self.lanes) for part in parts])
        return x


class TiledMatrix:
    """A sparse matrix (rows, columns) in tiles; `transposed` takes that of the mask's transpose.

    Attributes:
        source: where each stored value lies in the flat dense weight.
        values: float32, in the same order.
    """

    def __init__(self, mask: np.ndarray, transposed: bool = False, threads: int = 1) -> None:
        self.rows, self.columns = mask.shape[::-1] if transposed else mask.shape
        self.threads = threads
        if mask.size >= 1 << 32:
            raise InputError(f"mask: size is {mask.size}; allowed is below 2³²")
        self._chunk = chunk_for(self.rows, threads)
        layout = passes.build(np.flatnonzero(mask), mask.shape, TILE, self._chunk, transposed)
        self._order, self._pointers, self._index, self.source = layout
        self.values = aligned(self.source.size)

    def repack(self, weights: np.ndarray) -> None:
        """Values from the dense weight that the mask was made for, of any layer shape."""
        self._gather(weights.reshape(-1), self.source)

    def _gather(self, flat: np.ndarray, places: np.ndarray) -> None:
        run(passes.gather, [
            (flat, places[a:b], self.values[a:b])
            for a, b in ranges(places.size, self.threads)
        ])  # fmt: skip

    def order_in(self, other: TiledMatrix) -> np.ndarray:
        """Where each stored value lies among those of another layout of the same mask."""
        places = np.empty(self.rows * self.columns, np.uint32)
        passes.scatter(np.arange(other.source.size, dtype=np.uint32), other.source, places)
        order = np.empty(self.source.size, np.uint32)
        passes.gather(places, self.source, order)
        return order

    def take(self, other: TiledMatrix, order: np.ndarray) -> None:
        """Values from another layout of the same mask, `order` being `order_in(other)`.

        From a tenth of the dense weight's memory: in less than half the time of `repack`.
        """
        self._gather(other.values, order)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Stored values as a flat dense weight, zero where there is none."""
        flat = np.zeros(self.rows * self.columns, np.float32)
        run(passes.scatter, [
            (values[a:b], self.source[a:b], flat)
            for a, b in ranges(self.source.size, self.threads)
        ])  # fmt: skip
        return flat

    def multiply(self, x: PackedActivations) -> PackedActivations:
        """The matrix times packed activations of `columns` features: packed, `rows` features."""
        y = PackedActivations(x.batch, self.rows)
        self._run(passes.multiply, (self._index, self.values, x.data, y.data), x)
        return y

    def sampled_product(self, dy: PackedActivations, x: PackedActivations) -> np.ndarray:
        """Σ over the batch of dy[row]·x[column] for each stored value, in stored order."""
        dw = aligned(self.source.size)
        self._run(passes.sample, (self._index, dy.data, x.data, dw), x)
        return dw

    def _run(self, function: Any, operands: tuple, x: PackedActivations) -> None:
        shape = (self.rows, self.columns, TILE, self._chunk, x.blocks)
        given = (self._order, self._pointers, *operands, shape)
        parts = ranges(self.rows, self.threads, self._chunk)
        run(function, [(*given, *part, (0,) * x.lanes) for part in parts])
