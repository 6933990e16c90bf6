"""Property tests for your own algorithms and patterns.

    from sparse_train.testing import check_algorithm
    check_algorithm(MyAlgorithm())

Each check runs Hypothesis: it draws weights with many ties, masks of the pattern, gradients and
budgets, and raises an AssertionError that names the law and shows the smallest example that breaks
it. `machine` makes a rule-based state machine that trains, saves, loads and copies at will.
"""

from __future__ import annotations

from sparse_train.algorithms import Algorithm
from sparse_train.patterns import Projection
from sparse_train.testing._loops import check_loops, check_states
from sparse_train.testing._machine import machine
from sparse_train.testing._optimizers import check_optimizers, known_optimizers
from sparse_train.testing._pure import (
    check_budgets,
    check_option,
    check_pattern,
    check_schedule,
    check_update,
)
from sparse_train.testing._strategies import (
    budgets,
    masks,
    matrices,
    schedules,
    shapes,
    views,
)
from sparse_train.testing._surroundings import check_ranks
from sparse_train.testing._training import (
    OPTIMIZERS,
    Maker,
    check_gradients,
    check_invariants,
    check_training,
    maker,
    small_model,
    train_step,
)

__all__ = [
    "OPTIMIZERS", "Maker", "budgets", "check_algorithm", "check_budgets",
    "check_gradients", "check_invariants", "check_loops", "check_optimizers", "check_option",
    "check_pattern", "check_ranks", "check_schedule", "check_states", "check_training",
    "check_update", "known_optimizers", "machine", "maker", "masks", "matrices", "schedules",
    "shapes", "small_model", "train_step", "views",
]  # fmt: skip


def check_algorithm(
    algorithm: Algorithm,
    pattern: str | Projection | None = None,
    *,
    examples: int = 50,
    optimizers: tuple[str, ...] = (),
) -> None:
    """All laws of an algorithm: those of its update, and those of a model it trains.

    Raises:
        AssertionError: names the law and shows the smallest example that Hypothesis found.
    """
    check_update(algorithm, pattern, examples=examples)
    check_training(maker(algorithm, pattern), optimizers=optimizers)
