"""RigL: SET that grows where the gradient is largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparse_train.algorithms._base import View
from sparse_train.algorithms.set import Set


@dataclass(frozen=True)
class RigL(Set):
    """Rigging the lottery: the grow score is |gradient|, of every candidate.

    Source: Evci et al. 2020, algorithm 1.
    """

    on_device: ClassVar[bool] = True
    gradient: ClassVar[str] = "update"

    def grow_scores(self, view: View, layer: str) -> np.ndarray:
        assert view.gradients is not None
        return abs(view.gradients[layer])


ALGORITHM = RigL
