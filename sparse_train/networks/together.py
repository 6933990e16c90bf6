"""Together: one vmapped population, for tasks whose batches do not depend on the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_train.networks._base import PROGRESS, Networks, Recipe
from sparse_train.population.train import Population
from sparse_train.tasks import Batch


class Together(Networks):
    """All networks share every operation; see `sparse_train.population`."""

    chunk: ClassVar[int] = 8

    def __init__(self, recipe: Recipe, size: int) -> None:
        super().__init__(recipe, size)
        layers = recipe.config.layers
        self.population = Population(recipe.task, recipe.build(0), size, recipe.optimizer, layers)
        self.names, self.shapes = self.population.names, self.population.shapes
        self.sizes = self.population.sizes
        self._evaluation: dict[str, list[Batch]] = {}

    @property
    def nnz(self) -> Tensor:  # type: ignore[override]
        """(size, layers) active weights."""
        return self.population.nnz

    @property
    def activations(self) -> Tensor:  # type: ignore[override]
        """(size, layers, 2) mean and variance of what layers gave."""
        return self.population.activations

    def begin(self, rows: Tensor, seeds: Sequence[int]) -> None:
        self._name(rows, seeds)
        built = [self.population.flat(self.recipe.build(seed)) for seed in seeds]
        self.population.start(rows, torch.stack(built))
        self.population.look(self.recipe.feed(seeds, [1] * len(seeds)), self._which(rows))

    def train(self, rows: Tensor, steps: int) -> None:
        seeds = [self.seeds[row] for row in rows.tolist()]
        first = self.population.steps[rows]
        for step in range(1, steps + 1):
            batch = self.recipe.feed(seeds, (first + step).tolist())
            self.population.step(batch, self._which(rows), watch=step == steps)

    def evaluate(self, rows: Tensor, split: str = "validation") -> dict[str, Tensor]:
        if split not in self._evaluation:
            self._evaluation[split] = self.recipe.task.evaluation_batches(split)
        found = self.population.evaluate(self._evaluation[split], self._which(rows))
        return {**found, PROGRESS: found["loss"]}

    def update(
        self, rows: Tensor, nnz: Tensor, *, drop_fraction: float, drop: str, grow: str,
        restore: bool = False,
    ) -> None:  # fmt: skip
        seeds = [self.seeds[row] for row in rows.tolist()]
        self.population.update(
            rows, nnz, seeds, drop_fraction=drop_fraction, drop=drop, grow=grow, restore=restore
        )

    def gradient_norms(self, rows: Tensor) -> Tensor:
        return self.population.gradient_norms(rows)

    def gradient_masses(self, rows: Tensor, counts: Tensor) -> Tensor:
        return self.population.gradient_masses(rows, counts)

    def take(self, row: int) -> dict[str, Any]:
        return self.population.take(torch.tensor([row]))

    def put(self, row: int, seed: int, network: dict[str, Any]) -> None:
        self.seeds[row] = seed
        self.population.put(torch.tensor([row]), network)

    def state_dict(self) -> dict[str, Any]:
        return self.population.state_dict()

    def load_state_dict(self, state: dict[str, Any], seeds: Sequence[int]) -> None:
        self.population.load_state_dict(state)
        self.seeds = list(seeds)

    def _name(self, rows: Tensor, seeds: Sequence[int]) -> None:
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self.seeds[row] = seed

    def _which(self, rows: Tensor) -> Tensor | None:
        """None for all, which spares a copy."""
        return None if len(rows) == self.size else rows


NETWORKS = Together
