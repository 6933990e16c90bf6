"""One policy for every layer of every network."""

from __future__ import annotations

import math

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical, Distribution, Independent
from torchrl.modules import ProbabilisticActor

from rl.algorithms._explore import LayerwiseDensity
from rl.envs.act import ACTIONS
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES


class LayerwiseCategorical(Independent):
    """One three-way choice per layer; the log-probability is the sum over the layers."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(Categorical(logits=logits, validate_args=False), 1, validate_args=False)

    @property
    def deterministic_sample(self) -> torch.Tensor:
        """The likeliest action of each layer."""
        return self.base_dist.logits.argmax(-1)


# Progress per time rises by a step if the share of time that it saves exceeds the share of progress
# that it loses. Both shares are logarithms on a wide scale, so their differences are small numbers
# that decide; they are given to the network once more, enlarged.
CONTRASTS = (
    ("time_saved", "progress_lost"), ("progress_gained", "time_added"), ("time_over_progress", ""),
)  # fmt: skip
_ENLARGED = 8.0
# Features whose weights start at 0, behind all others: a policy that never saw them is the same.
_LATER = ("move_cost",)
_UNITS = {"tanh": torch.tanh, "relu": torch.relu}
_KEYS = ["layers", "whole", "live"]


class _Reader(nn.Module):
    """Features of all layers → an embedding of each layer and the context of the whole.

    Each layer is embedded by the same MLP, with the global features beside its own; the mean over
    the live layers is the context. Weights know neither the number of layers nor their order.
    Features named in `hide` are zeroed.
    """

    def __init__(self, hidden: int, hide: tuple[str, ...], activation: str) -> None:
        super().__init__()
        self.units = _UNITS[activation]
        self.register_buffer("shown_layers", _shown(LAYER_FEATURES, hide), persistent=False)
        self.register_buffer("shown_whole", _shown(GLOBAL_FEATURES, hide), persistent=False)
        # Two matrices instead of one of the features side by side: the global part is the same
        # for all layers and is multiplied once.
        self.first = len(LAYER_FEATURES) - len(_LATER)
        self.own = nn.Linear(self.first + len(CONTRASTS), hidden)
        self.later = nn.Parameter(torch.zeros(hidden, len(_LATER)))
        self.register_buffer("contrasts", _contrasts(), persistent=False)
        self.shared = nn.Linear(len(GLOBAL_FEATURES), hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)

    def forward(
        self, layers: torch.Tensor, whole: torch.Tensor, live: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(…, layers, hidden), (…, hidden), and the global features that are shown."""
        layers, whole = layers * self.shown_layers, whole * self.shown_whole
        seen = torch.cat([layers[..., : self.first], layers @ self.contrasts], -1)
        later = nn.functional.linear(layers[..., self.first :], self.later)
        first = self.own(seen) + later + self.shared(whole).unsqueeze(-2)
        embedded = self.units(self.second(self.units(first)))
        weight = live.unsqueeze(-1).to(embedded.dtype)
        context = (embedded * weight).sum(-2) / weight.sum(-2).clamp(min=1.0)
        return embedded, context, whole


class Actor(nn.Module):
    """Numbers of each layer, (…, layers, outputs): the logits of its actions, if not said.

    Dead (padding) layers get 0: uniform logits, a constant in the log-probability, without
    gradient.
    """

    def __init__(
        self, hidden: int = 32, hide: tuple[str, ...] = (), outputs: int = len(ACTIONS),
        activation: str = "tanh",
    ) -> None:  # fmt: skip
        super().__init__()
        self.read = _Reader(hidden, hide, activation)
        self.own = nn.Linear(hidden, hidden)
        self.context = nn.Linear(hidden, hidden, bias=False)
        self.last = nn.Linear(hidden, outputs)
        with torch.no_grad():
            self.last.weight.mul_(0.01)  # starts near uniform, whatever it sees
            self.last.bias.zero_()

    def forward(
        self, layers: torch.Tensor, whole: torch.Tensor, live: torch.Tensor
    ) -> torch.Tensor:
        embedded, context, _ = self.read(layers, whole, live)
        both = self.read.units(self.own(embedded) + self.context(context).unsqueeze(-2))
        return self.last(both) * live.unsqueeze(-1)


