"""One policy for every layer of every network."""

from __future__ import annotations

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical, Independent
from torchrl.modules import ProbabilisticActor

from rl.act import ACTIONS
from rl.observe import GLOBAL_FEATURES, LAYER_FEATURES


class LayerwiseCategorical(Independent):
    """One three-way choice per layer; the log-probability is the sum over the layers."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(Categorical(logits=logits, validate_args=False), 1, validate_args=False)

    @property
    def deterministic_sample(self) -> torch.Tensor:
        return self.base_dist.logits.argmax(-1)


class LayerNetwork(nn.Module):
    """Features of all layers → (logits per layer, value of the whole).

    Each layer is embedded by the same MLP, with the global features beside its own; the mean over
    the live layers is the context that every layer's head sees. Weights know neither the number
    of layers nor their order. Features named in `hide` are zeroed. Dead (padding) layers get
    uniform logits: a constant in the log-probability, without gradient.
    """

    def __init__(self, hidden: int = 32, hide: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.register_buffer("shown_layers", _shown(LAYER_FEATURES, hide), persistent=False)
        self.register_buffer("shown_whole", _shown(GLOBAL_FEATURES, hide), persistent=False)
        f, g = len(LAYER_FEATURES), len(GLOBAL_FEATURES)
        self.embed = nn.Sequential(
            nn.Linear(f + g, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        last = nn.Linear(hidden, len(ACTIONS))
        self.head = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), last)
        self.value = nn.Sequential(nn.Linear(hidden + g, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        with torch.no_grad():
            last.weight.mul_(0.01)  # starts near uniform, whatever it sees
            last.bias.zero_()

    def forward(
        self, layers: torch.Tensor, whole: torch.Tensor, live: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layers, whole = layers * self.shown_layers, whole * self.shown_whole
        spread = whole.unsqueeze(-2).expand(*layers.shape[:-1], whole.shape[-1])
        embedded = self.embed(torch.cat([layers, spread], -1))  # (…, layers, hidden)
        weight = live.unsqueeze(-1).to(embedded.dtype)
        context = (embedded * weight).sum(-2) / weight.sum(-2).clamp(min=1.0)
        both = torch.cat([embedded, context.unsqueeze(-2).expand_as(embedded)], -1)
        logits = self.head(both) * weight
        return logits, self.value(torch.cat([context, whole], -1))


class Actor(nn.Module):
    """The logits alone, for TorchRL's actor."""

    def __init__(self, network: LayerNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, layers: torch.Tensor, whole: torch.Tensor, live: torch.Tensor):
        return self.network(layers, whole, live)[0]


class Critic(nn.Module):
    """The value alone, for TorchRL's losses."""

    def __init__(self, network: LayerNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, layers: torch.Tensor, whole: torch.Tensor, live: torch.Tensor):
        return self.network(layers, whole, live)[1]


def _shown(names: tuple[str, ...], hide: tuple[str, ...]) -> torch.Tensor:
    """1 for each feature that is seen, 0 for each that is hidden."""
    return torch.tensor([float(name not in hide) for name in names])


def actor_critic(
    hidden: int = 32, hide: tuple[str, ...] = ()
) -> tuple[ProbabilisticActor, TensorDictModule]:
    """A TorchRL actor and critic, each with a network of its own."""
    keys = ["layers", "whole", "live"]
    actor = ProbabilisticActor(
        TensorDictModule(Actor(LayerNetwork(hidden, hide)), in_keys=keys, out_keys=["logits"]),
        in_keys=["logits"],
        out_keys=["action"],
        distribution_class=LayerwiseCategorical,
        return_log_prob=True,
    )
    critic = TensorDictModule(
        Critic(LayerNetwork(hidden, hide)), in_keys=keys, out_keys=["state_value"]
    )
    return actor, critic
