"""A deep Q-network: what each action is worth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError, unknown
from sparse_train.models._family import Family, rounded_width
from sparse_train.models.mlp import Mlp
from sparse_train.weightless import weightless


@dataclass(frozen=True)
class QConfig:
    """Sizes of the network.

    Attributes:
        observations, actions: numbers in an observation, choices.
        width, layers: of and how many hidden layers.
        discount: γ, what a reward one step later is worth.
    """

    observations: int = 4
    actions: int = 2
    width: int = 128
    layers: int = 2
    discount: float = 0.99

    def __post_init__(self) -> None:
        for name in ("observations", "actions", "width", "layers"):
            value = getattr(self, name)
            check_integer(name, value, 1)
        check_number("discount", self.discount, least=0, most=1)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> QConfig:
        """One of PRESETS, some of its sizes replaced."""
        if name not in PRESETS:
            raise InputError(unknown("q_network preset", name, tuple(PRESETS)))
        fields = tuple(f.name for f in dataclasses.fields(cls))
        for key in overrides:
            if key not in fields:
                raise InputError(unknown("q_network size", key, fields))
        return dataclasses.replace(PRESETS[name], **overrides)


PRESETS = {"small": QConfig(), "wide": QConfig(width=512)}


class QOutput(NamedTuple):
    """loss is a scalar, None without rewards; values (batch, actions)."""

    loss: Tensor | None
    values: Tensor


class QNetwork(nn.Module):
    """The network that learns, and the copy of it that says what comes next is worth.

    The target is a part of the model, so that it is saved with it and its forward pass is priced;
    it is not trained, and no mask is put on it: it is sparse as the network that it copies, and
    priced as a dense one.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning".
    """

    def __init__(self, config: QConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.observations, *[config.width] * config.layers, config.actions)
        self.target = Mlp(widths).requires_grad_(False)
        self.online = Mlp(widths)
        self.synchronise()

    @torch.no_grad()
    def synchronise(self) -> None:
        """The target becomes what the network is now."""
        pairs = zip(self.target.parameters(), self.online.parameters(), strict=True)
        for target, online in pairs:
            target.copy_(online)

    def forward(
        self,
        observations: Tensor,
        actions: Tensor | None = None,
        rewards: Tensor | None = None,
        next_observations: Tensor | None = None,
        ended: Tensor | None = None,
    ) -> QOutput:
        """Values, and with transitions the Huber loss of the temporal difference.

        Args:
            observations, next_observations: (batch, observations) float32.
            actions: (batch, 1) int64.
            rewards: (batch,) float32.
            ended: (batch,) float32, 1 where the episode ended by itself, not by its time limit.
        """
        values = self.online(observations)
        if actions is None or rewards is None or next_observations is None or ended is None:
            return QOutput(None, values)
        with torch.no_grad():
            later = self.target(next_observations).amax(1)
            goal = rewards + self.config.discount * (1 - ended) * later
        return QOutput(F.smooth_l1_loss(values.gather(1, actions)[:, 0], goal), values)


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[QNetwork, dict[str, Tensor]]:
    config = QConfig.preset(preset, width=rounded_width(share, PRESETS[preset].width, 1))
    actions = torch.zeros(batch_size, 1, dtype=torch.long)
    with weightless():
        model = QNetwork(config)
        seen = torch.empty(batch_size, config.observations)
        one = torch.empty(batch_size)
    return model, {
        "observations": seen, "actions": actions, "rewards": one, "next_observations": seen,
        "ended": one,
    }  # fmt: skip


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset].width)
