"""A perceptron or a small CNN with outputs of their own for each of several tasks."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown
from sparse_train.models._family import Family, rounded_width
from sparse_train.models.mlp import Mlp
from sparse_train.models.simple_cnn import SimpleCnn
from sparse_train.weightless import weightless

MLP, CNN = "mlp", "cnn"


@dataclass(frozen=True)
class MultiHeadConfig:
    """Sizes of the network.

    Attributes:
        inputs: of an example.
        width, layers: of and how many hidden layers; of a CNN the width is the channels of its
            first convolution, and it has five layers whatever `layers` says.
        classes, tasks: outputs of a task, and how many tasks there are.
        trunk: "mlp", or "cnn" for square images of one channel.
    """

    inputs: int = 64
    width: int = 256
    layers: int = 2
    classes: int = 10
    tasks: int = 5
    trunk: str = MLP

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "trunk":
                check_integer(field.name, getattr(self, field.name), 1)
        if self.trunk not in (MLP, CNN):
            raise InputError(unknown("trunk", self.trunk, (MLP, CNN)))
        if self.trunk == CNN and math.isqrt(self.inputs) ** 2 != self.inputs:
            raise InputError(
                f"inputs: value is {self.inputs}; allowed with trunk 'cnn' are squares"
            )

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


PRESETS = {
    "small": MultiHeadConfig(), "wide": MultiHeadConfig(width=1024),
    "cnn": MultiHeadConfig(inputs=784, width=8, trunk=CNN),
}  # fmt: skip


class MultiHeadOutput(NamedTuple):
    """loss is a scalar, None without labels; logits (batch, classes) of the task asked for."""

    loss: Tensor | None
    logits: Tensor


class MultiHead(nn.Module):
    """Hidden layers that tasks share, and a last linear layer with the outputs of all tasks."""

    def __init__(self, config: MultiHeadConfig) -> None:
        super().__init__()
        self.config = config
        outputs = config.tasks * config.classes
        if config.trunk == CNN:
            # Norms keep no statistics, which a later task would move under an earlier one.
            w = config.width
            self.network = SimpleCnn((w, 2 * w, 4 * w, 4 * w), outputs, 1, norm="group")
        else:
            self.hidden = Mlp((config.inputs, *[config.width] * config.layers))
            self.heads = nn.Linear(config.width, outputs)

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
        logits = self._outputs(inputs)[:, start : start + self.config.classes]
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return MultiHeadOutput(loss, logits)

    def _outputs(self, inputs: Tensor) -> Tensor:
        if self.config.trunk == CNN:
            side = math.isqrt(self.config.inputs)
            return self.network(inputs.reshape(-1, 1, side, side))
        return self.heads(F.relu(self.hidden(inputs)))


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[MultiHead, dict[str, Tensor]]:
    width = rounded_width(share, PRESETS[preset].width, 1)
    config = MultiHeadConfig.preset(preset, width=width)
    whole = {"task": torch.tensor(0), "labels": torch.zeros(batch_size, dtype=torch.long)}
    with weightless():
        return MultiHead(config), {"inputs": torch.empty(batch_size, config.inputs), **whole}


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset].width)
