"""An algorithm of your own, proved by the laws that ours are held to.

python examples/own_algorithm.py
nettime train --algorithm examples/own_algorithm.py:Columns --density 0.1 --run runs/mine
"""

from dataclasses import dataclass

import numpy as np

from sparse_train.algorithms import View
from sparse_train.algorithms.set import Set
from sparse_train.testing import check_algorithm


@dataclass(frozen=True)
class Columns(Set):
    """SET that grows where a column has few weights, so that inputs share the work."""

    power: float = 1.0

    def grow_scores(self, view: View, layer: str) -> np.ndarray:
        mask = view.masks[layer]
        room = (1.0 - mask.mean(axis=0)) ** self.power
        return (room + view.rng.random(mask.shape)).astype(np.float32)


def main(examples: int = 20) -> None:
    check_algorithm(Columns(), examples=examples)
    print("Columns keeps every law: budgets, moments, growth from zero, resume to the bit")


if __name__ == "__main__":
    main()
