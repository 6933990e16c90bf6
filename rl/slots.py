"""Training runs of one architecture side by side, round by round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rl.dense import DenseRuns, dense_runs, metric
from rl.problems import Problem
from sparse_train.population import Population


@dataclass(frozen=True)
class Topology:
    """How masks change at a round: what is dropped and grown, and how much at equal density.

    Magnitude and gradient with a share of 0.1 to 0.3 is RigL, magnitude and random SET and MP-RR,
    random and random RP-RR; a share of 0 leaves a mask alone while its density stays.
    """

    drop: str = "magnitude"
    grow: str = "gradient"
    drop_fraction: float = 0.0


class Slots:
    """The slots of one problem: a population, and where in the environment's batch each lies.

    Attributes:
        places: (n,) rows of the environment's batch.
        rounds: (n,) rounds made, int64.
        from_dense: (n,) bool, dense since the start: what comes may be branched off.
    """

    def __init__(self, problem: Problem, places: Tensor, topology: Topology) -> None:
        self.problem, self.places, self.topology = problem, places, topology
        n = len(places)
        s = problem.setting
        self.population = Population(problem.data, problem.build(), n, s.optimizer)
        self.seeds = [0] * n
        self.rounds = torch.zeros(n, dtype=torch.long)
        self.from_dense = torch.ones(n, dtype=torch.bool)
        self._validation = problem.data.evaluation_batches("validation")

    @property
    def layers(self) -> int:
        return len(self.population.names)

    @property
    def runs(self) -> DenseRuns:
        return dense_runs(self.problem)

    @property
    def dense(self) -> Tensor:
        """(n,) whether all layers are dense now."""
        return (self.population.nnz == self.population.sizes).all(1)

    def start(self, row: int, seed: int, prefix: int) -> tuple[float, float]:
        """A new run in one slot, `prefix` rounds on its dense way; validation loss and accuracy."""
        run = self.runs.get(seed)
        self.seeds[row] = seed
        self.rounds[row] = prefix
        self.from_dense[row] = True
        self.population.put(torch.tensor([row]), run.networks[prefix])
        return float(run.losses[prefix]), float(run.accuracies[prefix])

    def round(self, rows: Tensor, nnz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One round of slots `rows` (n,) with `nnz` (n, layers) weights.

        Rounds that the dense run has made already are taken from it.

        Returns:
            validation losses and accuracies after the round (n,), and in which layers a mask was
            updated (n, layers). Accuracies are NaN where the task knows none.
        """
        population, s = self.population, self.problem.setting
        sizes = population.sizes
        changed = nnz != population.nnz[rows]
        if self.topology.drop_fraction:
            changed |= nnz < sizes
        self.from_dense[rows] &= ~changed.any(1) & (nnz == sizes).all(1)
        branch = self.from_dense[rows] & (self.rounds[rows] < s.dense_rounds)
        seen = torch.empty(2, len(rows), dtype=torch.float64)
        for i in torch.nonzero(branch)[:, 0].tolist():
            row = int(rows[i])
            loss, accuracy = self.start(row, self.seeds[row], int(self.rounds[row]) + 1)
            seen[0, i], seen[1, i] = loss, accuracy
        rest = torch.nonzero(~branch)[:, 0]
        if len(rest):
            trained = rows[rest]
            moved = changed[rest].any(1)
            if bool(moved.any()):
                self._update(trained[moved], nnz[rest][moved])
            seen[:, rest] = self._train(trained)
            self.rounds[trained] += 1
        return seen[0], seen[1], changed

    def _update(self, rows: Tensor, nnz: Tensor) -> None:
        t = self.topology
        self.population.update(
            rows, nnz, [self.seeds[r] for r in rows.tolist()],
            drop_fraction=t.drop_fraction, drop=t.drop, grow=t.grow,
        )  # fmt: skip

    def _train(self, rows: Tensor) -> Tensor:
        """One round; validation losses and accuracies after it, (2, n)."""
        population, s = self.population, self.problem.setting
        which = None if len(rows) == population.size else rows
        seeds = [self.seeds[r] for r in rows.tolist()]
        first = population.steps[rows]
        for step in range(1, s.round_steps + 1):
            batch = self.runs.feed(seeds, (first + step).tolist())
            population.step(batch, which, watch=step == s.round_steps)
        found = population.evaluate(self._validation, which)
        return torch.from_numpy(np.stack([metric(found, "loss"), metric(found, "accuracy")]))

    def state_dict(self) -> dict:
        return {
            "population": self.population.state_dict(),
            "seeds": list(self.seeds),
            "rounds": self.rounds.clone(),
            "from_dense": self.from_dense.clone(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.population.load_state_dict(state["population"])
        self.seeds = list(state["seeds"])
        self.rounds = state["rounds"].clone()
        self.from_dense = state["from_dense"].clone()