class DensityActor(nn.Module):
    """Mean and spread of each layer's depth, and the log of the least density; (…, layers) each.

    See `rl.algorithms._explore.LayerwiseDensity`. Dead layers are dense, with spread 0.

    Args:
        least: density.
        start: density that an untrained policy names, whatever it sees.
        spread: of an untrained policy; one number for all layers and states, learnt.
    """

    def __init__(
        self, hidden: int, hide: tuple[str, ...], *, least: float, start: float, spread: float,
        activation: str = "tanh",
    ) -> None:  # fmt: skip
        super().__init__()
        self.depth = Actor(hidden, hide, 1, activation)
        self.start, self.log_least = math.log(start) / math.log(least), math.log(least)
        self.log_spread = nn.Parameter(torch.tensor(math.log(spread)))

    def forward(
        self, layers: torch.Tensor, whole: torch.Tensor, live: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        depth = (self.depth(layers, whole, live)[..., 0] + self.start) * live
        spread = self.log_spread.exp() * live
        return depth, spread, torch.full_like(depth, self.log_least)


class Critic(nn.Module):
    """The value of the whole, (…, 1)."""

    def __init__(
        self, hidden: int = 32, hide: tuple[str, ...] = (), activation: str = "tanh"
    ) -> None:
        super().__init__()
        self.read = _Reader(hidden, hide, activation)
        units = nn.Tanh() if activation == "tanh" else nn.ReLU()
        self.head = nn.Sequential(
            nn.Linear(hidden + len(GLOBAL_FEATURES), hidden), units, nn.Linear(hidden, 1)
        )

    def forward(
        self, layers: torch.Tensor, whole: torch.Tensor, live: torch.Tensor
    ) -> torch.Tensor:
        _, context, whole = self.read(layers, whole, live)
        return self.head(torch.cat([context, whole], -1))


def _contrasts() -> torch.Tensor:
    """(features, contrasts): what multiplies the features of a layer."""
    made = torch.zeros(len(LAYER_FEATURES), len(CONTRASTS))
    for i, (plus, minus) in enumerate(CONTRASTS):
        made[LAYER_FEATURES.index(plus), i] = _ENLARGED
        if minus:
            made[LAYER_FEATURES.index(minus), i] = -_ENLARGED
    return made


def _shown(names: tuple[str, ...], hide: tuple[str, ...]) -> torch.Tensor:
    """1 for each feature that is seen, 0 for each that is hidden."""
    return torch.tensor([float(name not in hide) for name in names])


def actor_critic(
    hidden: int = 32, hide: tuple[str, ...] = (), activation: str = "tanh"
) -> tuple[ProbabilisticActor, TensorDictModule]:
    """A TorchRL actor of steps and a critic, each with a network of its own."""
    actor = _acting(Actor(hidden, hide, activation=activation), ["logits"], LayerwiseCategorical)
    return actor, _critic(hidden, hide, activation)


def density_actor_critic(
    hidden: int, hide: tuple[str, ...], *, least: float, start: float, spread: float,
    activation: str = "tanh",
) -> tuple[ProbabilisticActor, TensorDictModule]:  # fmt: skip
    """A TorchRL actor that names densities, see `DensityActor`, and a critic."""
    network = DensityActor(
        hidden, hide, least=least, start=start, spread=spread, activation=activation
    )
    actor = _acting(network, ["depth", "spread", "log_least"], LayerwiseDensity)
    return actor, _critic(hidden, hide, activation)


def _acting(
    network: nn.Module, parameters: list[str], distribution: type[Distribution]
) -> ProbabilisticActor:
    return ProbabilisticActor(
        TensorDictModule(network, in_keys=_KEYS, out_keys=parameters),
        in_keys=parameters,
        out_keys=["action"],
        distribution_class=distribution,
        return_log_prob=True,
    )


def _critic(hidden: int, hide: tuple[str, ...], activation: str) -> TensorDictModule:
    critic = Critic(hidden, hide, activation)
    return TensorDictModule(critic, in_keys=_KEYS, out_keys=["state_value"])
