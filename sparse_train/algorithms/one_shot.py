"""One-shot magnitude pruning: train dense, prune once, train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparse_train.algorithms.gmp import GMP


@dataclass(frozen=True)
class OneShot(GMP):
    """Dense until the first update, which prunes to the density at once; `update_interval` is when.

    Source: Janowsky 1989; Han et al. 2015, section 3 (without its repetition).
    """

    on_device: ClassVar[bool] = True
    schedule: ClassVar[str] = "constant"


ALGORITHM = OneShot
