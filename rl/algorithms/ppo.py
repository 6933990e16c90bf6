"""PPO on TorchRL: one readable loop, resumable to the bit.

Source: Schulman et al. (2017), "Proximal policy optimization algorithms"; advantages by
Schulman et al. (2016). Undiscounted: an episode is one training run and its net time is what
counts, so γ = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictSequential
from torch import Tensor
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from hwsim import InputError
from hwsim.checks import check_integer, check_number
from hwsim.errors import unknown
from rl.algorithms._base import Agent, AgentConfig
from rl.algorithms._explore import SmoothNoise
from rl.algorithms._policy import actor_critic, density_actor_critic
from rl.envs.interface import MODES

CREDITS = DECISION, EPISODE = "decision", "episode"
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """Numbers of the algorithm.

    Attributes:
        start: mode "density": what the untrained policy names.
        spread: mode "density": standard deviation of its first tries, in log density over log
            least density.
        knots: mode "density": of a run's noise over its progress; 1: a run keeps its noise.
        credit: what an action is judged by. "decision": what came after it, by `gae_lambda`.
            "episode": the whole of its episode, less the value of where that began, as where a
            run's parameters are what is tried (Sehnke et al. 2010, "Parameter-exploring policy
            gradients", section 2). Episodes that `steps` cut off are left out: it should be the
            longest that one may take. Meant for noise that a run keeps (`knots` 1): a run is one
            trial then, however many decisions it has. See docs/agent.md for when it helps.
        optimizer: "adam", or "sgd": with one step an iteration on a gradient of norm
            `max_grad_norm`, no weight moves further than its share in it, where Adam moves all
            alike, those that only luck told to move among them.
    """

    epochs: int = 4
    minibatches: int = 8
    lr: float = 1e-2
    clip: float = 0.2
    entropy: float = 0.001
    gae_lambda: float = 0.95
    max_grad_norm: float = 1.0
    start: float = 0.25
    spread: float = 0.15
    knots: int = 4
    credit: str = DECISION
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("spread", self.spread, above=0)
        check_integer("knots", self.knots, 1)
        if self.credit not in CREDITS:
            raise InputError(unknown("credit", self.credit, CREDITS))
        if self.optimizer not in OPTIMIZERS:
            raise InputError(unknown("optimizer", self.optimizer, tuple(OPTIMIZERS)))
        if self.mode == "density" and not self.min_density <= self.start <= 1:
            raise InputError(
                f"start: value is {self.start}; allowed is {self.min_density:g} (the least "
                "density) to 1"
            )


class PPO(Agent[PPOConfig]):
    """Clipped policy gradient; the learning rate falls in a straight line to 0."""

    name: ClassVar[str] = "ppo"
    modes: ClassVar[tuple[str, ...]] = MODES
    networks: ClassVar[tuple[str, ...]] = ("loss",)
    configuration: ClassVar[type[AgentConfig]] = PPOConfig

    def __init__(self, config: PPOConfig) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.actor, self.critic = _networks(config)
            self.stream = torch.get_rng_state()
        self.config = config
        self.iteration = 0
        self.loss = ClipPPOLoss(
            self.actor, self.critic, clip_epsilon=config.clip, entropy_coeff=config.entropy,
            critic_coeff=0.5, normalize_advantage=True, functional=False,
        )  # fmt: skip
        lmbda = 1.0 if config.credit == EPISODE else config.gae_lambda
        self.advantage = GAE(gamma=1.0, lmbda=lmbda, value_network=self.critic)
        self.optimizer = OPTIMIZERS[config.optimizer](self.loss.parameters(), lr=config.lr)

    def _policy(self) -> TensorDictModule:
        return self.actor

    def _explorer(self) -> TensorDictModuleBase:
        if self.config.mode == "step":
            return self.actor
        return TensorDictSequential(self.actor[0], SmoothNoise(self.config.knots))

    def _learn(self, batch: TensorDict) -> dict[str, float]:
        c = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = c.lr * (1 - self.iteration / c.iterations)
        with torch.no_grad():
            self.advantage(batch)
        flat = batch.reshape(-1)
        if c.credit == EPISODE:
            ended = batch["next", "done"][..., 0]
            batch["advantage"] = batch["advantage"].gather(1, _first(ended)[..., None])
            flat = batch[_whole(ended)]
            if not len(flat):
                raise InputError(
                    f"steps: value is {c.steps}, in which no episode ended; allowed with credit "
                    f"{EPISODE!r} is more"
                )
        size = -(-len(flat) // c.minibatches)
        total = 0.0
        for _ in range(c.epochs):
            for chosen in torch.randperm(len(flat)).split(size):
                terms = self.loss(flat[chosen])
                loss = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
                self._finite(loss)
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.loss.parameters(), c.max_grad_norm)
                self.optimizer.step()
                total += loss.item()
        return {"loss": total / (c.epochs * c.minibatches)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream = state["stream"]


def _first(ended: Tensor) -> Tensor:
    """(environments, steps) step at which the episode of each decision began."""
    begins = ended.roll(1, 1)
    begins[:, 0] = True
    steps = torch.arange(ended.shape[1]).expand_as(ended)
    return torch.where(begins, steps, 0).cummax(1).values


def _whole(ended: Tensor) -> Tensor:
    """(environments, steps): decisions whose episode came to its end."""
    return ended.flip(1).cummax(1).values.flip(1)


def _networks(config: PPOConfig) -> tuple[ProbabilisticActor, TensorDictModule]:
    if config.mode == "step":
        return actor_critic(config.hidden, config.hide, config.activation)
    return density_actor_critic(
        config.hidden, config.hide, least=config.min_density, start=config.start,
        spread=config.spread, activation=config.activation,
    )  # fmt: skip


AGENT = PPO
