"""Group-shared fan-in: the neurons of a group have the same inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwsim import patterns as definitions
from hwsim.mask import Mask
from hwsim.pattern_names import at_least
from sparse_train.patterns._base import Projection
from sparse_train.segments import select
from sparse_train.selection import check_finite, top_k


@dataclass(frozen=True)
class Group(Projection):
    """A unit is an input of a group; its score is the mean over the group's neurons.

    Every group has fan-in budget // n_out, at least 1. A first mask has neighbours in a group. An
    update keeps the groups that the mask has; every `every`-th one first permutes neurons into new
    groups, of those whose largest weights lie at common inputs, whatever the algorithm. Where
    `size` does not divide n_out, one group is smaller. Algorithms that choose the whole mask anew
    (Top-KAST, SR-STE) always have neighbours in a group.

    Args:
        size: neurons of a group.
        every: updates between permutations; 0 for none.

    Source: this project.
    """

    name: ClassVar[str] = "group"
    size: int = 32
    every: int = 0

    def __post_init__(self) -> None:
        at_least(self.name, "size", self.size, 1)
        at_least(self.name, "every", self.every, 0)

    def rearranged(
        self, weights: np.ndarray, mask: np.ndarray, budget: int, update: int
    ) -> np.ndarray:
        if self.every == 0 or update == 0 or update % self.every or budget == 0:
            return mask
        # All inputs that a neuron has now are its group's; the larger half of them is its own.
        own = max(1, self.fan_in(mask.shape, budget) // 2)
        return self.regroup(np.abs(weights), budget, inputs=own)

    def fan_in(self, shape: tuple[int, int], budget: int) -> int:
        """Weights of an output: equal for all, at least 1 unless the budget is 0."""
        return max(budget // shape[0], int(budget > 0))

    def capacity(self, shape: tuple[int, int], budget: int) -> int:
        return -(-shape[0] // self.size) * self.fan_in(shape, budget)

    def steps(self, shape: tuple[int, int], budget: int) -> tuple[int, int]:
        k = self.fan_in(shape, budget)
        return k * shape[0], min(k + 1, shape[1]) * shape[0]

    def units(self, mask: np.ndarray) -> int:
        return int(np.count_nonzero(mask[self._groups(mask)[:, 0]]))

    def keep(self, scores: np.ndarray, mask: np.ndarray, units: int, budget: int) -> np.ndarray:
        groups = self._groups(mask)
        means = self._means(scores, groups)
        chosen = top_k(means, min(units, self.capacity(mask.shape, budget)), mask[groups[:, 0]])
        k = self.fan_in(mask.shape, budget)
        return self._expand(_per_group(means, chosen, k), groups, mask.shape)

    def fill(self, scores: np.ndarray, kept: np.ndarray, budget: int) -> np.ndarray:
        return self._filled(scores, kept, budget, self._groups(kept))

    def regroup(self, scores: np.ndarray, budget: int, *, inputs: int | None = None) -> np.ndarray:
        """A new mask whose groups are neurons with many of their best inputs in common.

        Greedy: the first neuron left takes the `size` − 1 others whose best inputs overlap most
        with its own. `inputs` of each neuron are compared, by default as many as the fan-in.
        """
        check_finite(scores)
        n_out = scores.shape[0]
        k = self.fan_in(scores.shape, budget) if inputs is None else inputs
        everything = np.ones(scores.shape, dtype=bool)
        best = _per_group(scores, everything, k).astype(np.float32)
        overlap = best @ best.T
        left = np.ones(n_out, dtype=bool)
        order: list[int] = []
        while left.any():
            seed = int(np.argmax(left))
            candidates = np.flatnonzero(left)
            near = candidates[np.argsort(-overlap[seed, candidates], kind="stable")]
            members = [seed, *(int(i) for i in near if i != seed)][: self.size]
            order += members
            left[members] = False
        groups = np.full(-(-n_out // self.size) * self.size, n_out, dtype=np.int64)
        groups[:n_out] = order
        empty = np.zeros(scores.shape, dtype=bool)
        return self._filled(scores, empty, budget, groups.reshape(-1, self.size))

    def _filled(
        self, scores: np.ndarray, kept: np.ndarray, budget: int, groups: np.ndarray
    ) -> np.ndarray:
        check_finite(scores)
        shared = kept[groups[:, 0]]
        missing = self.fan_in(kept.shape, budget) - shared.sum(axis=1, dtype=np.int64)
        grown = _per_group(self._means(scores, groups), ~shared, missing)
        return self._expand(shared | grown, groups, kept.shape)

    def _groups(self, mask: np.ndarray) -> np.ndarray:
        """(groups, size) neurons; n_out where a group is short."""
        return definitions.PATTERNS.get(self.name)(self.size).groups(Mask(mask))

    def _means(self, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
        n_out, n_in = scores.shape
        padded = np.vstack([scores, np.zeros((1, n_in), dtype=scores.dtype)])
        members = np.count_nonzero(groups < n_out, axis=1)[:, None]
        return (padded[groups].sum(axis=1, dtype=np.float64) / members).astype(np.float32)

    def _expand(self, shared: np.ndarray, groups: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        mask = np.zeros((shape[0] + 1, shape[1]), dtype=bool)
        mask[groups] = shared[:, None, :]
        return mask[: shape[0]].copy()


def _per_group(scores: np.ndarray, candidates: np.ndarray, quota: int | np.ndarray) -> np.ndarray:
    """The best `quota` candidates of each row."""
    rows, n_in = scores.shape
    quotas = np.broadcast_to(np.asarray(quota, dtype=np.int64), rows).reshape(rows, 1).copy()
    return select(scores, candidates, quotas, np.array([0, n_in], dtype=np.int64))


PATTERN = Group
