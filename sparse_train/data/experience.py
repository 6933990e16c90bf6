"""An agent's experience: a Gymnasium environment under way, and the transitions seen in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import InputError

# Classic control: small, deterministic but for their first state, and always there.
ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
_SCALED_BELOW = 1e3  # larger bounds say nothing of what occurs
Policy = Callable[[np.ndarray], int]


def make_environment(name: str) -> Any:
    """A Gymnasium environment of ENVIRONMENTS.

    Raises:
        InputError: another name, or Gymnasium is not installed.
    """
    if name not in ENVIRONMENTS:
        raise InputError(
            f"environment: value is {name!r}; allowed: {', '.join(ENVIRONMENTS)}"
        )  # fmt: skip
    try:
        import gymnasium
    except ImportError:
        raise InputError(
            "task control: gymnasium is not installed; install it with: "
            "pip install 'nettime[tasks]'"
        ) from None
    return gymnasium.make(name)


class Experience:
    """Transitions of one environment, the oldest replaced by the newest.

    Observations are divided by their bounds where these are small.

    An environment has no state that can be saved. So the seed of the episode under way and what
    was done in it since are kept, and done again when a run goes on.

    Args:
        environment: a name of ENVIRONMENTS.
        capacity: transitions kept.
        seed_of: episode number → its seed.
    """

    def __init__(self, environment: str, capacity: int, seed_of: Callable[[int], int]) -> None:
        self.environment = make_environment(environment)
        self.capacity = capacity
        self.scale = observation_scale(self.environment)
        n = len(self.scale)
        self.seen = {
            "observations": torch.zeros(capacity, n),
            "actions": torch.zeros(capacity, 1, dtype=torch.long),
            "rewards": torch.zeros(capacity),
            "next_observations": torch.zeros(capacity, n),
            "ended": torch.zeros(capacity),
        }
        self.steps = 0
        self._seed_of = seed_of
        self._episode = -1
        self._actions: list[int] = []
        self._now: np.ndarray | None = None

    def __len__(self) -> int:
        """Transitions there are to learn from."""
        return min(self.steps, self.capacity)

    def act(self, policy: Policy) -> None:
        """One step of the environment by a policy: scaled observation → action."""
        if self._now is None:
            self._begin(self._episode + 1)
        assert self._now is not None
        before = self._now
        action = policy(before)
        after, reward, ended, cut = self._step(action)
        at = self.steps % self.capacity
        for name, value in (
            ("observations", before), ("actions", action), ("rewards", float(reward)),
            ("next_observations", after), ("ended", float(ended)),
        ):  # fmt: skip
            self.seen[name][at] = torch.as_tensor(value)
        self.steps += 1
        self._now = None if ended or cut else after

    def sample(self, rng: np.random.Generator, batch_size: int) -> dict[str, Tensor]:
        """Transitions drawn with replacement; zeros while there are none."""
        rows = torch.from_numpy(rng.integers(0, max(len(self), 1), batch_size))
        return {name: whole[rows] for name, whole in self.seen.items()}

    def state_dict(self) -> dict[str, Any]:
        """What was seen, and the episode under way."""
        n = len(self)
        return {
            "seen": {name: whole[:n].clone() for name, whole in self.seen.items()},
            "steps": self.steps,
            "episode": self._episode,
            "actions": torch.tensor(self._actions, dtype=torch.long),
            "under_way": self._now is not None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict` of an experience of the same settings."""
        self.steps = int(state["steps"])
        n = len(self)
        for name, whole in self.seen.items():
            whole.zero_()
            whole[:n] = state["seen"][name]
        self._episode, self._now = int(state["episode"]), None
        if state["under_way"]:
            self._begin(self._episode)
            for action in state["actions"].tolist():
                self._now = self._step(action)[0]

    def _begin(self, episode: int) -> None:
        self._episode = episode
        self._actions = []
        first, _ = self.environment.reset(seed=self._seed_of(episode))
        self._now = first.astype(np.float32) / self.scale

    def _step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
        self._actions.append(action)
        after, reward, ended, cut, _ = self.environment.step(action)
        return after.astype(np.float32) / self.scale, reward, ended, cut


def observation_scale(environment: Any) -> np.ndarray:
    """(observations,) float32: what to divide observations by."""
    high = environment.observation_space.high
    return np.where(high < _SCALED_BELOW, high, 1).astype(np.float32)


def mean_return(
    name: str, seeds: list[int], policy: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """(mean sum of rewards, mean length) over one episode for each seed, all side by side.

    Args:
        policy: (episodes, observations) → (episodes,) actions.
    """
    environments = [make_environment(name) for _ in seeds]
    scale = observation_scale(environments[0])
    now = [e.reset(seed=s)[0] for e, s in zip(environments, seeds, strict=True)]
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds))
    open_ = list(range(len(seeds)))
    while open_:
        actions = policy(np.stack([now[i] for i in open_]).astype(np.float32) / scale)
        still = []
        for i, action in zip(open_, actions, strict=True):
            now[i], reward, ended, cut, _ = environments[i].step(int(action))
            returns[i] += float(reward)
            lengths[i] += 1
            if not (ended or cut):
                still.append(i)
        open_ = still
    return float(returns.mean()), float(lengths.mean())
