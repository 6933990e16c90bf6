"""Blocks: tiles of the matrix are active as a whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.mask import Mask
from hwsim.masks.statistics import Cells, of_each
from hwsim.pattern_names import at_least
from hwsim.patterns._base import Packed, Pattern, index_dtype


@dataclass(frozen=True)
class Block(Pattern):
    """Aligned tiles of rows × columns, each all active or all inactive.

    Tiles at the right and lower edge are smaller where the shape does not divide; packed, they are
    padded with zeros. Packed as BSR: tile row starts, tile column of each tile.
    """

    name: ClassVar[str] = "block"
    rows: int = 16
    columns: int = 16

    def __post_init__(self) -> None:
        at_least(self.name, "rows", self.rows, 1)
        at_least(self.name, "columns", self.columns, 1)

    def holds(self, mask: Mask) -> bool:
        corners = mask.array[:: self.rows, :: self.columns]
        return bool((self.expand(corners, mask.shape) == mask.array).all())

    def expand(self, tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """(tile rows, tile columns) → (n_out, n_in)."""
        wide = np.repeat(np.repeat(tiles, self.rows, axis=0), self.columns, axis=1)
        return wide[: shape[0], : shape[1]]

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells]:
        tiles = -(-shape[0] // self.rows) * -(-shape[1] // self.columns)
        share = round(density * tiles) / tiles
        return (
            of_each(self.columns, self.rows, self.columns, share),
            of_each(self.rows, self.columns, self.rows, share),
        )

    def implies(self, other: Pattern) -> bool:
        if isinstance(other, Block):
            return not (self.rows % other.rows or self.columns % other.columns)
        return super().implies(other)

    def unpack(self, packed: Packed) -> np.ndarray:
        starts, columns = packed.indices["starts"], packed.indices["columns"]
        grid = self._grid(packed.shape)
        tiles = np.zeros((*grid, self.rows, self.columns), dtype=packed.values.dtype)
        tiles[np.repeat(np.arange(grid[0]), np.diff(starts)), columns] = packed.values
        wide = tiles.transpose(0, 2, 1, 3).reshape(grid[0] * self.rows, grid[1] * self.columns)
        return np.ascontiguousarray(wide[: packed.shape[0], : packed.shape[1]])

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        grid = self._grid(mask.shape)
        edges = [
            (0, g * s - n)
            for g, s, n in zip(grid, (self.rows, self.columns), mask.shape, strict=True)
        ]
        padded = np.pad(values, edges)
        tiles = padded.reshape(grid[0], self.rows, grid[1], self.columns).transpose(0, 2, 1, 3)
        active = mask.array[:: self.rows, :: self.columns]
        rows, columns = np.nonzero(active)
        starts = np.concatenate([[0], np.cumsum(active.sum(axis=1))]).astype(np.int32)
        indices = {"starts": starts, "columns": columns.astype(index_dtype(grid[1] - 1))}
        return Packed(np.ascontiguousarray(tiles[rows, columns]), indices, mask.shape)

    def _grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        return -(-shape[0] // self.rows), -(-shape[1] // self.columns)


PATTERN = Block
