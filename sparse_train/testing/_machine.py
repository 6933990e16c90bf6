"""A rule-based state machine that drives any algorithm."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sparse_train.algorithms import Algorithm
from sparse_train.patterns import Projection
from sparse_train.testing._strategies import quiet
from sparse_train.testing._training import (
    OPTIMIZERS,
    check_invariants,
    checked_step,
    copied,
    load,
    maker,
    saved,
    small_model,
)


def machine(
    algorithm: Algorithm, pattern: str | Projection | None = None
) -> type[RuleBasedStateMachine]:
    """A state machine that trains, saves, loads, copies and resizes in any order.

    TestMine = machine(MyAlgorithm()).TestCase
    """
    make = maker(algorithm, pattern)

    class AlgorithmMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self._build(10)

        def _build(self, width: int) -> None:
            self.model = small_model(width=width)
            self.width = width
            self.optimizer = OPTIMIZERS["adamw"](self.model.parameters())
            self.sparsifier = make(self.model, self.optimizer)

        @rule(steps=st.integers(1, 4))
        def train(self, steps: int) -> None:
            for _ in range(steps):
                checked_step(self.model, self.optimizer, self.sparsifier, self.sparsifier.steps)

        @rule()
        def save_and_load(self) -> None:
            file = saved(self.model, self.optimizer, self.sparsifier)
            masks = self.sparsifier.masks()
            self._build(self.width)
            load(file, self.model, self.optimizer, self.sparsifier)
            assert self.sparsifier.masks() == masks, "loaded masks differ from those saved"

        @rule()
        def copy_and_go_on(self) -> None:
            self.model, self.optimizer, self.sparsifier = copied(
                self.model, self.optimizer, self.sparsifier
            )

        @rule(width=st.integers(1, 14))
        def resize(self, width: int) -> None:
            self._build(width)

        @invariant()
        def holds(self) -> None:
            check_invariants(self.sparsifier, self.optimizer)

    AlgorithmMachine.TestCase.settings = settings(quiet(15), stateful_step_count=8)  # type: ignore[attr-defined]
    return AlgorithmMachine
