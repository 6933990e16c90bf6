"""Balanced fan-in: every active neuron has as many inputs in each block of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim.patterns._parse import at_least
from sparse_train.patterns._segments import Segmented


@dataclass(frozen=True)
class Balanced(Segmented):
    """The largest k that the budget pays for, in each `block` inputs of each neuron.

    A shorter last block holds min(k, its size). A budget that does not reach one weight in each
    block of each neuron gives that to as many neurons as it pays for, the best ones.
    """

    name: ClassVar[str] = "balanced"
    block: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, "block", self.block, 1)

    def edges(self, n_in: int) -> np.ndarray:
        return np.append(np.arange(0, n_in, self.block, dtype=np.int64), n_in)


PATTERN = Balanced
