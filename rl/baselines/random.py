"""A random action in every layer at every decision."""

import torch
from tensordict import TensorDict
from torch import Tensor

from rl.baselines._base import Opponent, Setup
from rl.envs.act import ACTIONS
from rl.envs.interface import ScheduleEnv


class Random(Opponent):
    """Uniform over sparsify, keep and densify; over log density where densities are chosen."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.rng = torch.Generator().manual_seed(setup.seed)

    def choose(self, env: ScheduleEnv, seen: TensorDict) -> Tensor:
        if env.mode == "step":
            return torch.randint(len(ACTIONS), env.density.shape, generator=self.rng)
        return env.min_density ** torch.rand(env.density.shape, generator=self.rng)


OPPONENT = Random
