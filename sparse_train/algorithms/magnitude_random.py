"""MP-RR: magnitude pruning, random regrowth, a density that moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparse_train.algorithms.set import Set


@dataclass(frozen=True)
class MagnitudeRandom(Set):
    """SET under a density schedule (linear, unless the user names another).

    Source: Tessera et al. 2022, section 3.
    """

    on_device: ClassVar[bool] = True
    schedule: ClassVar[str] = "linear"


ALGORITHM = MagnitudeRandom
