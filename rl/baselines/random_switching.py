"""Random, but changing a layer as rarely as the agent does."""

import torch
from tensordict import TensorDict
from torch import Tensor

from rl.baselines._base import Setup
from rl.baselines.random import Random
from rl.envs.act import KEEP
from rl.envs.interface import ScheduleEnv


class RandomSwitching(Random):
    """Keeps a layer with probability 1 − `Setup.switching`; else sparsifies or densifies it."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.rate = setup.switching

    def choose(self, env: ScheduleEnv, seen: TensorDict) -> Tensor:
        switch = torch.rand(env.density.shape, generator=self.rng) < self.rate
        if env.mode == "step":
            either = 2 * torch.randint(2, env.density.shape, generator=self.rng)
            return torch.where(switch, either, KEEP)
        return torch.where(switch, super().choose(env, seen), env.density)


OPPONENT = RandomSwitching
