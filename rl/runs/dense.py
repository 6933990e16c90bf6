"""Dense runs: what every episode is compared with, and where it may branch from."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from hwsim import InputError
from hwsim.net_time import time_to_target
from rl.runs import kept
from rl.runs.problems import Problem
from sparse_train.networks import NETWORKS, PROGRESS, Networks

_CURVES = ("losses", "accuracies")


@dataclass(frozen=True)
class DenseRun:
    """One dense run: validation losses by round, and the network after each round.

    Attributes:
        round_steps: steps of a round.
        losses, accuracies: (rounds + 1,) before the first round and after each; accuracies are NaN
            where the task knows none.
        networks: per round what `Networks.take` gives.
    """

    round_steps: int
    losses: np.ndarray
    accuracies: np.ndarray
    networks: tuple[dict[str, Any], ...]

    @functools.cached_property
    def bytes(self) -> int:
        """Of the networks, which are nearly all that is held."""
        return _bytes(self.networks)

    @functools.cached_property
    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        """(rounds, losses) of a falling curve: monotone regression, one point for each level.

        Where regression joins rounds into one level, it stands at their middle.
        """
        smooth = isotonic_regression(self.losses, increasing=False).x
        levels = np.unique(smooth)[::-1]
        middles = np.array([np.flatnonzero(smooth == level).mean() for level in levels])
        return middles, levels

    def target_loss(self, share: float) -> float:
        """The smoothed loss after `share` of the run: one that the run itself reaches."""
        rounds, levels = self._curve
        smooth = float(np.interp(share * (len(self.losses) - 1), rounds, levels))
        # A mean of equal losses may be rounded to below each of them.
        return max(smooth, float(self.losses.min()))

    def rounds_at(self, loss: np.ndarray | float) -> np.ndarray:
        """Rounds after which the smoothed dense run has each loss; 0 above its first one."""
        rounds, levels = self._curve
        return np.interp(-np.asarray(loss), -levels, rounds - rounds[0])

    def rounds_to(self, target: float) -> float:
        """Rounds that the run itself took until its loss was first at or below `target`.

        Raises:
            InputError: it never was.
        """
        found = time_to_target(range(len(self.losses)), self.losses.tolist(), target)
        if found is None:
            raise InputError(
                f"target: loss is {target:g}; the dense run reaches {self.losses.min():g}, "
                "allowed is what it reaches"
            )
        return found


def _bytes(content: Any) -> int:
    if isinstance(content, Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        content = content.values()
    elif not isinstance(content, (list, tuple)):
        return 0
    return sum(map(_bytes, content))


class Held:
    """Dense runs in memory, of all problems: those asked for last, up to so many bytes.

    What goes is on disk, or is trained again.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._runs: OrderedDict[tuple[Any, int], DenseRun] = OrderedDict()

    def get(self, key: tuple[Any, int]) -> DenseRun | None:
        """The run of (whose, seed), if it is held."""
        if key in self._runs:
            self._runs.move_to_end(key)
        return self._runs.get(key)

    def put(self, key: tuple[Any, int], run: DenseRun) -> None:
        """Holds a run; the ones asked for longest ago go where there is no room."""
        self.bytes += run.bytes - (self._runs.pop(key).bytes if key in self._runs else 0)
        self._runs[key] = run
        while self.bytes > self.most_bytes and len(self._runs) > 1:
            self.bytes -= self._runs.popitem(last=False)[1].bytes


HELD = Held(1 << 29)


class DenseRuns:
    """The dense runs of one problem, each trained when it is first asked for.

    Seeds are trained in fixed chunks, so that a run never depends on which others were asked for.
    A chunk is trained once per machine: the first process that needs it keeps it in the cache
    (`rl.runs.kept`), the others wait for it.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.chunk = NETWORKS.get(problem.setting.trained).chunk
        self._networks: Networks | None = None

    def get(self, seed: int) -> DenseRun:
        """The dense run of a seed, trained once and kept on disk."""
        found = HELD.get((self, seed))
        if found is None:
            first = seed // self.chunk * self.chunk
            seeds = range(first, first + self.chunk)
            content = kept.once(self.problem, first, lambda: self._train(seeds))
            for i, one in enumerate(seeds):
                losses, accuracies = (content[name][:, i].numpy() for name in _CURVES)
                steps = self.problem.setting.round_steps
                run = DenseRun(steps, losses, accuracies, tuple(content["taken"][i]))
                HELD.put((self, one), run)
                found = run if one == seed else found
        assert found is not None
        return found

    def _train(self, seeds: range) -> dict[str, Any]:
        """Curves, (rounds + 1, chunk) float64, and what `Networks.take` gave, by seed and round."""
        problem, s = self.problem, self.problem.setting
        if self._networks is None:
            self._networks = problem.networks(self.chunk)
        networks, rows = self._networks, torch.arange(self.chunk)
        networks.begin(rows, seeds)
        found = [networks.evaluate(rows)]
        taken = [[networks.take(row)] for row in range(self.chunk)]
        for _ in range(s.dense_rounds):
            networks.train(rows, s.round_steps)
            found.append(networks.evaluate(rows))
            for row, so_far in enumerate(taken):
                so_far.append(networks.take(row))
        losses, accuracies = (
            np.stack([metric(one, name) for one in found]) for name in (PROGRESS, "accuracy")
        )  # (rounds + 1, chunk)
        if not np.isfinite(losses).all():
            raise InputError(
                f"problem {problem.network} on {problem.task}: a dense run diverges with "
                f"learning rate {s.optimizer.lr}; allowed is one with which it does not"
            )
        return {
            "losses": torch.from_numpy(losses), "accuracies": torch.from_numpy(accuracies),
            "taken": taken,
        }  # fmt: skip


def metric(found: Mapping[str, Tensor], name: str) -> np.ndarray:
    """One metric of each network, float64 (n,); NaN where the task does not have it."""
    if name in found:
        return found[name].double().numpy()
    return np.full(len(found[PROGRESS]), np.nan)


@functools.lru_cache(maxsize=32)
def dense_runs(problem: Problem) -> DenseRuns:
    """The dense runs of a problem, shared by all environments of this process."""
    return DenseRuns(problem)
