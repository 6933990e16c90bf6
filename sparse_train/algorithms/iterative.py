"""Iterative magnitude pruning: the same share of what is left goes at each update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hwsim.checks import check_number
from sparse_train.algorithms._base import View, rounded
from sparse_train.algorithms.gmp import GMP
from sparse_train.selection.arrays import count


@dataclass(frozen=True)
class Iterative(GMP):
    """Starts dense; each update prunes `share` of a layer's active weights, down to its budget.

    Args:
        scope: as in GMP.
        share: of the active weights, pruned at each update; above 0, at most 1.

    Source: Han et al. 2015, section 3; Frankle & Carbin 2019, section 1 (share 0.2).
    """

    on_device: ClassVar[bool] = True
    schedule: ClassVar[str] = "constant"
    budget: ClassVar[str] = "own"
    share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("share", self.share, above=0, most=1)

    def least_updates(self, density: float) -> int:
        if density <= 0 or self.share == 1:
            return 1
        return max(1, math.ceil(round(math.log(density) / math.log(1 - self.share), 9)))

    def targets(self, view: View) -> dict[str, int]:
        left = {}
        for name, budget in view.budgets.items():
            active = count(view.masks[name])
            left[name] = min(active, max(budget, active - rounded(active * self.share, "ceil")))
        return left


ALGORITHM = Iterative
