"""Which weights are dropped and which are grown. One file, one algorithm."""

from sparse_train.algorithms._base import Algorithm, Outcome, State, View, rounded
from sparse_train.registries import ALGORITHMS

__all__ = ["ALGORITHMS", "Algorithm", "Outcome", "State", "View", "rounded"]
