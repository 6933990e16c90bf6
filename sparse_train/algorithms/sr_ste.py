"""SR-STE: N:M from scratch, all weights trained through the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hwsim.checks import check_number
from sparse_train.algorithms._base import Algorithm, Outcome, State, View
from sparse_train.selection.arrays import filled


@dataclass(frozen=True)
class SRSTE(Algorithm):
    """Each step the largest |w| of each group are active; all weights get the gradient.

    The gradient with respect to the masked weight is taken for that of the weight itself
    (straight-through), plus decay · (1 − mask) · w, which draws inactive weights to 0. Any pattern
    can be asked for; 2:4 is the algorithm's own, with density=0.5 and distribution="uniform".

    Source: Zhou et al. 2021, section 4 (decay 2e-4).
    """

    on_device: ClassVar[bool] = True
    gradient: ClassVar[str] = "always"
    pattern: ClassVar[str] = "2:4"
    first_mask: ClassVar[str] = "magnitude"
    update_interval: ClassVar[int] = 1
    dense_weights: ClassVar[bool] = True
    decay: float = 2e-4

    def __post_init__(self) -> None:
        check_number("decay", self.decay, least=0)

    def pulls(self, density: float) -> tuple[float, float]:
        return 0.0, self.decay

    def update(self, view: View, state: State) -> Outcome:
        masks = {
            name: view.pattern.project(abs(weight), view.budgets[name])
            for name, weight in view.weights.items()
        }
        everything = {name: filled(mask.shape, True, mask) for name, mask in masks.items()}
        return Outcome(masks, state, trained=everything)


ALGORITHM = SRSTE
