"""ResNet of basic blocks, in the form used for CIFAR's images of 32 × 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_train.models._family import Family, rounded_width
from sparse_train.weightless import weightless

# Blocks in each of the four stages.
PRESETS = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions, added to the input; a 1 × 1 one fits it where sizes change."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """(batch, channels, height, width) → (batch, classes).

    The stem is one 3 × 3 convolution without pooling, as is usual on CIFAR, where the paper's
    network for ImageNet has 7 × 7, stride 2 and pooling.

    Source: He et al. (2016), "Deep residual learning for image recognition", table 1.
    """

    def __init__(
        self, blocks: tuple[int, ...], classes: int = 10, width: int = 64, channels: int = 3
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        n_in = width
        for stage, count in enumerate(blocks):
            n_out = width << stage
            for index in range(count):
                self.blocks.append(ResidualBlock(n_in, n_out, 2 if stage and not index else 1))
                n_in = n_out
        self.head = nn.Linear(n_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        return self.head(self.blocks(x).mean((2, 3)))


def _build(preset: str, batch_size: int, length: int, share: float) -> tuple[ResNet, Tensor]:
    with weightless():
        return ResNet(PRESETS[preset], width=rounded_width(share, 64, 1)), torch.empty(
            batch_size, 3, 32, 32
        )


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: 64)
