"""A perceptron with outputs of their own for each of several tasks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown
from sparse_train.models._family import Family, rounded_width
from sparse_train.models.mlp import Mlp
from sparse_train.weightless import weightless


@dataclass(frozen=True)
class MultiHeadConfig:
    """Sizes of the network.

    Attributes:
        inputs: of an example.
        width, layers: of and how many hidden layers.
        classes, tasks: outputs of a task, and how many tasks there are.
    """

    inputs: int = 64
    width: int = 256
    layers: int = 2
    classes: int = 10
    tasks: int = 5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            check_integer(field.name, value, 1)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> MultiHeadConfig:
        """One of PRESETS, some of its sizes replaced."""
        if name not in PRESETS:
            raise InputError(unknown("multi_head preset", name, tuple(PRESETS)))
        fields = tuple(f.name for f in dataclasses.fields(cls))
        for key in overrides:
            if key not in fields:
                raise InputError(unknown("multi_head size", key, fields))
        return dataclasses.replace(PRESETS[name], **overrides)


PRESETS = {"small": MultiHeadConfig(), "wide": MultiHeadConfig(width=1024)}


class MultiHeadOutput(NamedTuple):
    """loss is a scalar, None without labels; logits (batch, classes) of the task asked for."""

    loss: Tensor | None
    logits: Tensor


class MultiHead(nn.Module):
    """Hidden layers that tasks share, and one linear layer with the outputs of all tasks."""

    def __init__(self, config: MultiHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = Mlp((config.inputs, *[config.width] * config.layers))
        self.heads = nn.Linear(config.width, config.tasks * config.classes)

    def forward(
        self, inputs: Tensor, task: Tensor, labels: Tensor | None = None
    ) -> MultiHeadOutput:
        """Logits of one task.

        Args:
            inputs: (batch, inputs) float32.
            task: int64 scalar, whose outputs are wanted.
            labels: (batch,) int64, classes within the task.
        """
        start = int(task) * self.config.classes
        logits = self.heads(F.relu(self.hidden(inputs)))[:, start : start + self.config.classes]
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return MultiHeadOutput(loss, logits)


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[MultiHead, dict[str, Tensor]]:
    width = rounded_width(share, PRESETS[preset].width, 1)
    config = MultiHeadConfig.preset(preset, width=width)
    whole = {"task": torch.tensor(0), "labels": torch.zeros(batch_size, dtype=torch.long)}
    with weightless():
        return MultiHead(config), {"inputs": torch.empty(batch_size, config.inputs), **whole}


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset].width)
