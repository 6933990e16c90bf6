"""A five-layer convolutional network for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import InputError, unknown
from sparse_train.models._family import Family, rounded_width
from sparse_train.weightless import weightless

# Channels of the convolutions; the fifth layer is the classifier.
PRESETS = {"small": (16, 32, 64, 64), "medium": (32, 64, 128, 128)}


class SimpleCnn(nn.Module):
    """Four 3 × 3 convolutions with a norm and ReLU, the last three of stride 2, and a linear
    layer on the mean over positions: (batch, n_in, height, width) → (batch, classes).

    `norm` is "batch", or "group": over all channels of an image, which keeps no statistics from
    step to step (Wu & He 2018, "Group normalization", with one group).
    """

    def __init__(
        self, channels: tuple[int, int, int, int], classes: int = 10, n_in: int = 3,
        norm: str = "batch",
    ) -> None:  # fmt: skip
        super().__init__()
        if len(channels) != 4 or min(*channels, classes, n_in) < 1:
            raise InputError(
                f"channels: value is {channels}, classes: {classes}; allowed are four, at least 1"
            )
        if norm not in ("batch", "group"):
            raise InputError(unknown("norm", norm, ("batch", "group")))
        widths = (n_in, *channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=2 if i else 1, padding=1, bias=False)
            for i in range(4)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width)
            for width in channels
        )
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return self.head(x.mean((2, 3)))


def _build(preset: str, batch_size: int, length: int, share: float) -> tuple[SimpleCnn, Tensor]:
    with weightless():
        a, b, c, d = (rounded_width(share, width, 1) for width in PRESETS[preset])
        return SimpleCnn((a, b, c, d)), torch.empty(batch_size, 3, 32, 32)


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset][0])
