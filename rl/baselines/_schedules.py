"""Handcrafted schedules: density by the share of the dense run's steps that is over."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from rl.baselines._base import Opponent, everywhere
from rl.envs.interface import ScheduleEnv
from sparse_train.schedules import SHAPES


def scheduled(shape: str, elapsed: Tensor, last: Tensor, end: Tensor | float = 1.0) -> Tensor:
    """Density from 1 to `last` by the time `end`, and `last` from then on.

    >>> scheduled("linear", torch.tensor([0.0, 0.5, 2.0]), torch.tensor(0.2)).tolist()
    [1.0, 0.6000000238418579, 0.20000000298023224]
    """
    x = (elapsed / end).clamp(0.0, 1.0)
    return last + (1 - last) * SHAPES[shape](x)


class Schedule(Opponent):
    """All layers follow one shape down to `Setup.density` at the end of the dense run."""

    shape: ClassVar[str]

    def wanted(self, env: ScheduleEnv) -> Tensor:
        last = torch.tensor(self.setup.density)
        return everywhere(env, scheduled(self.shape, env.elapsed, last))
