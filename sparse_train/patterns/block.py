"""Blocks: tiles of the matrix are active as a whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.errors import InputError, unknown
from hwsim.pattern_names import at_least
from sparse_train.patterns._tiles import Tiled, in_tiles
from sparse_train.selection.arrays import largest


@dataclass(frozen=True)
class Block(Tiled):
    """Aligned tiles of rows × columns; a tile's score is the mean ("pool" may be "max")."""

    name: ClassVar[str] = "block"
    rows: int = 16
    columns: int = 16
    pool: str = "mean"

    def __post_init__(self) -> None:
        at_least(self.name, "rows", self.rows, 1)
        at_least(self.name, "columns", self.columns, 1)
        if self.pool not in ("mean", "max"):
            raise InputError(unknown("pool", self.pool, ("mean", "max")))

    @property
    def on_device(self) -> bool:
        return True

    def tile(self, shape: tuple[int, int]) -> tuple[int, int]:
        return self.rows, self.columns

    def reduce(self, scores: np.ndarray) -> np.ndarray:
        if self.pool == "max":
            tall, wide = in_tiles(scores, self.tile(scores.shape))
            return largest(largest(tall, 1).reshape(len(tall), wide, -1), 2)
        return super().reduce(scores)


PATTERN = Block
