"""Patterns whose units are tiles of the matrix: blocks, whole rows, whole columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparse_train.patterns._base import Projection
from sparse_train.selection import top_k


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

    def units(self, mask: np.ndarray) -> int:
        rows, columns = self.tile(mask.shape)
        return int(np.count_nonzero(mask[::rows, ::columns]))

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        rows, columns = self.tile(mask.shape)
        tiles = np.ascontiguousarray(mask[::rows, ::columns])
        units = min(units, self.capacity(mask.shape, budget))
        return self._expand(top_k(self.reduce(scores), units, tiles), mask.shape)

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        rows, columns = self.tile(kept.shape)
        tiles = np.ascontiguousarray(kept[::rows, ::columns])
        missing = self.capacity(kept.shape, budget) - int(np.count_nonzero(tiles))
        return self._expand(tiles | top_k(self.reduce(scores), missing, ~tiles), kept.shape)

    def reduce(self, scores: np.ndarray) -> np.ndarray:
        """The score of each tile: the mean over its weights."""
        rows, columns = self.tile(scores.shape)
        sums = self._reduceat(np.add, scores.astype(np.float64))
        sizes = np.outer(_lengths(scores.shape[0], rows), _lengths(scores.shape[1], columns))
        return (sums / sizes).astype(np.float32)

    def _reduceat(self, operation: np.ufunc, scores: np.ndarray) -> np.ndarray:
        rows, columns = self.tile(scores.shape)
        across = operation.reduceat(scores, np.arange(0, scores.shape[1], columns), axis=1)
        return operation.reduceat(across, np.arange(0, scores.shape[0], rows), axis=0)

    def _expand(self, tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        rows, columns = self.tile(shape)
        wide = np.repeat(np.repeat(tiles, rows, axis=0), columns, axis=1)
        return np.ascontiguousarray(wide[: shape[0], : shape[1]])


def _lengths(size: int, step: int) -> np.ndarray:
    return np.diff(np.append(np.arange(0, size, step), size))
