"""RP-RR: random pruning, random regrowth, a density that moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparse_train.algorithms._base import View, chance
from sparse_train.algorithms.magnitude_random import MagnitudeRandom


@dataclass(frozen=True)
class RandomRandom(MagnitudeRandom):
    """MP-RR that drops at random.

    Source: Tessera et al. 2022, section 3.
    """

    on_device: ClassVar[bool] = True
    keeps_largest: ClassVar[bool] = False

    def drop_scores(self, view: View, layer: str) -> np.ndarray:
        return chance(view, layer)


ALGORITHM = RandomRandom
