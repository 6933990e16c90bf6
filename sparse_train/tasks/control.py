"""Control: a deep Q-network learns to act, sparse from its first step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError
from sparse_train.data.experience import ENVIRONMENTS, Experience, make_environment, mean_return
from sparse_train.tasks._base import Batch, Prepared, Task, check_split, stream

if TYPE_CHECKING:
    from sparse_train.masking.sparsifier import Sparsifier
    from sparse_train.runs.config import TrainConfig

# First numbers of the keys of random streams.
_SAMPLES, _EPISODES, _CHOICES, _EVALUATION = 1, 2, 3, 4


@dataclass(frozen=True)
class Control(Task):
    """Settings of the control task.

    Attributes:
        environment: CartPole-v1, Acrobot-v1 or MountainCar-v0 of Gymnasium.
        steps_per_update: of the environment, before each training step.
        warm_up: random steps of the environment before the first training step.
        capacity: transitions kept.
        explore_steps: of the environment, over which the share of random actions falls from 1 to
            `explore_share`.
        target_interval: training steps between copies of the network to its target.
        evaluation_episodes: how many validation and test have; greedy, from fixed first states.
    """

    default_model: ClassVar[str] = "q_network"
    default_preset: ClassVar[str] = "small"

    environment: str = "CartPole-v1"
    steps_per_update: int = 2
    warm_up: int = 500
    capacity: int = 20_000
    explore_steps: int = 4000
    explore_share: float = 0.05
    target_interval: int = 100
    evaluation_episodes: int = 20

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise InputError(
                f"environment: value is {self.environment!r}; allowed: {', '.join(ENVIRONMENTS)}"
            )
        names = (
            "steps_per_update", "warm_up", "capacity", "explore_steps", "target_interval",
            "evaluation_episodes",
        )  # fmt: skip
        for name in names:
            check_integer(name, getattr(self, name), 1)
        share = self.explore_share
        check_number("explore_share", share, least=0, most=1)

    def prepare(self) -> PreparedControl:
        return PreparedControl(self)


class PreparedControl(Prepared):
    """An environment, and what an agent has seen in it.

    Data come of training itself: before each step the present network acts, and the step learns
    from a sample of all that was seen. One run at a time: the next model that is built begins
    without experience.
    """

    metric: ClassVar[str] = "return"
    lower_is_better: ClassVar[bool] = False

    def __init__(self, settings: Control) -> None:
        self.settings = settings
        environment = make_environment(settings.environment)
        self._sizes = {
            "observations": int(environment.observation_space.shape[0]),
            "actions": int(environment.action_space.n),
        }
        self._seed = 0
        self._experience = self._fresh()

    @property
    def digest(self) -> str:
        import gymnasium

        text = json.dumps([asdict(self.settings), gymnasium.__version__], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        import gymnasium

        return {
            "digest": self.digest, "environment": self.settings.environment,
            "gymnasium": gymnasium.__version__, **self._sizes,
        }  # fmt: skip

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        from sparse_train.models.q_network import QConfig, QNetwork

        if model != "q_network":
            raise InputError(f"model: value is {model!r}; allowed for task control: 'q_network'")
        for name, size in self._sizes.items():
            if name in options:
                raise InputError(
                    f"model_options: {name} is {options[name]!r}; task control sets it, here to "
                    f"{size}"
                )
        return QNetwork(QConfig.preset(preset, **self._sizes, **options))

    def build_for(self, config: TrainConfig) -> nn.Module:
        self._seed = config.seed
        self._experience = self._fresh()
        return super().build_for(config)

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        from sparse_train.models.q_network import QConfig

        return QConfig.preset(preset, **options).width

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """At least one hidden neuron in each layer."""
        from sparse_train.models.q_network import QConfig

        width = QConfig.preset(preset, **options).width
        return {**options, "width": min(width, max(1, round(share * width)))}

    @torch.no_grad()
    def before_step(self, step: int, model: nn.Module, sparsifier: Sparsifier | None) -> bool:
        """The network acts; in the first step at random; in some it becomes its own target."""
        settings = self.settings
        if (step - 1) % settings.target_interval == 0:
            model.synchronise()  # type: ignore[operator]
        steps = settings.warm_up if step == 1 else settings.steps_per_update
        for _ in range(steps):
            self._experience.act(lambda seen: self._choice(model, seen))
        return False

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Transitions of what was seen by now; zeros before anything was."""
        return self._experience.sample(stream(_SAMPLES, seed, step), batch_size)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """Mean return and length of greedy episodes; the loss is the return, sign reversed."""
        rng = stream(_EVALUATION, check_split(split))
        seeds = rng.integers(2**31, size=self.settings.evaluation_episodes).tolist()
        was_training = model.training
        model.eval()
        try:
            found, length = mean_return(
                self.settings.environment, seeds,
                lambda seen: model(torch.from_numpy(seen)).values.argmax(1).numpy(),
            )  # fmt: skip
        finally:
            model.train(was_training)
        return {"loss": -found, "return": found, "length": length}

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """Actions drawn evenly."""
        rng = stream(_EVALUATION, check_split(split))
        seeds = rng.integers(2**31, size=self.settings.evaluation_episodes).tolist()
        found, length = mean_return(
            self.settings.environment, seeds,
            lambda seen: rng.integers(self._sizes["actions"], size=len(seen)),
        )  # fmt: skip
        return {"random actions": {"loss": -found, "return": found, "length": length}}

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed, **self._experience.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "seen" not in state:
            raise InputError("task state: has no experience; allowed is that of task control")
        self._seed = int(state["seed"])
        self._experience = self._fresh()
        self._experience.load_state_dict(state)

    def _fresh(self) -> Experience:
        return Experience(self.settings.environment, self.settings.capacity, self._episode_seed)

    def _episode_seed(self, episode: int) -> int:
        return int(stream(_EPISODES, self._seed, episode).integers(2**31))

    def _choice(self, model: nn.Module, seen: np.ndarray) -> int:
        """An action for one observation, random or the best."""
        settings = self.settings
        done = self._experience.steps
        progress = min(max(done - settings.warm_up, 0) / settings.explore_steps, 1.0)
        share = 1 + (settings.explore_share - 1) * progress
        rng = stream(_CHOICES, self._seed, done)
        if rng.random() < share:
            return int(rng.integers(self._sizes["actions"]))
        return int(model(torch.from_numpy(seen)[None]).values.argmax())


TASK = Control
