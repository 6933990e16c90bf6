"""Balanced fan-in: every active neuron has as many inputs in each block of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.mask import Mask
from hwsim.patterns._base import Packed, Pattern
from hwsim.patterns._parse import at_least
from hwsim.patterns.fan_in import FanIn


@dataclass(frozen=True)
class Balanced(Pattern):
    """All active rows have the same number k of active weights in every `block` inputs.

    Where `block` does not divide n_in, the last block is shorter and holds min(k, its size).
    Packed as constant fan-in, in which a block's values stand together.

    Source: Cao et al. 2019 (bank-balanced sparsity), section 3.
    """

    name: ClassVar[str] = "balanced"
    block: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, "block", self.block, 1)

    def holds(self, mask: Mask) -> bool:
        starts = np.arange(0, mask.shape[1], self.block)
        active = mask.array[mask.row_nnz > 0]
        if active.size == 0:
            return True
        counts = np.add.reduceat(active, starts, axis=1, dtype=np.int64)
        k = counts.max()
        sizes = np.diff(np.append(starts, mask.shape[1]))
        return bool((counts == np.minimum(k, sizes)).all())

    def unpack(self, packed: Packed) -> np.ndarray:
        return FanIn().unpack(packed)

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        return FanIn()._pack(mask, values)


PATTERN = Balanced
