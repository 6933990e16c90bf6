"""`SparseTraining-v0` for `gymnasium.make_vec`: many runs trained together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from tensordict import TensorDict

from hwsim import InputError
from rl.envs import episode
from rl.envs.act import KEEP
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig


class SparseTrainingVector(VectorEnv):
    """`num_envs` runs side by side, as `rl.envs.gym.SparseTraining` has one.

    Slot i trains problem i modulo their number, always. Seeded with s, slot i draws what a single
    environment seeded with s + i draws. A run that has ended begins anew at the next step, whose
    action it ignores (`AutoresetMode.NEXT_STEP`).

    Args:
        config, reward, width, changes: as for `SparseTraining`.
        render_mode: "ansi" or "rgb_array": of each slot.
    """

    metadata = {  # noqa: RUF012  an instance may have its own
        "render_modes": list(episode.RENDER_MODES), "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }  # fmt: skip

    def __init__(
        self, num_envs: int = 1, config: TrainingConfig | None = None, *,
        reward: str = "log_ratio", width: int = 16, render_mode: str | None = None, **changes: Any,
    ) -> None:  # fmt: skip
        self.config = episode.settings(config, changes)
        episode.check_render_mode(render_mode)
        self.num_envs, self.width, self.render_mode = num_envs, width, render_mode
        self._env = SparseTrainingEnv(self.config, num_envs, reward=reward, width=width)
        self.single_observation_space = episode.observation_space(width)
        self.single_action_space = episode.action_space(self.config, width)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._streams = [seeding.np_random(None)[0] for _ in range(num_envs)]
        self._history: list[list[np.ndarray]] = [[] for _ in range(num_envs)]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # fmt: skip
        """New episodes in all slots; `options` hold for each."""
        if isinstance(seed, int):
            seed = [seed + i for i in range(self.num_envs)]
        if seed is not None and len(seed) != self.num_envs:
            raise InputError(
                f"seed: {len(seed)} are given; allowed is one, or {self.num_envs}, the slots"
            )
        for i, one in enumerate(seed or ()):
            if one is not None:
                self._streams[i] = seeding.np_random(one)[0]
        contexts = [self._drawn(i, options) for i in range(self.num_envs)]
        seen = self._env.reset(contexts=contexts)
        self._history = [[] for _ in range(self.num_envs)]
        return self._observation(seen), self._infos()

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        env, n = self._env, self.num_envs
        if env.contexts is None:
            raise InputError("step: no episode has begun; call reset first")
        over = env.over.clone()
        taken = np.array(actions)
        if taken.shape == (n, self.width) and taken.dtype.kind in "iuf":
            taken[over.numpy()] = KEEP  # A density of 1 as well: what an ended run is told.
        checked = episode.checked_action(taken, (n, self.width), self.config)
        seen = env.step(TensorDict({"action": checked}, [n]))["next"]
        reward = seen["reward"][:, 0].double().masked_fill(over, 0.0).numpy()
        ended = seen["terminated"][:, 0] & ~over
        truncated = seen["truncated"][:, 0] & ~over
        if bool(over.any()):
            contexts = [
                self._drawn(i, None) if over[i] else context
                for i, context in enumerate(env.contexts)
            ]
            begun = env.reset(TensorDict({"_reset": over[:, None]}, [n]), contexts=contexts)
            # TorchRL fills what is not reset with zeros.
            seen = _merged(over, begun, seen)
            for i in torch.nonzero(over)[:, 0].tolist():
                self._history[i] = []
        return self._observation(seen), reward, ended.numpy(), truncated.numpy(), self._infos()

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return None
        if self._env.contexts is None:
            raise InputError("render: no episode has begun; call reset first")
        if self.render_mode == "rgb_array":
            return tuple(episode.picture(one) for one in self._history)
        return tuple(
            episode.text(episode.info(self._env, i), one[-1].tolist())
            for i, one in enumerate(self._history)
        )

    def _drawn(self, place: int, options: dict[str, Any] | None) -> Any:
        own = self.config.problems[place % len(self.config.problems)]
        return episode.drawn(self.config, self._streams[place], options, own)

    def _observation(self, seen: TensorDict) -> dict[str, np.ndarray]:
        found = episode.observations(seen)
        for i, history in enumerate(self._history):
            history.append(found["density"][i][found["live"][i] > 0].copy())
        return found

    def _infos(self) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for i in range(self.num_envs):
            infos = self._add_info(infos, episode.info(self._env, i), i)
        return infos


def _merged(which: torch.Tensor, one: TensorDict, other: TensorDict) -> TensorDict:
    """Rows of `one` where `which`, else of `other`; of what both have."""
    found = {
        name: torch.where(which.reshape(-1, *[1] * (values.ndim - 1)), values, other[name])
        for name, values in one.items()
        if name in other.keys()  # noqa: SIM118  a TensorDict is no dict
    }
    return TensorDict(found, other.batch_size)
