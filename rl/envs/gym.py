"""`SparseTraining-v0`: one real training run as a Gymnasium environment."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict

from hwsim import InputError
from hwsim.errors import unknown
from rl.envs.interface import Context
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig

OPTIONS = ("network", "task", "device", "target", "seed", "reference")
_OBSERVED = ("layers", "whole", "live", "density", "time")


class SparseTraining(gymnasium.Env):
    """An episode is the training of one small network to its dense run's loss.

    What is seen and done is in `rl.envs.interface`, here without the batch axis. It is the batched
    environment with one slot; to learn, use that one, which trains many networks at once.

    `reset(options={...})` takes network, task, device, target, seed and reference (see
    `rl.envs.interface.Context`); what is not named is drawn as `config` says.

    Args:
        config: what episodes are drawn from.
        reward: a name in `rl.rewards`.
        width: layers that observation and action have room for.
        changes: fields of `config` to replace.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, config: TrainingConfig | None = None, *, reward: str = "log_ratio", width: int = 16,
        **changes: Any,
    ) -> None:  # fmt: skip
        valid = tuple(f.name for f in dataclasses.fields(TrainingConfig))
        for name in changes:
            if name not in valid:
                raise InputError(unknown("setting", name, valid))
        self.config = dataclasses.replace(config or TrainingConfig(), **changes)
        self.reward, self.width = reward, width
        self._env = self._made(self.config.problems[0])
        big = np.inf
        self.observation_space = spaces.Dict(
            layers=spaces.Box(-big, big, (width, len(LAYER_FEATURES)), np.float32),
            whole=spaces.Box(-big, big, (len(GLOBAL_FEATURES),), np.float32),
            live=spaces.MultiBinary(width),
            density=spaces.Box(0.0, 1.0, (width,), np.float32),
            time=spaces.Box(0.0, big, (1,), np.float32),
        )
        if self.config.mode == "step":
            self.action_space = spaces.MultiDiscrete([3] * width)
        else:
            self.action_space = spaces.Box(self.config.min_density, 1.0, (width,), np.float32)

    @property
    def batched(self) -> SparseTrainingEnv:
        """The environment behind it, with one slot: what opponents and reports ask."""
        return self._env

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new episode.

        Raises:
            InputError: an unknown option, network, task or device; a target that is none.
        """
        super().reset(seed=seed)
        context = self._context(dict(options or {}))
        pair = (context.network, context.task)
        if pair != self._env.config.problems[0]:
            self._env = self._made(pair)
        seen = self._env.reset(contexts=[context])
        return self._observation(seen), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        if self._env.contexts is None:
            raise InputError("step: no episode has begun; call reset first")
        action = np.asarray(action)
        if action.shape != (self.width,):
            raise InputError(f"action: shape is {action.shape}; allowed is ({self.width},)")
        seen = self._env.step(TensorDict({"action": torch.from_numpy(action)[None]}, [1]))["next"]
        return (
            self._observation(seen), float(seen["reward"]), bool(seen["terminated"]),
            bool(seen["truncated"]), self._info(),
        )  # fmt: skip

    def _made(self, pair: tuple[str, str]) -> SparseTrainingEnv:
        config = dataclasses.replace(self.config, problems=(pair,))
        return SparseTrainingEnv(config, 1, reward=self.reward, width=self.width)

    def _context(self, options: dict[str, Any]) -> Context:
        for name in options:
            if name not in OPTIONS:
                raise InputError(unknown("option", name, OPTIONS))
        c, rng = self.config, self.np_random
        pair = c.problems[int(rng.integers(len(c.problems)))]
        drawn: dict[str, Any] = {
            "network": pair[0], "task": pair[1],
            "device": c.devices[int(rng.integers(len(c.devices)))],
            "target": min(1.0, float(rng.uniform(*c.targets))),
            "seed": int(rng.integers(*c.seeds)),
        }  # fmt: skip
        return Context(**{**drawn, **options})

    def _observation(self, seen: TensorDict) -> dict[str, np.ndarray]:
        found = {name: seen[name][0].numpy() for name in _OBSERVED}
        return {**found, "live": found["live"].astype(np.int8)}

    def _info(self) -> dict[str, Any]:
        state = self._env.state
        contexts = self._env.contexts
        assert contexts is not None
        return {
            "context": dataclasses.asdict(contexts[0]),
            "layers": self._env.groups[0].networks.names,
            **{name: float(state[name]) for name in ("loss", "target_loss", "spent_s", "dense_s")},
            **{name: bool(state[name] > 0) for name in ("reached", "failed")},
        }
