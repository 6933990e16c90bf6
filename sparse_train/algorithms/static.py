"""Static sparse training: the first mask stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparse_train.algorithms._base import Algorithm, Outcome, State, View


@dataclass(frozen=True)
class Static(Algorithm):
    """A random mask at the start, and no update: the baseline of every dynamic algorithm."""

    on_device: ClassVar[bool] = True
    update_interval: ClassVar[int] = 0
    budget: ClassVar[str] = "own"
    keeps_largest: ClassVar[bool] = True

    def update(self, view: View, state: State) -> Outcome:
        return Outcome(dict(view.masks), state)


ALGORITHM = Static
