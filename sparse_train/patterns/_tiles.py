"""Patterns whose units are tiles of the matrix: blocks, whole rows, whole columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparse_train.patterns._base import Projection
from sparse_train.selection import top_k
from sparse_train.selection.arrays import beside, copied, count, padded, repeated, single, sums


@dataclass(frozen=True)
class Tiled(Projection):
    """A unit is a tile; as many tiles are active as the budget's share of all tiles, rounded down.

    Tiles at the right and lower edge are smaller where the shape does not divide: the number of
    active weights then depends on which tiles are chosen. A budget above 0 gets at least one tile.
    """

    def tile(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a tile."""
        raise TypeError(f"{type(self).__name__} must define tile(shape)")

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        rows, columns = self.tile(shape)
        tiles = -(-shape[0] // rows) * -(-shape[1] // columns)
        return max(budget * tiles // (shape[0] * shape[1]), int(budget > 0))

    def steps(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        """By tiles of mean size, which are those of the shape where it divides."""
        size = shape[0] * shape[1]
        all_tiles = self.capacity(shape, size)
        tiles = self.capacity(shape, min(budget, size))
        return -(-tiles * size // all_tiles), -(-min(tiles + 1, all_tiles) * size // all_tiles)

    def units(self, mask: np.ndarray) -> int:
        rows, columns = self.tile(mask.shape)
        return count(mask[::rows, ::columns])

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        units = min(units, self.capacity(mask.shape, budget))
        return self._expand(top_k(self.reduce(scores), units, self._tiles(mask)), mask.shape)

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        tiles = self._tiles(kept)
        missing = self.capacity(kept.shape, budget) - count(tiles)
        return self._expand(tiles | top_k(self.reduce(scores), missing, ~tiles), kept.shape)

    def reduce(self, scores: np.ndarray) -> np.ndarray:
        """The score of each tile: the mean over its weights."""
        rows, columns = self.tile(scores.shape)
        tall, wide = in_tiles(scores, self.tile(scores.shape))
        across = sums(tall, 1).reshape(len(tall), wide, -1)
        sizes = np.outer(_lengths(scores.shape[0], rows), _lengths(scores.shape[1], columns))
        return single(sums(across, 2) / beside(sizes.astype(np.float64), scores))

    def _tiles(self, mask: np.ndarray) -> np.ndarray:
        """Which tiles are active."""
        rows, columns = self.tile(mask.shape)
        return copied(mask[::rows, ::columns])

    def _expand(self, tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        rows, columns = self.tile(shape)
        return copied(repeated(repeated(tiles, rows, 0), columns, 1)[: shape[0], : shape[1]])


def in_tiles(scores: Any, tile: tuple[int, int]) -> tuple[Any, int]:
    """(tiles down, rows of a tile, columns), edges filled up with 0; and how many tiles across."""
    rows, columns = tile
    short = -scores.shape[0] % rows, -scores.shape[1] % columns
    scores = padded(scores, *short)
    return scores.reshape(-1, rows, scores.shape[1]), scores.shape[1] // columns


def _lengths(size: int, step: int) -> np.ndarray:
    return np.diff(np.append(np.arange(0, size, step), size))
