"""Training runs of one architecture side by side, round by round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rl.runs.dense import DenseRuns, dense_runs, metric
from rl.runs.problems import Problem
from sparse_train.networks import PROGRESS


@dataclass(frozen=True)
class Topology:
    """How masks change at a round: what is dropped and grown, and how much at equal density.

    Magnitude and gradient with a share of 0.1 to 0.3 is RigL, magnitude and random SET and MP-RR,
    random and random RP-RR; a share of 0 leaves a mask alone while its density stays.

    Attributes:
        restore: weights that come back have the value at which they were dropped, not 0; only
            where networks are trained together.
    """

    drop: str = "magnitude"
    grow: str = "gradient"
    drop_fraction: float = 0.0
    restore: bool = False


class Slots:
    """The slots of one problem: its networks, and where in the environment's batch each lies.

    Attributes:
        places: (n,) rows of the environment's batch.
        rounds: (n,) rounds made, int64.
        from_dense: (n,) bool, dense since the start: what comes may be branched off.
    """

    def __init__(self, problem: Problem, places: Tensor, topology: Topology) -> None:
        self.problem, self.places, self.topology = problem, places, topology
        n = len(places)
        self.networks = problem.networks(n)
        self.rounds = torch.zeros(n, dtype=torch.long)
        self.from_dense = torch.ones(n, dtype=torch.bool)

    @property
    def layers(self) -> int:
        """Of the problem's network."""
        return len(self.networks.names)

    @property
    def runs(self) -> DenseRuns:
        """The problem's dense runs."""
        return dense_runs(self.problem)

    @property
    def dense(self) -> Tensor:
        """(n,) whether all layers are dense now."""
        return (self.networks.nnz == self.networks.sizes).all(1)

    def start(self, row: int, seed: int, prefix: int) -> tuple[float, float]:
        """A new run in one slot, `prefix` rounds on its dense way; validation loss and accuracy."""
        run = self.runs.get(seed)
        self.rounds[row] = prefix
        self.from_dense[row] = True
        self.networks.put(row, seed, run.networks[prefix])
        return float(run.losses[prefix]), float(run.accuracies[prefix])

    def round(self, rows: Tensor, nnz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One round of slots `rows` (n,) with `nnz` (n, layers) weights.

        Rounds that the dense run has made already are taken from it.

        Returns:
            validation losses and accuracies after the round (n,), and in which layers a mask was
            updated (n, layers). Accuracies are NaN where the task knows none.
        """
        networks, s = self.networks, self.problem.setting
        sizes = networks.sizes
        changed = nnz != networks.nnz[rows]
        if self.topology.drop_fraction:
            changed |= nnz < sizes
        self.from_dense[rows] &= ~changed.any(1) & (nnz == sizes).all(1)
        branch = self.from_dense[rows] & (self.rounds[rows] < s.dense_rounds)
        seen = torch.empty(2, len(rows), dtype=torch.float64)
        for i in torch.nonzero(branch)[:, 0].tolist():
            row = int(rows[i])
            loss, accuracy = self.start(row, networks.seeds[row], int(self.rounds[row]) + 1)
            seen[0, i], seen[1, i] = loss, accuracy
        rest = torch.nonzero(~branch)[:, 0]
        if len(rest):
            trained = rows[rest]
            moved = changed[rest].any(1)
            if bool(moved.any()):
                t = self.topology
                networks.update(
                    trained[moved], nnz[rest][moved],
                    drop_fraction=t.drop_fraction, drop=t.drop, grow=t.grow,
                    restore=t.restore,
                )  # fmt: skip
            networks.train(trained, s.round_steps)
            found = networks.evaluate(trained)
            for i, name in enumerate((PROGRESS, "accuracy")):
                seen[i, rest] = torch.from_numpy(metric(found, name))
            self.rounds[trained] += 1
        return seen[0], seen[1], changed

    def state_dict(self) -> dict:
        """The networks with their seeds and rounds."""
        return {
            "population": self.networks.state_dict(),
            "seeds": list(self.networks.seeds),
            "rounds": self.rounds.clone(),
            "from_dense": self.from_dense.clone(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` gave."""
        self.networks.load_state_dict(state["population"], state["seeds"])
        self.rounds = state["rounds"].clone()
        self.from_dense = state["from_dense"].clone()
