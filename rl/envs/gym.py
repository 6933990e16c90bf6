"""`SparseTraining-v0`: one real training run as a Gymnasium environment."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
from tensordict import TensorDict

from hwsim import InputError
from rl.envs import episode
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig


class SparseTraining(gymnasium.Env):
    """An episode is the training of one small network to its dense run's loss.

    What is seen and done is in `rl.envs.interface`, here without the batch axis. It is the batched
    environment with one slot; to learn, use `gymnasium.make_vec` (`rl.envs.vector`) or that
    one, which train many networks at once.

    `reset(options={...})` takes network, task, device, target, seed and reference (see
    `rl.envs.interface.Context`); what is not named is drawn as `config` says.

    It pickles and copies, and goes on alike; `state_dict` and `load_state_dict` do so by hand.

    Args:
        config: what episodes are drawn from.
        reward: a name in `rl.rewards`.
        width: layers that observation and action have room for.
        render_mode: "ansi" (a line per layer) or "rgb_array" (densities over decisions).
        changes: fields of `config` to replace.
    """

    metadata = {  # noqa: RUF012  an instance may have its own
        "render_modes": list(episode.RENDER_MODES), "render_fps": 4,
    }  # fmt: skip

    def __init__(
        self, config: TrainingConfig | None = None, *, reward: str = "log_ratio", width: int = 16,
        render_mode: str | None = None, **changes: Any,
    ) -> None:  # fmt: skip
        self.config = episode.settings(config, changes)
        episode.check_render_mode(render_mode)
        self.reward, self.width, self.render_mode = reward, width, render_mode
        self._env = self._made(self.config.problems[0])
        self._history: list[np.ndarray] = []
        self.observation_space = episode.observation_space(width)
        self.action_space = episode.action_space(self.config, width)

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
        context = episode.drawn(self.config, self.np_random, options)
        self._change_to((context.network, context.task))
        seen = self._env.reset(contexts=[context])
        self._history = []
        return self._observation(seen), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One decision.

        Raises:
            InputError: no action, or no episode that is under way.
        """
        if self._env.contexts is None:
            raise InputError("step: no episode has begun; call reset first")
        if bool(self._env.over[0]):
            raise InputError("step: the episode has ended; call reset first")
        taken = episode.checked_action(action, (self.width,), self.config)
        seen = self._env.step(TensorDict({"action": taken[None]}, [1]))["next"]
        return (
            self._observation(seen), float(seen["reward"]), bool(seen["terminated"]),
            bool(seen["truncated"]), self._info(),
        )  # fmt: skip

    def render(self) -> str | np.ndarray | None:  # type: ignore[override]
        """What `render_mode` says of the run as it stands.

        Raises:
            InputError: no episode has begun.
        """
        if self.render_mode is None:
            return None
        if not self._history:
            raise InputError("render: no episode has begun; call reset first")
        if self.render_mode == "rgb_array":
            return episode.picture(self._history)
        return episode.text(self._info(), self._history[-1].tolist())

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps and resets depend on: tensors, numbers and strings."""
        context = (self._env.contexts or [None])[0]
        return {
            "problem": list(self._env.config.problems[0]),
            "context": context and dataclasses.asdict(context),
            "run": self._env.state_dict(),
            "random": self.np_random.bit_generator.state,
            "history": [one.tolist() for one in self._history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of an environment of the same settings.

        Raises:
            InputError: it is that of another form.
        """
        missing = [n for n in ("problem", "run", "random", "history") if n not in state]
        if missing:
            raise InputError(
                f"state of the environment: {', '.join(missing)} is missing; allowed is what "
                "state_dict gives"
            )
        network, task = state["problem"]
        self._change_to((network, task))
        self._env.load_state_dict(state["run"])
        self.np_random.bit_generator.state = state["random"]
        self._history = [np.array(one, np.float32) for one in state["history"]]

    def __getstate__(self) -> dict[str, Any]:
        return {
            "made": (self.config, self.reward, self.width, self.render_mode),
            "spec": self.spec, "state": self.state_dict(),
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        config, reward, width, render_mode = state["made"]
        self.__init__(config, reward=reward, width=width, render_mode=render_mode)  # type: ignore[misc]
        self.spec = state["spec"]
        self.load_state_dict(state["state"])

    def _change_to(self, pair: tuple[str, str]) -> None:
        if pair != self._env.config.problems[0]:
            self._env = self._made(pair)

    def _made(self, pair: tuple[str, str]) -> SparseTrainingEnv:
        config = dataclasses.replace(self.config, problems=(pair,))
        return SparseTrainingEnv(config, 1, reward=self.reward, width=self.width)

    def _observation(self, seen: TensorDict) -> dict[str, np.ndarray]:
        found = {name: values[0] for name, values in episode.observations(seen).items()}
        self._history.append(found["density"][found["live"] > 0].copy())
        return found

    def _info(self) -> dict[str, Any]:
        return episode.info(self._env, 0)
