"""Wide residual networks for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import InputError
from sparse_train.models._family import Family
from sparse_train.weightless import weightless

# (depth, widening): 22x2 is what the sparse-training papers train on CIFAR.
PRESETS = {"22x2": (22, 2), "16x4": (16, 4), "28x10": (28, 10)}
_STAGES = (16, 32, 64)


class WideBlock(nn.Module):
    """BatchNorm, ReLU and a 3 × 3 convolution, twice, added to the input."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(n_in)
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        same = stride == 1 and n_in == n_out
        self.shortcut = None if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(x))
        # Where sizes change the shortcut starts from the normalised input, as in the paper's code.
        kept = x if self.shortcut is None else self.shortcut(y)
        return self.second(F.relu(self.second_norm(self.first(y)))) + kept


class WideResNet(nn.Module):
    """(batch, channels, height, width) → (batch, classes).

    Source: Zagoruyko and Komodakis (2016), "Wide residual networks", table 1.
    """

    def __init__(self, depth: int, widening: float, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f"depth: value is {depth}; allowed is 6 n + 4, at least 10")
        widths = [max(1, round(stage * widening)) for stage in _STAGES]
        self.stem = nn.Conv2d(channels, _STAGES[0], 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        n_in = _STAGES[0]
        for stage, n_out in enumerate(widths):
            for index in range((depth - 4) // 6):
                self.blocks.append(WideBlock(n_in, n_out, 2 if stage and not index else 1))
                n_in = n_out
        self.norm = nn.BatchNorm2d(n_in)
        self.head = nn.Linear(n_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(x.mean((2, 3)))


def _build(preset: str, batch_size: int, length: int, share: float) -> tuple[WideResNet, Tensor]:
    with weightless():
        depth, widening = PRESETS[preset]
        return WideResNet(depth, widening * share), torch.empty(batch_size, 3, 32, 32)


FAMILY = Family(
    presets=tuple(PRESETS), build=_build, widths=lambda preset: _STAGES[0] * PRESETS[preset][1]
)
