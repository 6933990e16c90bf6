"""Gymnasium wrappers for learners that have no action per layer."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from hwsim import InputError


class OneForAll(gymnasium.ActionWrapper):
    """One action for all layers: 0 sparsify, 1 no change, 2 densify; or one density.

    For learners of a single choice, as DQN (Mnih et al. 2015) is.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        own = env.action_space
        if isinstance(own, spaces.MultiDiscrete):
            self.action_space = spaces.Discrete(int(own.nvec[0]))
        elif isinstance(own, spaces.Box):
            self.action_space = spaces.Box(float(own.low[0]), float(own.high[0]), (1,), np.float32)
        else:
            raise InputError(
                f"action space: {type(own).__name__}; allowed is that of SparseTraining-v0"
            )
        self._width = own.shape[0]

    def action(self, action: Any) -> np.ndarray:
        return np.repeat(np.ravel(action), self._width)
