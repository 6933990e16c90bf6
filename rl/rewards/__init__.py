"""Rewards: one file is one reward, a function (before, after) → tensor bound to REWARD."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hwsim.registry import Registry
from rl.moment import Moment

Reward = Callable[[Moment, Moment], torch.Tensor]
REWARDS = Registry("reward", "rl.rewards", "REWARD", group="nettime.rewards")
