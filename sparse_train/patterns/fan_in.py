"""Constant fan-in: every active neuron has as many inputs as any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparse_train.segments import Segmented


@dataclass(frozen=True)
class FanIn(Segmented):
    """Fan-in budget // n_out for every neuron.

    A budget below n_out gives one input each to as many neurons as it pays for, the best ones.
    """

    name: ClassVar[str] = "fan_in"

    @property
    def on_device(self) -> bool:
        return True

    def edges(self, n_in: int) -> np.ndarray:
        return np.array([0, n_in], dtype=np.int64)


PATTERN = FanIn
